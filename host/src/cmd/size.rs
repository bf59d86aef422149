//! The bits of the tensors: one number for all, or what a size of the file allows.

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use fm_candle::Tensor;
use fm_candle::quantize::{Budget, PackedNet, TensorPolicy, allocate};
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

use crate::cmd::own_points::own_points;
use crate::cmd::policy::PolicyArgs;
use crate::progress::Reporter;

/// Trajectories, and points of them, at which errors of the velocity are measured.
const TRAJECTORIES: usize = 16;
const POINTS: usize = 32;
/// Bits per weight that a file of tuned codes takes beyond those of the codes, at most.
const SPARE: f64 = 0.7;

/// Bits of the tensors, or the size of the file.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SizeArgs {
    /// Bits per weight, 1 to 8, or 1.58: three levels, in codes of 2 bits
    #[arg(long)]
    pub(crate) bits: Option<Rate>,
    /// Bits per weight of the whole packed file, at most; each tensor gets those that the velocity
    /// needs (1 to 8, or 16)
    #[arg(long = "bits-per-weight", alias = "bits_per_weight", value_name = "X", value_parser = above_0)]
    bits_per_weight: Option<f64>,
    /// Size of the whole packed file, at most; likewise
    #[arg(long, value_name = "BYTES")]
    budget: Option<u64>,
}

impl SizeArgs {
    /// The size that a packed file of these tensors may have; `None` where the bits are given.
    pub(crate) fn budget(&self, tensors: &[(String, Tensor)]) -> Option<Budget> {
        let of_bits = |bits| bytes_at(bits, count(tensors));
        self.budget.or(self.bits_per_weight.map(of_bits)).map(Budget::Bytes)
    }

    /// Returns true where the file's size decides.
    pub(crate) fn is_size(&self) -> bool {
        self.bits.is_none()
    }

    /// The bits or the size, in words.
    pub(crate) fn describe(&self) -> String {
        match (self.bits, self.bits_per_weight, self.budget) {
            (Some(bits), ..) => format!("{bits} bits"),
            (_, Some(bits), _) => format!("{bits} bits per weight"),
            (.., budget) => format!("{} bytes", budget.unwrap_or(0)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a file's size")]
fn bytes_at(bits_per_weight: f64, weights: usize) -> u64 {
    (bits_per_weight * weights as f64 / 8.0).floor() as u64
}

/// Policies of tensors by their names.
pub(crate) type Policies = HashMap<String, TensorPolicy>;

/// The policy of each tensor for a packed file within `budget`, among its `choices`.
pub(crate) fn policies_within(
    budget: Budget,
    net: PackedNet<'_>,
    tensors: &[(String, Tensor)],
    choices: impl Fn(&str, &[usize]) -> Vec<TensorPolicy>,
    seed: u64,
    progress: Reporter,
) -> Result<Policies> {
    let points = own_points(net.config, tensors, TRAJECTORIES, POINTS, seed)?;
    let matrices = tensors.iter().filter(|(_, tensor)| tensor.rank() > 1).count();
    let bar = progress.bar("errors of the velocity", 4 * matrices as u64 + 9, "tensors");
    let allocation = allocate(net, tensors, &points, budget, choices, || bar.inc(1))?;
    bar.finish_and_clear();
    let names = tensors.iter().map(|(name, _)| name.clone());
    Ok(names.zip(allocation.policies).collect())
}

/// The policy of each tensor of a net that is tuned at `rate`: no fewer for any, and more where the
/// velocity needs them, of [`SPARE`] bits per weight in all. With a `--keep` all others have `rate`.
pub(crate) fn tuned_policies(
    rate: Rate,
    scheme: Scheme,
    policy: &PolicyArgs,
    net: PackedNet<'_>,
    tensors: &[(String, Tensor)],
    seed: u64,
    progress: Reporter,
) -> Result<Policies> {
    if policy.keeps_any() {
        let of = |(name, tensor): &(String, Tensor)| {
            (name.clone(), policy.of(scheme, rate, name, tensor.dims()))
        };
        return Ok(tensors.iter().map(of).collect());
    }
    let bytes = bytes_at(f64::from(rate.code_bits().get()) + SPARE, count(tensors));
    let choices = |name: &str, shape: &[usize]| policy.choices(scheme, rate, name, shape);
    policies_within(Budget::BytesOrLeast(bytes), net, tensors, choices, seed, progress)
}

/// The number of weights.
fn count(tensors: &[(String, Tensor)]) -> usize {
    tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum()
}

fn above_0(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| *bits > 0.0 && *bits <= 64.0);
    bits.ok_or_else(|| "expected a number of bits above 0".into())
}
