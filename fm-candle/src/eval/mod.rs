//! Analyses of a quantized net, beyond the error of its weights.
//!
//! | module | idea |
//! |---|---|
//! | [`paired`] | images against images: PSNR, SSIM, distance in features |
//! | [`latent`] | the bottleneck's latents of real images: how their variance is spread |
//! | [`inversion`] | the ODE backward: the noise of real images, and the way back |
//! | [`bounds`] | Lipschitz constants, and what Grönwall's inequality makes of them |
//!
//! The paper's analyses are [`latent`], and [`paired`] on one velocity at t = 0; the others are
//! those that answer its questions directly.

pub mod bounds;
pub mod inversion;
pub mod latent;
pub mod paired;

use serde::{Deserialize, Deserializer};

/// JSON has no infinity, for which null is written: decibels where there is no error, bounds that
/// grow beyond `f64`.
fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}
