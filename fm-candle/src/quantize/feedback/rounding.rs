//! Rounding of a row of weights by the error of its outputs, `(w - q)^T H (w - q)`.
//!
//! First Babai's nearest plane on the Cholesky factor of H, `H = R^T R`: from the last weight to the
//! first, each takes the level nearest to where the errors of those before leave the product (this is
//! GPTQ; Chen et al., arXiv 2507.18553). The weights come in the order of H's diagonal, the largest
//! first. Then sweeps of coordinate descent: each weight in turn takes its best level, given all others.

use faer::{Mat, Side};
use quant_core::quantize::RowValues;
use rayon::prelude::*;

use super::moments::LeastSquares;
use crate::error::{Error, Result};

/// Sweeps of coordinate descent, at most.
const SWEEPS: usize = 8;
/// Rows that a thread rounds at once, so that they share the reading of H.
const ROWS: usize = 8;
/// Sums that a dot product keeps side by side.
const LANES: usize = 16;

/// H in the order in which weights are rounded.
struct Metric {
    /// Position in a row of each weight, that of the largest diagonal last.
    order: Vec<usize>,
    /// H, row-major.
    h: Vec<f32>,
    /// R, row-major, upper triangular.
    r: Vec<f32>,
}

/// Targets near whose levels the error is small, `[rows, columns]`: the level nearest to each is the
/// one to take. `values` tells the levels of a row.
///
/// # Errors
/// A metric that is not positive, of the tensor `name`.
pub(super) fn targets(
    name: &str,
    problem: &LeastSquares,
    values: impl Fn(usize) -> Option<RowValues> + Sync,
) -> Result<Vec<f32>> {
    let metric = Metric::new(&problem.metric)
        .ok_or_else(|| Error::tensor(name, "the moments of its inputs are not finite"))?;
    let n = metric.order.len();
    let mut targets = problem.weights.clone();
    targets.par_chunks_mut((ROWS * n).max(1)).enumerate().for_each(|(block, targets)| {
        let rows = targets.chunks_mut(n).enumerate();
        let mut rows: Vec<RowRounding<'_>> = rows
            .filter_map(|(i, targets)| {
                Some(RowRounding::new(targets, &metric.order, values(block * ROWS + i)?))
            })
            .collect();
        for i in (0..n).rev() {
            let r = &metric.r[i * n..][..n];
            for row in &mut rows {
                let others = dot(&r[i + 1..], &row.errors[i + 1..]);
                row.round(i, row.weights[i] + others / r[i]);
            }
        }
        for _ in 0..SWEEPS {
            let mut moved = false;
            for i in (0..n).rev() {
                let h = &metric.h[i * n..][..n];
                for row in &mut rows {
                    let others = dot(h, &row.errors) - h[i] * row.errors[i];
                    moved |= row.round(i, row.weights[i] + others / h[i]);
                }
            }
            if !moved {
                break;
            }
        }
        for row in rows {
            for (&place, target) in metric.order.iter().zip(row.last) {
                row.targets[place] = target;
            }
        }
    });
    Ok(targets)
}

/// Rounding of one row, its weights in the metric's order.
struct RowRounding<'a> {
    targets: &'a mut [f32],
    weights: Vec<f32>,
    /// The continuous optimum of each weight when it was last rounded, and the level it was rounded to.
    last: Vec<f32>,
    rounded: Vec<f32>,
    errors: Vec<f32>,
    values: RowValues,
}

impl<'a> RowRounding<'a> {
    fn new(targets: &'a mut [f32], order: &[usize], values: RowValues) -> Self {
        let weights: Vec<f32> = order.iter().map(|&place| targets[place]).collect();
        let zeros = vec![0.0; weights.len()];
        let (last, rounded) = (zeros.clone(), zeros.clone());
        Self { targets, weights, last, rounded, errors: zeros, values }
    }

    /// Gives weight `i` the level nearest to `target`; returns whether that is another.
    fn round(&mut self, i: usize, target: f32) -> bool {
        let value = self.values.values()[self.values.nearest(target)];
        let moved = self.rounded[i].to_bits() != value.to_bits();
        self.last[i] = target;
        self.rounded[i] = value;
        self.errors[i] = self.weights[i] - value;
        moved
    }
}

impl Metric {
    #[expect(clippy::cast_possible_truncation, reason = "sums of products of f32")]
    fn new(metric: &Mat<f64>) -> Option<Self> {
        let n = metric.nrows();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| metric[(a, a)].total_cmp(&metric[(b, b)]));
        let sorted = Mat::from_fn(n, n, |i, j| metric[(order[i], order[j])]);
        let factor = sorted.llt(Side::Lower).ok()?;
        let l = factor.L();
        let square = |of: &(dyn Fn(usize, usize) -> f64 + Sync)| -> Vec<f32> {
            (0..n * n).into_par_iter().map(|at| of(at / n, at % n) as f32).collect()
        };
        let r = square(&|i, j| if j < i { 0.0 } else { l[(j, i)] });
        let h = square(&|i, j| sorted[(i, j)]);
        let sound = (0..n).all(|i| r[i * n + i] > 0.0 && h[i * n + i] > 0.0);
        sound.then_some(Self { order, h, r })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::quantize::{QuantizeOptions, QuantizedTensor, quantize_tensor};
    use quant_core::scheme::Scheme;

    use super::*;

    const N: usize = 20;

    /// Ten rows of 2-bit weights and a metric in which neighbours count for one another.
    fn problem() -> (LeastSquares, QuantizedTensor) {
        let metric = Mat::from_fn(N, N, |i, j| {
            let near = (-(i.abs_diff(j) as f64) / 4.0).exp();
            near * (1.0 + i as f64).sqrt() * (1.0 + j as f64).sqrt()
        });
        let weights: Vec<f32> = (0..10 * N).map(|i| (i as f32 * 1.3).sin()).collect();
        let options = QuantizeOptions::new(Scheme::LloydMax, Bits::new(2).unwrap());
        let tensor = quantize_tensor(&weights, &[10, N], &options).unwrap();
        (LeastSquares { metric, weights }, tensor)
    }

    fn error(problem: &LeastSquares, row: usize, values: &[f32]) -> f64 {
        let e = |i: usize| f64::from(problem.weights[row * N + i] - values[i]);
        let pairs = (0..N * N).map(|at| (at / N, at % N));
        pairs.map(|(i, j)| e(i) * problem.metric[(i, j)] * e(j)).sum()
    }

    #[test]
    fn no_other_level_of_one_weight_has_a_smaller_error() {
        let (problem, tensor) = problem();
        let targets = targets("w", &problem, |row| tensor.row_values(row)).unwrap();
        let rounded = tensor.reassigned(&targets, &problem.weights).unwrap().dequantized();
        let nearest = tensor.dequantized();
        let (mut sum, mut plain) = (0.0, 0.0);
        for row in 0..10 {
            let own = &rounded[row * N..][..N];
            let least = error(&problem, row, own);
            sum += least;
            plain += error(&problem, row, &nearest[row * N..][..N]);
            for i in 0..N {
                for &value in tensor.row_values(row).unwrap().values() {
                    let mut other = own.to_vec();
                    other[i] = value;
                    assert!(error(&problem, row, &other) > least - 1e-4, "{row} {i} {value}");
                }
            }
        }
        assert!(sum < 0.9 * plain, "{sum} {plain}");
    }

    #[test]
    fn without_correlation_it_is_the_nearest_level() {
        let (mut problem, tensor) = problem();
        problem.metric = Mat::from_fn(N, N, |i, j| if i == j { 1.0 + i as f64 } else { 0.0 });
        let targets = targets("w", &problem, |row| tensor.row_values(row)).unwrap();
        assert_eq!(targets, problem.weights);
    }

    #[test]
    fn a_metric_that_is_not_positive_is_refused() {
        let (mut problem, tensor) = problem();
        problem.metric[(3, 3)] = -1.0;
        assert!(targets("w", &problem, |row| tensor.row_values(row)).is_err());
    }

    #[test]
    fn dot_products_take_all_elements() {
        let values: Vec<f32> = (0..37_u8).map(f32::from).collect();
        assert_eq!(dot(&values, &values), values.iter().map(|x| x * x).sum::<f32>());
    }
}
