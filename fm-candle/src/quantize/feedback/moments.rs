//! Second moments of a layer's inputs, and the weights that answer best to those of the quantized net.
//!
//! ```text
//! x     patch of the full-precision net          x'    the same of the net as quantized so far
//! H  =  mean(x' x'^T) + d I                      C  =  mean(x' x^T) + d I       d = damping · mean diagonal
//! W' =  W C^T H^-1                               least error of W' x' towards W x
//! ```
//!
//! Centred moments are those around the means; the layer's bias takes the means' part,
//! `b' = b + W mean(x) - Q mean(x')` for the quantized weight `Q`.

use candle_core::WithDType;
use faer::Mat;
use rayon::prelude::*;

use super::metric::Metric;
use crate::error::Result;
use crate::ops::gemm::{self, gemm};

/// Damping: the part of the mean diagonal of H that is added to its diagonal (GPTQ's `percdamp`).
const DAMPING: f64 = 0.01;
/// Rows of a product that a thread computes at once.
const BLOCK: usize = 64;

/// First and second moments of a layer's inputs, as sums over patches.
pub(super) struct Moments {
    columns: usize,
    patches: usize,
    /// `sum x' x'^T`, `[columns, columns]`.
    gram: Vec<f32>,
    /// `sum x' x^T`, `[columns, columns]`.
    cross: Vec<f32>,
    /// `sum x'`.
    quantized: Vec<f64>,
    /// `sum x`.
    full: Vec<f64>,
}

/// A layer's rounding as a problem of least squares: `(w - q)^T H (w - q)` for each row.
pub(super) struct LeastSquares {
    /// `H`, of as many rows and columns as a row has weights.
    pub(super) metric: Metric,
    /// `W'`, `[rows, columns]`.
    pub(super) weights: Vec<f32>,
}

impl Moments {
    pub(super) fn new(columns: usize) -> Self {
        let square = vec![0f32; columns * columns];
        let sums = vec![0f64; columns];
        let (gram, cross) = (square.clone(), square);
        Self { columns, patches: 0, gram, cross, quantized: sums.clone(), full: sums }
    }

    /// Adds patches of the quantized net and the same of the full one, `[n, columns]`.
    pub(super) fn add(&mut self, quantized: &[f32], full: &[f32]) {
        let n = self.columns;
        self.patches += quantized.len() / n;
        add_product(quantized, quantized, n, &mut self.gram);
        add_product(quantized, full, n, &mut self.cross);
        for (sums, patches) in [(&mut self.quantized, quantized), (&mut self.full, full)] {
            for patch in patches.chunks(n) {
                for (sum, x) in sums.iter_mut().zip(patch) {
                    *sum += f64::from(*x);
                }
            }
        }
    }

    /// The mean patches of the quantized net and of the full one.
    pub(super) fn means(&self) -> [Vec<f64>; 2] {
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / self.patches as f64).collect();
        [mean(&self.quantized), mean(&self.full)]
    }

    /// The problem of rounding `weights`, `[rows, columns]`, of the tensor `name`.
    ///
    /// # Errors
    /// Moments that are not finite.
    pub(super) fn least_squares(
        &self,
        name: &str,
        weights: &[f32],
        centred: bool,
    ) -> Result<LeastSquares> {
        let n = self.columns;
        let [quantized, full] = self.means();
        let patches = self.patches as f64;
        let moment = |sums: &[f32], means: &[f64], i: usize, j: usize| {
            let part = if centred { quantized[i] * means[j] } else { 0.0 };
            f64::from(sums[i * n + j]) / patches - part
        };
        let trace: f64 = (0..n).map(|i| moment(&self.gram, &quantized, i, i)).sum();
        let damping = (DAMPING * trace / n as f64).max(f64::MIN_POSITIVE.sqrt());
        let damped = |sums: &[f32], means: &[f64], i: usize, j: usize| {
            moment(sums, means, i, j) + if i == j { damping } else { 0.0 }
        };
        let metric = Metric::new(name, n, |i, j| damped(&self.gram, &quantized, i, j))?;
        let right = Mat::from_fn(n, n, |i, j| damped(&self.cross, &full, i, j))
            * Mat::from_fn(n, weights.len() / n, |i, row| f64::from(weights[row * n + i]));
        let weights = metric.solve(&right);
        Ok(LeastSquares { metric, weights })
    }
}

/// `sums += a^T b` for `a, b: [m, n]`, in blocks of rows side by side.
fn add_product<T: WithDType>(a: &[T], b: &[T], n: usize, sums: &mut [T]) {
    let m = a.len() / n;
    let (a, b) = (gemm::Mat::new(a, m, n, n).t(), gemm::Mat::new(b, m, n, n));
    sums.par_chunks_mut(BLOCK * n).enumerate().for_each(|(block, sums)| {
        let first = block * BLOCK;
        gemm(a.rows(first..first + sums.len() / n), b, sums, n, true);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patches of 5 values that hold one another, and the same of another net.
    fn patches() -> (Vec<f32>, Vec<f32>) {
        let full: Vec<f32> =
            (0..400).map(|i| (i as f32 * 0.7).sin() + 0.3 * ((i / 5) as f32).cos() + 1.0).collect();
        let quantized = full.iter().enumerate().map(|(i, x)| 0.8 * x + 0.1 * (i as f32).cos());
        (quantized.collect(), full)
    }

    #[test]
    fn the_weights_answer_to_the_quantized_inputs_as_nearly_as_any() {
        let (quantized, full) = patches();
        let weights = [0.5f32, -1.0, 0.25, 2.0, -0.75];
        let mut moments = Moments::new(5);
        moments.add(&quantized[..200], &full[..200]);
        moments.add(&quantized[200..], &full[200..]);
        let [of_quantized, of_full] = moments.means();
        for centred in [false, true] {
            let found = moments.least_squares("w", &weights, centred).unwrap().weights;
            let error = |w: &[f32]| -> f64 {
                let dot = |w: &[f32], x: &[f32], means: &[f64]| -> f64 {
                    let part = |i: usize| if centred { means[i] } else { 0.0 };
                    (0..5).map(|i| f64::from(w[i]) * (f64::from(x[i]) - part(i))).sum()
                };
                let rows = quantized.chunks(5).zip(full.chunks(5));
                rows.map(|(q, x)| (dot(w, q, &of_quantized) - dot(&weights, x, &of_full)).powi(2))
                    .sum()
            };
            let least = error(&found);
            assert!(least < 0.9 * error(&weights), "{least} {}", error(&weights));
            // Damping keeps a little of the old weights: no step away from them is much better.
            for i in 0..5 {
                for by in [-0.05, 0.05] {
                    let mut other = found.clone();
                    other[i] += by;
                    assert!(error(&other) > 0.98 * least, "{i}");
                }
            }
        }
    }

    #[test]
    fn moments_that_are_not_finite_are_refused() {
        let mut moments = Moments::new(1);
        moments.add(&[f32::NAN, 1.0], &[1.0, 1.0]);
        let error = moments.least_squares("a.weight", &[1.0], false).err().unwrap().to_string();
        assert!(error.contains("a.weight"), "{error}");
    }
}
