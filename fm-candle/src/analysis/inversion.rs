//! The ODE run backward from real images: whether what comes out is the noise that samples start from.

use serde::{Deserialize, Serialize};

/// The noise of real images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inversion {
    /// Mean of all elements; 0 of normal noise.
    pub mean: f64,
    /// Variance of all elements; 1 of normal noise.
    pub variance: f64,
    /// Excess kurtosis of all elements; 0 of normal noise.
    pub kurtosis: f64,
    /// Kolmogorov-Smirnov distance between all elements and the standard normal, 0 to 1.
    pub ks: f64,
    /// Share of the coordinates that the Jarque-Bera test over the images rejects as normal at 5 %:
    /// about 0.05 of normal noise.
    pub rejected: f64,
    /// PSNR of the images that the noise leads back to, in dB, peak 2: the mean over the images.
    pub round_trip_psnr_db: f64,
    /// Root mean square difference to the noise that the full-precision net finds.
    pub drift: f64,
}
