//! Scores of sets of samples, each from noise of its own, and how far chance moves them.

use candle_core::Tensor;

use super::estimate::Estimate;
use super::paired;
use crate::error::{Error, Result};
use crate::fid::bootstrap::{Z95, standard_error};
use crate::fid::{Statistics, fid};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 200;

/// Samples of one set, and what the features of a distance are of them.
pub struct SampleSet {
    /// `[n, c, h, w]`, about `[-1, 1]`.
    pub images: Tensor,
    /// `[n, d]`, row-major.
    pub features: Vec<f32>,
}

/// The samples of a quantized net against those of the full-precision net from the same noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedScores {
    /// Of each set [`paired::psnr`], in dB.
    pub psnr_db: Estimate,
    /// Mean over the sets of [`paired::mean_psnr`], in dB; none where pairs are equal.
    pub mean_psnr_db: Option<f64>,
    /// Mean over the sets of [`paired::ssim`], at most 1; none for images smaller than its window.
    pub ssim: Option<f64>,
    /// Mean over the sets of [`paired::feature_distance`], 0 to 4.
    pub feature_distance: f64,
}

impl PairedScores {
    /// The scores of `sets` against `full`, set by set, where an image has `d` features. The
    /// interval of one set is [`paired::psnr_error`].
    ///
    /// # Errors
    /// No sets, other numbers of them, shapes that differ.
    pub fn measure(sets: &[SampleSet], full: &[SampleSet], d: usize) -> Result<Self> {
        let (Some(first), true) = (sets.first(), sets.len() == full.len()) else {
            let (sets, full) = (sets.len(), full.len());
            return Err(Error::Config(format!("{sets} and {full} sets of samples make no pairs")));
        };
        let (mut psnr, mut mean_psnr) = (Vec::new(), Vec::new());
        let (mut ssim, mut distance) = (Vec::new(), Vec::new());
        for (set, full) in sets.iter().zip(full) {
            psnr.push(paired::psnr(&set.images, &full.images)?);
            mean_psnr.push(paired::mean_psnr(&set.images, &full.images)?);
            ssim.extend(paired::ssim(&set.images, &full.images)?);
            distance.push(paired::feature_distance(&set.features, &full.features, d)?);
        }
        let single = paired::psnr_error(&first.images, &full[0].images)?;
        let mean = |values: &[f64]| Estimate::over_sets(values, None).mean;
        Ok(Self {
            psnr_db: Estimate::over_sets(&psnr, single),
            mean_psnr_db: Some(mean(&mean_psnr)).filter(|db| db.is_finite()),
            ssim: (!ssim.is_empty()).then(|| mean(&ssim)),
            feature_distance: mean(&distance),
        })
    }
}

/// The Fréchet distance of sets of samples to `reference`: the mean over the sets. The interval is
/// over the sets, or of one set by the [bootstrap](crate::fid::bootstrap), whose resamples follow
/// `seed` and keep the size of each stratum.
///
/// # Shapes: `strata`: `[n]`, the class of each sample of a set, or empty
///
/// # Errors
/// Those of [`Statistics::of_rows`], [`fid`] and [`standard_error`].
pub fn frechet(
    sets: &[SampleSet],
    reference: &Statistics,
    strata: &[u32],
    seed: u64,
) -> Result<Estimate> {
    let d = reference.dim();
    let distance = |set: &SampleSet| fid(&Statistics::of_rows(&set.features, d)?, reference);
    let distances: Vec<f64> = sets.iter().map(distance).collect::<Result<_>>()?;
    let single = match sets {
        [set] => Some(Z95 * standard_error(&set.features, reference, strata, RESAMPLES, seed)?),
        _ => None,
    };
    Ok(Estimate::over_sets(&distances, single))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Two images of 1 x 12 x 12, all of whose pixels have one value each, and two features.
    fn set(pixels: [f32; 2], features: [f32; 4]) -> SampleSet {
        let values: Vec<f32> = pixels.iter().flat_map(|&pixel| [pixel; 144]).collect();
        let images = Tensor::from_vec(values, (2, 1, 12, 12), &Device::Cpu).unwrap();
        SampleSet { images, features: features.into() }
    }

    fn full() -> SampleSet {
        set([0.0; 2], [1.0, 0.0, 1.0, 0.0])
    }

    #[test]
    fn scores_are_means_over_sets() {
        // Mean squared differences in [0, 1]: 1/16 and 1/4, then 1/16 and 1/16. The features: a right
        // angle and the same, then two opposite.
        let sets = [set([0.5, 1.0], [0.0, 1.0, 1.0, 0.0]), set([0.5; 2], [-1.0, 0.0, -2.0, 0.0])];
        let scores = PairedScores::measure(&sets, &[full(), full()], 2).unwrap();
        let db = |mse: f64| -10.0 * mse.log10();
        let (first, second) = (db(5.0 / 32.0), db(1.0 / 16.0));
        assert!((scores.psnr_db.mean - f64::midpoint(first, second)).abs() < 1e-9);
        // Of two values the deviation is |a - b| / √2, that of their mean |a - b| / 2.
        let error = 12.706 * (first - second).abs() / 2.0;
        assert!((scores.psnr_db.error.unwrap() - error).abs() < 1e-9);
        let each = (3.0 * db(1.0 / 16.0) + db(0.25)) / 4.0;
        assert!((scores.mean_psnr_db.unwrap() - each).abs() < 1e-9);
        let same = |set: &SampleSet| paired::ssim(&set.images, &full().images).unwrap().unwrap();
        let ssim = f64::midpoint(same(&sets[0]), same(&sets[1]));
        assert!((scores.ssim.unwrap() - ssim).abs() < 1e-12);
        assert!((scores.feature_distance - f64::midpoint(1.0, 4.0)).abs() < 1e-9);
    }

    #[test]
    fn one_set_has_the_interval_within_it() {
        let one = [set([0.5, 1.0], [0.0, 1.0, 1.0, 0.0])];
        let scores = PairedScores::measure(&one, &[full()], 2).unwrap();
        let within = paired::psnr_error(&one[0].images, &full().images).unwrap();
        assert!(within.is_some() && scores.psnr_db.error == within);
        let equal = PairedScores::measure(&[full()], &[full()], 2).unwrap();
        let psnr = Estimate { mean: f64::INFINITY, error: None };
        assert_eq!((equal.psnr_db, equal.mean_psnr_db), (psnr, None));
        assert!(PairedScores::measure(&one, &[], 2).is_err());
        assert!(PairedScores::measure(&[], &[], 2).is_err());
    }

    #[test]
    fn the_frechet_distance_is_over_sets_or_by_the_bootstrap() {
        let reference =
            Statistics { n: None, mean: vec![0.0; 2], covariance: vec![1.0, 0.0, 0.0, 1.0] };
        // Mean (x, 1), covariance 2/3 of the identity: x² + 1 + 2 (1 - √(2/3))².
        let about = |x: f32| {
            let features = vec![x + 1.0, 1.0, x - 1.0, 1.0, x, 0.0, x, 2.0];
            SampleSet { features, ..full() }
        };
        let spread = 2.0 * (1.0 - (2f64 / 3.0).sqrt()).powi(2);
        let sets = [about(1.0), about(3.0)];
        let both = frechet(&sets, &reference, &[], 1).unwrap();
        assert!((both.mean - (f64::midpoint(2.0, 10.0) + spread)).abs() < 1e-6, "{both:?}");
        assert!((both.error.unwrap() - 12.706 * 4.0).abs() < 1e-5, "{both:?}");
        let one = frechet(&sets[..1], &reference, &[0, 0, 1, 1], 1).unwrap();
        let error = standard_error(&sets[0].features, &reference, &[0, 0, 1, 1], 200, 1).unwrap();
        assert!((one.mean - (2.0 + spread)).abs() < 1e-6 && one.error == Some(1.96 * error));
    }
}
