//! Bins of equal width, two for each weight: the first step of a sort, and often the last.
//!
//! ```text
//! bin(w) = ⌊(w - min) · (bins - 1) / (max - min)⌋
//! ```
//!
//! The map ascends with the weight, so a bin's weights all lie between those of its neighbours, and
//! counting the bins tells the ranks that each one covers. Weights of a net fill the bins evenly
//! enough that a bin holds a few; where they do not, whoever sorts inside a bin has `n log n` to do.

use crate::num::{f64_of, index, u32_of_real};

/// More bins do not stay in a processor's cache.
const MOST: usize = 1 << 18;

/// The map from weights to bins.
#[derive(Clone, Copy)]
pub(super) struct Bins {
    min: f64,
    scale: f64,
    /// The last bin, where the greatest weight falls unless rounding puts it beyond.
    last: usize,
}

impl Bins {
    /// The bins that [`Self::count`] asks for with `n` weights.
    pub(super) const fn number(n: usize) -> usize {
        if n < MOST / 2 { 2 * n } else { MOST }
    }

    /// Bins for weights that are finite and not none, as many as `number` says.
    pub(super) fn of(weights: &[f32], number: usize) -> Self {
        let (min, max) = range(weights);
        let range = f64::from(max) - f64::from(min);
        let scale = if range > 0.0 { f64_of(number - 1) / range } else { 0.0 };
        Self { min: f64::from(min), scale, last: number - 1 }
    }

    /// The bin of a weight.
    pub(super) fn bin(self, w: f32) -> usize {
        index(u32_of_real((f64::from(w) - self.min) * self.scale)).min(self.last)
    }

    /// Counts the weights of each bin.
    pub(super) fn count(self, weights: &[f32], counts: &mut [u32]) {
        counts.fill(0);
        for &w in weights {
            counts[self.bin(w)] += 1;
        }
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
