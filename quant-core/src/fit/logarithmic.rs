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

use super::fitted::{Fit, Fitted};
use crate::log_range::LogRange;
use crate::num::{abs, f32_of, low_u8};
use alloc::vec::Vec;

/// At most `k` levels for a group that is not empty.
pub(super) fn fit(weights: &[f32], k: usize) -> Fitted {
    if weights.len() == 1 {
        return Fitted::copied();
    }
    let k = k.min(weights.len());
    let range = LogRange::of(weights);
    let levels: Vec<f64> =
        (0..range.level_count(k)).map_while(|code| range.exact_level(code, k)).collect();
    let [below, _] = range.counts(k);
    let (down, up) = levels.split_at(below);
    let code = |&w: &f32| {
        let w = f64::from(w);
        // Zeros take theirs below.
        low_u8(if w < 0.0 { nearest(down, w) } else { below + nearest(up, w) })
    };
    let mut codes: Vec<u8> = weights.iter().map(code).collect();
    let zero = smallest_used(weights, &codes, &levels);
    for (code, _) in codes.iter_mut().zip(weights).filter(|(_, w)| **w == 0.0) {
        *code = zero;
    }
    let levels = levels.into_iter().map(f32_of).collect();
    Fitted { fit: Fit::Logarithmic(range), levels, codes }
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

    /// The levels and the codes.
    fn run(weights: &[f32], k: usize) -> (Vec<f32>, Vec<u8>) {
        let fitted = fit(weights, k);
        (fitted.levels, fitted.codes)
    }

    #[test]
    fn positives_alone_get_every_level() {
        let (levels, codes) = run(&[1.0, 8.0, 2.9, 3.0, 3.1], 4);
        assert_eq!(levels, [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(codes, [0, 3, 1, 1, 2]); // 3.0 is a tie: the smaller level
    }

    #[test]
    fn both_signs_share_the_levels() {
        let (levels, codes) = run(&[-1.0, -4.0, 0.0, 2.0, 0.5, 0.0], 4);
        assert_eq!(levels, [-4.0, -1.0, 0.5, 2.0]);
        assert_eq!(codes, [1, 0, 2, 3, 2, 2]);
    }

    #[test]
    fn negatives_alone_get_half_the_levels() {
        let (levels, codes) = run(&[-1.0, -16.0, -2.0, -9.0], 4);
        assert_eq!(levels, [-16.0, -1.0]);
        assert_eq!(codes, [1, 0, 1, 0]);
    }

    #[test]
    fn zeros_follow_the_first_of_equal_magnitudes() {
        let (levels, codes) = run(&[0.0, -1.0, 1.0, 0.0], 4);
        assert_eq!(levels, [-1.0, 1.0]);
        assert_eq!(codes, [0, 0, 1, 0]);
        assert_eq!(run(&[0.0, -0.0, 0.0], 4), (alloc::vec![0.0], alloc::vec![0; 3]));
    }

    #[test]
    fn a_single_weight_is_copied() {
        assert_eq!(fit(&[3.0], 4), Fitted::copied());
    }
}
