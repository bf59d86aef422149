//! The ODE run backward from real images: whether what comes out is the noise that samples start
//! from.
//!
//! A flow that is exact leads every data set back to standard normal noise. The measures here say
//! how far that is from true, and how far a quantized net moves away from the full-precision one.

use core::f64::consts::FRAC_1_SQRT_2;

use candle_core::cpu::erf::erfc_f64;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::null_is_infinite;
use super::round_trip::Reconstruction;
use crate::error::{Error, Result};

/// The 95 % point of the chi-squared distribution with two degrees of freedom.
const JARQUE_BERA: f64 = 5.991_464_547_107_979;

/// The noise of real images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inversion {
    /// Mean of all elements; 0 of normal noise.
    pub mean: f64,
    /// Variance of all elements; 1 of normal noise.
    pub variance: f64,
    /// Excess kurtosis of all elements; 0 of normal noise, and where nothing varies.
    pub kurtosis: f64,
    /// Kolmogorov-Smirnov distance between all elements and the standard normal, 0 to 1.
    pub ks: f64,
    /// Share of the coordinates that the Jarque-Bera test over the images rejects as normal at 5 %:
    /// about 0.05 of normal noise, a little less where there are few images.
    pub rejected: f64,
    /// PSNR of the images that the noise leads back to, in dB, peak 2: the mean over the images.
    #[serde(deserialize_with = "null_is_infinite")]
    pub round_trip_psnr_db: f64,
    /// Root mean square difference to the noise that the full-precision net finds.
    pub drift: f64,
}

impl Inversion {
    /// The measures of the noise `x0` of `images`, which led back to `again`, where the full-precision
    /// net finds the noise `full`.
    ///
    /// # Shapes: all `[n, c, h, w]`
    ///
    /// # Errors
    /// Shapes that differ, no images, values that are not finite.
    pub fn measure(x0: &Tensor, full: &Tensor, images: &Tensor, again: &Tensor) -> Result<Self> {
        let values: Vec<f64> = x0.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return Err(Error::tensor("x0", "the noise of real images is empty or not finite"));
        }
        let moments = PixelMoments::of(values.iter().copied());
        let difference = (x0.to_dtype(DType::F64)? - full.to_dtype(DType::F64)?)?;
        Ok(Self {
            mean: moments.mean,
            variance: moments.variance,
            kurtosis: if moments.variance > 0.0 { moments.kurtosis } else { 0.0 },
            rejected: rejected(&values, x0.dim(0)?),
            ks: ks_distance(values),
            round_trip_psnr_db: Reconstruction::measure(again, images)?.psnr_db,
            drift: difference.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt(),
        })
    }
}

/// Mean and population standard deviation of all elements; near 0 and 1 for the noise of images that
/// the net knows.
///
/// # Errors
/// An allocation that fails on the device.
pub fn mean_and_std(x0: &Tensor) -> Result<(f64, f64)> {
    let x0 = x0.to_dtype(DType::F64)?;
    let mean = x0.mean_all()?.to_scalar::<f64>()?;
    let variance = (x0 - mean)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
    Ok((mean, variance.sqrt()))
}

/// Population moments.
struct PixelMoments {
    mean: f64,
    variance: f64,
    skewness: f64,
    kurtosis: f64,
}

impl PixelMoments {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (n, sum) = values.clone().fold((0.0, 0.0), |(n, sum), x| (n + 1.0, sum + x));
        let mean = sum / n;
        let (mut m2, mut m3, mut m4) = (0.0, 0.0, 0.0);
        for x in values {
            let d = x - mean;
            m2 += d * d;
            m3 += d * d * d;
            m4 += d * d * d * d;
        }
        let variance = m2 / n;
        let skewness = m3 / n / variance.powf(1.5);
        Self { mean, variance, skewness, kurtosis: m4 / n / (variance * variance) - 3.0 }
    }
}

/// Share of the coordinates of `n` images whose values are rejected as normal: those with
/// `n/6 (skewness² + kurtosis²/4)` above the 95 % point, and those that do not vary at all.
///
/// Jarque and Bera, "Efficient tests for normality, homoscedasticity and serial independence of
/// regression residuals", 1980.
fn rejected(values: &[f64], n: usize) -> f64 {
    let d = values.len() / n;
    let is_rejected = |j: usize| {
        let moments = PixelMoments::of(values.iter().skip(j).step_by(d).copied());
        let square = moments.skewness.powi(2) + moments.kurtosis.powi(2) / 4.0;
        // A coordinate without variance gives NaN.
        square.is_nan() || n as f64 / 6.0 * square > JARQUE_BERA
    };
    (0..d).filter(|&j| is_rejected(j)).count() as f64 / d as f64
}

/// Greatest difference between the empirical distribution and the standard normal's.
fn ks_distance(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = |(i, &x): (usize, &f64)| {
        let normal = 0.5 * erfc_f64(-x * FRAC_1_SQRT_2);
        (normal - i as f64 / n).max((i + 1) as f64 / n - normal)
    };
    values.iter().enumerate().map(distance).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::sample::start_noise;

    fn noise(seed: u64) -> Tensor {
        start_noise(seed, 0, 200, (1, 8, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn normal_noise_is_found_normal() {
        let x0 = noise(1);
        let found = Inversion::measure(&x0, &x0, &x0, &x0).unwrap();
        assert!(found.mean.abs() < 0.03 && (found.variance - 1.0).abs() < 0.05, "{found:?}");
        assert!(found.kurtosis.abs() < 0.15 && found.ks < 0.015, "{found:?}");
        assert!(found.rejected < 0.15, "{found:?}");
        assert_eq!((found.round_trip_psnr_db, found.drift), (f64::INFINITY, 0.0));
    }

    #[test]
    fn other_noise_is_not() {
        let normal = noise(1);
        let cubed = normal.powf(3.0).unwrap();
        let found =
            Inversion::measure(&cubed, &normal, &normal, &(&normal + 0.2).unwrap()).unwrap();
        assert!(found.kurtosis > 10.0 && found.rejected > 0.95 && found.ks > 0.1, "{found:?}");
        assert!((found.round_trip_psnr_db - 20.0).abs() < 1e-4, "{found:?}");
        assert!(found.drift > 1.0);
        let shifted = (&normal + 0.5).unwrap();
        let found = Inversion::measure(&shifted, &normal, &normal, &normal).unwrap();
        assert!((found.drift - 0.5).abs() < 1e-6 && found.ks > 0.15, "{found:?}");
        // A coordinate that does not vary is not normal.
        let constant = normal.zeros_like().unwrap();
        let found = Inversion::measure(&constant, &normal, &normal, &normal).unwrap();
        assert_eq!((found.rejected, found.kurtosis), (1.0, 0.0));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Inversion>(&json).unwrap(), found);
    }

    #[test]
    fn mean_and_deviation_are_the_populations() {
        let x0 = Tensor::new(&[[1f32, 3.0], [5.0, 7.0]], &Device::Cpu).unwrap();
        // Squares about 4: 9, 1, 1, 9.
        assert_eq!(mean_and_std(&x0).unwrap(), (4.0, 5f64.sqrt()));
    }

    #[test]
    fn the_distance_to_the_normal_has_its_closed_form() {
        // One value at 0: half of the mass is on either side.
        assert_eq!(ks_distance(vec![0.0]), 0.5);
        // Two at the quartiles.
        let quartile = 0.674_489_750_196_081_7;
        assert!((ks_distance(vec![quartile, -quartile]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn refuses_what_has_no_measure() {
        let x0 = noise(1);
        let nan = (&x0 * f64::NAN).unwrap();
        assert!(Inversion::measure(&nan, &x0, &x0, &x0).is_err());
        let other = x0.narrow(0, 0, 3).unwrap();
        assert!(Inversion::measure(&x0, &other, &x0, &x0).is_err());
    }
}
