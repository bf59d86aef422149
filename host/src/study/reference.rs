//! The statistics of real images that samples are compared with.

use anyhow::Result;
use fm_candle::fid::Statistics;

use crate::embedded;

/// The statistics of real images that samples are compared with.
pub(crate) struct Reference {
    pub(crate) statistics: Statistics,
    /// Name of its images, for people.
    pub(crate) name: String,
    /// Their fingerprint, or that they are built in.
    pub(crate) images: String,
}

impl Reference {
    /// The statistics that the binary carries: of MNIST's training images on the built-in features.
    pub(crate) fn built_in() -> Result<Self> {
        Ok(Self {
            statistics: embedded::lenet_mnist_train()?,
            name: "the 60 000 images of MNIST train, built in".into(),
            images: "built in".into(),
        })
    }
}
