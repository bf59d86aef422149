//! Self-attention over pixels (upstream's `AttentionBlock`, both channel orders).

use candle_core::{D, DType, Tensor};
use candle_nn::ops::softmax;

use super::blocks::{Conv, Norm};
use super::config::UNetConfig;
use super::weights::{Init, Weights};
use crate::error::{Error, Result};
use crate::ops::Activation;

/// `x + proj(attention(qkv(norm(x))))`.
pub(super) struct Attention {
    norm: Norm,
    qkv: Conv,
    proj_out: Conv,
    heads: usize,
    new_order: bool,
}

impl Attention {
    /// # Shapes: `qkv.weight: [3c, c, 1]`, `proj_out.weight: [c, c, 1]`, the latter zero at first
    pub(super) fn new(
        weights: &mut dyn Weights,
        prefix: &str,
        channels: usize,
        heads: usize,
        config: &UNetConfig,
    ) -> Result<Self> {
        let heads = match usize::try_from(config.num_head_channels) {
            Ok(width) if !channels.is_multiple_of(width) => {
                return Err(Error::Config(format!(
                    "net configuration: {channels} channels cannot be cut into heads of \
                     num_head_channels = {width}"
                )));
            }
            Ok(width) => channels / width,
            Err(_) if !channels.is_multiple_of(heads) => {
                return Err(Error::Config(format!(
                    "net configuration: {channels} channels cannot be cut into {heads} heads"
                )));
            }
            Err(_) => heads,
        };
        let fan = Init::Uniform { fan_in: channels };
        Ok(Self {
            norm: Norm::new(weights, &format!("{prefix}.norm"), channels)?,
            qkv: Conv::pointwise_1d(
                weights,
                &format!("{prefix}.qkv"),
                channels,
                3 * channels,
                fan,
            )?,
            proj_out: Conv::pointwise_1d(
                weights,
                &format!("{prefix}.proj_out"),
                channels,
                channels,
                Init::Zeros,
            )?,
            heads,
            new_order: config.use_new_attention_order,
        })
    }

    /// # Shapes: `x: [n, c, h, w]`, result the same
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let (heads, width, pixels) = (self.heads, c / self.heads, h * w);
        let qkv = self.qkv.forward(&self.norm.forward(x, Activation::Identity)?)?;
        let (first, second) = if self.new_order { (3, heads) } else { (heads, 3) };
        let qkv = qkv.reshape((n, first, second, width, pixels))?;
        let pick = |i: usize| -> Result<Tensor> {
            let part = qkv.narrow(if self.new_order { 1 } else { 2 }, i, 1)?;
            Ok(part.contiguous()?.reshape((n * heads, width, pixels))?)
        };
        let scale = (width as f64).powf(-0.25);
        let q = (pick(0)? * scale)?.t()?.contiguous()?;
        let k = (pick(1)? * scale)?;
        // [n heads, query pixel, key pixel]
        let scores = q.matmul(&k)?;
        let attention = softmax(&scores.to_dtype(DType::F32)?, D::Minus1)?;
        let attention = attention.to_dtype(scores.dtype())?.t()?.contiguous()?;
        let mixed = pick(2)?.matmul(&attention)?.reshape((n, c, h, w))?;
        Ok((x + self.proj_out.forward(&mixed)?)?)
    }
}
