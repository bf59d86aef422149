//! What the nets of a study are compared on beside their samples.

use anyhow::Result;
use fm_candle::Tensor;
use fm_candle::data::Images;
use fm_candle::eval::comparison::ComparisonInputs;
use fm_candle::eval::real_images::RealImages;

use super::Study;
use crate::args::label::class_cycle;

/// Real images whose latents are taken, at most.
const LATENT_IMAGES: usize = 2000;
/// Real images whose noise is sought, at most.
const INVERTED: usize = 256;
/// Samples whose trajectories are followed.
const FOLLOWED: usize = 16;

impl Study {
    /// The inputs of the analyses; `noise` is that of the samples.
    pub(super) fn comparison_inputs(&self, noise: &Tensor) -> Result<ComparisonInputs<'_>> {
        let inverted = Some((INVERTED, &self.sampler));
        let real = Images::gather(&self.real, LATENT_IMAGES)?;
        let noise = noise.narrow(0, 0, FOLLOWED.min(noise.dim(0)?))?;
        Ok(ComparisonInputs {
            real: RealImages::new(&real, real.n, self.unit_range, inverted, &self.device)?,
            sampler: &self.sampler,
            labels: class_cycle(&self.config, noise.dim(0)?)?,
            noise,
        })
    }
}
