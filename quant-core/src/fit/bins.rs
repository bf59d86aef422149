//! Bins of equal width, two for each weight: the first step of a sort, and often the last.
//!
//! ```text
//! bin(w) = ⌊(w - min) · (bins - 1) / (max - min)⌋
//! ```
//!
//! The map ascends with the weight, so a bin's weights all lie between those of its neighbours, and
//! counting the bins tells the ranks that each one covers. Weights of a net fill the bins evenly
//! enough that a bin holds a few; where they do not, whoever sorts inside a bin has `n log n` to do.

use crate::num::{f64_of, index, u32_of, u32_of_real};
use alloc::vec;
use alloc::vec::Vec;

/// Weights in their bins.
pub(super) struct Bins {
    /// The bin of each weight.
    pub(super) of: Vec<u32>,
    /// The number of weights in each bin.
    pub(super) counts: Vec<u32>,
}

impl Bins {
    /// Sorts weights that are finite and not none into at most `most` bins.
    pub(super) fn new(weights: &[f32], most: usize) -> Self {
        let mut counts = vec![0; weights.len().saturating_mul(2).min(most)];
        let last = counts.len() - 1;
        let (min, max) = range(weights);
        let (min, range) = (f64::from(min), f64::from(max) - f64::from(min));
        let scale = if range > 0.0 { f64_of(last) / range } else { 0.0 };
        let bin = |&w: &f32| {
            // Rounding may put the greatest weight beyond the last bin.
            let bin = u32_of_real((f64::from(w) - min) * scale).min(u32_of(last));
            counts[index(bin)] += 1;
            bin
        };
        Self { of: weights.iter().map(bin).collect(), counts }
    }
}

/// The least and the greatest weight, of either zero where they are equal. Eight lanes, so that no
/// comparison waits for the one before it.
fn range(weights: &[f32]) -> (f32, f32) {
    let (mut least, mut greatest) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let (chunks, rest) = weights.as_chunks();
    for lanes in chunks.iter().map(<[f32; 8]>::as_slice).chain([rest]) {
        for ((low, high), &w) in least.iter_mut().zip(&mut greatest).zip(lanes) {
            *low = if w < *low { w } else { *low };
            *high = if w > *high { w } else { *high };
        }
    }
    (
        least.into_iter().fold(f32::INFINITY, f32::min),
        greatest.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// Turns the counts of bins into the ranks at which they start; returns the largest count.
pub(super) fn starts_of(counts: &mut [u32]) -> u32 {
    let (mut start, mut most) = (0, 0);
    for count in counts {
        most = most.max(*count);
        start += core::mem::replace(count, start);
    }
    most
}
