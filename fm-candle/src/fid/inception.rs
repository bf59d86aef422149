//! Inception v3 as FID takes it: TensorFlow's net of 2015-12-05, in the layout of its ports to torch.
//!
//! ```text
//! x [n, 299, 299, 3]  1a 3x3/2, 2a 3x3, 2b 3x3, max 3x3/2   [73, 73, 64]     mean -> 64
//!                     3b 1x1, 4a 3x3, max 3x3/2             [35, 35, 192]    mean -> 192
//!                     5b 5c 5d (a)                          [35, 35, 288]
//!                     6a (b), 6b 6c 6d 6e (c)               [17, 17, 768]    mean -> 768
//!                     7a (d), 7b 7c (e)                     [8, 8, 2048]     mean -> 2048
//!                     linear                                                 logits, 1008
//! ```
//! Every convolution is followed by a batch norm (epsilon 0.001), which is multiplied into it when
//! the net is built, and by a relu. A mixed block joins the channels of its branches; the average
//! pool of one branch leaves the padding out of its means, and in 7c it is a maximum, as TensorFlow
//! had it.
//!
//! After C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016; what is
//! FID's own in it from `feature_extractor_inceptionv3.py` of torch-fidelity and `inception.py` of
//! pytorch-fid, whose weight files have the same names.

mod blocks;

use candle_core::{Device, Tensor};

use super::feature_net::FeatureNet;
use super::resize::Resize;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::model::{Init, StateDict, WeightLoader};
use crate::ops::max_pool3;

use blocks::{BranchPool, ConvBnRelu, Mixed, chain, means, same, strided};

/// Images evaluated at once: enough for the products, few enough for memory (0.3 GB).
const BATCH: usize = 16;
/// Number of classes, 8 of them unused.
const CLASSES: usize = 1008;

/// The layer from which features are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FeatureLayer {
    /// The means of the 64 maps after the first maximum.
    D64,
    /// The means of the 192 maps after the second maximum.
    D192,
    /// The means of the 768 maps before block 7a.
    D768,
    /// The means of the last 2048 maps.
    #[default]
    D2048,
    /// The classes' logits without the bias, as the inception score takes them.
    LogitsUnbiased,
    /// The classes' logits.
    Logits,
}

impl FeatureLayer {
    /// Number of features.
    pub const fn dim(self) -> usize {
        match self {
            Self::D64 => 64,
            Self::D192 => 192,
            Self::D768 => 768,
            Self::D2048 => 2048,
            Self::LogitsUnbiased | Self::Logits => CLASSES,
        }
    }
}

/// The net; see the module for its layers.
pub struct Inception {
    stem: [ConvBnRelu; 3],
    middle: [ConvBnRelu; 2],
    mixed5: [Mixed; 3],
    mixed6: [Mixed; 5],
    mixed7: [Mixed; 3],
    weight: Tensor,
    bias: Tensor,
    device: Device,
}

impl Inception {
    /// The net with parameters from `weights`, which live on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing, has another shape, or is a variance below 0.
    pub fn new(weights: &mut dyn WeightLoader, device: &Device) -> Result<Self> {
        let mut conv = |name, c, spec| ConvBnRelu::new(&mut *weights, name, c, &spec);
        let stem = [
            conv("Conv2d_1a_3x3", 3, strided("", 32))?,
            conv("Conv2d_2a_3x3", 32, same("", 32, 3, 3).inside())?,
            conv("Conv2d_2b_3x3", 32, same("", 64, 3, 3))?,
        ];
        let middle = [
            conv("Conv2d_3b_1x1", 64, same("", 80, 1, 1))?,
            conv("Conv2d_4a_3x3", 80, same("", 192, 3, 3).inside())?,
        ];
        Ok(Self {
            stem,
            middle,
            mixed5: [
                Mixed::a(weights, "Mixed_5b", 192, 32)?,
                Mixed::a(weights, "Mixed_5c", 256, 64)?,
                Mixed::a(weights, "Mixed_5d", 288, 64)?,
            ],
            mixed6: [
                Mixed::b(weights, "Mixed_6a", 288)?,
                Mixed::c(weights, "Mixed_6b", 128)?,
                Mixed::c(weights, "Mixed_6c", 160)?,
                Mixed::c(weights, "Mixed_6d", 160)?,
                Mixed::c(weights, "Mixed_6e", 192)?,
            ],
            mixed7: [
                Mixed::d(weights, "Mixed_7a", 768)?,
                Mixed::e(weights, "Mixed_7b", 1280, BranchPool::Mean)?,
                Mixed::e(weights, "Mixed_7c", 2048, BranchPool::Max)?,
            ],
            weight: weights.take("fc.weight", &[CLASSES, 2048], Init::Uniform { fan_in: 2048 })?,
            bias: weights.take("fc.bias", &[CLASSES], Init::Zeros)?,
            device: device.clone(),
        })
    }

    /// The net of a state dict, to be evaluated on `device`; the counters of its batch norms, which
    /// old files lack, are left aside.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing, misshapen or unknown.
    pub fn load(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: &Device,
    ) -> Result<Self> {
        let is_weight = |(name, _): &(String, Tensor)| !name.ends_with(".num_batches_tracked");
        let mut stored = StateDict::new(tensors.into_iter().filter(is_weight), device);
        let net = Self::new(&mut stored, device)?;
        stored.finish()?;
        Ok(net)
    }

    /// The features of images.
    ///
    /// # Shapes: `x: [n, 299, 299, 3]` as [`Resize::input`] gives it, result `[n, layer.dim()]`
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] for another shape.
    pub fn features(&self, x: &Tensor, layer: FeatureLayer) -> Result<Tensor> {
        let mut x = max_pool3(&chain(&self.stem, x)?, 2, 0)?;
        if layer == FeatureLayer::D64 {
            return means(&x);
        }
        x = max_pool3(&chain(&self.middle, &x)?, 2, 0)?;
        if layer == FeatureLayer::D192 {
            return means(&x);
        }
        for block in self.mixed5.iter().chain(&self.mixed6) {
            x = block.forward(&x)?;
        }
        if layer == FeatureLayer::D768 {
            return means(&x);
        }
        for block in &self.mixed7 {
            x = block.forward(&x)?;
        }
        let features = means(&x)?;
        if layer == FeatureLayer::D2048 {
            return Ok(features);
        }
        let logits = self.logits_unbiased(&features)?;
        if layer == FeatureLayer::LogitsUnbiased {
            return Ok(logits);
        }
        Ok(logits.broadcast_add(&self.bias)?)
    }

    /// The classes' logits without the bias.
    ///
    /// # Shapes: `features: [n, 2048]`, result `[n, 1008]`
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] for another shape.
    pub fn logits_unbiased(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features.matmul(&self.weight.t()?)?)
    }
}

/// The net with what is done before it and what is taken from it.
pub struct Extractor {
    /// The net.
    pub net: Inception,
    /// The filter that resizes images to the net's input.
    pub resize: Resize,
    /// The layer from which features are taken.
    pub layer: FeatureLayer,
}

impl FeatureNet for Extractor {
    fn dim(&self) -> usize {
        self.layer.dim()
    }

    fn rows(&self, images: &Images) -> Result<Vec<f32>> {
        let Images { channels, height, width, .. } = *images;
        let mut rows = Vec::with_capacity(images.n * self.dim());
        for batch in images.pixels.chunks((BATCH * images.image_len()).max(1)) {
            let x = self.resize.input(batch, [channels, height, width], &self.net.device)?;
            let features = self.net.features(&x, self.layer)?;
            rows.extend(features.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(rows)
    }

    /// The logits without the bias, from the last 2048 features.
    fn logits(&self, rows: &[f32]) -> Result<(Vec<f32>, usize)> {
        if self.layer != FeatureLayer::D2048 {
            return Err(Error::Config(format!(
                "the inception score needs the last 2048 features, not {}",
                self.dim()
            )));
        }
        let shape = (rows.len() / self.dim(), self.dim());
        let features = Tensor::from_slice(rows, shape, &self.net.device)?;
        Ok((self.net.logits_unbiased(&features)?.flatten_all()?.to_vec1()?, CLASSES))
    }
}
