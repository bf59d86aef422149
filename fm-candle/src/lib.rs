//! Flow-matching U-Nets on candle: training, sampling, quantization, and their measures.
//!
//! The crate knows tensors, not bytes: the packed layout is `quant_core`'s. It touches neither
//! arguments nor standard output; that is the host's.
//!
//! | module | idea |
//! |---|---|
//! | [`ops`] | candle operations of our own, fast and with right gradients |
//! | [`model`] | the U-Net: configuration, presets, parameters, forward pass |
//! | [`checkpoint`] | one door for every kind of weight file |
//! | [`quantize`] | state dict to packed file, and the error made |
//! | [`path`] | the straight path and the training objective |
//! | [`process_group`] | processes that work together |
//! | [`tune`] | a quantized net fitted to its full-precision self |
//! | [`train`] | the loop's state: batches, AdamW with EMA, resuming |
//! | [`solver`] | ODE methods and time grids; they know no net |
//! | [`likelihood`] | how likely data are: the change of volume along the path |
//! | [`sample`] | noise to images |
//! | [`data`] | image sets |
//! | [`fid`] | Fréchet distance between image sets |
//! | [`fingerprint`] | short names of contents: weights, images |
//! | [`eval`] | what quantization does to samples, latents, noise and trajectories |
//! | [`device`] | CPU or GPU |
//! | [`random`] | who draws which random numbers |
//! | [`atomic`] | files that appear whole or not at all |
//! | [`mapped`] | files as memory |
//! | [`json`] | JSON that people give |

#![allow(
    clippy::cast_precision_loss,
    reason = "counts and pixels become floats everywhere; none comes near 2^24"
)]
#![allow(
    clippy::inline_always,
    reason = "code under a SIMD dispatch must be inlined into it to be compiled for its target"
)]
#![cfg_attr(
    test,
    allow(
        clippy::float_cmp,
        clippy::cast_possible_truncation,
        reason = "the tests want exact values, and make their data by wrapping casts"
    )
)]

pub mod atomic;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod fid;
pub mod fingerprint;
pub mod json;
pub mod likelihood;
pub mod mapped;
pub mod model;
pub mod ops;
pub mod path;
mod pickle;
pub mod process_group;
pub mod quantize;
pub mod random;
pub mod sample;
pub mod solver;
pub mod train;
pub mod tune;
mod zipped;

pub use candle_core::{DType, Tensor};
pub use error::{Error, Result};
