//! The Fréchet distance between two sets of images, and the features it is measured on.
//!
//! | module | idea |
//! |---|---|
//! | [`lenet`] | features of small grey images: a classifier of digits |
//! | [`moments`] | mean and covariance of feature rows, gathered in batches |
//! | [`frechet`] | the distance between two Gaussians |
//! | [`npz`] | statistics and images in numpy's archives |
//!
//! ```text
//! images --Features--> rows [n, d] --Moments--> Statistics --fid--> one number
//! ```
//! A distance depends on the features. Only on Inception's 2048 does it carry the bare name FID;
//! on others it says which ones, and compares with nothing but itself.

use core::fmt;
use core::str::FromStr;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

pub mod frechet;
pub mod lenet;
pub mod moments;
pub mod npz;

use frechet::frechet_distance;
use moments::Moments;

/// What an image is turned into before distributions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Features {
    /// The 84 features of [`lenet::LeNet`], for 28 x 28 grey images.
    #[default]
    LeNet,
}

impl Features {
    /// Every kind, in the order in which they are listed to users.
    pub const ALL: [Self; 1] = [Self::LeNet];

    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeNet => "lenet",
        }
    }

    /// What the distance on these features is called, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::LeNet => "FID (LeNet features)",
        }
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
            Error::Config(format!("features `{name}` are not in this version, which has {known}"))
        })
    }
}

/// The Gaussian fitted to the features of an image set.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Number of images, if known; pytorch-fid's files do not tell.
    pub n: Option<u64>,
    /// Mean of the features, `[d]`.
    pub mean: Vec<f64>,
    /// Their unbiased covariance, `[d, d]`.
    pub covariance: Vec<f64>,
}

impl Statistics {
    /// Statistics of rows of `d` features.
    ///
    /// # Shapes
    ///
    /// `rows`: `[n, d]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with fewer than two rows; [`Error::Tensor`] when `rows` does not divide
    /// into rows of `d`, or holds a value that is not finite.
    pub fn of_rows(rows: &[f32], d: usize) -> Result<Self> {
        let mut moments = Moments::new(d);
        moments.add(rows)?;
        moments.try_into()
    }

    /// Number of features, `d`.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }
}

impl TryFrom<Moments> for Statistics {
    type Error = Error;

    fn try_from(moments: Moments) -> Result<Self> {
        let (n, mean, covariance) = moments.into_parts()?;
        Ok(Self { n: Some(n), mean, covariance })
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

    #[test]
    fn names_round_trip() {
        for features in Features::ALL {
            assert_eq!(features.to_string().parse::<Features>().unwrap(), features);
        }
        let error = "inception".parse::<Features>().unwrap_err().to_string();
        assert_eq!(error, "features `inception` are not in this version, which has lenet");
    }
}
