//! The guided-diffusion U-Net of `facebookresearch/flow_matching`, with its names and its numbers.

mod attention;
mod blocks;
pub mod config;
#[cfg(test)]
pub(crate) mod half_precision;
mod low_rank;
mod masks;
mod recompute;
mod stages;
mod unet;
mod weight_loader;

pub use low_rank::{EmbeddingProjector, expand_embedding};
pub use masks::{Masks, Mode};
pub use quant_core::net::UNetConfig;
pub use recompute::BlockInputs;
pub use stages::{StageState, stage_prefixes};
pub use unet::UNet;
pub use weight_loader::{
    Cast, Init, InputObserver, Observed, RandomInit, ShapeRecorder, StateDict, Weight, WeightLoader,
};

pub(crate) use weight_loader::{BEYOND_F16, checked};
