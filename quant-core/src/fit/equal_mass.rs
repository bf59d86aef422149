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

use super::{Fit, rank};
use crate::num::{f32_of, f64_of, low_u8};

/// Fits a group that is not empty; `levels`: `[K]`, `keys` and `codes`: `[n]`.
pub(super) fn fit(weights: &[f32], keys: &mut [u64], levels: &mut [f32], codes: &mut [u8]) -> Fit {
    rank::sort(weights, keys);
    let count = levels.len().min(keys.len());
    let (size, longer) = (keys.len() / count, keys.len() % count);
    let mut rest: &[u64] = keys;
    for (c, level) in levels.iter_mut().take(count).enumerate() {
        let (chunk, behind) = rest.split_at(size + usize::from(c < longer));
        let sum: f64 = chunk.iter().map(|&key| f64::from(rank::weight(key))).sum();
        *level = f32_of(sum / f64_of(chunk.len()));
        for &key in chunk {
            codes[rank::position(key)] = low_u8(c);
        }
        rest = behind;
    }
    Fit::Table { levels: count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_chunks_come_first_and_ties_straddle() {
        let weights = [2.0, 1.0, 2.0, 2.0, -6.0];
        let (mut keys, mut levels, mut codes) = ([0; 5], [0.0; 2], [9; 5]);
        let fit = fit(&weights, &mut keys, &mut levels, &mut codes);
        assert_eq!(fit, Fit::Table { levels: 2 });
        assert_eq!(levels, [-1.0, 2.0]);
        assert_eq!(codes, [0, 0, 1, 1, 0]);
    }

    #[test]
    fn as_many_levels_as_weights_lose_nothing() {
        let weights = [0.1, -0.3, 0.2];
        let (mut keys, mut levels, mut codes) = ([0; 3], [0.0; 4], [9; 3]);
        let fit = fit(&weights, &mut keys, &mut levels, &mut codes);
        assert_eq!(fit, Fit::Table { levels: 3 });
        assert_eq!(codes.map(|c| levels[usize::from(c)]), weights);
    }
}
