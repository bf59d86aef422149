//! The kernel inception distance: the squared maximum mean discrepancy of two sets of features.
//!
//! ```text
//! k(x, y) = (x·y / d + 1)³
//! MMD²    = Σ_{i≠j} k(x_i, x_j) / (n (n − 1)) + Σ_{i≠j} k(y_i, y_j) / (m (m − 1))
//!           − 2 Σ_ij k(x_i, y_j) / (n m)
//! ```
//! Without bias, it is 0 on average where both sets come from one source, so it may be below 0.
//!
//! M. Bińkowski et al., "Demystifying MMD GANs", 2018, section 4. As torch-fidelity reports it
//! (`metric_kid.py`), it is the mean and the population's standard deviation over subsets of each set,
//! 100 of 1000 images; that package draws them by NumPy's generator and we by ours.

use core::ops::Range;

use rayon::prelude::*;

use super::rows::{Rows, products};
use crate::error::{Error, Result};
use crate::random::Domain;

/// The number, size and seed of the subsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsets {
    /// Number of subsets.
    pub count: usize,
    /// Images of each set in a subset.
    pub size: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Subsets {
    /// torch-fidelity's 100 subsets of 1000, of seed 0.
    fn default() -> Self {
        Self { count: 100, size: 1000, seed: 0 }
    }
}

/// Mean and standard deviation of a measure over parts of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanStd {
    /// Mean over the parts.
    pub mean: f64,
    /// Standard deviation, of the parts as the whole population.
    pub std: f64,
}

impl MeanStd {
    /// Of the values of the parts; NaN where there are none.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
        Self { mean, std: variance.sqrt() }
    }
}

/// The kernel distance over random subsets.
///
/// # Shapes
///
/// `x`: `[n, d]`, `y`: `[m, d]`, row-major.
///
/// # Errors
///
/// [`Error::Tensor`] for values that do not divide into rows of `d` or are not finite;
/// [`Error::Config`] without subsets, with subsets of fewer than two rows or of more than `n` or `m`.
pub fn kid(x: &[f32], y: &[f32], d: usize, subsets: &Subsets) -> Result<MeanStd> {
    let (x, y) = (Rows::new(x, d)?, Rows::new(y, d)?);
    let Subsets { count, size, seed } = *subsets;
    let most = x.n().min(y.n());
    if count == 0 || size < 2 || size > most {
        return Err(Error::Config(format!(
            "{count} subsets of {size} images: must be at least 1, of 2 to {most} images, as many as the \
             smaller set has"
        )));
    }
    let draws = Domain::KidSubset.stream(seed);
    let drawn = |rows: Rows<'_>, index| {
        let mut numbers: Vec<usize> = (0..rows.n()).collect();
        draws.shuffle(index, &mut numbers);
        rows.pick(&numbers[..size])
    };
    let distances = (0..count as u64).into_par_iter().map(|subset| {
        let (x, y) = (drawn(x, 2 * subset), drawn(y, 2 * subset + 1));
        mmd2(&x, &y, d)
    });
    Ok(MeanStd::of(&distances.collect::<Result<Vec<f64>>>()?))
}

/// The squared maximum mean discrepancy between all rows, unbiased.
///
/// # Shapes
///
/// `x`: `[n, d]`, `y`: `[m, d]`, row-major.
///
/// # Errors
///
/// [`Error::Tensor`] for values that do not divide into rows of `d` or are not finite;
/// [`Error::Config`] for a set of fewer than two rows.
pub fn mmd2(x: &[f32], y: &[f32], d: usize) -> Result<f64> {
    let (x, y) = (Rows::new(x, d)?, Rows::new(y, d)?);
    if let Some(n) = [x.n(), y.n()].into_iter().find(|&n| n < 2) {
        return Err(Error::Config(format!("the kernel distance needs at least 2 images, got {n}")));
    }
    let [n, m] = [x, y].map(|rows| rows.n() as f64);
    let (within_x, within_y) = (within(x) / (n * (n - 1.0)), within(y) / (m * (m - 1.0)));
    Ok(within_x + within_y - 2.0 * between(x, y) / (n * m))
}

/// `Σ_{i≠j} k(x_i, x_j)`; each pair is met once and counts twice.
fn within(x: Rows<'_>) -> f64 {
    sum_over_blocks(x, |range, block| {
        let later = x.blocks().filter(|other| other.start > range.start);
        let pairs: f64 = later.map(|other| sum(&kernels(block, &x.block(other), x.dim()))).sum();
        let mut own = kernels(block, block, x.dim());
        // The diagonal: k(x_i, x_i).
        own.iter_mut().step_by(range.len() + 1).for_each(|k| *k = 0.0);
        sum(&own) + 2.0 * pairs
    })
}

/// `Σ_ij k(x_i, y_j)`.
fn between(x: Rows<'_>, y: Rows<'_>) -> f64 {
    sum_over_blocks(x, |_, block| {
        y.blocks().map(|other| sum(&kernels(block, &y.block(other), x.dim()))).sum()
    })
}

/// The sum of `part` over the blocks of rows, in their order.
fn sum_over_blocks(x: Rows<'_>, part: impl Fn(&Range<usize>, &[f64]) -> f64 + Sync) -> f64 {
    let blocks: Vec<Range<usize>> = x.blocks().collect();
    let parts = blocks.into_par_iter().map(|range| part(&range, &x.block(range.clone())));
    sum(&parts.collect::<Vec<f64>>())
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

/// `k(a_i, b_j)` of all pairs.
fn kernels(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    products(a, b, d).into_iter().map(|dot| (dot / d as f64 + 1.0).powi(3)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, d: usize, salt: f32) -> Vec<f32> {
        (0..n * d).map(|i| ((i as f32 + salt) * 1.7).sin() + salt * 0.01).collect()
    }

    /// The definition, pair by pair.
    fn literally(x: &[f32], y: &[f32], d: usize) -> f64 {
        let kernel = |a: &[f32], b: &[f32]| {
            let dot: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (dot / d as f64 + 1.0).powi(3)
        };
        let mean = |a: &[f32], b: &[f32], same: bool| {
            let (mut sum, mut count) = (0.0, 0.0);
            for (i, a) in a.chunks(d).enumerate() {
                for (_, b) in b.chunks(d).enumerate().filter(|(j, _)| !same || i != *j) {
                    sum += kernel(a, b);
                    count += 1.0;
                }
            }
            sum / count
        };
        mean(x, x, true) + mean(y, y, true) - 2.0 * mean(x, y, false)
    }

    #[test]
    fn is_the_definition_for_sets_of_any_sizes() {
        for (n, m, d) in [(2, 2, 1), (2, 7, 3), (300, 5, 4), (257, 513, 2), (256, 512, 30)] {
            let (x, y) = (rows(n, d, 1.0), rows(m, d, 5.0));
            let (found, expected) = (mmd2(&x, &y, d).unwrap(), literally(&x, &y, d));
            assert!((found - expected).abs() < 1e-12, "{n} {m} {d}: {found} {expected}");
        }
        // Points of equal rows: (1 + 1)³ + (4 + 1)³ - 2 (2 + 1)³.
        assert!((mmd2(&[1.0; 3], &[2.0; 2], 1).unwrap() - (8.0 + 125.0 - 54.0)).abs() < 1e-12);
    }

    #[test]
    fn subsets_of_all_rows_are_the_whole() {
        let (x, y) = (rows(20, 3, 1.0), rows(20, 3, 4.0));
        let subsets = Subsets { count: 4, size: 20, seed: 3 };
        let spread = kid(&x, &y, 3, &subsets).unwrap();
        assert!((spread.mean - mmd2(&x, &y, 3).unwrap()).abs() < 1e-13);
        assert!(spread.std < 1e-13);
    }

    #[test]
    fn subsets_average_to_the_whole_and_follow_the_seed() {
        let (x, y) = (rows(90, 3, 1.0), rows(70, 3, 40.0));
        let of = |seed| kid(&x, &y, 3, &Subsets { count: 400, size: 30, seed }).unwrap();
        let whole = mmd2(&x, &y, 3).unwrap();
        let MeanStd { mean, std } = of(1);
        assert!(std > 0.0 && (mean - whole).abs() < 4.0 * std / 20.0, "{mean} {std} {whole}");
        assert_eq!(of(1), of(1));
        assert!(of(1).mean.to_bits() != of(2).mean.to_bits());
    }

    #[test]
    fn refuses_what_has_no_distance() {
        let x = rows(9, 2, 1.0);
        let message = |count, size, y: &[f32]| {
            kid(&x, y, 2, &Subsets { count, size, seed: 0 }).unwrap_err().to_string()
        };
        let y = rows(5, 2, 2.0);
        assert!(
            message(1, 6, &y).contains("1 subsets of 6 images")
                && message(1, 6, &y).contains("to 5")
        );
        assert!(message(0, 5, &y).contains("at least 1"));
        assert!(message(1, 1, &y).contains("of 2 to 5 images"));
        assert!(message(1, 2, &y[..3]).contains("rows of 2"));
        assert!(mmd2(&x, &y[..2], 2).unwrap_err().to_string().contains("got 1"));
        assert!(mmd2(&[f32::INFINITY; 4], &y, 2).unwrap_err().to_string().contains("is inf"));
    }
}
