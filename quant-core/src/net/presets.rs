//! Configurations by name.

use core::fmt;

use super::config::UNetConfig;
use heapless::Vec;

impl UNetConfig {
    /// Names that [`preset`](Self::preset) knows.
    pub const PRESETS: [&'static str; 8] = [
        "imagenet",
        "celeba",
        "cifar10",
        "fashionmnist",
        "mnist",
        "mnist-small",
        "fashion-small",
        "mnist-micro",
    ];

    /// A named configuration: upstream's for its data sets, the paper's for the digits, ours for
    /// `mnist-small`, `fashion-small` (the same net) and, for microcontrollers, `mnist-micro`.
    ///
    /// # Errors
    /// Another name.
    pub fn preset(name: &str) -> Result<Self, UnknownNet> {
        let upstream = Self {
            dropout: 0.3,
            num_res_blocks: 4,
            attention_resolutions: [2].into(),
            channel_mult: [2.0, 2.0, 2.0].into(),
            conv_resample: false,
            use_scale_shift_norm: true,
            use_new_attention_order: true,
            image_size: Some(32),
            ..Self::default()
        };
        let digits =
            Self { in_channels: 1, out_channels: 1, image_size: Some(28), ..upstream.clone() };
        Ok(match name {
            "imagenet" | "celeba" => Self {
                model_channels: 192,
                num_res_blocks: 3,
                attention_resolutions: [2, 4, 8].into(),
                dropout: 0.1,
                channel_mult: [1.0, 2.0, 3.0, 4.0].into(),
                conv_resample: true,
                num_classes: Some(1000),
                num_heads: 4,
                num_head_channels: Some(64),
                resblock_updown: true,
                image_size: Some(64),
                ..upstream
            },
            "cifar10" => upstream,
            "mnist" | "fashionmnist" => digits,
            "mnist-small" | "fashion-small" => Self {
                model_channels: 32,
                num_res_blocks: 1,
                attention_resolutions: [4].into(),
                dropout: 0.0,
                channel_mult: [1.0, 1.0, 2.0].into(),
                num_classes: Some(10),
                ..digits
            },
            "mnist-micro" => Self {
                model_channels: 32,
                num_res_blocks: 1,
                attention_resolutions: Vec::new(),
                dropout: 0.0,
                channel_mult: [1.0, 1.0].into(),
                num_classes: Some(10),
                patch: 2,
                ..digits
            },
            _ => return Err(UnknownNet),
        })
    }
}

/// A name that is no preset of a net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownNet;

impl fmt::Display for UnknownNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown net: must be one of")?;
        UNetConfig::PRESETS
            .iter()
            .enumerate()
            .try_for_each(|(i, name)| write!(f, "{} {name}", if i == 0 { "" } else { "," }))
    }
}

impl core::error::Error for UnknownNet {}
