//! The variances of the bottleneck's latents along their principal components.
//!
//! The latents of an image are what the middle block gives at t = 0 for the image itself, flattened.
//! The paper fits a basis of components for each net, so that the variances of two nets are about
//! different directions; in the basis of one net, common to all, they compare.

use candle_core::{DType, Tensor};
use faer::{Mat, MatRef, Scale, Side};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::UNet;
use crate::random::Domain;

/// Components of the paper's analysis.
pub const COMPONENTS: usize = 20;
/// Variance below which a component has collapsed.
const COLLAPSED: f64 = 1e-4;
/// Mean magnitude below which a unit is dead.
const DEAD: f64 = 1e-3;
/// Distinct values that a unit has at least, unless it counts as constant.
const DISTINCT: usize = 3;
/// Images in one evaluation of the net, and rows in one product.
const BATCH: usize = 32;
/// Directions that are followed beside the wanted components, for faster convergence.
const SPARE: usize = 20;
/// Iterations at most, and the relative change of the variances at which they end.
const ITERATIONS: usize = 300;
const CHANGE: f64 = 1e-9;

/// Variances along the leading principal components.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VarianceSpread {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, the population's.
    pub std: f64,
    /// Number of variances below 1e-4.
    pub collapsed: usize,
}

impl VarianceSpread {
    /// The spread of these variances.
    pub fn of(variances: &[f64]) -> Self {
        let n = variances.len().max(1) as f64;
        let mean = variances.iter().sum::<f64>() / n;
        let square = variances.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let collapsed = variances.iter().filter(|&&v| v < COLLAPSED).count();
        Self { mean, std: square.sqrt(), collapsed }
    }
}

/// The latents of one net on a set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latent {
    /// Along the net's own components, as the paper has it.
    pub own: VarianceSpread,
    /// Along the components of the full-precision net: comparable between nets.
    pub common: VarianceSpread,
    /// Units, of which a latent vector is made.
    pub units: usize,
    /// Units of mean magnitude below 1e-3.
    pub dead: usize,
    /// Units with fewer than three distinct values.
    pub constant: usize,
}

/// Latent vectors of images, `[n, d]`.
pub struct Latents {
    rows: Vec<f32>,
    d: usize,
}

impl Latents {
    /// The latents of images, without a label.
    ///
    /// # Shapes: `images: [n, c, h, w]`
    ///
    /// # Errors
    /// Images that do not fit the net; fewer than two of them.
    pub fn of(net: &UNet, images: &Tensor) -> Result<Self> {
        let n = images.dim(0)?;
        let batches: Vec<Tensor> = (0..n)
            .step_by(BATCH)
            .map(|first| {
                let x = images.narrow(0, first, BATCH.min(n - first))?;
                let t = Tensor::zeros(x.dim(0)?, DType::F32, x.device())?;
                Ok(net.bottleneck(&x, &t, None)?.flatten_from(1)?.to_dtype(DType::F32)?)
            })
            .collect::<Result<_>>()?;
        let rows = Tensor::cat(&batches, 0)?;
        Self::new(rows.flatten_all()?.to_vec1()?, rows.dim(1)?)
    }

    /// Rows of `d` values.
    ///
    /// # Errors
    /// Fewer than two rows, or values that are not finite.
    pub fn new(rows: Vec<f32>, d: usize) -> Result<Self> {
        if d == 0 || rows.len() < 2 * d || !rows.len().is_multiple_of(d) {
            let n = rows.len() / d.max(1);
            let reason = format!("the latents' variance needs 2 images or more, there are {n}");
            return Err(Error::Config(reason));
        }
        if rows.iter().any(|value| !value.is_finite()) {
            return Err(Error::tensor("latents", "holds values that are not finite"));
        }
        Ok(Self { rows, d })
    }

    /// Number of images.
    fn n(&self) -> usize {
        self.rows.len() / self.d
    }

    /// Mean of each unit.
    fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.d];
        for row in self.rows.chunks_exact(self.d) {
            mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value));
        }
        let n = self.n() as f64;
        for mean in &mut mean {
            *mean /= n;
        }
        mean
    }

    /// The leading principal components, and the unbiased variances along them, descending; fewer
    /// than [`COMPONENTS`] where there are fewer images or units.
    ///
    /// By subspace iteration (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011,
    /// algorithm 4.4) until the variances stand still, so that no `[d, d]` matrix is needed.
    ///
    /// # Errors
    /// Eigenvalues that cannot be found, which is not known to happen.
    pub fn principal(&self) -> Result<Components> {
        let (d, mean) = (self.d, self.mean());
        let k = COMPONENTS.min(d).min(self.n() - 1);
        let width = (k + SPARE).min(d);
        let mut start = vec![0f32; d * width];
        Domain::Analysis.stream(0).fill_normal(0, 0, &mut start);
        let start = Mat::from_fn(d, width, |i, j| f64::from(start[j * d + i]));
        let mut basis = start.qr().compute_thin_Q();
        let mut variances = vec![0.0; k];
        for _ in 0..ITERATIONS {
            let image = self.covariance_times(&mean, basis.as_ref());
            // Rayleigh-Ritz: the best variances within the subspace.
            let inner = (basis.transpose() * &image)
                .self_adjoint_eigen(Side::Lower)
                .map_err(|_| Error::Config("the latents' variances cannot be found".into()))?;
            // In ascending order.
            let (values, turn) = (inner.S().column_vector(), inner.U().reverse_cols());
            let found: Vec<f64> = values.iter().rev().take(k).map(|value| value.max(0.0)).collect();
            let ends = |old: &f64, new: &f64| (old - new).abs() <= CHANGE * found[0];
            let done = variances.iter().zip(&found).all(|(old, new)| ends(old, new));
            variances = found;
            if done {
                basis = basis * turn;
                break;
            }
            basis = (image * turn).qr().compute_thin_Q();
        }
        Ok(Components { basis: basis.subcols(0, k).to_owned(), variances })
    }

    /// The unbiased variances along some components, which need not be this set's own.
    ///
    /// # Errors
    /// Components of vectors of another size.
    pub fn variances_along(&self, components: &Components) -> Result<Vec<f64>> {
        let basis = &components.basis;
        if basis.nrows() != self.d {
            let (has, needs) = (self.d, basis.nrows());
            let reason = format!("latents of {has} units, but components of {needs}: other nets");
            return Err(Error::Config(reason));
        }
        let image = self.covariance_times(&self.mean(), basis.as_ref());
        Ok(basis.col_iter().zip(image.col_iter()).map(|(x, y)| x.transpose() * y).collect())
    }

    /// The covariance times `basis`, `[d, k]`.
    fn covariance_times(&self, mean: &[f64], basis: MatRef<'_, f64>) -> Mat<f64> {
        let (d, k) = basis.shape();
        let part = |rows: &[f32]| {
            let centred =
                Mat::from_fn(d, rows.len() / d, |i, j| f64::from(rows[j * d + i]) - mean[i]);
            &centred * (centred.transpose() * basis)
        };
        // Partial sums in the order of the rows: the result depends on no thread.
        let parts: Vec<Mat<f64>> = self.rows.par_chunks(8 * BATCH * d).map(part).collect();
        let mut sum = Mat::zeros(d, k);
        for part in parts {
            sum += part;
        }
        sum * Scale(1.0 / (self.n() - 1) as f64)
    }

    /// Everything about these latents, whose variances are `own` along their own components and
    /// `common` along those of full precision.
    pub fn measure(&self, own: &[f64], common: &[f64]) -> Latent {
        let (dead, constant) = self.idle();
        Latent {
            own: VarianceSpread::of(own),
            common: VarianceSpread::of(common),
            units: self.d,
            dead,
            constant,
        }
    }

    /// The number of dead units, and of constant ones.
    fn idle(&self) -> (usize, usize) {
        let unit = |j: usize| {
            let (mut sum, mut distinct) = (0.0, Vec::with_capacity(DISTINCT));
            for &value in self.rows.iter().skip(j).step_by(self.d) {
                sum += f64::from(value.abs());
                if distinct.len() < DISTINCT && !distinct.contains(&value) {
                    distinct.push(value);
                }
            }
            (sum < DEAD * self.n() as f64, distinct.len() < DISTINCT)
        };
        let units: Vec<(bool, bool)> = (0..self.d).into_par_iter().map(unit).collect();
        (units.iter().filter(|unit| unit.0).count(), units.iter().filter(|unit| unit.1).count())
    }
}

/// Orthonormal directions in the space of the latents.
pub struct Components {
    /// A column for each, `[d, k]`.
    basis: Mat<f64>,
    /// Unbiased variances along them, descending.
    pub variances: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows whose variance along axis `j` falls with `j`.
    fn latents(n: usize, d: usize) -> Latents {
        let mut values = vec![0f32; n * d];
        Domain::Analysis.stream(7).fill_normal(3, 0, &mut values);
        for row in values.chunks_exact_mut(d) {
            for (j, value) in row.iter_mut().enumerate() {
                *value = *value * 0.93f32.powi(i32::try_from(j).unwrap()) + 2.0;
            }
        }
        Latents::new(values, d).unwrap()
    }

    /// The covariance by its definition, and its eigenvalues, descending.
    fn eigenvalues(latents: &Latents) -> Vec<f64> {
        let (n, d) = (latents.n(), latents.d);
        let mean = latents.mean();
        let centred = Mat::from_fn(n, d, |i, j| f64::from(latents.rows[i * d + j]) - mean[j]);
        let covariance = centred.transpose() * &centred * Scale(1.0 / (n - 1) as f64);
        let mut values = covariance.self_adjoint_eigenvalues(Side::Lower).unwrap();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    #[test]
    fn variances_are_the_covariances_eigenvalues() {
        for (n, d) in [(300, 70), (30, 90), (50, 7), (2, 5)] {
            let latents = latents(n, d);
            let found = latents.principal().unwrap();
            let expected = eigenvalues(&latents);
            assert_eq!(found.variances.len(), COMPONENTS.min(d).min(n - 1));
            for (found, expected) in found.variances.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-7 * expected.max(1e-3), "{found} {expected}");
            }
            let along = latents.variances_along(&found).unwrap();
            for (along, variance) in along.iter().zip(&found.variances) {
                assert!((along - variance).abs() < 1e-9, "{along} {variance}");
            }
        }
    }

    #[test]
    fn in_the_basis_of_another_net_variances_are_of_its_directions() {
        let first = latents(200, 40);
        let doubled = Latents::new(first.rows.iter().map(|x| 2.0 * x).collect(), 40).unwrap();
        let basis = first.principal().unwrap();
        let common = doubled.variances_along(&basis).unwrap();
        let measured = doubled.measure(&doubled.principal().unwrap().variances, &common);
        let own = VarianceSpread::of(&basis.variances);
        assert!((measured.common.mean / own.mean - 4.0).abs() < 1e-5, "{measured:?}");
        assert!((measured.own.std / own.std - 4.0).abs() < 1e-5, "{measured:?}");
        assert!(latents(50, 7).variances_along(&basis).is_err());
    }

    #[test]
    fn units_that_do_nothing_are_counted() {
        // Units: alive, dead but varied, constant, both.
        let rows = (0..6).flat_map(|i| [i as f32, 1e-5 * i as f32, 3.0, 0.0]).collect();
        let latents = Latents::new(rows, 4).unwrap();
        let own = latents.principal().unwrap().variances;
        let measured = latents.measure(&own, &own);
        assert_eq!((measured.units, measured.dead, measured.constant), (4, 2, 2));
        assert_eq!(measured.own.collapsed, 3);
    }

    #[test]
    fn refuses_what_has_no_variance() {
        assert!(Latents::new(vec![1.0; 3], 3).is_err());
        assert!(Latents::new(vec![1.0, f32::NAN], 1).is_err());
        assert!(Latents::new(Vec::new(), 0).is_err());
    }
}
