//! The layers on maps of bytes.
//!
//! A map's byte `q` means `q s`, with `s` from the file's activation scales. What a convolution reads is
//! gathered as integers of 16 bits, norm and `SiLU` applied in fixed point; a row of weights is decoded
//! to the integers that its codebook's levels are closest to. Sums are exact, so they may be taken in
//! any order: two channels share a word, whose two products a Cortex-M4 adds with one instruction.
//!
//! ```text
//! y = 2^-16 Y,  Y = G q + O              the norm, for each channel
//! x = SiLU(Y) >> shift                   16 bits, as many of them as the sum below has room for
//! w = round(level / step)                likewise
//! out = sum w x · step 2^(shift - 16) + bias, rounded to the units of its map
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `input_quantizer` | bytes → what a convolution multiplies |
//! | `levels` | a row of codes → what it is multiplied by |
//! | `conv` | bands of rows, gathered and multiplied |
//! | `requantizer` | sums → bytes, or floats |
//! | `norm` `pool` `attention` | the other layers |

mod attention;
mod conv;
mod input_quantizer;
mod levels;
mod norm;
mod pool;
mod requantizer;

/// A part of the arena as bytes.
pub(super) fn bytes(floats: &mut [f32]) -> &mut [i8] {
    bytemuck::try_cast_slice_mut(floats).unwrap_or_default()
}

/// A part of the arena as words.
fn words(floats: &mut [f32]) -> &mut [i32] {
    bytemuck::try_cast_slice_mut(floats).unwrap_or_default()
}

/// The largest magnitude that both factors of a sum of products may have, for the sum to stay within
/// 31 bits.
///
/// A factor fills 16 bits at most.
fn limit(products: usize) -> i32 {
    let most = u32::try_from(products).map_or(1, |products| 0x7fff_ffff / products.max(1));
    i32::try_from(most.isqrt().clamp(1, 0x7fff)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stay_within_31_bits() {
        for products in [1, 2, 9, 288, 576, 100_000] {
            let most = i64::from(limit(products)).pow(2) * i64::try_from(products).unwrap();
            assert!(most <= i64::from(i32::MAX), "{products}");
        }
        assert_eq!([limit(0), limit(1), limit(576)], [0x7fff, 0x7fff, 1930]);
        assert_eq!(limit(usize::MAX), 1);
    }
}
