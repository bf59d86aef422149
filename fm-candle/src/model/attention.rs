//! Self-attention over pixels (upstream's `AttentionBlock`, both channel orders).

use candle_core::Tensor;
use quant_core::net::UNetConfig;

use super::blocks::{Convolution, GroupNormAct};
use super::config;
use super::weight_loader::{Init, WeightLoader};
use crate::error::Result;
use crate::ops::{Activation, QkvOrder, attention};

/// `x + proj(attention(qkv(norm(x))))`.
pub(super) struct AttentionBlock {
    norm: GroupNormAct,
    qkv: Convolution,
    proj_out: Convolution,
    heads: usize,
    order: QkvOrder,
}

impl AttentionBlock {
    /// # Shapes: `qkv.weight: [3c, c, 1]`, `proj_out.weight: [c, c, 1]`, the latter zero at first
    pub(super) fn new(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        channels: usize,
        decoder: bool,
        config: &UNetConfig,
    ) -> Result<Self> {
        let heads = config.heads(channels, decoder).map_err(config::fault)?;
        let fan = Init::Uniform { fan_in: channels };
        Ok(Self {
            norm: GroupNormAct::new(weights, &format!("{prefix}.norm"), channels)?,
            qkv: Convolution::with_init(
                weights,
                &format!("{prefix}.qkv"),
                &[3 * channels, channels, 1],
                fan,
            )?,
            proj_out: Convolution::with_init(
                weights,
                &format!("{prefix}.proj_out"),
                &[channels, channels, 1],
                Init::Zeros,
            )?,
            heads,
            order: if config.use_new_attention_order { QkvOrder::Parts } else { QkvOrder::Heads },
        })
    }

    /// # Shapes: `x: [n, h, w, c]`, result the same
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(x, Activation::Identity)?)?;
        let mixed = attention(&qkv.flatten(1, 2)?, self.heads, self.order)?;
        self.proj_out.forward_add(&mixed.reshape(x.shape())?, x)
    }
}
