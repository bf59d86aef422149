//! Rounding of a row of weights by the error of its outputs, `(w - q)^T H (w - q)`.
//!
//! First Babai's nearest plane on the Cholesky factor of H, `H = R^T R`: from the last weight to the
//! first, each takes the level nearest to where the errors of those before leave the product (this is
//! GPTQ; Chen et al., arXiv 2507.18553). The weights come in the order of H's diagonal, the largest
//! first. Then sweeps of coordinate descent: each weight in turn takes its best level, given all others.

use quant_core::quantize::RowValues;
use rayon::prelude::*;

use super::metric::Metric;
use crate::ops::gemm::{Mat, gemm};

/// Sweeps of coordinate descent, at most.
const SWEEPS: usize = 8;
/// Rows that a thread rounds at once, so that they share the reading of H.
const ROWS: usize = 32;
/// Weights of a row between two products of errors with the rest of R.
const BLOCK: usize = 128;

/// Targets near whose levels the error towards `weights` is small, both `[rows, columns]`: the level
/// nearest to each target is the one to take. `values` tells the levels of a row.
pub(super) fn targets(
    metric: &Metric,
    weights: &[f32],
    values: impl Fn(usize) -> Option<RowValues> + Sync,
) -> Vec<f32> {
    let n = metric.order.len();
    let mut targets = weights.to_vec();
    targets.par_chunks_mut((ROWS * n).max(1)).enumerate().for_each(|(block, targets)| {
        let values: Option<Vec<RowValues>> =
            (0..targets.len() / n).map(|row| values(block * ROWS + row)).collect();
        let Some(values) = values else { return };
        let mut rows = RoundedRows::new(metric, targets, values);
        rows.nearest_plane(metric);
        rows.coordinate_descent(metric);
        rows.write(metric, targets);
    });
    targets
}

/// Rows under rounding, their weights in the metric's order; all `[rows, columns]`.
struct RoundedRows {
    n: usize,
    values: Vec<RowValues>,
    weights: Vec<f32>,
    /// The continuous optimum of each weight when it was last rounded, and the level it was rounded to.
    last: Vec<f32>,
    rounded: Vec<f32>,
    /// Weights less levels.
    errors: Vec<f32>,
}

impl RoundedRows {
    fn new(metric: &Metric, weights: &[f32], values: Vec<RowValues>) -> Self {
        let n = metric.order.len();
        let rows = weights.chunks(n).flat_map(|row| metric.order.iter().map(|&place| row[place]));
        let weights: Vec<f32> = rows.collect();
        let zeros = vec![0.0; weights.len()];
        let (last, rounded) = (zeros.clone(), zeros.clone());
        Self { n, values, weights, last, rounded, errors: zeros }
    }

    /// Gives weight `i` of `row` the level nearest to `target`; returns by how much its error grew.
    fn round(&mut self, row: usize, i: usize, target: f32) -> f32 {
        let values = &self.values[row];
        let value = values.values()[values.nearest(target)];
        let at = row * self.n + i;
        self.last[at] = target;
        self.rounded[at] = value;
        let before = core::mem::replace(&mut self.errors[at], self.weights[at] - value);
        self.errors[at] - before
    }

    /// Rounds each weight, from the last to the first, given all after it.
    fn nearest_plane(&mut self, metric: &Metric) {
        let n = self.n;
        // R times the errors of the blocks after.
        let mut after = vec![0f32; self.errors.len()];
        for first in (0..n).step_by(BLOCK).rev() {
            let end = n.min(first + BLOCK);
            for i in (first..end).rev() {
                let r = &metric.r[i * n..][..end];
                for row in 0..self.values.len() {
                    let at = row * n;
                    let near: f32 = r[i + 1..]
                        .iter()
                        .zip(&self.errors[at + i + 1..])
                        .map(|(r, error)| r * error)
                        .sum();
                    self.round(row, i, self.weights[at + i] + (after[at + i] + near) / r[i]);
                }
            }
            let errors = Mat::new(&self.errors[first..], self.values.len(), end - first, n);
            let r = Mat::new(&metric.r[first..], first, end - first, n);
            gemm(errors, r.t(), &mut after, n, true);
        }
    }

    /// Gives each weight its best level, given all others, until none changes.
    fn coordinate_descent(&mut self, metric: &Metric) {
        let (n, rows) = (self.n, self.values.len());
        let mut products = vec![0f32; self.errors.len()];
        let h = Mat::new(&metric.h, n, n, n);
        gemm(Mat::new(&self.errors, rows, n, n), h, &mut products, n, false);
        for _ in 0..SWEEPS {
            let mut moved = false;
            for i in (0..n).rev() {
                let h = &metric.h[i * n..][..n];
                for row in 0..rows {
                    let at = row * n + i;
                    let others = products[at] - h[i] * self.errors[at];
                    let before = self.rounded[at].to_bits();
                    let growth = self.round(row, i, self.weights[at] + others / h[i]);
                    if self.rounded[at].to_bits() != before {
                        moved = true;
                        for (product, h) in products[row * n..][..n].iter_mut().zip(h) {
                            *product += growth * h;
                        }
                    }
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// Writes the last targets in the rows' own order.
    fn write(&self, metric: &Metric, targets: &mut [f32]) {
        for (targets, last) in targets.chunks_mut(self.n).zip(self.last.chunks(self.n)) {
            for (&place, target) in metric.order.iter().zip(last) {
                targets[place] = *target;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::quantize::{QuantizeOptions, QuantizedTensor, quantize_tensor};
    use quant_core::scheme::Scheme;

    use super::*;

    const N: usize = 200;

    /// An element of a metric in which neighbours count for one another.
    fn h(i: usize, j: usize) -> f64 {
        let near = (-(i.abs_diff(j) as f64) / 4.0).exp();
        near * (1.0 + i as f64).sqrt() * (1.0 + j as f64).sqrt()
    }

    /// Forty rows of weights, and these in 2 bits.
    fn problem() -> (Vec<f32>, QuantizedTensor) {
        let weights: Vec<f32> = (0..40 * N).map(|i| (i as f32 * 1.3).sin()).collect();
        let options = QuantizeOptions::new(Scheme::LloydMax, Bits::new(2).unwrap());
        let tensor = quantize_tensor(&weights, &[40, N], &options).unwrap();
        (weights, tensor)
    }

    fn error(weights: &[f32], values: &[f32]) -> f64 {
        let e = |i: usize| f64::from(weights[i] - values[i]);
        let pairs = (0..N * N).map(|at| (at / N, at % N));
        pairs.map(|(i, j)| e(i) * h(i, j) * e(j)).sum()
    }

    #[test]
    fn no_other_level_of_one_weight_has_a_smaller_error() {
        let (weights, tensor) = problem();
        let metric = Metric::new("w", N, h).unwrap();
        let targets = targets(&metric, &weights, |row| tensor.row_values(row));
        let rounded = tensor.reassigned(&targets, &weights).unwrap().dequantized();
        let nearest = tensor.dequantized();
        let (mut sum, mut plain) = (0.0, 0.0);
        for row in [0, 17, 39] {
            let [weights, own, nearest] =
                [&weights, &rounded, &nearest].map(|values| &values[row * N..][..N]);
            let least = error(weights, own);
            sum += least;
            plain += error(weights, nearest);
            for i in (0..N).step_by(19) {
                for &value in tensor.row_values(row).unwrap().values() {
                    let mut other = own.to_vec();
                    other[i] = value;
                    assert!(error(weights, &other) > 0.9999 * least, "{row} {i} {value}");
                }
            }
        }
        assert!(sum < 0.9 * plain, "{sum} {plain}");
    }

    #[test]
    fn without_correlation_it_is_the_nearest_level() {
        let (weights, tensor) = problem();
        let metric = Metric::new("w", N, |i, j| if i == j { 1.0 + i as f64 } else { 0.0 }).unwrap();
        assert_eq!(targets(&metric, &weights, |row| tensor.row_values(row)), weights);
    }
}
