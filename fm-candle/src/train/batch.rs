//! The order of the images and the random parts of a batch.

use core::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Progress, TrainConfig, Trainer};
use crate::data::Images;
use crate::error::Result;
use crate::random::Domain;

/// The shuffled order of one epoch.
pub struct Order(Vec<u32>);

impl Order {
    /// The order of `n` images in epoch `epoch`.
    pub fn new(n: usize, seed: u64, epoch: u64) -> Self {
        let mut order: Vec<u32> = (0..).take(n).collect();
        Domain::Shuffle.stream(seed).shuffle(epoch, &mut order);
        Self(order)
    }

    /// Full batches in the epoch; the rest of the images waits for the next one.
    pub fn batches(&self, batch_size: usize) -> u64 {
        (self.0.len() / batch_size.max(1)) as u64
    }

    /// The images of batch `batch`, none after the last full one.
    pub(super) fn batch(&self, batch: u64, batch_size: usize) -> Option<&[u32]> {
        let start = usize::try_from(batch).ok()?.checked_mul(batch_size)?;
        let range: Range<usize> = start..start.checked_add(batch_size)?;
        self.0.get(range)
    }
}

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
    /// Number of images.
    pub(super) fn len(&self) -> Result<usize> {
        Ok(self.t.dim(0)?)
    }

    /// Images `first..first + n`.
    pub(super) fn narrow(&self, first: usize, n: usize) -> Result<Self> {
        let cut = |x: &Tensor| x.narrow(0, first, n);
        Ok(Self {
            x1: cut(&self.x1)?,
            x0: cut(&self.x0)?,
            t: cut(&self.t)?,
            label: self.label.as_ref().map(cut).transpose()?,
        })
    }

    /// Draws flips, noise, times, and whether the labels are dropped.
    pub(super) fn draw(
        data: &Images,
        indices: &[u32],
        config: &TrainConfig,
        progress: &Progress,
        device: &Device,
    ) -> Result<Self> {
        let n = indices.len();
        let size = data.image_len();
        let (mut x1, mut x0) = (vec![0f32; n * size], vec![0f32; n * size]);
        let first = progress.batches * config.batch_size as u64;
        let flips = Domain::Flip.stream(config.seed);
        let noise = Domain::TrainNoise.stream(config.seed);
        x1.par_chunks_mut(size).zip(x0.par_chunks_mut(size)).zip(indices).enumerate().for_each(
            |(i, ((x1, x0), &image))| {
                for (x, &pixel) in x1.iter_mut().zip(data.image(image as usize)) {
                    *x = f32::from(pixel) / 255.0 * 2.0 - 1.0;
                }
                if config.flip && flips.word(progress.epoch, image) & 1 == 1 {
                    x1.chunks_exact_mut(data.width).for_each(<[f32]>::reverse);
                }
                noise.fill_normal(first + i as u64, 0, x0);
            },
        );
        let times = Domain::Time.stream(config.seed);
        let kind = Trainer::times(config);
        let t: Vec<f32> = (first..).take(n).map(|example| kind.draw(times, example)).collect();
        let label = if data.labels.is_empty() || Trainer::drops_labels(config, progress) {
            None
        } else {
            let labels = indices.iter().map(|&i| data.labels[i as usize]).collect();
            Some(Tensor::from_vec(labels, n, device)?)
        };
        let shape = (n, data.channels, data.height, data.width);
        Ok(Self {
            x1: Tensor::from_vec(x1, shape, device)?,
            x0: Tensor::from_vec(x0, shape, device)?,
            t: Tensor::from_vec(t, n, device)?,
            label,
        })
    }
}
