//! Statistics that come from a file: two arrays, checked and made a mean and a covariance.
//!
//! Rounding moves eigenvalues of 0 a little to either side. Where some lie below 0, all that are no
//! farther from it are made 0 again: left as they are, a thousand small ones above 0 move a distance by
//! tenths. So whatever takes [`Statistics`] has a covariance before it.

use faer::{ColRef, Mat, MatRef, Scale, Side};

use super::Statistics;
use super::frechet::{covariance, trace};
use super::npz::{Array, NpyValues};
use crate::error::Error;

/// Farthest below 0 that an eigenvalue may be, in units of the largest: more than the rounding of
/// f32.
const ROUNDING: f64 = 1e-4;
/// [`ROUNDING`] for entries that were kept in f16, each right to 2^-11.
const ROUNDING_F16: f64 = 4e-3;
/// Rounding of an eigenvalue of 0 in f64, in units of the trace; such a covariance is taken as it
/// is.
const NEGLIGIBLE: f64 = 1e-12;

/// The statistics of these arrays.
///
/// # Shapes
///
/// `mu`: `[d]`; `sigma`: `[d, d]`; axes of length 1 may stand beside.
///
/// # Errors
///
/// The fault, with the array's name.
pub(super) fn statistics(mu: Array, sigma: Array, n: Option<u64>) -> Result<Statistics, String> {
    let d = mu.values.len();
    if d == 0 || wide(&mu.shape).len() > 1 {
        return Err(format!("array `mu`: shape {:?} is not [d]", mu.shape));
    }
    if wide(&sigma.shape) != wide(&[d, d]) {
        return Err(format!("array `sigma`: shape {:?} is not [{d}, {d}]", sigma.shape));
    }
    let rounding = if matches!(sigma.values, NpyValues::F16(_)) { ROUNDING_F16 } else { ROUNDING };
    let mean = mu.values.into_f64();
    let sigma = sigma.values.into_f64();
    let sigma = covariance(&mean, &sigma).map_err(|error| match error {
        Error::Tensor { name, reason } => format!("array `{name}`: {reason}"),
        error => error.to_string(),
    })?;
    let covariance =
        semidefinite(sigma, rounding)?.col_iter().flat_map(ColRef::iter).copied().collect();
    Ok(Statistics { n, mean, covariance })
}

/// The axes that are longer than 1.
fn wide(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&side| side != 1).collect()
}

/// The matrix itself, or, where it has eigenvalues below 0 by rounding, one without those of rounding.
fn semidefinite(sigma: MatRef<'_, f64>, rounding: f64) -> Result<Mat<f64>, String> {
    let d = sigma.nrows();
    // A factorization takes a tenth of the time of the eigenvalues.
    let raised = sigma + Mat::<f64>::identity(d, d) * Scale(NEGLIGIBLE * trace(sigma));
    if raised.llt(Side::Lower).is_ok() {
        return Ok(sigma.to_owned());
    }
    let eigen = sigma
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| "array `sigma`: its eigenvalues cannot be found")?;
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    if least < -rounding * most {
        return Err(format!(
            "array `sigma`: has the eigenvalue {least:.4} (the largest is {most:.4}), but a \
             covariance has none below 0"
        ));
    }
    let vectors = eigen.U();
    let kept = |value: f64| if value > -least { value } else { 0.0 };
    let root = Mat::from_fn(d, d, |i, j| vectors[(i, j)] * kept(values[j]).sqrt());
    Ok(&root * root.transpose())
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::fid::fid;

    fn array(shape: &[usize], values: &[f64]) -> Array {
        Array { shape: shape.to_vec(), values: NpyValues::F64(values.to_vec()) }
    }

    fn read(mu: Array, sigma: &[f64]) -> Result<Statistics, String> {
        let d = mu.values.len();
        statistics(mu, array(&[d, d], sigma), None)
    }

    #[test]
    fn axes_of_length_1_do_not_count() {
        let expected =
            Statistics { n: None, mean: vec![1.0, 2.0], covariance: vec![2.0, 0.5, 0.5, 1.0] };
        for (mu, sigma) in [(&[2][..], &[2, 2][..]), (&[1, 2], &[1, 2, 2]), (&[2, 1], &[2, 1, 2])] {
            let mu = array(mu, &expected.mean);
            let sigma = array(sigma, &expected.covariance);
            assert_eq!(statistics(mu, sigma, None).unwrap(), expected);
        }
        // numpy.cov of one feature has no axes.
        let one = statistics(array(&[], &[1.0]), array(&[], &[2.0]), Some(3)).unwrap();
        assert_eq!((one.n, one.dim(), one.covariance), (Some(3), 1, vec![2.0]));
    }

    #[test]
    fn what_is_no_mean_and_covariance_is_refused() {
        let unit = [1.0, 0.0, 0.0, 1.0];
        let complaint = |mu: &[usize], mean: &[f64], sigma: &[usize], values: &[f64]| {
            statistics(array(mu, mean), array(sigma, values), None).unwrap_err()
        };
        assert!(complaint(&[0], &[], &[0, 0], &[]).contains("`mu`: shape [0] is not [d]"));
        assert!(complaint(&[2, 2], &unit, &[2, 2], &unit).contains("`mu`: shape [2, 2]"));
        let flat = complaint(&[2], &[0.0; 2], &[4], &unit);
        assert!(flat.contains("`sigma`: shape [4] is not [2, 2]"), "{flat}");
        let of = |values: &[f64]| read(array(&[2], &[0.0; 2]), values).unwrap_err();
        assert!(of(&[1.0, f64::NAN, 0.0, 1.0]).contains("`sigma`: value 1 is NaN"));
        assert!(of(&[1.0, 0.0, 0.0, f64::INFINITY]).contains("is inf"));
        assert!(of(&[1.0, 0.5, 0.0, 1.0]).contains("(0, 1) and (1, 0)"));
        assert!(of(&[1.0, 0.0, 0.0, -1.0]).contains("variance of feature 1 is -1"));
        // Eigenvalues 3 and -1.
        let error = of(&[1.0, 2.0, 2.0, 1.0]);
        assert!(error.contains("the eigenvalue -1.0000 (the largest is 3.0000)"), "{error}");
        let error = read(array(&[2], &[0.0, f64::NAN]), &unit).unwrap_err();
        assert!(error.contains("`mu`: value 1 is NaN"), "{error}");
    }

    #[test]
    fn rounding_is_undone_and_nothing_else_is_touched() {
        // Rank 2 of 6, so that rounding makes eigenvalues below 0.
        let (x, y): (Vec<f64>, Vec<f64>) =
            (0..6).map(|i| ((f64::from(i) * 1.7).sin(), (f64::from(i) * 0.9).cos())).unzip();
        let entry = |at: usize| x[at / 6] * x[at % 6] + y[at / 6] * y[at % 6];
        let sigma: Vec<f64> = (0..36).map(entry).collect();
        let mean = || array(&[6], &[0.0; 6]);
        let exact = read(mean(), &sigma).unwrap();
        assert_eq!(exact.covariance, sigma);
        assert_eq!(read(mean(), &[0.0; 36]).unwrap().covariance, [0.0; 36]);

        let half: Vec<f16> = sigma.iter().map(|&value| f16::from_f64(value)).collect();
        let rounded: Vec<f64> = half.iter().map(|&value| value.into()).collect();
        let error = read(mean(), &rounded).unwrap_err();
        assert!(error.contains("has the eigenvalue -0.0"), "{error}");
        let half = Array { shape: vec![6, 6], values: NpyValues::F16(half) };
        let near = statistics(mean(), half, None).unwrap();
        for (a, b) in near.covariance.iter().zip(&sigma) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        assert!(fid(&near, &exact).unwrap() < 1e-6);
    }
}
