//! The error that quantization makes, and the entropy of the codes.

use crate::num::{f64_of, log2, log10};

/// Error that quantization makes, and entropy of the codes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Number of weights.
    pub count: usize,
    /// `sum w^2`.
    pub signal: f64,
    /// `sum (w - q)^2`.
    pub noise: f64,
    /// Bits that an ideal entropy code of each group would take for all codes together, codebooks
    /// not counted; 32 for each weight without a code.
    pub entropy: f64,
}

impl Distortion {
    /// Adds the distortion of other weights.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.signal += other.signal;
        self.noise += other.noise;
        self.entropy += other.entropy;
    }

    /// Mean squared error.
    pub fn mse(&self) -> f64 {
        self.noise / f64_of(self.count.max(1))
    }

    /// `10 log10(sum w^2 / sum (w - q)^2)` in dB; `None` for an exact copy.
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.noise > 0.0).then(|| 10.0 * log10(self.signal / self.noise))
    }

    /// Bits per weight of an ideal entropy code.
    pub fn entropy_bits(&self) -> f64 {
        self.entropy / f64_of(self.count.max(1))
    }
}

/// The error of codes whose values `value` tells from code and position.
pub(super) fn distortion(
    weights: &[f32],
    codes: &[u8],
    value: impl Fn(u8, usize) -> f32,
) -> Distortion {
    let mut counts = [0_usize; 256];
    let (mut signal, mut noise) = (0.0, 0.0);
    for (i, (&w, &code)) in weights.iter().zip(codes).enumerate() {
        let w = f64::from(w);
        let error = w - f64::from(value(code, i));
        signal += w * w;
        noise += error * error;
        counts[usize::from(code)] += 1;
    }
    let n = f64_of(weights.len());
    let used = counts.iter().filter(|&&count| count > 0).map(|&count| f64_of(count));
    let entropy = used.map(|count| count * log2(n / count)).sum();
    Distortion { count: weights.len(), signal, noise, entropy }
}
