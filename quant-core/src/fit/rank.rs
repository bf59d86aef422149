//! Weights in ascending order, stably.
//!
//! A key holds a weight in its high half, as an integer of the same order, and the position of the
//! weight in its low half. Sorting keys therefore sorts weights, equal ones by position.
//!
//! The sort distributes: each key goes to its bin of equal width, bins being in order already, and
//! one pass of insertion sets right what is left. A bin of many keys is sorted by comparisons, so
//! the worst weights cost `n log n`:
//!
//! ```text
//! count the weights of each bin → ranks where bins start → put each key there → insertion
//! ```

use super::bins::{self, Bins};
use crate::num::{high_u32, index, low_u32, u32_of};
use alloc::vec;
use alloc::vec::Vec;

const SIGN: u32 = 1 << 31;

/// More bins do not stay in a processor's cache.
const MAX_BINS: usize = 1 << 18;

/// The most keys of a bin that insertion puts in order cheaply.
const MAX_INSERTED: u32 = 32;

/// The sorted keys of `weights`, which are finite, at most 2^32 - 1 and not none.
pub(super) fn sort(weights: &[f32]) -> Vec<u64> {
    let Bins { of, counts: mut places } = Bins::new(weights, MAX_BINS);
    let most = bins::starts_of(&mut places);
    let mut keys = vec![0; weights.len()];
    for (i, (&w, bin)) in weights.iter().zip(of).enumerate() {
        let place = &mut places[index(bin)];
        keys[index(*place)] = key(w, i);
        *place += 1;
    }
    if most > MAX_INSERTED {
        // Each place has moved to the end of its bin.
        let mut start = 0;
        for end in places.into_iter().map(index) {
            if end - start > index(MAX_INSERTED) {
                keys[start..end].sort_unstable();
            }
            start = end;
        }
    }
    insert(&mut keys);
    keys
}

/// Insertion sort, for keys of which none is far from its place.
fn insert(keys: &mut [u64]) {
    for i in 1..keys.len() {
        let key = keys[i];
        let mut at = i;
        while at > 0 && keys[at - 1] > key {
            keys[at] = keys[at - 1];
            at -= 1;
        }
        keys[at] = key;
    }
}

/// The key of a weight at a position.
pub(super) fn key(w: f32, position: usize) -> u64 {
    (u64::from(ordered(w)) << 32) | u64::from(u32_of(position))
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

/// `true` if two keys have equal weights.
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
    use proptest::prelude::*;

    #[test]
    fn sorts_stably_across_signs_and_zeros() {
        let weights = [1.0, -0.0, -2.0, 0.0, f32::MIN, 1e-45, -1e-45, 1.0, f32::MAX];
        let keys = sort(&weights);
        let positions: Vec<usize> = keys.iter().map(|&key| position(key)).collect();
        assert_eq!(positions, [4, 2, 6, 1, 3, 5, 0, 7, 8]);
        for &key in &keys {
            assert_eq!(weight(key), weights[position(key)]);
        }
        assert!(same_weight(keys[3], keys[4]) && !same_weight(keys[2], keys[3]));
    }

    #[test]
    fn outliers_that_crowd_one_bin_do_no_harm() {
        let mut weights: Vec<f32> = (0..997_u16).map(|i| f32::from(i ^ 0x155)).collect();
        weights.extend([f32::MAX, f32::MIN]);
        let keys = sort(&weights);
        assert!(keys.is_sorted());
        assert_eq!([0, 1, 998].map(|rank| position(keys[rank])), [998, 0x155, 997]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_stable_sort(
            raw in proptest::collection::vec(any::<u32>(), 1..200),
            coarse in any::<bool>(),
        ) {
            let whole = |b: u32| f32::from(u16::try_from(b % 7).unwrap_or(0)) - 3.0;
            let of = |b: u32| if coarse { whole(b) } else { f32::from_bits(b) };
            let weights: Vec<f32> =
                raw.iter().map(|&b| of(b)).filter(|w| w.is_finite()).collect();
            prop_assume!(!weights.is_empty());
            let mut expected: Vec<usize> = (0..weights.len()).collect();
            expected.sort_by(|&a, &b| (weights[a] + 0.0).total_cmp(&(weights[b] + 0.0)));
            let found: Vec<usize> = sort(&weights).into_iter().map(position).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
