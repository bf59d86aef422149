//! Parts of the arena as integers, and how large these may be.

/// A part of the arena as bytes.
pub(super) fn bytes(floats: &mut [f32]) -> &mut [i8] {
    bytemuck::try_cast_slice_mut(floats).unwrap_or_default()
}

/// A part of the arena as words.
pub(super) fn words(floats: &mut [f32]) -> &mut [i32] {
    bytemuck::try_cast_slice_mut(floats).unwrap_or_default()
}

/// The largest magnitude that both factors of a sum of products may have, for the sum to stay within
/// 31 bits.
///
/// A factor fills 16 bits at most.
pub(super) fn limit(products: usize) -> i32 {
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
