//! How the variance of the bottleneck's latents is spread over principal components.

use serde::{Deserialize, Serialize};

/// Variances along the leading principal components.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
    /// How many are below 1e-4.
    pub collapsed: usize,
}

/// The latents of one net on a set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latent {
    /// Along the net's own components, as the paper has it.
    pub own: Spread,
    /// Along the components of the full-precision net: comparable between nets.
    pub common: Spread,
    /// Units, of which a latent vector is made.
    pub units: usize,
    /// Units of mean magnitude below 1e-3.
    pub dead: usize,
    /// Units with fewer than three distinct values.
    pub constant: usize,
}
