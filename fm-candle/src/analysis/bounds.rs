//! The error of samples, measured and as Lipschitz constants bound it.

use serde::{Deserialize, Serialize};

/// Root mean square errors over samples, in the norm of a whole image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Norm of the change of all weights, `|Δθ|`.
    pub weights: f64,
    /// Measured error of the samples.
    pub error: f64,
    /// Grönwall's bound of it from the measured error of the velocity.
    pub from_velocity: f64,
    /// Grönwall's bound of it from the weights: `|Δθ|` times the velocity's Lipschitz constant in
    /// them.
    pub from_weights: f64,
}

/// Estimates of the velocity's Lipschitz constants at each time of a grid: the greatest norms of its
/// derivatives at points of trajectories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lipschitz {
    /// The times.
    pub t: Vec<f64>,
    /// In the image, `|∂v/∂x|`.
    pub x: Vec<f64>,
    /// In the weights, `|∂v/∂θ|`.
    pub theta: Vec<f64>,
}
