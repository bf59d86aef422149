//! The metric of a layer's rounding: H, and its Cholesky factor, in the order in which weights are rounded.

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// H, by which errors of a row of weights count: `(w - q)^T H (w - q)`.
pub(super) struct Metric {
    /// Position in a row of each weight, that of the largest diagonal last.
    pub(super) order: Vec<usize>,
    /// H in that order, row-major.
    pub(super) h: Vec<f32>,
    /// R, upper triangular with `H = R^T R`, row-major.
    pub(super) r: Vec<f32>,
    factor: Llt<f64>,
}

impl Metric {
    /// The metric of `n` weights whose element `(i, j)` is `h(i, j)`.
    ///
    /// # Errors
    /// One that is not positive, of the tensor `name`.
    pub(super) fn new(
        name: &str,
        n: usize,
        h: impl Fn(usize, usize) -> f64 + Sync,
    ) -> Result<Self> {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| h(a, a).total_cmp(&h(b, b)));
        let sorted = |i: usize, j: usize| h(order[i], order[j]);
        let no_metric = || Error::tensor(name, "the moments of its inputs are not finite");
        let factor = Mat::from_fn(n, n, sorted).llt(Side::Lower).map_err(|_| no_metric())?;
        let l = factor.L();
        let r = square(n, |i, j| if j < i { 0.0 } else { l[(j, i)] });
        let h = square(n, sorted);
        if (0..n).any(|i| !(r[i * n + i] > 0.0 && h[i * n + i] > 0.0)) {
            return Err(no_metric());
        }
        Ok(Self { order, h, r, factor })
    }

    /// `H^-1 right` for `right: [n, rows]`, both in the weights' own order, as `[rows, n]`.
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    pub(super) fn solve(&self, right: &Mat<f64>) -> Vec<f32> {
        let n = self.order.len();
        let solved =
            self.factor.solve(Mat::from_fn(n, right.ncols(), |i, row| right[(self.order[i], row)]));
        let mut weights = vec![0f32; n * right.ncols()];
        for (row, weights) in weights.chunks_mut(n.max(1)).enumerate() {
            for (i, &place) in self.order.iter().enumerate() {
                weights[place] = solved[(i, row)] as f32;
            }
        }
        weights
    }
}

/// A matrix `[n, n]` by its elements, row-major.
#[expect(clippy::cast_possible_truncation, reason = "sums of products of f32")]
fn square(n: usize, of: impl Fn(usize, usize) -> f64 + Sync) -> Vec<f32> {
    let mut values = vec![0f32; n * n];
    values.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (j, value) in row.iter_mut().enumerate() {
            *value = of(i, j) as f32;
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(i: usize, j: usize) -> f64 {
        let near = (-(i.abs_diff(j) as f64) / 2.0).exp();
        near * ((1 + i * 7 % 5) as f64).sqrt() * ((1 + j * 7 % 5) as f64).sqrt()
    }

    #[test]
    fn the_factor_is_that_of_h_in_the_order_of_its_diagonal() {
        let metric = Metric::new("w", 6, h).unwrap();
        for i in 0..6 {
            for j in 0..6 {
                let product: f32 = (0..6).map(|k| metric.r[k * 6 + i] * metric.r[k * 6 + j]).sum();
                assert!((product - metric.h[i * 6 + j]).abs() < 1e-5, "{i} {j}");
                let own = h(metric.order[i], metric.order[j]) as f32;
                assert_eq!(metric.h[i * 6 + j].to_bits(), own.to_bits());
            }
        }
        assert!((1..6).all(|i| metric.h[i * 7] >= metric.h[(i - 1) * 7]));
    }

    #[test]
    fn solutions_are_in_the_order_of_the_weights() {
        let metric = Metric::new("w", 6, h).unwrap();
        let x = |row: usize, i: usize| (row * 6 + i) as f64 - 4.0;
        let right = Mat::from_fn(6, 2, |i, row| (0..6).map(|j| h(i, j) * x(row, j)).sum::<f64>());
        let solved = metric.solve(&right);
        for (at, found) in solved.iter().enumerate() {
            assert!((f64::from(*found) - x(at / 6, at % 6)).abs() < 1e-4, "{at}");
        }
    }

    #[test]
    fn one_that_is_not_positive_is_refused() {
        for wrong in [-1.0, f64::NAN] {
            let bad = |i: usize, j: usize| if (i, j) == (3, 3) { wrong } else { h(i, j) };
            assert!(
                Metric::new("a.weight", 6, bad).err().unwrap().to_string().contains("a.weight")
            );
        }
    }
}
