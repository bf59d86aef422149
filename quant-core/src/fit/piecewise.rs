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

use super::fitted::{Fit, Fitted};
use super::rank;
use crate::num::{f32_of, f64_of, low_u8};
use alloc::vec;
use alloc::vec::Vec;

/// `k` levels for a group that is not empty.
pub(super) fn fit(weights: &[f32], k: usize) -> Fitted {
    let keys = rank::sort(weights);
    let breaks = breakpoints(&keys, k);
    let middle = |pair: &[f64]| f32_of(f64::midpoint(pair[0], pair[1]));
    let levels: Vec<f32> = breaks.windows(2).map(middle).collect();
    let mut codes = vec![0; keys.len()];
    let mut code = 0;
    for key in keys {
        let w = f64::from(rank::weight(key));
        while code + 1 < k && breaks[code + 1] <= w {
            code += 1;
        }
        codes[rank::position(key)] = low_u8(code);
    }
    Fitted { fit: Fit::Table, levels, codes }
}

/// The quantiles of sorted weights that bound `k` intervals.
fn breakpoints(keys: &[u64], k: usize) -> Vec<f64> {
    (0..=k).map(|i| quantile(keys, i, k)).collect()
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

    fn breaks(weights: &[f32], k: usize) -> Vec<f64> {
        breakpoints(&rank::sort(weights), k)
    }

    #[test]
    fn midpoints_between_quantiles() {
        // Five weights: quartiles fall on the weights themselves.
        let weights = [4.0, 0.0, 1.0, 2.0, 8.0];
        assert_eq!(breaks(&weights, 4), [0.0, 1.0, 2.0, 4.0, 8.0]);
        let fitted = fit(&weights, 4);
        assert_eq!(fitted.levels, [0.5, 1.5, 3.0, 6.0]);
        assert_eq!(fitted.codes, [3, 0, 1, 2, 3]);
    }

    #[test]
    fn interpolates_between_weights() {
        assert_eq!(breaks(&[0.0, 1.0], 4), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn equal_weights_take_the_last_of_their_intervals() {
        let fitted = fit(&[7.0; 3], 2);
        assert_eq!((&fitted.levels[..], &fitted.codes[..]), (&[7.0; 2][..], &[1; 3][..]));
    }
}
