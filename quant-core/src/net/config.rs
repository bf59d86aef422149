//! The configuration of a U-Net: upstream's fields, their defaults and bounds, and the widths that follow.

use super::MAX_LEVELS;
use crate::error::check_range;
use crate::error::{Error, Result, check_count};
use crate::num::{self, f32_of, f64_of};
use heapless::Vec;

#[cfg(feature = "serde")]
use super::json;

/// The groups of every norm of the net.
pub const GROUPS: usize = 32;

const MOST_CHANNELS: usize = 1 << 16;
const MOST_CLASSES: usize = 1 << 24;
const MOST_PIXELS: usize = 1 << 16;
const MOST_RES_BLOCKS: usize = 64;
const MOST_MULT: f64 = 1024.0;
const MOST_PATCH: usize = 16;

/// All that defines a U-Net, with the field names and defaults of upstream's `UNetModel`
/// (`facebookresearch/flow_matching`, `examples/image/models/unet.py`).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[expect(clippy::struct_excessive_bools, reason = "upstream's fields, one to one")]
pub struct UNetConfig {
    /// Channels of the images, and of what is concatenated to them.
    pub in_channels: usize,
    /// Width of the first level; the embedding has four times as many values.
    pub model_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Residual blocks per level (one more in the decoder).
    pub num_res_blocks: usize,
    /// Downsampling rates at which attention follows each residual block.
    #[cfg_attr(
        feature = "serde",
        serde(deserialize_with = "json::attention_resolutions::deserialize")
    )]
    pub attention_resolutions: Vec<usize, MAX_LEVELS>,
    /// Dropout probability in residual blocks, in training only; below 1.
    pub dropout: f64,
    /// Width of each level in units of `model_channels`; may be fractional.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "json::channel_mult::deserialize"))]
    pub channel_mult: Vec<f64, MAX_LEVELS>,
    /// Convolutions, not averages and copies alone, change the resolution.
    pub conv_resample: bool,
    /// Spatial dimensions: 2.
    pub dims: Dims,
    /// Classes of a conditional net; one more label means "none".
    pub num_classes: Option<usize>,
    /// Recompute activations in the backward pass (accepted for compatibility).
    pub use_checkpoint: bool,
    /// Attention heads, unless `num_head_channels` is set.
    pub num_heads: usize,
    /// Channels per attention head, `None` to use `num_heads`; -1 in JSON.
    #[cfg_attr(feature = "serde", serde(with = "json::num_head_channels"))]
    pub num_head_channels: Option<usize>,
    /// Attention heads of the decoder, `None` for `num_heads`; -1 in JSON.
    #[cfg_attr(feature = "serde", serde(with = "json::num_heads_upsample"))]
    pub num_heads_upsample: Option<usize>,
    /// The embedding scales and shifts the second norm of a block, instead of being added.
    pub use_scale_shift_norm: bool,
    /// Residual blocks change the resolution.
    pub resblock_updown: bool,
    /// Attention splits q, k, v first and heads second (legacy: heads first).
    pub use_new_attention_order: bool,
    /// Append sines and cosines of the image's values.
    pub with_fourier_features: bool,
    /// Leave the time out.
    pub ignore_time: bool,
    /// Start with a convolution.
    pub input_projection: bool,
    /// Side of the square images that the net was trained on; unknown in upstream's files (-1).
    #[cfg_attr(feature = "serde", serde(with = "json::image_size"))]
    pub image_size: Option<usize>,
    /// The name of a class, which upstream keeps among the fields; ignored.
    #[cfg_attr(feature = "serde", serde(rename = "_target_", skip_serializing))]
    pub target: Ignored,
    /// Side of the patches of the image that are one pixel of the net, whose first and last
    /// convolutions have `patch^2` times the image's channels; ours, upstream has none (1).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "json::is_one"))]
    pub patch: usize,
    /// Values of a projection of the embedding that all residual blocks share, which read it in the
    /// embedding's place; ours, upstream has none. At most the embedding's length.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub embedding_rank: Option<usize>,
}

/// Two spatial dimensions, the only value of upstream's `dims` that is supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dims;

/// Any value, which makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored;

impl Default for UNetConfig {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            in_channels: 3,
            model_channels: 128,
            out_channels: 3,
            num_res_blocks: 2,
            attention_resolutions: [1, 2, 2, 2].into(),
            dropout: 0.0,
            channel_mult: [1.0, 2.0, 4.0, 8.0].into(),
            conv_resample: true,
            dims: Dims,
            num_classes: None,
            use_checkpoint: false,
            num_heads: 1,
            num_head_channels: None,
            num_heads_upsample: None,
            use_scale_shift_norm: false,
            resblock_updown: false,
            use_new_attention_order: false,
            with_fourier_features: false,
            ignore_time: false,
            input_projection: true,
            image_size: None,
            target: Ignored,
            patch: 1,
            embedding_rank: None,
        }
    }
}

impl UNetConfig {
    /// Fails for a field outside its bounds.
    ///
    /// # Errors
    /// [`Error::Range`] or [`Error::Real`] with the first field at fault.
    pub fn check(&self) -> Result<()> {
        let channels = [
            ("in_channels", Some(self.in_channels)),
            ("model_channels", Some(self.model_channels)),
            ("out_channels", Some(self.out_channels)),
            ("num_heads", Some(self.num_heads)),
            ("num_head_channels", self.num_head_channels),
            ("num_heads_upsample", self.num_heads_upsample),
        ];
        let rates = self.attention_resolutions.iter();
        let rates = rates.map(|&rate| ("attention_resolutions", Some(rate)));
        for (what, found) in channels.into_iter().chain(rates) {
            check_count(what, found.unwrap_or(1), 1, MOST_CHANNELS)?;
        }
        check_count("num_res_blocks", self.num_res_blocks, 0, MOST_RES_BLOCKS)?;
        check_count("num_classes", self.num_classes.unwrap_or(1), 1, MOST_CLASSES)?;
        check_count("image_size", self.image_size.unwrap_or(1), 1, MOST_PIXELS)?;
        check_count("length of channel_mult", self.channel_mult.len(), 1, MAX_LEVELS)?;
        check_count("patch", self.patch, 1, MOST_PATCH)?;
        if self.patch > 1 {
            let fourier = u64::from(self.with_fourier_features);
            check_range("with_fourier_features of a net with patches", fourier, 0, 0)?;
        }
        if let Some(rank) = self.embedding_rank {
            let most = if self.embeds_nothing() { 0 } else { self.embedding() };
            check_count("embedding_rank", rank, 1, most)?;
        }
        // As f32, which is what a record keeps.
        if !(0.0..1.0).contains(&f32_of(self.dropout)) {
            return Err(Error::Real { what: "dropout", range: "at least 0, below 1" });
        }
        if !self.channel_mult.iter().all(|&mult| mult > 0.0 && mult <= MOST_MULT) {
            return Err(Error::Real { what: "channel_mult", range: "above 0, at most 1024" });
        }
        Ok(())
    }

    /// Fails unless the groups of the norms divide the channels of every level.
    ///
    /// # Errors
    /// [`Error::Multiple`] with the first width that they do not.
    pub fn check_groups(&self) -> Result<()> {
        let mut widths = (0..self.channel_mult.len()).map(|level| self.width(level));
        match widths.find(|&width| width == 0 || !width.is_multiple_of(GROUPS)) {
            Some(found) => Err(Error::Multiple {
                what: "channel_mult times model_channels",
                found,
                of: GROUPS,
                why: "the groups of GroupNorm(32)",
            }),
            None => Ok(()),
        }
    }

    /// Channels of a level: upstream's `int(mult * model_channels)`.
    pub fn width(&self, level: usize) -> usize {
        let mult = self.channel_mult.get(level).copied().unwrap_or(0.0);
        num::index(num::u32_of_real(mult * f64_of(self.model_channels)))
    }

    /// Length of the embedding of time and label.
    pub const fn embedding(&self) -> usize {
        4 * self.model_channels
    }

    /// Length of what each residual block reads of the embedding.
    pub const fn projected_embedding(&self) -> usize {
        match self.embedding_rank {
            Some(rank) => rank,
            None => self.embedding(),
        }
    }

    /// Returns whether blocks see a constant instead of an embedding: of neither time nor label.
    pub const fn embeds_nothing(&self) -> bool {
        self.ignore_time && self.num_classes.is_none()
    }

    /// Channels of images whose patches are pixels.
    pub(crate) const fn patched(&self, channels: usize) -> usize {
        channels * self.patch * self.patch
    }

    /// Planes of Fourier features: four for each of an image's three channels.
    pub const fn fourier_channels(&self) -> usize {
        if self.with_fourier_features { 12 } else { 0 }
    }

    /// Channels of what enters the first block: the image's, as patches, its Fourier features
    /// (upstream counts on three channels of images) and what is concatenated.
    pub fn input_channels(&self) -> usize {
        if self.input_projection {
            self.patched(self.in_channels) + self.fourier_channels()
        } else {
            self.width(0)
        }
    }

    /// Heads of attention over `channels` channels, in the decoder or before it.
    ///
    /// # Errors
    /// [`Error::Multiple`] where they do not divide the channels.
    pub fn heads(&self, channels: usize, decoder: bool) -> Result<usize> {
        let divided = |of: usize, why| {
            let error = Error::Multiple { what: "channels of attention", found: channels, of, why };
            let quotient = channels.checked_div(of).ok_or(error)?;
            if quotient * of == channels { Ok(quotient) } else { Err(error) }
        };
        if let Some(width) = self.num_head_channels {
            return divided(width, "num_head_channels");
        }
        let (heads, why) = match self.num_heads_upsample {
            Some(heads) if decoder => (heads, "num_heads_upsample"),
            _ => (self.num_heads, "num_heads"),
        };
        divided(heads, why).map(|_| heads)
    }
}
