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
use super::{Fit, rank};
use crate::num::{f32_of, f64_of, index, low_u8, u32_of};

/// Bins per level: the more, the fewer weights need a sort, but each bin takes time of its own.
const BINS_PER_LEVEL: usize = 64;

/// The bins for `n` weights and `k` levels.
pub(super) const fn bins(n: usize, k: usize) -> usize {
    let (most, enough) = (Bins::number(n), BINS_PER_LEVEL * k);
    if most < enough { most } else { enough }
}

/// What `counts` says of a bin that lies in two chunks or more, from its first such bin on.
const CUT: u32 = 1 << 8;

/// Fits a group that is not empty.
///
/// # Shapes
/// `keys` and `codes`: `[n]`; `sums` and `levels`: `[K]`; `counts`: [`bins`]`(n, K)`;
/// `starts`: `[K]`.
pub(super) fn fit(
    weights: &[f32],
    keys: &mut [u64],
    sums: &mut [f64],
    counts: &mut [u32],
    starts: &mut [u32],
    levels: &mut [f32],
    codes: &mut [u8],
) -> Fit {
    let chunks = Chunks::of(weights.len(), levels.len());
    let bins = Bins::of(weights, counts.len());
    bins.count(weights, counts);
    chunks.assign_bins(counts, starts);

    sums.fill(0.0);
    let mut gathered = 0;
    for (i, (code, &w)) in codes.iter_mut().zip(weights).enumerate() {
        let chunk = counts[bins.bin(w)];
        if chunk < CUT {
            *code = low_u8(index(chunk));
            sums[index(chunk)] += f64::from(w);
        } else {
            keys[gathered] = rank::key(w, i);
            gathered += 1;
        }
    }
    let keys = &mut keys[..gathered];
    keys.sort_unstable();
    for &key in &*keys {
        let w = rank::weight(key);
        let next = &mut starts[index(counts[bins.bin(w)] - CUT)];
        let chunk = chunks.at(index(*next));
        *next += 1;
        codes[rank::position(key)] = low_u8(chunk);
        sums[chunk] += f64::from(w);
    }
    for (c, (level, &sum)) in levels.iter_mut().zip(&*sums).take(chunks.count).enumerate() {
        *level = f32_of(sum / f64_of(chunks.len(c)));
    }
    Fit::Table { levels: chunks.count }
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
    /// counting these bins, with the rank at which it starts in `starts`.
    fn assign_bins(self, counts: &mut [u32], starts: &mut [u32]) {
        let (mut start, mut chunk, mut chunk_end, mut cuts) = (0, 0, self.len(0), 0);
        for count in counts {
            let end = start + index(*count);
            if end > chunk_end {
                *count = CUT + cuts;
                starts[index(cuts)] = u32_of(start);
                cuts += 1;
            } else {
                *count = chunk;
            }
            while chunk_end <= end {
                chunk += 1;
                chunk_end += self.len(index(chunk));
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn run(weights: &[f32], k: usize) -> (Vec<f32>, Vec<u8>) {
        let n = weights.len();
        let (mut levels, mut codes) = (vec![0.0; k], vec![9; n]);
        let fit = fit(
            weights,
            &mut vec![0; n],
            &mut vec![0.0; k],
            &mut vec![0; bins(n, k)],
            &mut vec![0; k],
            &mut levels,
            &mut codes,
        );
        assert_eq!(fit, Fit::Table { levels: k.min(n) });
        (levels, codes)
    }

    #[test]
    fn longer_chunks_come_first_and_ties_straddle() {
        let (levels, codes) = run(&[2.0, 1.0, 2.0, 2.0, -6.0], 2);
        assert_eq!((levels, codes), (vec![-1.0, 2.0], vec![0, 0, 1, 1, 0]));
    }

    #[test]
    fn as_many_levels_as_weights_lose_nothing() {
        let weights = [0.1, -0.3, 0.2];
        let (levels, codes) = run(&weights, 4);
        let values: Vec<f32> = codes.iter().map(|&c| levels[usize::from(c)]).collect();
        assert_eq!(values, weights);
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
            prop_assert_eq!(run(&weights, k).1, expected);
        }
    }
}
