//! `pwl`: midpoints between quantiles.
//!
//! Breakpoints are the quantiles at 0, 1/K, ..., 1, linearly interpolated between the sorted
//! weights; a weight takes the midpoint of the interval that it lies in:
//!
//! ```text
//! b_i = s[⌊p⌋] + (p - ⌊p⌋)(s[⌊p⌋+1] - s[⌊p⌋]),  p = i (n-1) / K,  i = 0..=K
//! level_c = (b_c + b_{c+1}) / 2
//! code = (number of breakpoints ≤ w) - 1, at most K - 1
//! ```
//!
//! Computed in f64; `p` is split into whole and fraction by integer division, so a breakpoint that
//! falls on a weight equals it exactly. Source: the paper's helper for `pwl`.

use super::{Fit, rank};
use crate::num::{f32_of, f64_of, low_u8};

/// Fits a group that is not empty.
///
/// # Shapes
/// `levels`: `[K]`; `breaks`: `[K+1]`; `keys` and `codes`: `[n]`; `counts`: as [`rank::sort`].
pub(super) fn fit(
    weights: &[f32],
    keys: &mut [u64],
    breaks: &mut [f64],
    counts: &mut [u32],
    levels: &mut [f32],
    codes: &mut [u8],
) -> Fit {
    rank::sort(weights, keys, counts);
    for (i, b) in breaks.iter_mut().enumerate() {
        *b = quantile(keys, i, levels.len());
    }
    for (level, pair) in levels.iter_mut().zip(breaks.windows(2)) {
        *level = f32_of(f64::midpoint(pair[0], pair[1]));
    }
    let mut code = 0;
    for &key in &*keys {
        let w = f64::from(rank::weight(key));
        while code + 1 < levels.len() && breaks[code + 1] <= w {
            code += 1;
        }
        codes[rank::position(key)] = low_u8(code);
    }
    Fit::Table { levels: levels.len() }
}

/// The quantile at `part / parts` of sorted weights.
fn quantile(keys: &[u64], part: usize, parts: usize) -> f64 {
    // i (n-1) / K in integers: n-1 = whole·K + rest keeps the product small on 32-bit targets.
    let (whole, rest) = ((keys.len() - 1) / parts, (keys.len() - 1) % parts);
    let at = part * whole + part * rest / parts;
    let fraction = f64_of(part * rest % parts) / f64_of(parts);
    let low = f64::from(rank::weight(keys[at]));
    let high = keys.get(at + 1).map_or(low, |&key| f64::from(rank::weight(key)));
    // Rounding must not carry a breakpoint past the next weight: breakpoints stay sorted.
    (low + fraction * (high - low)).min(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midpoints_between_quantiles() {
        // Five weights: quartiles fall on the weights themselves.
        let weights = [4.0, 0.0, 1.0, 2.0, 8.0];
        let (mut keys, mut breaks, mut levels, mut codes) = ([0; 5], [0.0; 5], [0.0; 4], [9; 5]);
        fit(&weights, &mut keys, &mut breaks, &mut [0; 10], &mut levels, &mut codes);
        assert_eq!(breaks, [0.0, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(levels, [0.5, 1.5, 3.0, 6.0]);
        assert_eq!(codes, [3, 0, 1, 2, 3]);
    }

    #[test]
    fn interpolates_between_weights() {
        let (mut keys, mut breaks) = ([0; 2], [0.0; 5]);
        fit(&[0.0, 1.0], &mut keys, &mut breaks, &mut [0; 4], &mut [0.0; 4], &mut [0; 2]);
        assert_eq!(breaks, [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn equal_weights_take_the_last_of_their_intervals() {
        let (mut levels, mut codes) = ([0.0; 2], [9; 3]);
        fit(&[7.0; 3], &mut [0; 3], &mut [0.0; 3], &mut [0; 6], &mut levels, &mut codes);
        assert_eq!((levels, codes), ([7.0; 2], [1; 3]));
    }
}
