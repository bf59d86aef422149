//! Images that a net draws, a range of them at a time.

use core::ops::Range;
use std::path::Path;

use anyhow::Result;
use fm_candle::Tensor;
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::model::UNet;
use fm_candle::sample::{BatchSampler, Samples, start_noise};
use fm_candle::solver::{Method, uniform_grid};

use crate::args::label;
use crate::args::net::{NetArgs, image_shape};
use crate::args::ode::STEP;
use crate::images;
use crate::progress::Reporter;

/// The noise that images start from.
pub(crate) enum StartNoise {
    /// That of a seed, a function of the image's number.
    Seed(u64),
    /// `[n, c, h, w]`.
    Given(Tensor),
}

/// Samples of a net, a range of them at a time.
pub(crate) struct Drawing {
    pub(crate) net: UNet,
    pub(crate) sampler: BatchSampler,
    pub(crate) noise: StartNoise,
    /// A label for each image; none for a net without classes.
    pub(crate) labels: Option<Vec<u32>>,
    pub(crate) device: Device,
}

impl Drawing {
    /// `n` samples by the defaults of `fmq sample`, to be drawn from the net in the file at `path`.
    pub(crate) fn by_default(
        path: &Path,
        n: usize,
        seed: u64,
        device: Device,
        progress: Reporter,
    ) -> Result<Self> {
        let net = NetArgs::plain(path).build(&device, progress)?;
        let sampler = BatchSampler::new(Method::Midpoint, uniform_grid(STEP)?, &device);
        let labels = label::labels(None, n, seed, net.config())?;
        Ok(Self { net, sampler, noise: StartNoise::Seed(seed), labels, device })
    }

    /// The samples with these numbers, which do not depend on the range where it begins at a multiple of
    /// the sampler's batch.
    pub(crate) fn samples(
        &self,
        range: Range<usize>,
        trajectory: bool,
        done: impl Fn(usize) + Sync,
    ) -> Result<Samples> {
        let x0 = match &self.noise {
            StartNoise::Given(noise) => {
                noise.narrow(0, range.start, range.len())?.to_device(&self.device)?
            }
            StartNoise::Seed(seed) => {
                let shape = image_shape(self.net.config())?;
                start_noise(*seed, range.start as u64, range.len(), shape, &self.device)?
            }
        };
        let labels = self.labels.as_ref().map(|labels| &labels[range]);
        Ok(self.sampler.run(&self.net, &x0, labels, trajectory, done)?)
    }

    /// The same samples as 8-bit images, clamped to the net's range.
    pub(crate) fn images(&self, range: Range<usize>) -> Result<Images> {
        images::of_samples(&self.samples(range, false, |_| {})?.images)
    }
}
