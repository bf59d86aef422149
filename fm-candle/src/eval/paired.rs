//! Measures of pairs: what a quantized net gives against what the full one gives for the same input.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::fid::bootstrap::Z95;

/// Side of SSIM's window, and its two constants for pixels in `[0, 1]`.
const WINDOW: usize = 11;
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// Peak signal to noise ratio in dB, `-10 log10` of the mean squared difference of all pixels,
/// the images clamped and scaled to `[0, 1]`; infinite for equal images.
///
/// # Shapes: both `[n, c, h, w]` in `[-1, 1]`
///
/// # Errors
/// Shapes that differ.
pub fn psnr(a: &Tensor, b: &Tensor) -> Result<f64> {
    let mse = (unit(a)? - unit(b)?)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
    Ok(-10.0 * mse.log10())
}

/// Mean over the images of each image's [`psnr`], in dB.
///
/// # Shapes: as [`psnr`]
///
/// # Errors
/// Shapes that differ.
pub fn mean_psnr(a: &Tensor, b: &Tensor) -> Result<f64> {
    let each = (unit(a)? - unit(b)?)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f64>()?;
    Ok(each.iter().map(|mse| -10.0 * mse.log10()).sum::<f64>() / each.len() as f64)
}

/// Half of the 95 % confidence interval of [`psnr`], in dB: that of the mean squared difference over
/// the pairs, by the normal approximation, to first order in decibels. None with fewer than two
/// pairs, or where all are equal.
///
/// # Shapes: as [`psnr`]
///
/// # Errors
/// Shapes that differ.
pub fn psnr_error(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    let each = (unit(a)? - unit(b)?)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f64>()?;
    let n = each.len() as f64;
    let mean = each.iter().sum::<f64>() / n;
    if each.len() < 2 || mean == 0.0 {
        return Ok(None);
    }
    let variance = each.iter().map(|mse| (mse - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Ok(Some(Z95 * (variance / n).sqrt() / mean * 10.0 / core::f64::consts::LN_10))
}

/// Peak signal to noise ratio of maps that are no images, in dB, for a peak of 1 as the paper's code
/// has it: `-10 log10` of the mean squared difference, nothing scaled or clamped.
///
/// # Shapes: both the same
///
/// # Errors
/// Shapes that differ.
pub fn psnr_of_maps(a: &Tensor, b: &Tensor) -> Result<f64> {
    let difference = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?;
    Ok(-10.0 * difference.sqr()?.mean_all()?.to_scalar::<f64>()?.log10())
}

/// Mean squared distance of feature vectors brought to length 1, `|a/|a| - b/|b||²`: 0 for equal
/// directions, 4 for opposite ones; a vector of zeros stays.
///
/// This is the comparison of LPIPS (Zhang et al., 2018), without its learned weights.
///
/// # Shapes: both `[n, d]`, row-major
///
/// # Errors
/// Sizes that differ, or are no multiple of `d`.
pub fn feature_distance(a: &[f32], b: &[f32], d: usize) -> Result<f64> {
    if a.len() != b.len() || d == 0 || a.is_empty() || !a.len().is_multiple_of(d) {
        let (a, b) = (a.len(), b.len());
        return Err(Error::Config(format!("{a} and {b} values in rows of {d} make no pairs")));
    }
    let scale = |row: &[f32]| {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 { 1.0 } else { 1.0 / norm }
    };
    let pairs = a.chunks_exact(d).zip(b.chunks_exact(d));
    let sum: f64 = pairs
        .map(|(a, b)| {
            let (p, q) = (scale(a), scale(b));
            let terms = a.iter().zip(b);
            terms.map(|(&a, &b)| (f64::from(a) * p - f64::from(b) * q).powi(2)).sum::<f64>()
        })
        .sum();
    Ok(sum / (a.len() / d) as f64)
}

/// Peak signal to noise ratio of each pair in dB, `10 log10(4 / mse)` for the peak of 2 between -1
/// and 1, nothing clamped; infinite for equal images.
///
/// # Shapes: both `[n, c, h, w]`; result `[n]`, f64
///
/// # Errors
/// Shapes that differ.
pub fn psnr_of_each(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let difference = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?;
    let mse = difference.sqr()?.flatten_from(1)?.mean(1)?;
    Ok((((mse / 4.0)?.log()?) * (-10.0 / core::f64::consts::LN_10))?)
}

/// Structural similarity (Wang et al., 2004) with a box window of 11 x 11 pixels, the variant of
/// the paper's code, averaged over all windows that lie inside, channels and images; at most 1.
///
/// ```text
/// (2 m_a m_b + C1) (2 cov + C2) / ((m_a^2 + m_b^2 + C1) (var_a + var_b + C2))
/// ```
///
/// # Shapes: both `[n, c, h, w]` in `[-1, 1]`; none where an image is smaller than the window
///
/// # Errors
/// Shapes that differ.
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    ssim_of_maps(&unit(a)?, &unit(b)?)
}

/// [`ssim`] of maps that are no images, for a peak of 1 as the paper's code has it, nothing scaled
/// or clamped.
///
/// # Shapes: as [`ssim`]
///
/// # Errors
/// Shapes that differ.
pub fn ssim_of_maps(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    let (n, c, h, w) = a.dims4()?;
    if b.dims() != a.dims() {
        let (a, b) = (a.dims(), b.dims());
        return Err(Error::Config(format!("image pairs of shapes {a:?} and {b:?}")));
    }
    if h < WINDOW || w < WINDOW || n * c == 0 {
        return Ok(None);
    }
    let values = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (a, b) = (values(a)?, values(b)?);
    let planes = a.chunks_exact(h * w).zip(b.chunks_exact(h * w));
    let sum: f64 = planes.map(|(a, b)| plane_ssim(a, b, w)).sum();
    Ok(Some(sum / (n * c) as f64))
}

/// Mean over the windows of one plane with lines of `w` pixels.
fn plane_ssim(a: &[f64], b: &[f64], w: usize) -> f64 {
    let (down, across) = (a.len() / w - WINDOW + 1, w - WINDOW + 1);
    let count = (WINDOW * WINDOW) as f64;
    let mut sum = 0.0;
    for corner in (0..down).flat_map(|y| (0..across).map(move |x| y * w + x)) {
        let (mut ma, mut mb, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for line in 0..WINDOW {
            let at = corner + line * w;
            for (&a, &b) in a[at..at + WINDOW].iter().zip(&b[at..at + WINDOW]) {
                ma += a;
                mb += b;
                aa += a * a;
                bb += b * b;
                ab += a * b;
            }
        }
        let (ma, mb) = (ma / count, mb / count);
        let (va, vb, cov) = (aa / count - ma * ma, bb / count - mb * mb, ab / count - ma * mb);
        sum +=
            (2.0 * ma * mb + C1) * (2.0 * cov + C2) / ((ma * ma + mb * mb + C1) * (va + vb + C2));
    }
    sum / (down * across) as f64
}

/// Pixels clamped and scaled to `[0, 1]`.
fn unit(x: &Tensor) -> Result<Tensor> {
    Ok(((x.to_dtype(DType::F64)? * 0.5)? + 0.5)?.clamp(0.0, 1.0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn images(f: impl Fn(usize) -> f32) -> Tensor {
        let values: Vec<f32> = (0..2 * 13 * 12).map(f).collect();
        Tensor::from_vec(values, (2, 1, 13, 12), &Device::Cpu).unwrap()
    }

    #[test]
    fn equal_images_are_perfect() {
        let a = images(|i| (i as f32 * 0.3).sin());
        assert_eq!(psnr(&a, &a).unwrap(), f64::INFINITY);
        assert!((ssim(&a, &a).unwrap().unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn constant_images_have_the_closed_form() {
        // In [0, 1]: 0.5 and 0.75.
        let (a, b) = (images(|_| 0.0), images(|_| 0.5));
        assert!((psnr(&a, &b).unwrap() - 10.0 * 16f64.log10()).abs() < 1e-9);
        let expected = (2.0 * 0.5 * 0.75 + C1) / (0.25 + 0.5625 + C1);
        assert!((ssim(&a, &b).unwrap().unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn each_pair_has_its_own_ratio_and_is_not_clamped() {
        let a = images(|_| 0.0);
        let b = images(|i| if i < 156 { 0.5 } else { 3.0 });
        let each = psnr_of_each(&a, &b).unwrap().to_vec1::<f64>().unwrap();
        for (found, mse) in each.iter().zip([0.25, 9.0]) {
            assert!((found - 10.0 * (4.0f64 / mse).log10()).abs() < 1e-12, "{found}");
        }
        assert_eq!(psnr_of_each(&a, &a).unwrap().to_vec1::<f64>().unwrap(), [f64::INFINITY; 2]);
    }

    #[test]
    fn the_interval_is_that_of_the_mean_squared_differences() {
        let a = images(|_| 0.0);
        assert_eq!(psnr_error(&a, &a).unwrap(), None);
        // Mean squared differences of 1/16 and 1/64 in [0, 1]: mean 5/128, variance (3/64)^2 / 2.
        let b = images(|i| if i < 156 { 0.5 } else { 0.25 });
        let standard_error = 3.0 / 64.0 / 2.0;
        let expected = 1.96 * standard_error / (5.0 / 128.0) * 10.0 / 10f64.ln();
        assert!((psnr_error(&a, &b).unwrap().unwrap() - expected).abs() < 1e-9);
        let one = a.narrow(0, 0, 1).unwrap();
        assert_eq!(psnr_error(&one, &b.narrow(0, 0, 1).unwrap()).unwrap(), None);
    }

    #[test]
    fn maps_are_neither_scaled_nor_clamped() {
        let (a, b) = (images(|_| 0.0), images(|_| 3.0));
        assert!((psnr_of_maps(&a, &b).unwrap() + 10.0 * 9f64.log10()).abs() < 1e-9);
        let expected = C1 / (9.0 + C1);
        assert!((ssim_of_maps(&a, &b).unwrap().unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn features_are_compared_by_direction() {
        let a = [3.0, 4.0, 1.0, 0.0];
        assert!(feature_distance(&a, &[6.0, 8.0, 5.0, 0.0], 2).unwrap() < 1e-15);
        // Opposite, and at a right angle.
        assert!((feature_distance(&a, &[-3.0, -4.0, 0.0, 2.0], 2).unwrap() - 3.0).abs() < 1e-12);
        assert_eq!(feature_distance(&[0.0, 0.0], &[0.0, 0.0], 2).unwrap(), 0.0);
        assert!(feature_distance(&a, &a[..2], 2).is_err());
        assert!(feature_distance(&a, &a, 3).is_err());
    }

    #[test]
    fn opposite_images_are_dissimilar() {
        let a = images(|i| (i as f32 * 0.7).sin());
        let b = images(|i| -(i as f32 * 0.7).sin());
        assert!(ssim(&a, &b).unwrap().unwrap() < 0.0);
    }

    #[test]
    fn images_smaller_than_the_window_have_no_ssim() {
        let a = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(ssim(&a, &a).unwrap(), None);
        assert!(ssim(&a, &images(|_| 0.0)).is_err());
    }
}
