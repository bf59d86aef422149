//! Mean and covariance of feature rows, gathered batch by batch in `f64`.
//!
//! Sums of squares about the origin lose digits as soon as features sit far from it, so every block
//! of rows is centred on its own mean, and blocks are joined by the pairwise update of Chan, Golub
//! and `LeVeque` ("Updating formulae and a pairwise algorithm for computing sample variances", 1979):
//!
//! ```text
//! δ    = mean_b − mean_a            w = n_a n_b / (n_a + n_b)
//! mean = mean_a + δ n_b / (n_a + n_b)
//! S    = S_a + S_b + w δ δᵀ         S = Σ (x − mean)(x − mean)ᵀ
//! ```
//!
//! The covariance is the unbiased `S / (n − 1)` of `numpy.cov`, pytorch-fid and torchmetrics.

use crate::error::{Error, Result};
use crate::ops::gemm::{Mat, gemm};

/// Rows that are centred and multiplied together: enough to keep the matrix product busy, and 4 MiB
/// of `f64` at 2048 features.
pub(super) const BLOCK: usize = 256;

/// Running mean and scatter of rows of `d` features.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMoments {
    n: u64,
    /// `[d]`
    mean: Vec<f64>,
    /// `S = Σ (x − mean)(x − mean)ᵀ`, `[d, d]`.
    scatter: Vec<f64>,
}

impl FeatureMoments {
    /// No rows yet, of `d` features each.
    pub fn new(d: usize) -> Self {
        Self { n: 0, mean: vec![0.0; d], scatter: vec![0.0; d * d] }
    }

    /// Number of features in a row, `d`.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Number of rows seen.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Takes in further rows.
    ///
    /// # Shapes
    ///
    /// `rows`: `[any, d]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when `rows` does not divide into rows of `d`, or holds a value that is not
    /// finite. Nothing has been taken in then.
    pub fn add(&mut self, rows: &[f32]) -> Result<()> {
        let d = self.dim();
        if d == 0 || !rows.len().is_multiple_of(d) {
            return Err(Error::tensor(
                "features",
                format!("{} values do not divide into rows of {d}", rows.len()),
            ));
        }
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let (row, column, value) = (at / d, at % d, rows[at]);
            return Err(Error::tensor(
                "features",
                format!("row {row}, column {column} is {value}, but features must be finite"),
            ));
        }
        for block in rows.chunks(BLOCK * d) {
            self.join(&Self::of_block(block, d));
        }
        Ok(())
    }

    /// Takes in the rows that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when `other` is about another number of features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.dim() != other.dim() {
            return Err(Error::tensor(
                "features",
                format!("rows of {} cannot join rows of {}", other.dim(), self.dim()),
            ));
        }
        self.join(other);
        Ok(())
    }

    /// Mean of the rows, `[d]`; zero before the first.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Unbiased covariance of the rows, `[d, d]`: `Σ (x − mean)(x − mean)ᵀ / (n − 1)`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with fewer than two rows, which have no covariance.
    pub fn covariance(&self) -> Result<Vec<f64>> {
        if self.n < 2 {
            return Err(Error::Config(format!(
                "a covariance needs at least 2 images, got {}",
                self.n
            )));
        }
        let scale = 1.0 / count(self.n - 1);
        Ok(self.scatter.iter().map(|s| s * scale).collect())
    }

    /// Number of rows, mean `[d]` and unbiased covariance `[d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with fewer than two rows, which have no covariance.
    pub fn into_parts(self) -> Result<(u64, Vec<f64>, Vec<f64>)> {
        let covariance = self.covariance()?;
        Ok((self.n, self.mean, covariance))
    }

    /// Moments of one block of whole rows about its own mean.
    fn of_block(rows: &[f32], d: usize) -> Self {
        let n = rows.len() / d;
        let mut x: Vec<f64> = rows.iter().copied().map(f64::from).collect();
        let mut mean = vec![0.0; d];
        for row in x.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x);
        }
        for mean in &mut mean {
            *mean /= count(n as u64);
        }
        for row in x.chunks_exact_mut(d) {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
        }
        let mut scatter = vec![0.0; d * d];
        let x = Mat::new(&x, n, d, d);
        gemm(x.t(), x, &mut scatter, d, false);
        Self { n: n as u64, mean, scatter }
    }

    /// The pairwise update at the head of this file.
    fn join(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let (na, nb) = (count(self.n), count(other.n));
        let (share, weight) = (nb / (na + nb), na * nb / (na + nb));
        let d = self.dim();
        let delta: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.mean.iter_mut().zip(&delta).for_each(|(mean, delta)| *mean += share * delta);
        for (i, delta_i) in delta.iter().enumerate() {
            let (row, other) = (&mut self.scatter[i * d..][..d], &other.scatter[i * d..][..d]);
            for ((s, other), delta_j) in row.iter_mut().zip(other).zip(&delta) {
                *s += other + weight * (delta_i * delta_j);
            }
        }
        self.n += other.n;
    }
}

#[expect(clippy::cast_precision_loss, reason = "image counts stay far below 2^53")]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` rows of 3 features far from the origin, where naive sums of squares lose half of the digits.
    fn rows(n: u16) -> Vec<f32> {
        (0..n)
            .flat_map(|i| {
                let t = f32::from(i);
                [4096.0 + (t * 0.7).sin(), t * 0.125 - 9.0, (t * 1.3).cos()]
            })
            .collect()
    }

    /// Two-pass covariance, straight from the definition.
    fn two_pass(rows: &[f32], d: usize) -> Vec<f64> {
        let n = count((rows.len() / d) as u64);
        let mean = |j| rows.iter().skip(j).step_by(d).map(|&x| f64::from(x)).sum::<f64>() / n;
        let mean: Vec<f64> = (0..d).map(mean).collect();
        let entry = |j, k| {
            let product =
                |row: &[f32]| (f64::from(row[j]) - mean[j]) * (f64::from(row[k]) - mean[k]);
            rows.chunks(d).map(product).sum::<f64>() / (n - 1.0)
        };
        (0..d * d).map(|at| entry(at / d, at % d)).collect()
    }

    fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
        }
    }

    #[test]
    fn matches_hand_computed_values() {
        let mut moments = FeatureMoments::new(2);
        moments.add(&[1.0, 2.0, 3.0, 8.0, 5.0, 2.0]).unwrap();
        assert_eq!(moments.n(), 3);
        assert_close(moments.mean(), &[3.0, 4.0], 1e-15);
        assert_close(&moments.covariance().unwrap(), &[4.0, 0.0, 0.0, 12.0], 1e-15);
    }

    #[test]
    fn any_cut_into_batches_gives_the_two_pass_covariance() {
        let rows = rows(700);
        let expected = two_pass(&rows, 3);
        for batch in [1, 7, 256, 700] {
            let mut moments = FeatureMoments::new(3);
            for rows in rows.chunks(batch * 3) {
                moments.add(rows).unwrap();
            }
            assert_close(&moments.covariance().unwrap(), &expected, 1e-9);
        }
    }

    #[test]
    fn merging_equals_adding() {
        let rows = rows(100);
        let (mut all, mut left, mut right) =
            (FeatureMoments::new(3), FeatureMoments::new(3), FeatureMoments::new(3));
        all.add(&rows).unwrap();
        left.add(&rows[..90]).unwrap();
        right.add(&rows[90..]).unwrap();
        left.merge(&right).unwrap();
        left.merge(&FeatureMoments::new(3)).unwrap();
        assert_eq!(left.n(), all.n());
        assert_close(left.mean(), all.mean(), 1e-14);
        assert_close(&left.covariance().unwrap(), &all.covariance().unwrap(), 1e-9);
    }

    #[test]
    fn refuses_what_has_no_moments() {
        let mut moments = FeatureMoments::new(2);
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert!(message(moments.add(&[1.0; 3])).contains("rows of 2"));
        assert!(message(moments.add(&[0.0, 1.0, 2.0, f32::NAN])).contains("row 1, column 1"));
        assert!(message(moments.merge(&FeatureMoments::new(3))).contains("rows of 3"));
        assert!(message(FeatureMoments::new(0).add(&[])).contains("rows of 0"));
        assert_eq!(moments.n(), 0);

        moments.add(&[1.0, 2.0]).unwrap();
        assert!(moments.covariance().unwrap_err().to_string().contains("got 1"));
    }
}
