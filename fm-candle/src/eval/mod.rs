//! Measures of a quantized net beside its full-precision self: samples, velocities, latents, trajectories,
//! bounds of the error.
//!
//! | module | idea |
//! |---|---|
//! | [`sample_sets`] | scores of samples over several sets: paired ones, Fréchet distance |
//! | [`estimate`] | a mean over sets with its confidence interval |
//! | [`paired`] | images against images: PSNR, SSIM, distance in features |
//! | [`comparison`] | a net against its full-precision self: all of the following |
//! | [`velocity`] | the velocity of real images at t = 0 |
//! | [`real_images`] | real images to latents, and to noise |
//! | [`latent`] | the bottleneck's latents: how their variance is spread |
//! | [`inversion`] | the noise of real images: whether it is normal |
//! | [`mod@round_trip`] | the ODE backward to noise, and the way back |
//! | [`mod@divergence`] | distance of trajectories over time |
//! | [`bounds`] | Lipschitz constants, and what Grönwall's inequality makes of them |
//! | [`pareto`] | the points that no other dominates |
//!
//! The paper's analyses are [`latent`] and [`velocity`]; the others are those that answer its
//! questions directly.

pub mod bounds;
pub mod comparison;
pub mod divergence;
pub mod estimate;
#[cfg(test)]
mod fixtures;
pub mod inversion;
pub mod latent;
pub mod paired;
pub mod pareto;
pub mod real_images;
pub mod round_trip;
pub mod sample_sets;
pub mod velocity;

use serde::{Deserialize, Deserializer};

/// A number of JSON, which has no infinity: null is written for decibels where there is no error, and
/// for bounds that grow beyond `f64`.
///
/// # Errors
///
/// Those of the deserializer, for what is neither a number nor null.
pub fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}
