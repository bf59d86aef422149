//! The statistics of the features of an image set.

use super::moments::FeatureMoments;
use crate::error::{Error, Result};

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
        let mut moments = FeatureMoments::new(d);
        moments.add(rows)?;
        moments.try_into()
    }

    /// Number of features, `d`.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }
}

impl TryFrom<FeatureMoments> for Statistics {
    type Error = Error;

    fn try_from(moments: FeatureMoments) -> Result<Self> {
        let (n, mean, covariance) = moments.into_parts()?;
        Ok(Self { n: Some(n), mean, covariance })
    }
}
