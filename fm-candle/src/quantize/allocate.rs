//! Bits for each tensor, so that a file of a given size has the least error of the velocity.
//!
//! Errors of different tensors hardly interact, so the error of the velocity is taken as their sum. That of
//! a tensor is measured at the widths where it is large, and in proportion to the squared error of the
//! weights at all wider ones:
//!
//! ```text
//! E = sum over tensors i of  E_i(b_i)        E_i measured at few bits, else S_i |w_i - q_i(b_i)|²
//! minimize E subject to  sum of bytes_i(b_i) <= budget
//! ```
//!
//! One Lagrange multiplier for all tensors gives the best allocations of their sizes (Shoham and Gersho,
//! 1988); what is left of the budget goes where a byte gains most.

use candle_core::{DType, Device, Tensor};
use quant_core::bits::Bits;
use quant_core::rate::Rate;
use rayon::prelude::*;

use super::device::PackedNet;
use super::report::Report;
use super::sink::Discard;
use super::stream::quantize;
use super::tensor::{TensorPolicy, pack_tensor};
use crate::error::{Error, Result};
use crate::model::{Mode, StateDict, UNet, UNetConfig};
use crate::train::Points;

/// Choices of a tensor whose error is measured, from the fewest bits on.
const MEASURED: usize = 4;
/// Halvings of the interval of the multiplier.
const HALVINGS: usize = 200;

/// Size that a packed file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// At most so many bytes.
    Bytes(u64),
    /// At most so many bytes, or the smallest file where that takes more.
    BytesOrLeast(u64),
}

/// Policies of all tensors in order, and what a file by them takes.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Policy of each tensor.
    pub policies: Vec<TensorPolicy>,
    /// Bytes of the packed file.
    pub bytes: u64,
}

/// A way to store a tensor.
#[derive(Clone, Copy, Debug)]
struct WidthChoice {
    policy: TensorPolicy,
    bytes: f64,
    /// Squared error of all weights together; then the error of the velocity.
    error: f64,
}

/// Allocates the bits of a net's `tensors` for a packed file within `budget`. `choices` gives
/// the policies among which a tensor may have any, of which the first is at the fewest bits.
///
/// Errors are measured at `points`; a tensor of one choice alone is not measured.
///
/// # Errors
/// [`Budget::Bytes`] below the smallest file, with its size; tensors that cannot be quantized or are not the
/// net's; those of evaluating the net.
pub fn allocate(
    net: PackedNet<'_>,
    tensors: &[(String, Tensor)],
    points: &Points,
    budget: Budget,
    choices: impl Fn(&str, &[usize]) -> Vec<TensorPolicy>,
    done: impl Fn() + Sync,
) -> Result<Allocation> {
    let policies: Vec<Vec<TensorPolicy>> =
        tensors.iter().map(|(name, tensor)| choices(name, tensor.dims())).collect();
    let most = policies.iter().map(Vec::len).max().unwrap_or(0);
    let indices: Vec<usize> = (0..tensors.len()).collect();
    let mut table: Vec<Vec<WidthChoice>> = vec![Vec::new(); tensors.len()];
    let mut head = 0.0;
    for place in 0..most {
        let places = tensors.iter().map(|(name, _)| name.as_str()).zip(&policies);
        let at: std::collections::HashMap<&str, TensorPolicy> =
            places.map(|(name, all)| (name, all[place.min(all.len() - 1)])).collect();
        let packed =
            quantize(tensors, &indices, Some(net), Discard, |name, _| at[name], |_, _| Ok(()))?;
        let report: Report = packed.report;
        let sizes = report.tensors.iter().map(|tensor| {
            let count = tensor.shape.iter().product::<usize>() as f64;
            (tensor.bits_per_weight * count.max(1.0) / 8.0, tensor.mse * count)
        });
        head = report.packed_bytes as f64;
        for ((bytes, error), (all, table)) in sizes.zip(policies.iter().zip(&mut table)) {
            head -= bytes;
            if place < all.len() {
                table.push(WidthChoice { policy: all[place], bytes, error });
            }
        }
        done();
    }
    measure(net.config, tensors, points, &mut table, done)?;
    let (Budget::Bytes(most) | Budget::BytesOrLeast(most)) = budget;
    let picked = match pick(&table, most as f64 - head) {
        Some(picked) => picked,
        None if matches!(budget, Budget::BytesOrLeast(_)) => smallest(&table),
        None => {
            let least = bytes_of(&table, &smallest(&table)) + head;
            return Err(Error::Config(format!(
                "the smallest such file takes {least:.0} bytes, more than {most}"
            )));
        }
    };
    let of = |(all, place): (&Vec<WidthChoice>, usize)| all[place];
    let chosen: Vec<WidthChoice> = table.iter().zip(picked).map(of).collect();
    let bytes = head + chosen.iter().map(|choice| choice.bytes).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a file's size")]
    let bytes = bytes.round() as u64;
    Ok(Allocation { policies: chosen.iter().map(|choice| choice.policy).collect(), bytes })
}

/// The most steps that [`allocate`] reports to `done` for lists of so many choices: one for each place in the
/// longest list, one for each choice whose error of the velocity is measured.
pub fn allocation_steps(lens: &[usize]) -> usize {
    let measured = lens.iter().filter(|&&len| len > 1).map(|&len| len.min(MEASURED));
    lens.iter().max().unwrap_or(&0) + measured.sum::<usize>()
}

/// Turns the errors of weights into those of the velocity, where there is a choice.
fn measure(
    config: &UNetConfig,
    tensors: &[(String, Tensor)],
    points: &Points,
    table: &mut [Vec<WidthChoice>],
    done: impl Fn() + Sync,
) -> Result<()> {
    let measure = |(index, choices): (usize, &mut Vec<WidthChoice>)| -> Result<()> {
        if choices.len() < 2 {
            return Ok(());
        }
        let mut sensitivity = 0.0;
        for (place, choice) in choices.iter_mut().enumerate() {
            if place < MEASURED && choice.error > 0.0 {
                let (name, tensor) = &tensors[index];
                let packed = pack_tensor(&tensor.to_dtype(DType::F32)?, name, choice.policy)?;
                let mut changed = tensors.to_vec();
                changed[index].1 = packed.tensor(tensor.dims())?;
                sensitivity = velocity_error(config, changed, points)? / choice.error;
                done();
            }
            choice.error *= sensitivity;
        }
        Ok(())
    };
    if points.x.device().is_cpu() {
        return table.par_iter_mut().enumerate().try_for_each(measure);
    }
    table.iter_mut().enumerate().try_for_each(measure)
}

/// Mean squared error of the velocity of a net of these tensors at `points`.
fn velocity_error(
    config: &UNetConfig,
    tensors: Vec<(String, Tensor)>,
    points: &Points,
) -> Result<f64> {
    let mut weights = StateDict::new(tensors, points.x.device());
    let net = UNet::new(config, &mut weights)?;
    weights.finish()?;
    let v = net.forward(&points.x, &points.t, points.label.as_ref(), None, Mode::Eval)?;
    let error = (v - &points.u)?.sqr()?.to_dtype(DType::F64)?.mean_all()?;
    Ok(error.to_device(&Device::Cpu)?.to_scalar()?)
}

fn bytes_of(table: &[Vec<WidthChoice>], picked: &[usize]) -> f64 {
    picked.iter().zip(table).map(|(&place, choices)| choices[place].bytes).sum()
}

/// The choice of the fewest bytes for each tensor.
fn smallest(table: &[Vec<WidthChoice>]) -> Vec<usize> {
    let of = |choices: &Vec<WidthChoice>| {
        (0..choices.len())
            .min_by(|&a, &b| choices[a].bytes.total_cmp(&choices[b].bytes))
            .unwrap_or(0)
    };
    table.iter().map(of).collect()
}

/// The choice of each tensor within `budget` bytes, if there is one.
fn pick(table: &[Vec<WidthChoice>], budget: f64) -> Option<Vec<usize>> {
    let bytes = |picked: &[usize]| bytes_of(table, picked);
    let best = |multiplier: f64| -> Vec<usize> {
        let of = |choices: &Vec<WidthChoice>| {
            let cost = |choice: &WidthChoice| choice.error + multiplier * choice.bytes;
            let places = (0..choices.len()).rev();
            places.min_by(|&a, &b| cost(&choices[a]).total_cmp(&cost(&choices[b]))).unwrap_or(0)
        };
        table.iter().map(of).collect()
    };
    let mut picked = smallest(table);
    if bytes(&picked) > budget {
        return None;
    }
    let (mut low, mut high) = (-300.0_f64, 300.0_f64);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        let found = best(middle.exp2());
        if bytes(&found) <= budget {
            picked = found;
            high = middle;
        } else {
            low = middle;
        }
    }
    // What is left, where a byte gains most.
    loop {
        let left = budget - bytes(&picked);
        let better = table.iter().enumerate().flat_map(|(i, choices)| {
            let now = choices[picked[i]];
            choices.iter().enumerate().filter_map(move |(place, choice)| {
                let (more, gain) = (choice.bytes - now.bytes, now.error - choice.error);
                (more > 0.0 && more <= left && gain > 0.0).then(|| (gain / more, i, place))
            })
        });
        let Some((_, i, place)) = better.max_by(|a, b| a.0.total_cmp(&b.0)) else { break };
        picked[i] = place;
    }
    Some(picked)
}

/// Policies at the rate `least`, at all wider codes to 8 bits, and at 16 bits, by `of` for codes.
pub fn widths(least: Rate, of: impl Fn(Rate) -> TensorPolicy) -> Vec<TensorPolicy> {
    let wider = Bits::ALL.into_iter().filter(|bits| *bits > least.code_bits());
    let codes = core::iter::once(least).chain(wider.map(Rate::from));
    codes.map(of).chain([TensorPolicy::F16]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<Vec<WidthChoice>> {
        let choices = |count: f64, sensitivity: f64| -> Vec<WidthChoice> {
            let of = |bits: i32| WidthChoice {
                policy: TensorPolicy::F16,
                bytes: count * f64::from(bits) / 8.0,
                error: count * sensitivity * 0.25_f64.powi(bits),
            };
            (1..9).map(of).collect()
        };
        vec![choices(800.0, 1.0), choices(80.0, 50.0), choices(8000.0, 0.01), choices(8.0, 1.0)]
    }

    #[test]
    fn steps_are_those_of_lists_and_of_what_is_measured() {
        assert_eq!(allocation_steps(&[1, 2, 9]), 9 + 2 + MEASURED);
        assert_eq!(allocation_steps(&[]), 0);
    }

    #[test]
    fn no_other_allocation_of_the_size_has_a_smaller_error() {
        let table = table();
        for budget in [1200.0, 2000.0, 3333.0, 8000.0] {
            let picked = pick(&table, budget).unwrap();
            let cost = |picked: &[usize]| -> (f64, f64) {
                let of = |i: usize| table[i][picked[i]];
                let error = (0..4).map(|i| of(i).error).sum();
                (error, (0..4).map(|i| of(i).bytes).sum())
            };
            let (error, bytes) = cost(&picked);
            assert!(bytes <= budget, "{budget}: {bytes}");
            let all = (0..8_usize.pow(4)).map(|n| [n % 8, n / 8 % 8, n / 64 % 8, n / 512]);
            let least = all
                .map(|picked| cost(&picked))
                .filter(|&(_, bytes)| bytes <= budget)
                .fold(f64::INFINITY, |least, (error, _)| least.min(error));
            assert!(error < 1.5 * least, "{budget}: {error} {least}");
        }
        assert_eq!(pick(&table, 1e9).unwrap(), [7; 4]);
        assert_eq!(pick(&table, 1110.0), None);
        assert_eq!((smallest(&table), bytes_of(&table, &smallest(&table))), (vec![0; 4], 1111.0));
    }
}
