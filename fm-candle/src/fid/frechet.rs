//! Fréchet distance between two Gaussians: the number that FID is.
//!
//! ```text
//! d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½
//! ```
//!
//! Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982;
//! Heusel et al., "GANs trained by a two time-scale update rule", 2017, equation 6.
//!
//! The last trace needs no matrix root. With factors `Σ₁ = A Aᵀ` and `Σ₂ = B Bᵀ`, the eigenvalues
//! of `Σ₁ Σ₂` other than 0 are those of the symmetric `(AᵀB)(AᵀB)ᵀ`, so the trace is the sum of their
//! square roots. The factors come from a pivoted Cholesky decomposition that stops at the rank:
//! with fewer images than features a covariance is singular, and the eigenvalues that should be 0
//! but come out as rounding, 1e-17 say, would each add their root, 3e-9, to the trace.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt_pivoting::factor::{
    PivLltInfo, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::{Mat, MatRef, Par, Side, Spec};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::ops::gemm::{self, gemm};

/// Relative asymmetry up to which a matrix passes as a covariance; statistics gathered in `f32`
/// stay below it.
const ASYMMETRY: f64 = 1e-5;

/// Rows or columns that a product is cut into.
const PANEL: usize = 64;

/// Squared Fréchet distance between `N(mu1, sigma1)` and `N(mu2, sigma2)`, at least 0.
///
/// # Shapes
///
/// `mu1`, `mu2`: `[d]`; `sigma1`, `sigma2`: `[d, d]`, symmetric.
///
/// # Errors
///
/// [`Error::Tensor`] when sizes disagree, a value is not finite, or a matrix is not symmetric with a
/// diagonal of at least 0; [`Error::Config`] when the values are so large that `f64` overflows.
///
/// # Source
///
/// pytorch-fid `src/pytorch_fid/fid_score.py` and torchmetrics `image/fid.py` compute the same
/// number through `sqrtm` and through the eigenvalues of the unsymmetric `Σ₁ Σ₂`.
pub fn frechet_distance(mu1: &[f64], sigma1: &[f64], mu2: &[f64], sigma2: &[f64]) -> Result<f64> {
    if mu1.len() != mu2.len() {
        return Err(Error::tensor(
            "mu",
            format!("{} features cannot be compared with {}", mu1.len(), mu2.len()),
        ));
    }
    let (sigma1, sigma2) = (covariance(mu1, sigma1)?, covariance(mu2, sigma2)?);
    let shift: f64 = mu1.iter().zip(mu2).map(|(a, b)| (a - b).powi(2)).sum();
    let (factor1, factor2) = rayon::join(|| factor(sigma1), || factor(sigma2));
    let overlap = trace_of_root(&factor1, &factor2, mu1.len());
    let distance = shift + trace(sigma1) + trace(sigma2) - 2.0 * overlap;
    if !distance.is_finite() {
        return Err(Error::Config("the Fréchet distance of these statistics overflows".into()));
    }
    Ok(distance.max(0.0))
}

/// `sigma` as a matrix, once it is known to be one that belongs to `mu`.
pub(super) fn covariance<'a>(mu: &[f64], sigma: &'a [f64]) -> Result<MatRef<'a, f64>> {
    let d = mu.len();
    if d.checked_mul(d) != Some(sigma.len()) {
        return Err(Error::tensor(
            "sigma",
            format!("{} values, but {d} features need {d} x {d}", sigma.len()),
        ));
    }
    for (name, values) in [("mu", mu), ("sigma", sigma)] {
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(Error::tensor(
                name,
                format!("value {at} is {}, but statistics must be finite", values[at]),
            ));
        }
    }
    let sigma = MatRef::from_column_major_slice(sigma, d, d);
    let variances = sigma.diagonal().column_vector();
    if let Some((at, variance)) = variances.iter().enumerate().find(|(_, s)| **s < 0.0) {
        return Err(Error::tensor(
            "sigma",
            format!("the variance of feature {at} is {variance}, but it must be at least 0"),
        ));
    }
    let tolerance = ASYMMETRY * sigma.norm_max();
    for column in 0..d {
        for row in 0..column {
            if (sigma[(row, column)] - sigma[(column, row)]).abs() > tolerance {
                return Err(Error::tensor(
                    "sigma",
                    format!(
                        "entries ({row}, {column}) and ({column}, {row}) differ, but a covariance is \
                         symmetric"
                    ),
                ));
            }
        }
    }
    Ok(sigma)
}

/// `L` with `L Lᵀ = sigma`, by Cholesky decomposition with diagonal pivoting, NaN where it overflows.
///
/// Features are scaled to variances in [1, 4) first, by powers of two, which rounds nothing. The
/// decomposition ends where what is left of every variance is rounding: less than `d ε` times the
/// greatest, a limit that faer sets. So the rank does not depend on the units of the features.
///
/// # Shapes
///
/// `sigma`: `[d, d]`; result: the columns of `[d, rank]`, one after the other.
pub(super) fn factor(sigma: MatRef<'_, f64>) -> Vec<f64> {
    let d = sigma.nrows();
    // faer divides by the first pivot even where it is 0.
    if trace(sigma) <= 0.0 {
        return Vec::new();
    }
    let scale = |variance: &f64| (variance.max(f64::MIN_POSITIVE).log2() / 2.0).floor().exp2();
    let scales: Vec<f64> = sigma.diagonal().column_vector().iter().map(scale).collect();
    let mut l = Mat::from_fn(d, d, |i, j| sigma[(i, j)] / scales[i] / scales[j]);
    let (mut order, mut places) = (vec![0_usize; d], vec![0; d]);
    let scratch = cholesky_in_place_scratch::<usize, f64>(d, Par::Seq, Spec::default());
    let mut buffer = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut buffer);
    let Ok((PivLltInfo { rank, .. }, _)) =
        cholesky_in_place(l.as_mut(), &mut order, &mut places, Par::Seq, stack, Spec::default())
    else {
        return vec![f64::NAN; d];
    };
    // Row `places[i]` of the decomposition is feature `i`; above its diagonal there is no `L`.
    let entry = |j, i| {
        let place: usize = places[i];
        if place < j { 0.0 } else { l[(place, j)] * scales[i] }
    };
    (0..rank).flat_map(|j| (0..d).map(move |i| entry(j, i))).collect()
}

/// The sum of the variances.
pub(super) fn trace(sigma: MatRef<'_, f64>) -> f64 {
    sigma.diagonal().column_vector().sum()
}

/// `tr (A Aᵀ B Bᵀ)^½`, NaN where it overflows.
///
/// # Shapes
///
/// `a`: columns of `d`, as many as its rank; `b`: the same.
fn trace_of_root(a: &[f64], b: &[f64], d: usize) -> f64 {
    // The smaller of the two Gram matrices, so that the lower rank leaves no eigenvalue at 0.
    let (a, b) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if a.is_empty() {
        return 0.0;
    }
    let (few, many) = (a.len() / d, b.len() / d);
    let mut cross = vec![0.0; few * many];
    add_product(columns(a, d).t(), columns(b, d), &mut cross, many);
    let mut gram = vec![0.0; few * few];
    add_gram(gemm::Mat::new(&cross, few, many, many), &mut gram, few);
    sum_of_roots(MatRef::from_column_major_slice(&gram, few, few))
}

/// Columns of `d` one after the other as a matrix, `[d, any]`.
pub(super) fn columns(values: &[f64], d: usize) -> gemm::Mat<'_, f64> {
    gemm::Mat::new(values, values.len() / d, d, d).t()
}

/// `dst += a b`, on all threads.
///
/// # Shapes
///
/// `dst`: `[rows of a, n]`, row-major, `n` columns of `b`.
fn add_product(a: gemm::Mat<'_, f64>, b: gemm::Mat<'_, f64>, dst: &mut [f64], n: usize) {
    dst.par_chunks_mut(PANEL * n).enumerate().for_each(|(panel, dst)| {
        let rows = panel * PANEL..panel * PANEL + dst.len() / n;
        gemm(a.rows(rows), b, dst, n, true);
    });
}

/// `dst += a aᵀ` on and above the diagonal, on all threads; by columns, which [`sum_of_roots`] reads, below.
///
/// # Shapes
///
/// `dst`: `[n, n]`, row-major, `n` rows of `a`.
fn add_gram(a: gemm::Mat<'_, f64>, dst: &mut [f64], n: usize) {
    dst.par_chunks_mut(PANEL * n).enumerate().for_each(|(panel, dst)| {
        let first = panel * PANEL;
        let rows = first..first + dst.len() / n;
        gemm(a.rows(rows), a.rows(first..n).t(), &mut dst[first..], n, true);
    });
}

/// The sum of the roots of the eigenvalues of a symmetric matrix, of which it reads what is on and below
/// the diagonal, NaN where it is not finite;
/// eigenvalues below 0 are rounding.
pub(super) fn sum_of_roots(gram: MatRef<'_, f64>) -> f64 {
    if gram.nrows() == 0 {
        return 0.0;
    }
    if !gram.is_all_finite() {
        return f64::NAN;
    }
    // That the iteration does not end is not known to happen.
    let Ok(values) = gram.self_adjoint_eigenvalues(Side::Lower) else { return f64::NAN };
    values.iter().map(|value| value.max(0.0).sqrt()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::moments::FeatureMoments;
    use super::*;

    /// One side of a reference case: `n` rows of the stream `s`.
    struct Set {
        n: u32,
        stream: u64,
        shift: f64,
        gain: f64,
    }

    /// Hash noise in [-1, 1) of the reference values: element `i` of stream `p`.
    fn v(p: u64, i: u64) -> f64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = (p << 32).wrapping_add(i).wrapping_add(GOLDEN).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        f64::from(u32::try_from(z >> 40).unwrap()) / f64::from(1 << 23) - 1.0
    }

    /// Rectified correlated noise, `max(0, shift + gain/4 z_ij + (1/8 + 1/(2 (1 + j))) c_i)`.
    #[expect(clippy::cast_possible_truncation, reason = "features are f32 by definition")]
    fn features(side: &Set, d: u32) -> Vec<f32> {
        let entry = |i: u32, j: u32| {
            let at = u64::from(i) * u64::from(d) + u64::from(j);
            let z: f64 = (0..3).map(|k| v(side.stream + k, at)).sum();
            let common = v(side.stream + 3, u64::from(i));
            let loading = 0.125 + 0.5 / f64::from(1 + j);
            ((side.shift + 0.25 * side.gain * z) + loading * common).max(0.0) as f32
        };
        (0..side.n).flat_map(|i| (0..d).map(move |j| entry(i, j))).collect()
    }

    fn reference_case(d: u32, n: [u32; 2], stream: u64) -> f64 {
        let sides = [
            Set { n: n[0], stream, shift: 0.3, gain: 1.0 },
            Set { n: n[1], stream: stream + 50, shift: 0.34, gain: 1.2 },
        ];
        let [a, b] = sides.map(|side| {
            let mut moments = FeatureMoments::new(d as usize);
            moments.add(&features(&side, d)).unwrap();
            moments
        });
        let (sigma_a, sigma_b) = (a.covariance().unwrap(), b.covariance().unwrap());
        frechet_distance(a.mean(), &sigma_a, b.mean(), &sigma_b).unwrap()
    }

    /// `diag(variances)`, row-major.
    fn diagonal(variances: &[f64]) -> Vec<f64> {
        let d = variances.len();
        let entry = |at| if at / d == at % d { variances[at / d] } else { 0.0 };
        (0..d * d).map(entry).collect()
    }

    fn assert_close(value: f64, expected: f64, relative: f64) {
        assert!((value - expected).abs() <= relative * expected, "{value} is not {expected}");
    }

    /// Values on which torchmetrics, in f64, and pytorch-fid agree.
    #[test]
    fn matches_torchmetrics_and_pytorch_fid() {
        assert_close(reference_case(64, [500, 800], 5000), 0.507_824_877_657_846, 1e-8);
        assert_close(reference_case(64, [3000, 3000], 5100), 0.274_090_117_293_438, 1e-8);
    }

    /// Here those two differ from the 8th digit on, by rounding of eigenvalues that should be 0. With
    /// `X` and `Y` the centred features over `√(n − 1)`, the exact trace is the sum of the singular
    /// values of `X Yᵀ`, a product that has none at 0; the second value comes from them, by SVD.
    #[test]
    fn is_exact_with_fewer_images_than_features() {
        let distance = reference_case(192, [1000, 150], 5200);
        assert_close(distance, 6.123_279_05, 1e-6);
        assert_close(distance, 6.123_279_255_824_574, 1e-13);
    }

    #[test]
    fn identical_statistics_are_at_distance_0() {
        for n in [10, 200] {
            let side = Set { n, stream: 7, shift: 0.3, gain: 1.0 };
            let mut moments = FeatureMoments::new(24);
            moments.add(&features(&side, 24)).unwrap();
            let (mu, sigma) = (moments.mean(), moments.covariance().unwrap());
            assert!(frechet_distance(mu, &sigma, mu, &sigma).unwrap() < 1e-12);
        }
    }

    #[test]
    fn commuting_gaussians_follow_the_closed_form() {
        // |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²
        let sigma1 = diagonal(&[4.0, 9.0, 1.0]);
        let sigma2 = diagonal(&[1.0, 25.0, 1.0]);
        let distance = frechet_distance(&[1.0, 0.0, 2.0], &sigma1, &[0.0, 0.0, 4.0], &sigma2);
        assert_close(distance.unwrap(), 5.0 + 1.0 + 4.0, 1e-14);
    }

    #[test]
    fn singular_covariances_follow_the_closed_form() {
        let zero = [0.0; 2];
        let distance = |a: &[f64], b: &[f64]| frechet_distance(&zero, a, &zero, b).unwrap();
        // Both of rank 1, at 45 degrees: 2 + 2 - 2 sqrt(2 * 2) / sqrt 2.
        let slanted = [1.0; 4];
        let flat = diagonal(&[2.0, 0.0]);
        assert_close(distance(&slanted, &flat), 4.0 - 8.0_f64.sqrt(), 1e-14);
        // Against a point, the trace remains.
        assert_close(distance(&slanted, &diagonal(&zero)), 2.0, 1e-14);
        assert_eq!(distance(&diagonal(&zero), &diagonal(&zero)).to_bits(), 0);
    }

    #[test]
    fn factors_have_the_rank_in_any_units() {
        // Correlations of rank 2 of 3.
        let (sigma, units) = ([5.0, 0.0, 5.0, 0.0, 5.0, 5.0, 5.0, 5.0, 10.0], [1.0, 1e-6, 1e5]);
        let sigma: Vec<f64> = (0..9).map(|at| sigma[at] * units[at / 3] * units[at % 3]).collect();
        let factor = factor(MatRef::from_column_major_slice(&sigma, 3, 3));
        assert_eq!(factor.len(), 2 * 3);
        for (at, sigma) in sigma.iter().enumerate() {
            let (i, j) = (at / 3, at % 3);
            let product = factor[i] * factor[j] + factor[3 + i] * factor[3 + j];
            assert!((product - sigma).abs() < 1e-14 * units[i] * units[j], "{product} {sigma}");
        }
    }

    #[test]
    fn refuses_what_is_no_gaussian() {
        let message = |mu1: &[f64], sigma1: &[f64], mu2: &[f64], sigma2: &[f64]| {
            frechet_distance(mu1, sigma1, mu2, sigma2).unwrap_err().to_string()
        };
        let (mu, unit) = ([0.0; 2], diagonal(&[1.0; 2]));
        assert!(message(&mu, &unit, &[0.0; 3], &unit).contains("2 features"));
        assert!(message(&mu, &unit, &mu, &[1.0; 3]).contains("need 2 x 2"));
        assert!(message(&[0.0, f64::NAN], &unit, &mu, &unit).contains("value 1 is NaN"));
        assert!(message(&mu, &unit, &mu, &[1.0, 0.0, f64::INFINITY, 1.0]).contains("is inf"));
        assert!(message(&mu, &unit, &mu, &diagonal(&[1.0, -1.0])).contains("feature 1 is -1"));
        assert!(message(&mu, &unit, &mu, &[1.0, 0.5, 0.0, 1.0]).contains("(0, 1) and (1, 0)"));
        let vast = diagonal(&[1e300; 2]);
        assert!(message(&mu, &vast, &mu, &vast).contains("overflows"));
    }
}
