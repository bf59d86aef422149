//! The random parts of a batch.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::config::TrainConfig;
use super::loader::BatchPixels;
use super::progress::TrainProgress;
use crate::error::Result;
use crate::path::Times;
use crate::process_group::Rank;
use crate::random::Domain;

/// All that one training batch needs.
pub struct Batch {
    /// Images in `[-1, 1]`, `[n, c, h, w]`.
    pub x1: Tensor,
    /// Noise, the same shape.
    pub x0: Tensor,
    /// Times, `[n]`.
    pub t: Tensor,
    /// Classes, `[n]`; none where the batch is trained without them.
    pub label: Option<Tensor>,
}

impl Batch {
    /// Draws flips, noise, times, and whether the labels are dropped: functions of the image in the
    /// epoch or of the example in the run, whichever process sees it.
    pub(super) fn draw(
        from: &BatchPixels,
        config: &TrainConfig,
        progress: &TrainProgress,
        rank: Rank,
        device: &Device,
    ) -> Result<Self> {
        let (n, [channels, height, width]) = (from.images.len(), from.shape);
        let size = channels * height * width;
        let (mut x1, mut x0) = (vec![0f32; n * size], vec![0f32; n * size]);
        let first = progress.examples + rank.index as u64;
        let example = |i: usize| first + (i * rank.size) as u64;
        let flips = Domain::Flip.stream(config.seed);
        let noise = Domain::TrainNoise.stream(config.seed);
        let images = from.bytes.par_chunks(size).zip(&from.images);
        x1.par_chunks_mut(size).zip(x0.par_chunks_mut(size)).zip(images).enumerate().for_each(
            |(i, ((x1, x0), (pixels, &image)))| {
                for (x, &pixel) in x1.iter_mut().zip(pixels) {
                    *x = f32::from(pixel) / 255.0 * 2.0 - 1.0;
                }
                if config.flip && flips.word(progress.epoch, image) & 1 == 1 {
                    x1.chunks_exact_mut(width).for_each(<[f32]>::reverse);
                }
                noise.fill_normal(example(i), 0, x0);
            },
        );
        let times = Domain::Time.stream(config.seed);
        let kind = if config.skewed_timesteps { Times::Skewed } else { Times::Uniform };
        let t: Vec<f32> = (0..n).map(|i| kind.draw(times, example(i))).collect();
        let label = match &from.labels {
            Some(labels) if !drops_labels(config, progress) => {
                Some(Tensor::from_slice(labels, n, device)?)
            }
            _ => None,
        };
        let shape = (n, channels, height, width);
        Ok(Self {
            x1: Tensor::from_vec(x1, shape, device)?,
            x0: Tensor::from_vec(x0, shape, device)?,
            t: Tensor::from_vec(t, n, device)?,
            label,
        })
    }
}

/// Returns true if this batch is trained without labels.
fn drops_labels(config: &TrainConfig, progress: &TrainProgress) -> bool {
    let stream = Domain::ClassDrop.stream(config.seed);
    f64::from(stream.uniform(progress.batches, 0)) < config.class_drop_prob
}
