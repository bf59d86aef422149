//! `uniform`: equal steps from the least weight to the greatest.
//!
//! ```text
//! scale = (max - min) / (K - 1)
//! code = round((w - min) / scale), half to even
//! value = code · scale + min
//! ```
//!
//! All in f32, each operation rounded, no fused multiply-add: the bits equal those of the paper's
//! helper. A constant group is copied; so is one whose scale f32 cannot represent, see
//! [`Fit::Copied`], for which the paper's helper yields NaN, infinities or codes beyond K - 1.

use super::fitted::{Fit, Fitted};
use crate::codebook::Affine;
use crate::num::{code_of, f32_of_u32, low_u8, round_even, u32_of};

/// `k` levels for a group.
pub(super) fn fit(weights: &[f32], k: usize) -> Fitted {
    let min = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let last = f32_of_u32(u32_of(k - 1));
    let affine = Affine { min, scale: (max - min) / last };
    let code = |w: f32| round_even((w - min) / affine.scale);
    // A scale of zero makes the greatest code NaN or infinite, an infinite one the last level.
    let representable = affine.value(low_u8(k - 1)).is_finite() && code(max) <= last;
    if !representable {
        return Fitted::copied();
    }
    Fitted {
        fit: Fit::Affine(affine),
        levels: affine.levels(k),
        codes: weights.iter().map(|&w| code_of(code(w))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even() {
        let fitted = fit(&[0.0, 0.5, 1.0, 1.5, 2.5, 3.0], 4);
        assert_eq!(fitted.fit, Fit::Affine(Affine { min: 0.0, scale: 1.0 }));
        assert_eq!(fitted.levels, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(fitted.codes, [0, 0, 1, 2, 2, 3]);
    }

    #[test]
    fn copies_what_no_scale_represents() {
        let tiny = f32::from_bits(1);
        let constant = [0.25, 0.25];
        let overflows = [f32::MAX, f32::MIN];
        let underflows = [0.0, tiny]; // a third of the least number is zero
        let coarse = [0.0, 4.0 * tiny]; // the scale rounds to `tiny`, the code would be 4
        for weights in [constant, overflows, underflows, coarse] {
            assert_eq!(fit(&weights, 4), Fitted::copied(), "{weights:?}");
        }
        let exact = fit(&[0.0, 3.0 * tiny], 4);
        assert_eq!(exact.fit, Fit::Affine(Affine { min: 0.0, scale: tiny }));
    }
}
