//! The guided-diffusion U-Net of `facebookresearch/flow_matching`, with its names and its numbers.

mod attention;
mod blocks;
pub mod config;
mod identify;
mod masks;
mod recompute;
mod unet;
mod weights;

pub use identify::{identify, order};
pub use masks::{Masks, Mode};
pub use quant_core::net::UNetConfig;
pub use recompute::BlockInputs;
pub use unet::UNet;
pub use weights::{Cast, Init, RandomInit, ShapeRecorder, StateDict, Weight, WeightLoader};

pub(crate) use weights::{BEYOND_F16, checked};
