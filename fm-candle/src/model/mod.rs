//! The guided-diffusion U-Net of `facebookresearch/flow_matching`, with its names and its numbers.

mod attention;
mod blocks;
mod config;
mod identify;
mod presets;
mod recompute;
mod unet;
mod weights;

pub use config::UNetConfig;
pub use identify::{identify, order};
pub use recompute::Inputs;
pub use unet::{Masks, Mode, UNet};
pub use weights::{Cast, Init, Initial, Shapes, Stored, Weight, Weights};

pub(crate) use weights::{BEYOND_F16, checked};
