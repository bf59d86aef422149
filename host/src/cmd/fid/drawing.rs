//! Images that a net draws, a range of them at a time.

use core::ops::Range;
use std::path::Path;

use anyhow::Result;
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::model::UNet;
use fm_candle::sample::{BatchSampler, batch_size, start_noise};
use fm_candle::solver::{Method, SolverOptions, uniform_grid};

use crate::args::common::Common;
use crate::args::label;
use crate::args::net::{NetArgs, image_shape};
use crate::args::ode::STEP;
use crate::images;

/// Samples of a net by the defaults of `fmq sample`, a range of them at a time.
pub(super) struct Drawing {
    net: UNet,
    sampler: BatchSampler,
    labels: Option<Vec<u32>>,
    seed: u64,
    device: Device,
}

impl Drawing {
    /// `n` samples to be drawn from the net in the file at `path`.
    pub(super) fn open(path: &Path, n: usize, common: &Common) -> Result<Self> {
        let device = common.device()?;
        let net = NetArgs::plain(path).build(&device, common.progress())?;
        let grid = uniform_grid(STEP)?;
        let (method, options) = (Method::Midpoint, SolverOptions::default());
        let sampler =
            BatchSampler { method, grid, options, cfg_scale: 0.0, batch_size: batch_size(&device) };
        let labels = label::labels(None, n, common.seed, net.config())?;
        Ok(Self { net, sampler, labels, seed: common.seed, device })
    }

    /// The samples with these numbers, which do not depend on the range.
    pub(super) fn images(&self, range: Range<usize>) -> Result<Images> {
        let shape = image_shape(self.net.config())?;
        let x0 = start_noise(self.seed, range.start as u64, range.len(), shape, &self.device)?;
        let labels = self.labels.as_ref().map(|labels| &labels[range]);
        images::of_samples(&self.sampler.run(&self.net, &x0, labels, false, |_| {})?.images)
    }
}
