//! The straight (conditional optimal transport) path and the training objective on it.

use candle_core::{Result, Tensor};
use quant_core::noise::Stream;
use serde::{Deserialize, Serialize};

/// A point on the path and the velocity there.
///
/// ```text
/// x_t = (1 - t) x0 + t x1        u = x1 - x0
/// ```
/// # Shapes
/// `x0` (noise) and `x1` (data): `[n, c, h, w]`; `t: [n]` in `[0, 1]`; both results as `x0`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn cond_ot(x0: &Tensor, x1: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)> {
    let t = t.reshape(((), 1, 1, 1))?;
    let noise = x0.broadcast_mul(&(1.0 - &t)?)?;
    Ok(((noise + x1.broadcast_mul(&t)?)?, (x1 - x0)?))
}

/// Mean squared error between the net's velocity and the path's.
///
/// # Errors
/// Shapes that differ.
pub fn loss(v: &Tensor, u: &Tensor) -> Result<Tensor> {
    (v - u)?.sqr()?.mean_all()
}

/// The distribution of training times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// Uniform in `[0, 1)`.
    Uniform,
    /// `t = clip(1 / (1 + sigma), 1e-4, 1)`, `sigma = exp(1.2 n - 1.2)`, `n ~ N(0, 1)`
    /// (upstream's `skewed_timestep_sample`, EDM's noise levels).
    Skewed,
}

impl Times {
    /// The time of example `index`.
    pub fn draw(self, stream: Stream, index: u64) -> f32 {
        match self {
            Self::Uniform => stream.uniform(index, 0),
            Self::Skewed => skewed(stream.normal(index, 0)),
        }
    }
}

/// The skewed time that belongs to the standard normal `n`.
pub fn skewed(n: f32) -> f32 {
    let sigma = (1.2 * n - 1.2).exp();
    (1.0 / (1.0 + sigma)).clamp(1e-4, 1.0)
}
