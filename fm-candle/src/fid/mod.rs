//! The Fréchet distance between two sets of images, and the features it is measured on.
//!
//! | module | idea |
//! |---|---|
//! | [`lenet`] | features of small grey images: a classifier of digits |
//! | [`inception`] | the features of FID, at any of four depths, and logits |
//! | [`resize`] | images brought to Inception's size, as three packages do it |
//! | [`moments`] | mean and covariance of feature rows, gathered in batches |
//! | [`distributed`] | moments gathered by several processes |
//! | [`frechet`] | the distance between two Gaussians |
//! | [`kid`] | the kernel distance between two sets of rows |
//! | [`inception_score`] | how sure a classifier is, and of how many classes |
//! | [`prdc`] | how much of each of two sets of rows lies near the other |
//! | [`bootstrap`] | how much a distance would differ with other images |
//! | [`npz`] | statistics and images in numpy's archives |
//! | [`pickled`] | statistics in a pickle |
//! | `given` | statistics of other programs, checked |
//!
//! ```text
//! images --FeatureNet--> rows [n, d] --Moments--> Statistics --fid--> one number
//! ```
//! A distance depends on the features. Only on Inception's 2048 does it carry the bare name FID;
//! on others it says which ones, and compares with nothing but itself.

use core::fmt;
use core::str::FromStr;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::checkpoint;
use crate::error::{Error, Result};

pub mod bootstrap;
pub mod distributed;
mod feature_net;
pub mod frechet;
mod given;
pub mod inception;
pub mod inception_score;
pub mod kid;
pub mod lenet;
pub mod moments;
pub mod npz;
pub mod pickled;
pub mod prdc;
pub mod resize;
mod rows;
mod statistics;

use frechet::frechet_distance;
use inception::{Extractor, FeatureLayer, Inception};
use lenet::LeNet;
use moments::{BLOCK, FeatureMoments};
use resize::Resize;

pub use feature_net::FeatureNet;
pub use statistics::Statistics;

/// The features of images on which distributions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The 84 features of [`lenet::LeNet`], for 28 x 28 grey images.
    LeNet,
    /// The features of a layer of [`inception::Inception`], for images of any size.
    Inception(FeatureLayer),
}

impl Features {
    /// Every kind, in the order in which they are listed to users.
    pub const ALL: [Self; 5] = [
        Self::LeNet,
        Self::Inception(FeatureLayer::D2048),
        Self::Inception(FeatureLayer::D768),
        Self::Inception(FeatureLayer::D192),
        Self::Inception(FeatureLayer::D64),
    ];

    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeNet => "lenet",
            Self::Inception(FeatureLayer::D2048) => "inception",
            Self::Inception(FeatureLayer::D768) => "inception-768",
            Self::Inception(FeatureLayer::D192) => "inception-192",
            Self::Inception(FeatureLayer::D64) => "inception-64",
            Self::Inception(FeatureLayer::LogitsUnbiased) => "inception-logits-unbiased",
            Self::Inception(FeatureLayer::Logits) => "inception-logits",
        }
    }

    /// Name of the distance on these features, for people.
    pub fn title(self) -> String {
        match self {
            Self::LeNet => "FID (LeNet features)".into(),
            Self::Inception(FeatureLayer::D2048) => "FID".into(),
            Self::Inception(layer) => format!("FID ({} Inception features)", layer.dim()),
        }
    }

    /// The net of the weight file at `path`, to be evaluated on `device`; `resize` is for Inception.
    ///
    /// # Errors
    ///
    /// Those of [`checkpoint::load`]; [`Error::File`] naming a parameter that is missing, misshapen or
    /// unknown.
    pub fn open(self, path: &Path, resize: Resize, device: &Device) -> Result<Box<dyn FeatureNet>> {
        let tensors = checkpoint::load(path, true)?.tensors;
        let at_fault = |error: Error| Error::file(path, error.to_string());
        Ok(match self {
            Self::LeNet => Box::new(LeNet::load(tensors, device).map_err(at_fault)?),
            Self::Inception(layer) => {
                let net = Inception::load(tensors, device).map_err(at_fault)?;
                Box::new(Extractor { net, resize, layer })
            }
        })
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Features {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|features| features.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Config(format!("unknown features `{name}`; known are {known}"))
        })
    }
}

/// Statistics in the making: features come in batches of any size and are kept as sums only, which do
/// not depend on how they were cut into batches.
pub struct FeatureAccumulator {
    moments: FeatureMoments,
    /// Features that do not fill a block yet.
    rows: Vec<f32>,
}

impl FeatureAccumulator {
    /// No images yet, of `d` features each.
    pub fn new(d: usize) -> Self {
        Self { moments: FeatureMoments::new(d), rows: Vec::new() }
    }

    /// Takes in the features of further images, `[n, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for features that are not finite.
    pub fn add(&mut self, rows: &[f32]) -> Result<()> {
        self.rows.extend(rows);
        let block = (BLOCK * self.moments.dim()).max(1);
        let full = self.rows.len() / block * block;
        self.moments.add(&self.rows[..full])?;
        self.rows.drain(..full);
        Ok(())
    }

    /// The statistics of all images.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for features that are not finite; those of fewer than two images.
    pub fn finish(mut self) -> Result<Statistics> {
        self.moments.add(&self.rows)?;
        self.moments.try_into()
    }
}

/// Fréchet distance between the Gaussians of two image sets, at least 0.
///
/// # Errors
///
/// As [`frechet_distance`]: statistics of different features, or that are no Gaussian's.
pub fn fid(a: &Statistics, b: &Statistics) -> Result<f64> {
    frechet_distance(&a.mean, &a.covariance, &b.mean, &b.covariance)
}

/// The rows of a tensor of features, and how many there are in a row.
///
/// # Shapes
///
/// `features`: `[n, d]`, of any floating type.
///
/// # Errors
///
/// [`Error::Tensor`] for a tensor of another rank.
pub fn rows(features: &Tensor) -> Result<(Vec<f32>, usize)> {
    let Ok((_, d)) = features.dims2() else {
        let dims = features.dims();
        return Err(Error::tensor("features", format!("shape {dims:?} is not [n, d]")));
    };
    Ok((features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, d))
}

/// Interleaved pixels, `[n, hw, c]`, as planes, `[n, c, hw]`.
pub fn planar(pixels: &[u8], channels: usize, area: usize) -> Vec<u8> {
    let images = pixels.chunks_exact((channels * area).max(1));
    images
        .flat_map(|image| (0..channels).flat_map(|c| image.iter().skip(c).step_by(channels)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::data::Images;

    #[test]
    fn identical_sets_are_at_distance_0_and_shifted_ones_at_the_square() {
        let rows: Vec<f32> = (0..60_u8).map(|i| (f32::from(i) * 1.7).sin()).collect();
        let a = Statistics::of_rows(&rows, 3).unwrap();
        assert_eq!((a.n, a.dim()), (Some(20), 3));
        assert!(fid(&a, &a).unwrap() < 1e-12);
        let mut b = a.clone();
        b.mean[1] += 2.0;
        assert!((fid(&a, &b).unwrap() - 4.0).abs() < 1e-9);
        let other = Statistics::of_rows(&rows, 4).unwrap();
        assert!(fid(&a, &other).is_err());
        assert!(Statistics::of_rows(&rows[..3], 3).unwrap_err().to_string().contains("got 1"));
    }

    #[test]
    fn planes_are_cut_from_interleaved_pixels() {
        assert_eq!(planar(&[1, 2, 3, 4, 5, 6], 3, 1), [1, 2, 3, 4, 5, 6]);
        assert_eq!(planar(&[1, 2, 3, 4, 5, 6], 3, 2), [1, 4, 2, 5, 3, 6]);
        assert_eq!(planar(&[1, 2, 3, 4], 1, 2), [1, 2, 3, 4]);
    }

    #[test]
    fn feature_tensors_have_rows() {
        let x = Tensor::new(&[[1.0_f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        assert_eq!(rows(&x).unwrap(), (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2));
        assert_eq!(rows(&x.t().unwrap()).unwrap(), (vec![1.0, 3.0, 5.0, 2.0, 4.0, 6.0], 3));
        assert!(rows(&x.flatten_all().unwrap()).is_err());
    }

    /// The sums of rows and columns.
    struct Sums;

    impl FeatureNet for Sums {
        fn dim(&self) -> usize {
            4
        }

        fn rows(&self, images: &Images) -> Result<Vec<f32>> {
            Ok(images.pixels.iter().map(|&pixel| f32::from(pixel) / 7.0).collect())
        }

        fn logits(&self, rows: &[f32]) -> Result<(Vec<f32>, usize)> {
            Ok((rows.to_vec(), 4))
        }
    }

    #[test]
    fn statistics_do_not_depend_on_the_batches() {
        let n = 2 * BLOCK + 100;
        let pixels: Vec<u8> = (0..4 * n).map(|i| (i * i % 251) as u8).collect();
        let images = Images::new([1, 2, 2], pixels, vec![0; n]).unwrap();
        let gathered = |batch: usize| {
            let mut gathering = FeatureAccumulator::new(4);
            for first in (0..n).step_by(batch) {
                let images = Images::read(&images, first..(first + batch).min(n)).unwrap();
                gathering.add(&Sums.rows(&images).unwrap()).unwrap();
            }
            gathering.finish().unwrap()
        };
        let whole = Statistics::of_rows(&Sums.rows(&images).unwrap(), 4).unwrap();
        for batch in [1, 100, BLOCK, n] {
            assert_eq!(gathered(batch), whole);
        }
        assert!(FeatureAccumulator::new(4).finish().is_err());
    }

    #[test]
    fn names_round_trip() {
        for features in Features::ALL {
            assert_eq!(features.to_string().parse::<Features>().unwrap(), features);
        }
        let error = "vgg".parse::<Features>().unwrap_err().to_string();
        let known = "lenet, inception, inception-768, inception-192, inception-64";
        assert_eq!(error, format!("unknown features `vgg`; known are {known}"));
        for name in ["torchmetrics", "tf1", "pytorch-fid"] {
            assert_eq!(name.parse::<Resize>().unwrap().to_string(), name);
        }
        assert!("bicubic".parse::<Resize>().unwrap_err().to_string().contains("pytorch-fid"));
    }
}
