//! `ot`: levels of equal mass.
//!
//! Sort the weights stably, cut them into `k = min(K, n)` chunks whose sizes differ by at most one,
//! the longer ones first, and let each weight take the mean of its own chunk:
//!
//! ```text
//! level_c = mean(sorted[start_c .. start_{c+1}])      code of sorted[r] = the chunk of rank r
//! ```
//!
//! Codes go by rank, so equal weights may fall into two chunks. With `n ≤ K` each weight is its own
//! chunk and nothing is lost. Means are taken in f64 and rounded to f32.
//! Source: the paper's helper for `ot`.
//!
//! # Speed
//! Only the cuts need a sort. The ranks that a bin covers follow from counting; where they lie in
//! one chunk, the bin's weights need no order. The weights of the other bins, at most `K - 1` bins,
//! are gathered and sorted.

use super::bins::Bins;
use super::fitted::{Fit, Fitted};
use super::rank;
use crate::num::{f32_of, f64_of, index, low_u8, u32_of};
use alloc::vec;
use alloc::vec::Vec;

/// Bins per level: the more, the fewer weights need a sort, but each bin takes time of its own.
const BINS_PER_LEVEL: usize = 64;

/// Number of the first bin that lies in two chunks or more.
const CUT: u32 = 1 << 8;

/// At most `k` levels for a group that is not empty.
pub(super) fn fit(weights: &[f32], k: usize) -> Fitted {
    let chunks = Chunks::of(weights.len(), k);
    let Bins { of: bins, counts } = Bins::new(weights, BINS_PER_LEVEL * k);
    let (chunk_of_bin, mut starts, cut) = chunks.of_bins(counts);

    let mut sums = vec![0.0; chunks.count];
    let mut codes = vec![0; weights.len()];
    let mut keys = vec![0; cut];
    let mut gathered = 0;
    for (i, ((code, &w), &bin)) in codes.iter_mut().zip(weights).zip(&bins).enumerate() {
        let chunk = chunk_of_bin[index(bin)];
        if chunk < CUT {
            *code = low_u8(index(chunk));
            sums[index(chunk)] += f64::from(w);
        } else {
            keys[gathered] = rank::key(w, i);
            gathered += 1;
        }
    }
    keys.sort_unstable();
    for key in keys {
        let position = rank::position(key);
        let next = &mut starts[index(chunk_of_bin[index(bins[position])] - CUT)];
        let chunk = chunks.at(*next);
        *next += 1;
        codes[position] = low_u8(chunk);
        sums[chunk] += f64::from(rank::weight(key));
    }
    let mean = |(c, sum)| f32_of(sum / f64_of(chunks.len(c)));
    Fitted { fit: Fit::Table, levels: sums.into_iter().enumerate().map(mean).collect(), codes }
}

/// Chunks of `size + 1` ranks, `longer` of them, and then chunks of `size`.
#[derive(Clone, Copy)]
struct Chunks {
    count: usize,
    size: usize,
    longer: usize,
}

impl Chunks {
    fn of(n: usize, most: usize) -> Self {
        let count = most.min(n);
        Self { count, size: n / count, longer: n % count }
    }

    fn len(self, chunk: usize) -> usize {
        self.size + usize::from(chunk < self.longer)
    }

    /// The chunk of a rank.
    fn at(self, rank: usize) -> usize {
        let in_longer = self.longer * (self.size + 1);
        match rank.checked_sub(in_longer) {
            None => rank / (self.size + 1),
            Some(beyond) => self.longer + beyond / self.size,
        }
    }

    /// Turns the count of each bin into its chunk; for a bin in several chunks into [`CUT`] and more,
    /// counting these bins. Then the rank at which each of them starts, and the number of their weights.
    fn of_bins(self, mut counts: Vec<u32>) -> (Vec<u32>, Vec<usize>, usize) {
        let (mut starts, mut cut) = (Vec::new(), 0);
        let (mut start, mut chunk, mut chunk_end) = (0, 0, self.len(0));
        for count in &mut counts {
            let end = start + index(*count);
            if end > chunk_end {
                cut += index(*count);
                *count = CUT + u32_of(starts.len());
                starts.push(start);
            } else {
                *count = chunk;
            }
            while chunk_end <= end {
                chunk += 1;
                chunk_end += self.len(index(chunk));
            }
            start = end;
        }
        (counts, starts, cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longer_chunks_come_first_and_ties_straddle() {
        let fitted = fit(&[2.0, 1.0, 2.0, 2.0, -6.0], 2);
        assert_eq!(fitted.levels, [-1.0, 2.0]);
        assert_eq!(fitted.codes, [0, 0, 1, 1, 0]);
    }

    #[test]
    fn as_many_levels_as_weights_lose_nothing() {
        let weights = [0.1, -0.3, 0.2];
        assert!(fit(&weights, 4).dequantized(&weights).eq(weights));
    }

    proptest! {
        /// Chunks of the sorted positions, as numpy's `array_split` makes them.
        #[test]
        fn codes_are_the_chunks_of_the_ranks(
            k in 1_usize..=256,
            raw in proptest::collection::vec(-1.0_f32..1.0, 1..400),
            grid in prop_oneof![Just(4.0_f32), Just(1e6)],
        ) {
            let weights: Vec<f32> = raw.iter().map(|w| (w * w * w * grid).round() / grid).collect();
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| (weights[a] + 0.0).total_cmp(&(weights[b] + 0.0)));
            let count = k.min(weights.len());
            let mut expected = vec![0; weights.len()];
            let (size, longer) = (weights.len() / count, weights.len() % count);
            let chunks = (0..count).flat_map(|c| vec![c; size + usize::from(c < longer)]);
            for (chunk, &position) in chunks.zip(&order) {
                expected[position] = low_u8(chunk);
            }
            prop_assert_eq!(fit(&weights, k).codes, expected);
        }
    }
}
