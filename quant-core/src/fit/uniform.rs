//! `uniform`: equal steps from the least weight to the greatest.
//!
//! ```text
//! step = (max - min) / (K - 1)
//! code = round((w - min) / step), half to even
//! value = code · step + min
//! ```
//!
//! All in f32, each operation rounded, no fused multiply-add: the bits equal those of the paper's
//! helper. A constant group is copied; so is one whose steps f32 cannot represent, see
//! [`Fit::Copied`], for which the paper's helper yields NaN, infinities or codes beyond K - 1.

use super::Fit;
use crate::codebook::Affine;
use crate::num::{code_of, f32_of_u32, low_u8, round_even, u32_of};

/// Fits a group; `levels`: `[K]`, `codes`: `[n]`.
pub(super) fn fit(weights: &[f32], levels: &mut [f32], codes: &mut [u8]) -> Fit {
    let min = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let last = levels.len() - 1;
    let steps = f32_of_u32(u32_of(last));
    let affine = Affine { min, step: (max - min) / steps };
    let code = |w: f32| round_even((w - min) / affine.step);
    // A step of zero makes the greatest code NaN or infinite, an infinite one the last level.
    let representable = affine.value(low_u8(last)).is_finite() && code(max) <= steps;
    if !representable {
        return Fit::Copied;
    }
    for (c, level) in levels.iter_mut().enumerate() {
        *level = affine.value(low_u8(c));
    }
    for (out, &w) in codes.iter_mut().zip(weights) {
        *out = code_of(code(w));
    }
    Fit::Affine { min, step: affine.step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even() {
        let weights = [0.0, 0.5, 1.0, 1.5, 2.5, 3.0];
        let (mut levels, mut codes) = ([0.0; 4], [9; 6]);
        let fit = fit(&weights, &mut levels, &mut codes);
        assert_eq!(fit, Fit::Affine { min: 0.0, step: 1.0 });
        assert_eq!(levels, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(codes, [0, 0, 1, 2, 2, 3]);
    }

    #[test]
    fn copies_what_steps_cannot_represent() {
        let tiny = f32::from_bits(1);
        let constant = [0.25, 0.25];
        let overflows = [f32::MAX, f32::MIN];
        let underflows = [0.0, tiny]; // a third of the least number is zero
        let coarse = [0.0, 4.0 * tiny]; // the step rounds to `tiny`, the code would be 4
        for weights in [constant, overflows, underflows, coarse] {
            assert_eq!(fit(&weights, &mut [0.0; 4], &mut [0; 2]), Fit::Copied, "{weights:?}");
        }
        let exact = fit(&[0.0, 3.0 * tiny], &mut [0.0; 4], &mut [0; 2]);
        assert_eq!(exact, Fit::Affine { min: 0.0, step: tiny });
    }
}
