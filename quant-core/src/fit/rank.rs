//! Weights in ascending order, stably and without a heap.
//!
//! A key holds a weight in its high half, as an integer of the same order, and the position of the
//! weight in its low half. Sorting keys therefore sorts weights, equal ones by position.

use crate::num::{high_u32, index, low_u32, u32_of};

const SIGN: u32 = 1 << 31;

/// Fills `keys` with the sorted keys of `weights`: finite, at most 2^32 - 1, as many as `keys`.
pub(super) fn sort(weights: &[f32], keys: &mut [u64]) {
    for (i, (key, &w)) in keys.iter_mut().zip(weights).enumerate() {
        *key = u64::from(ordered(w)) << 32 | u64::from(u32_of(i));
    }
    keys.sort_unstable();
}

/// The weight of a key; -0.0 comes back as 0.0.
pub(super) const fn weight(key: u64) -> f32 {
    let bits = high_u32(key);
    f32::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })
}

/// The position of a key's weight.
pub(super) const fn position(key: u64) -> usize {
    index(low_u32(key))
}

/// Whether two keys have equal weights.
pub(super) const fn same_weight(a: u64, b: u64) -> bool {
    high_u32(a) == high_u32(b)
}

/// An integer that compares as `w` does. Positive floats already compare as their bits; negative
/// ones compare the other way round and lie below.
const fn ordered(w: f32) -> u32 {
    let bits = if w == 0.0 { 0 } else { w.to_bits() };
    if bits & SIGN == 0 { bits ^ SIGN } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_stably_across_signs_and_zeros() {
        let weights = [1.0, -0.0, -2.0, 0.0, f32::MIN, 1e-45, -1e-45, 1.0, f32::MAX];
        let mut keys = [0; 9];
        sort(&weights, &mut keys);
        assert_eq!(keys.map(position), [4, 2, 6, 1, 3, 5, 0, 7, 8]);
        for key in keys {
            assert_eq!(weight(key), weights[position(key)]);
        }
        assert!(same_weight(keys[3], keys[4]) && !same_weight(keys[2], keys[3]));
    }
}
