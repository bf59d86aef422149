//! `log`: geometric levels, base 2, for each sign apart.
//!
//! With `k = min(K, n)`, the negative weights get `⌊k/2⌋` levels and so do the positive ones; where
//! there is no negative weight the positive ones get all `k`. The levels of one sign are
//!
//! ```text
//! ± 2^e,  e = m values of equal distance from log2 min|w| to log2 max|w|
//! ```
//!
//! (a single level is the one of least magnitude; a sign with one distinct value keeps it exactly).
//! A weight takes the nearest level of its sign, of two equally near the smaller one. A zero takes
//! the level of least magnitude that some weight uses, of two equal magnitudes the one used first;
//! a group of zeros has the level 0. Levels and distances are f64, values are rounded to f32.
//! A group of one weight is copied. [`LogRange`] holds all that the levels depend on. Source: the paper's helper for `log`.

use super::Fit;
use crate::log_range::LogRange;
use crate::num::{abs, f32_of, low_u8};

/// Fits a group that is not empty; `levels` and `reals`: `[K]`, `codes`: `[n]`.
pub(super) fn fit(weights: &[f32], reals: &mut [f64], levels: &mut [f32], codes: &mut [u8]) -> Fit {
    if weights.len() == 1 {
        return Fit::Copied;
    }
    let k = levels.len().min(weights.len());
    let range = LogRange::of(weights);
    let count = range.level_count(k);
    let exact = (0..count).map_while(|code| range.exact_level(code, k));
    for ((real, level), exact) in reals.iter_mut().zip(levels).zip(exact) {
        (*real, *level) = (exact, f32_of(exact));
    }
    let used = &reals[..count];
    let [below, _] = range.counts(k);
    let (down, up) = used.split_at(below);
    for (code, &w) in codes.iter_mut().zip(weights) {
        if w < 0.0 {
            *code = low_u8(nearest(down, f64::from(w)));
        } else if w > 0.0 {
            *code = low_u8(below + nearest(up, f64::from(w)));
        }
    }
    let zero = smallest_used(weights, codes, used);
    for (code, _) in codes.iter_mut().zip(weights).filter(|(_, w)| **w == 0.0) {
        *code = zero;
    }
    Fit::Logarithmic(range)
}

/// The position of the ascending level nearest to `w`, the smaller one on ties.
fn nearest(levels: &[f64], w: f64) -> usize {
    let right = levels.partition_point(|&level| level < w);
    match (right.checked_sub(1).and_then(|left| levels.get(left)), levels.get(right)) {
        (Some(left), Some(next)) if next - w < w - left => right,
        (None, _) => right,
        (Some(_), _) => right - 1,
    }
}

/// The code of the least level magnitude among the weights that are not zero, the first on ties.
fn smallest_used(weights: &[f32], codes: &[u8], levels: &[f64]) -> u8 {
    let coded = weights.iter().zip(codes).filter(|(w, _)| **w != 0.0);
    let magnitudes = coded.map(|(_, &code)| (abs(levels[usize::from(code)]), code));
    let least = magnitudes.reduce(|a, b| if b.0 < a.0 { b } else { a });
    least.map_or(0, |(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of levels used, the levels and the codes.
    fn run<const N: usize, const K: usize>(weights: [f32; N]) -> (usize, [f32; K], [u8; N]) {
        let (mut levels, mut codes) = ([9.0; K], [9; N]);
        let fit = fit(&weights, &mut [0.0; K], &mut levels, &mut codes);
        let Fit::Logarithmic(range) = fit else { return (0, levels, codes) };
        (range.level_count(K.min(N)), levels, codes)
    }

    #[test]
    fn positives_alone_get_every_level() {
        let (count, levels, codes) = run::<5, 4>([1.0, 8.0, 2.9, 3.0, 3.1]);
        assert_eq!(count, 4);
        assert_eq!(levels, [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(codes, [0, 3, 1, 1, 2]); // 3.0 is a tie: the smaller level
    }

    #[test]
    fn both_signs_share_the_levels() {
        let (count, levels, codes) = run::<6, 4>([-1.0, -4.0, 0.0, 2.0, 0.5, 0.0]);
        assert_eq!(count, 4);
        assert_eq!(levels, [-4.0, -1.0, 0.5, 2.0]);
        assert_eq!(codes, [1, 0, 2, 3, 2, 2]);
    }

    #[test]
    fn negatives_alone_get_half_the_levels() {
        let (count, levels, codes) = run::<4, 4>([-1.0, -16.0, -2.0, -9.0]);
        assert_eq!(count, 2);
        assert_eq!(levels[..2], [-16.0, -1.0]);
        assert_eq!(codes, [1, 0, 1, 0]);
    }

    #[test]
    fn zeros_follow_the_first_of_equal_magnitudes() {
        let (_, levels, codes) = run::<4, 4>([0.0, -1.0, 1.0, 0.0]);
        assert_eq!(levels[..2], [-1.0, 1.0]);
        assert_eq!(codes, [0, 0, 1, 0]);
        let (count, levels, codes) = run::<3, 4>([0.0, -0.0, 0.0]);
        assert_eq!((count, levels[0], codes), (1, 0.0, [0; 3]));
    }

    #[test]
    fn a_single_weight_is_copied() {
        assert_eq!(fit(&[3.0], &mut [0.0; 4], &mut [0.0; 4], &mut [9]), Fit::Copied);
    }
}
