//! The net's configuration: upstream's fields, the presets, and the form kept in packed files.

use quant_core::net::NetConfig;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;

/// All that defines a U-Net, with the field names and defaults of upstream's `UNetModel`
/// (`facebookresearch/flow_matching`, `examples/image/models/unet.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "upstream's fields, one to one")]
pub struct UNetConfig {
    /// Channels of the images, and of what is concatenated to them.
    pub in_channels: usize,
    /// Width of the first level; the time embedding has four times as many values.
    pub model_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Residual blocks per level (one more on the way up).
    pub num_res_blocks: usize,
    /// Downsampling rates at which attention follows each residual block.
    pub attention_resolutions: Vec<usize>,
    /// Dropout probability in residual blocks, in training only.
    pub dropout: f64,
    /// Width of each level in units of `model_channels`; may be fractional.
    pub channel_mult: Vec<f64>,
    /// Convolutions, not averages and copies alone, change the resolution.
    pub conv_resample: bool,
    /// Spatial dimensions: 2.
    pub dims: usize,
    /// Classes of a conditional net; one more label means "none".
    pub num_classes: Option<usize>,
    /// Recompute activations in the backward pass (accepted for compatibility).
    pub use_checkpoint: bool,
    /// Attention heads, unless `num_head_channels` is set.
    pub num_heads: usize,
    /// Channels per attention head; -1 to use `num_heads`.
    pub num_head_channels: i64,
    /// Attention heads on the way up; -1 for `num_heads`.
    pub num_heads_upsample: i64,
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
    pub image_size: i64,
    /// The name of a class, which upstream keeps among the fields; ignored.
    #[serde(rename = "_target_", skip_serializing)]
    pub target: IgnoredAny,
    /// Side of the patches of the image that are one pixel of the net, whose first and last
    /// convolutions have `patch^2` times the image's channels; ours, upstream has none (1).
    #[serde(skip_serializing_if = "is_one")]
    pub patch: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(patch: &usize) -> bool {
    *patch == 1
}

impl Default for UNetConfig {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            in_channels: 3,
            model_channels: 128,
            out_channels: 3,
            num_res_blocks: 2,
            attention_resolutions: vec![1, 2, 2, 2],
            dropout: 0.0,
            channel_mult: vec![1.0, 2.0, 4.0, 8.0],
            conv_resample: true,
            dims: 2,
            num_classes: None,
            use_checkpoint: false,
            num_heads: 1,
            num_head_channels: -1,
            num_heads_upsample: -1,
            use_scale_shift_norm: false,
            resblock_updown: false,
            use_new_attention_order: false,
            with_fourier_features: false,
            ignore_time: false,
            input_projection: true,
            image_size: -1,
            target: IgnoredAny,
            patch: 1,
        }
    }
}

impl UNetConfig {
    /// Reads a JSON object with upstream's field names.
    ///
    /// # Errors
    /// A misspelt field (the message lists the right ones) or a configuration that makes no net.
    pub fn from_json(json: &str) -> Result<Self> {
        let fault = |reason: String| Error::Config(format!("net configuration: {reason}"));
        let object = json::object(json).map_err(fault)?;
        let config: Self = serde_json::from_str(object).map_err(|e| fault(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// JSON with upstream's field names.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Refuses configurations that make no net.
    ///
    /// # Errors
    /// The first field at fault, its value, and what would be right.
    pub fn check(&self) -> Result<()> {
        let fault = |what: String| Err(Error::Config(format!("net configuration: {what}")));
        if self.dims != 2 {
            return fault(format!("dims = {}, only 2 is supported", self.dims));
        }
        if self.channel_mult.is_empty() {
            return fault("channel_mult must have entries".into());
        }
        for (field, value, range) in [
            ("in_channels", self.in_channels, 1..=MOST_CHANNELS),
            ("out_channels", self.out_channels, 1..=MOST_CHANNELS),
            ("model_channels", self.model_channels, 1..=MOST_CHANNELS),
            ("num_res_blocks", self.num_res_blocks, 0..=64),
            ("num_classes", self.num_classes.unwrap_or(1), 1..=MOST_CLASSES),
            ("patch", self.patch, 1..=MOST_PATCH),
        ] {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return fault(format!("{field} = {value} must lie in {least} to {most}"));
            }
        }
        if !(-1..=MOST_PIXELS).contains(&self.image_size) || self.image_size == 0 {
            let size = self.image_size;
            return fault(format!(
                "image_size = {size} must be -1 (unknown) or 1 to {MOST_PIXELS}"
            ));
        }
        for &mult in &self.channel_mult {
            let channels = self.channels(mult);
            if channels > MOST_CHANNELS || channels == 0 || !channels.is_multiple_of(GROUPS) {
                return fault(format!(
                    "channel_mult {mult} times model_channels {} gives {channels} channels, which \
                     GroupNorm({GROUPS}) cannot divide",
                    self.model_channels
                ));
            }
        }
        if self.patch > 1 && self.with_fourier_features {
            return fault(format!(
                "patch = {} and with_fourier_features exclude each other",
                self.patch
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault(format!("dropout = {} must lie in [0, 1)", self.dropout));
        }
        if self.num_heads == 0 {
            return fault("num_heads must not be 0".into());
        }
        for (field, value) in [
            ("num_head_channels", self.num_head_channels),
            ("num_heads_upsample", self.num_heads_upsample),
        ] {
            if value == 0 || value < -1 {
                return fault(format!("{field} = {value} must be -1 (unset) or above 0"));
            }
        }
        if self.channel_mult.len() > 8 || self.attention_resolutions.len() > 8 {
            return fault("at most 8 entries in channel_mult and attention_resolutions".into());
        }
        Ok(())
    }

    /// Channels of a level.
    pub(crate) fn channels(&self, mult: f64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "upstream's int(mult * model_channels); checked to be positive"
        )]
        let channels = (mult * self.model_channels as f64) as usize;
        channels
    }

    /// Length of the time embedding.
    pub(crate) fn embedding(&self) -> usize {
        4 * self.model_channels
    }

    /// Channels of what enters the first block: the image's, as patches, its Fourier features
    /// (upstream counts on three channels of images) and what is concatenated.
    pub(crate) fn input_channels(&self) -> usize {
        let fourier = if self.with_fourier_features { 12 } else { 0 };
        if self.input_projection {
            self.in_channels * self.patch * self.patch + fourier
        } else {
            self.channels(self.channel_mult[0])
        }
    }

    /// Side of the images, where known.
    pub fn side(&self) -> Option<usize> {
        usize::try_from(self.image_size).ok().filter(|&side| side > 0)
    }

    /// The form that a packed file keeps.
    ///
    /// # Errors
    /// A value beyond the packed form's range.
    pub fn to_packed(&self) -> Result<NetConfig> {
        self.check()?;
        let narrow = |v: usize| {
            u32::try_from(v)
                .map_err(|_| Error::Config(format!("net configuration: {v} is out of range")))
        };
        let optional = |v: i64| u32::try_from(v).ok().filter(|&v| v > 0);
        #[expect(clippy::cast_possible_truncation, reason = "a probability")]
        let single = |v: f64| v as f32;
        Ok(NetConfig {
            in_channels: narrow(self.in_channels)?,
            model_channels: narrow(self.model_channels)?,
            out_channels: narrow(self.out_channels)?,
            num_res_blocks: narrow(self.num_res_blocks)?,
            // Both lists have at most 8 entries, which is their capacity: checked above.
            attention_resolutions: self
                .attention_resolutions
                .iter()
                .map(|&rate| narrow(rate))
                .collect::<Result<_>>()?,
            dropout: single(self.dropout),
            channel_mult: self.channel_mult.iter().copied().collect(),
            conv_resample: self.conv_resample,
            num_classes: self.num_classes.map(narrow).transpose()?,
            num_heads: narrow(self.num_heads)?,
            num_head_channels: optional(self.num_head_channels),
            num_heads_upsample: optional(self.num_heads_upsample),
            use_scale_shift_norm: self.use_scale_shift_norm,
            resblock_updown: self.resblock_updown,
            use_new_attention_order: self.use_new_attention_order,
            with_fourier_features: self.with_fourier_features,
            ignore_time: self.ignore_time,
            input_projection: self.input_projection,
            image_size: optional(self.image_size),
            patch: Some(narrow(self.patch)?).filter(|&patch| patch > 1),
        })
    }

    /// The configuration that a packed file keeps.
    ///
    /// # Errors
    /// A configuration that makes no net.
    pub fn from_packed(packed: &NetConfig) -> Result<Self> {
        let wide = |v: u32| v as usize;
        let signed = |v: Option<u32>| v.map_or(-1, i64::from);
        let config = Self {
            in_channels: wide(packed.in_channels),
            model_channels: wide(packed.model_channels),
            out_channels: wide(packed.out_channels),
            num_res_blocks: wide(packed.num_res_blocks),
            attention_resolutions: packed.attention_resolutions.iter().map(|&v| wide(v)).collect(),
            dropout: f64::from(packed.dropout),
            channel_mult: packed.channel_mult.iter().copied().collect(),
            conv_resample: packed.conv_resample,
            dims: 2,
            num_classes: packed.num_classes.map(wide),
            use_checkpoint: false,
            num_heads: wide(packed.num_heads),
            num_head_channels: signed(packed.num_head_channels),
            num_heads_upsample: signed(packed.num_heads_upsample),
            use_scale_shift_norm: packed.use_scale_shift_norm,
            resblock_updown: packed.resblock_updown,
            use_new_attention_order: packed.use_new_attention_order,
            with_fourier_features: packed.with_fourier_features,
            ignore_time: packed.ignore_time,
            input_projection: packed.input_projection,
            image_size: signed(packed.image_size),
            target: IgnoredAny,
            patch: packed.patch.map_or(1, wide),
        };
        config.check()?;
        Ok(config)
    }
}

/// Groups of every GroupNorm in the net.
pub(crate) const GROUPS: usize = 32;
/// Bounds that no net comes near; beyond them a configuration is a mistake or an attack.
const MOST_CHANNELS: usize = 1 << 14;
const MOST_CLASSES: usize = 1 << 20;
const MOST_PIXELS: i64 = 1 << 14;
const MOST_PATCH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UNet;

    #[test]
    fn presets_are_valid_and_survive_both_stored_forms() {
        for name in UNetConfig::PRESETS {
            let config = UNetConfig::preset(name).unwrap();
            assert_eq!(UNetConfig::from_json(&config.to_json()).unwrap(), config);
            let packed = UNetConfig::from_packed(&config.to_packed().unwrap()).unwrap();
            assert_eq!(packed, UNetConfig { dropout: f64::from(config.dropout as f32), ..config });
        }
    }

    #[test]
    fn the_packed_form_has_the_same_parameters() {
        let odd = UNetConfig {
            channel_mult: vec![0.7, 1.4],
            model_channels: 320,
            attention_resolutions: vec![1],
            ignore_time: true,
            with_fourier_features: true,
            ..UNetConfig::default()
        };
        let bare = UNetConfig { num_res_blocks: 0, ..UNetConfig::default() };
        let presets = UNetConfig::PRESETS.map(|name| UNetConfig::preset(name).unwrap());
        for config in presets.into_iter().chain([odd, bare]) {
            let mut shapes = Vec::new();
            let mut keep = |shape: &[u64]| {
                shapes.push(shape.iter().map(|&dim| dim as usize).collect::<Vec<_>>());
                Ok(())
            };
            config.to_packed().unwrap().parameters(&mut keep).unwrap();
            let expected: Vec<_> =
                UNet::shapes(&config).unwrap().into_iter().map(|(_, shape)| shape).collect();
            assert_eq!(shapes, expected, "{}", config.to_json());
        }
    }

    #[test]
    fn a_misspelt_field_is_named_with_the_right_ones() {
        let error = UNetConfig::from_json(r#"{"chanel_mult": [1]}"#).unwrap_err().to_string();
        assert!(error.contains("chanel_mult") && error.contains("channel_mult"), "{error}");
    }

    #[test]
    fn a_list_is_no_net_and_a_byte_order_mark_no_fault() {
        for list in ["[]", "[1, 32, 1]"] {
            let error = UNetConfig::from_json(list).unwrap_err().to_string();
            assert_eq!(error, "net configuration: found a list, a JSON object is due");
        }
        let config = UNetConfig::from_json("\u{feff}{\"num_heads\": 2}").unwrap();
        assert_eq!(config, UNetConfig { num_heads: 2, ..UNetConfig::default() });
    }

    #[test]
    fn upstreams_own_name_of_its_class_is_ignored() {
        let config = UNetConfig::from_json(r#"{"_target_": "lib.X", "num_heads": 2}"#).unwrap();
        assert_eq!(config, UNetConfig { num_heads: 2, ..UNetConfig::default() });
        assert!(!config.to_json().contains("_target_"));
    }

    #[test]
    fn heads_below_zero_are_refused() {
        for field in ["num_head_channels", "num_heads_upsample"] {
            let error = UNetConfig::from_json(&format!(r#"{{"{field}": -2}}"#)).unwrap_err();
            assert!(error.to_string().contains(&format!("{field} = -2 must be -1")), "{error}");
        }
    }

    #[test]
    fn widths_that_group_norm_cannot_divide_are_refused() {
        let config = UNetConfig { model_channels: 40, ..UNetConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("GroupNorm(32)"));
    }
}
