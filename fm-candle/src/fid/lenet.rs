//! A small classifier of 28 x 28 grey images whose inner features compare sets of digits.
//!
//! ```text
//! x [n, 1, 28, 28]  conv 5x5, padding 2  [12, 28, 28]  relu, 2x2 average  [12, 14, 14]
//!                   conv 5x5             [24, 10, 10]  relu, 2x2 average  [24, 5, 5]
//!                   linear               [120]         silu
//!                   linear               [84]          <- the features; silu
//!                   linear               [10]          <- the logits
//! ```
//! Pixels enter as `pixel / 255`, in `[0, 1]`. Of three channels the first is taken: grey images
//! that some tools store as RGB. The features are those before their silu, where a Gaussian fits
//! them better. The linear layers have silu because half of 120 relus die in training, which leaves
//! the 84 features on fewer dimensions.
//!
//! After Y. `LeCun` et al., "Gradient-based learning applied to document recognition", 1998
//! (LeNet-5), with relu and silu for tanh and twice the channels in the convolutions.

mod train;

use core::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::feature_net::FeatureNet;
use super::statistics::Statistics;
use crate::checkpoint;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::model::{Init, StateDict, WeightLoader};
use crate::ops::{conv2d, downsample2};

pub use train::{LeNetTraining, train};

/// Number of features.
pub const DIM: usize = 84;
/// Number of classes.
pub const CLASSES: usize = 10;
/// Rows and columns of an image.
pub const SIDE: usize = 28;

/// Images evaluated at once: enough for the GEMM, few enough for the caches.
const BATCH: usize = 64;

/// A convolution or linear layer.
struct LenetLayer {
    weight: Tensor,
    bias: Tensor,
}

impl LenetLayer {
    fn new(weights: &mut dyn WeightLoader, name: &str, shape: &[usize]) -> Result<Self> {
        let init = Init::Uniform { fan_in: shape[1..].iter().product() };
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), shape, init)?,
            bias: weights.take(&format!("{name}.bias"), &shape[..1], init)?,
        })
    }

    fn conv(&self, x: &Tensor, padding: usize) -> Result<Tensor> {
        let y = conv2d(x, &self.weight, &self.bias, 1, padding)?.relu()?;
        Ok(downsample2(&y)?)
    }

    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// The classifier; see the module for its layers.
pub struct LeNet {
    conv1: LenetLayer,
    conv2: LenetLayer,
    fc1: LenetLayer,
    fc2: LenetLayer,
    fc3: LenetLayer,
    device: Device,
}

impl LeNet {
    /// The net with parameters from `weights`, which live on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing or has another shape.
    pub fn new(weights: &mut dyn WeightLoader, device: &Device) -> Result<Self> {
        Ok(Self {
            conv1: LenetLayer::new(weights, "conv1", &[12, 1, 5, 5])?,
            conv2: LenetLayer::new(weights, "conv2", &[24, 12, 5, 5])?,
            fc1: LenetLayer::new(weights, "fc1", &[120, 600])?,
            fc2: LenetLayer::new(weights, "fc2", &[DIM, 120])?,
            fc3: LenetLayer::new(weights, "fc3", &[CLASSES, DIM])?,
            device: device.clone(),
        })
    }

    /// The net of a state dict, to be evaluated on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing, misshapen or unknown.
    pub fn load(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: &Device,
    ) -> Result<Self> {
        let mut stored = StateDict::new(tensors, device);
        let net = Self::new(&mut stored, device)?;
        stored.finish()?;
        Ok(net)
    }

    /// The net of a safetensors file in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] when the bytes are no safetensors file; those of [`LeNet::load`].
    pub fn decode(bytes: &[u8], device: &Device) -> Result<Self> {
        Self::load(checkpoint::safetensors::decode(bytes)?, device)
    }

    /// The features of images.
    ///
    /// # Shapes: `x: [n, 1, 28, 28]` in `[0, 1]`, result `[n, 84]`
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for another shape.
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 4 || x.dims()[1..] != [1, SIDE, SIDE] {
            let dims = x.dims();
            return Err(Error::tensor("x", format!("shape {dims:?} is not [n, 1, 28, 28]")));
        }
        // One channel lies alike in both orders.
        let x = self.conv1.conv(&x.reshape((x.dim(0)?, SIDE, SIDE, 1))?, 2)?;
        let x = self.conv2.conv(&x, 0)?.permute((0, 3, 1, 2))?;
        let x = self.fc1.linear(&x.flatten_from(1)?)?.silu()?;
        self.fc2.linear(&x)
    }

    /// The unnormalized log-probabilities of the ten classes.
    ///
    /// # Shapes: `x: [n, 1, 28, 28]` in `[0, 1]`, result `[n, 10]`
    ///
    /// # Errors
    ///
    /// As [`LeNet::features`].
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.classes(&self.features(x)?)
    }

    /// The logits of images with these features.
    fn classes(&self, features: &Tensor) -> Result<Tensor> {
        self.fc3.linear(&features.silu()?)
    }

    /// The statistics of the features of 8-bit images.
    ///
    /// # Errors
    ///
    /// As [`FeatureNet::rows`]; [`Error::Config`] with fewer than two images.
    pub fn statistics(&self, images: &Images) -> Result<Statistics> {
        Statistics::of_rows(&self.rows(images)?, DIM)
    }

    /// The part of the images, in `[0, 1]`, whose label gets the greatest logit.
    ///
    /// # Errors
    ///
    /// As [`FeatureNet::rows`]; [`Error::Config`] without images or labels.
    pub fn accuracy(&self, images: &Images) -> Result<f64> {
        if images.n == 0 || images.labels.len() != images.n {
            return Err(Error::Config("accuracy needs labelled images".into()));
        }
        let logits = self.rows_of(images, Self::logits)?;
        let right = |(row, &label): (&[f32], &u32)| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.is_some_and(|(class, _)| class == label as usize)
        };
        let hits = logits.chunks_exact(CLASSES).zip(&images.labels).filter(|&x| right(x)).count();
        Ok(hits as f64 / images.n as f64)
    }

    /// The results of `f` for the images, computed in batches, in their order.
    fn rows_of(
        &self,
        images: &Images,
        f: impl Fn(&Self, &Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Vec<f32>> {
        check(images)?;
        let batches: Vec<Vec<f32>> = (0..images.n.div_ceil(BATCH))
            .into_par_iter()
            .map(|batch| {
                let range = batch * BATCH..(batch * BATCH + BATCH).min(images.n);
                let rows = f(self, &input(images, range, &self.device)?)?;
                Ok(rows.flatten_all()?.to_vec1()?)
            })
            .collect::<Result<_>>()?;
        Ok(batches.concat())
    }
}

impl FeatureNet for LeNet {
    fn dim(&self) -> usize {
        DIM
    }

    /// For images that are 28 x 28 with 1 or 3 channels.
    fn rows(&self, images: &Images) -> Result<Vec<f32>> {
        self.rows_of(images, Self::features)
    }

    /// The logits of the ten classes.
    fn logits(&self, rows: &[f32]) -> Result<(Vec<f32>, usize)> {
        let features = Tensor::from_slice(rows, (rows.len() / DIM, DIM), &self.device)?;
        Ok((self.classes(&features)?.flatten_all()?.to_vec1()?, CLASSES))
    }
}

/// Refuses images that the net cannot take.
fn check(images: &Images) -> Result<()> {
    let Images { channels, height, width, .. } = *images;
    if (height, width) != (SIDE, SIDE) || !matches!(channels, 1 | 3) {
        return Err(Error::Config(format!(
            "LeNet takes images of 28 x 28 with 1 or 3 channels, not {height} x {width} with \
             {channels}"
        )));
    }
    Ok(())
}

/// The first channel of some images as the net takes them.
fn input(images: &Images, range: Range<usize>, device: &Device) -> Result<Tensor> {
    let n = range.len();
    let pixels = range.flat_map(|i| &images.image(i)[..SIDE * SIDE]);
    let values: Vec<f32> = pixels.map(|&pixel| f32::from(pixel) / 255.0).collect();
    Ok(Tensor::from_vec(values, (n, 1, SIDE, SIDE), device)?)
}

#[cfg(test)]
mod tests;
