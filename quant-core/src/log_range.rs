//! The levels of the scheme `log` from four numbers: no table needs to be stored.
//!
//! ```text
//! bytes 0..4    least magnitude of the negative weights     f32, little-endian
//! bytes 4..8    greatest magnitude of the negative weights
//! bytes 8..12   least magnitude of the positive weights
//! bytes 12..16  greatest magnitude of the positive weights
//! ```
//!
//! Both magnitudes of an absent sign are 0. Of `k` levels the negatives get `⌊k/2⌋` and so do the
//! positives; without negatives the positives get all `k`, and a sign of one magnitude gets one.
//! The levels of one sign are, `m` of them from the least magnitude to the greatest,
//!
//! ```text
//! ± 2^(a + (b - a) i / (m - 1))     a = log2 least, b = log2 greatest, i = 0..m
//! ```
//!
//! and codes ascend with levels. A single level is the least magnitude itself. The powers are taken
//! in f64 by `libm` and rounded to f32, so every machine finds the same bits.

use crate::error::{Error, Result};
use crate::num::{exp2, f32_of, f64_of, log2};

/// Bytes of a stored [`LogRange`].
pub const LOG_RANGE_BYTES: usize = 16;

/// Magnitudes between which the levels of the scheme `log` lie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogRange {
    /// The least and the greatest magnitude of the negative weights; 0 where there are none.
    pub negative: [f32; 2],
    /// The least and the greatest magnitude of the positive weights; 0 where there are none.
    pub positive: [f32; 2],
}

impl LogRange {
    /// The range of some finite weights.
    pub fn of(weights: &[f32]) -> Self {
        let widen = |[least, greatest]: [f32; 2], w: f32| {
            [if least == 0.0 { w } else { least.min(w) }, greatest.max(w)]
        };
        weights.iter().fold(Self::default(), |range, &w| {
            if w < 0.0 {
                Self { negative: widen(range.negative, -w), ..range }
            } else if w > 0.0 {
                Self { positive: widen(range.positive, w), ..range }
            } else {
                range
            }
        })
    }

    /// Numbers of levels, of `k`, that the negative and the positive weights use.
    pub const fn counts(&self, k: usize) -> [usize; 2] {
        let [negative, positive] = [self.negative, self.positive];
        let below = count(negative, k / 2);
        [below, count(positive, if below == 0 { k } else { k / 2 })]
    }

    /// Number of levels in use, of `k`, at least 1.
    pub const fn level_count(&self, k: usize) -> usize {
        let [below, above] = self.counts(k);
        if below + above == 0 { 1 } else { below + above }
    }

    /// Level `code` of `k`; `None` after the last that is used.
    pub fn level(&self, code: u8, k: usize) -> Option<f32> {
        self.exact_level(usize::from(code), k).map(f32_of)
    }

    /// The level before it is rounded to f32.
    pub(crate) fn exact_level(&self, code: usize, k: usize) -> Option<f64> {
        let [below, above] = self.counts(k);
        if let Some(i) = below.checked_sub(code + 1) {
            Some(-magnitude(self.negative, i, below))
        } else if code - below < above {
            Some(magnitude(self.positive, code - below, above))
        } else {
            (code == 0).then_some(0.0) // zeros alone
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> [u8; LOG_RANGE_BYTES] {
        let mut bytes = [0; LOG_RANGE_BYTES];
        let numbers = self.negative.iter().chain(&self.positive);
        for (out, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *out = number.to_le_bytes();
        }
        bytes
    }

    /// Reads the stored form; [`Self::check`] tells whether it is a range.
    pub fn from_bytes(bytes: [u8; LOG_RANGE_BYTES]) -> Self {
        let number = |at: usize| {
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self { negative: [number(0), number(4)], positive: [number(8), number(12)] }
    }

    /// Fails unless the range is one that weights can have.
    ///
    /// # Errors
    /// [`Error::Real`] for a magnitude that is not finite or that is negative (the zero of negative
    /// sign included), for a least magnitude beyond the greatest, and for one that alone is 0.
    pub fn check(&self) -> Result<()> {
        for [least, greatest] in [self.negative, self.positive] {
            let magnitudes =
                [least, greatest].iter().all(|m| m.is_finite() && !m.is_sign_negative());
            if !magnitudes || least > greatest || (least == 0.0) != (greatest == 0.0) {
                let range = "0 < least <= greatest, finite, or both 0";
                return Err(Error::Real { what: "magnitudes of log levels", range });
            }
        }
        Ok(())
    }
}

/// Number of levels, at most `most`, that a sign uses.
const fn count([least, greatest]: [f32; 2], most: usize) -> usize {
    if greatest == 0.0 {
        0
    } else if least < greatest {
        most
    } else {
        1
    }
}

/// Magnitude `i` of `count`.
fn magnitude([least, greatest]: [f32; 2], i: usize, count: usize) -> f64 {
    let (least, greatest) = (f64::from(least), f64::from(greatest));
    if count == 1 {
        return least;
    }
    let (first, last) = (log2(least), log2(greatest));
    exp2(first + (last - first) * (f64_of(i) / f64_of(count - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_ascend_from_the_negatives_to_the_positives() {
        let range = LogRange::of(&[-1.0, 0.0, -4.0, 2.0, 0.5, -0.0]);
        assert_eq!(range, LogRange { negative: [1.0, 4.0], positive: [0.5, 2.0] });
        let levels = [0, 1, 2, 3, 4, 5].map(|code| range.level(code, 6));
        assert_eq!(levels, [-4.0, -2.0, -1.0, 0.5, 1.0, 2.0].map(Some));
        assert_eq!((range.level(6, 6), range.counts(6), range.level_count(6)), (None, [3, 3], 6));
    }

    #[test]
    fn absent_and_single_magnitudes_take_their_share() {
        let positive = LogRange { positive: [1.0, 8.0], ..LogRange::default() };
        assert_eq!([0, 1, 2, 3].map(|c| positive.level(c, 4)), [1.0, 2.0, 4.0, 8.0].map(Some));
        let negative = LogRange { negative: [1.0, 16.0], ..LogRange::default() };
        assert_eq!([0, 1, 2].map(|c| negative.level(c, 4)), [Some(-16.0), Some(-1.0), None]);
        let single = LogRange { negative: [3.0, 3.0], positive: [1.0, 2.0] };
        assert_eq!([0, 1, 2].map(|c| single.level(c, 2)), [Some(-3.0), Some(1.0), None]);
        let zeros = LogRange::default();
        assert_eq!([0, 1].map(|c| zeros.level(c, 8)), [Some(0.0), None]);
        assert_eq!(zeros.level_count(8), 1);
    }

    #[test]
    fn bytes_read_back_in_order() {
        let range = LogRange { negative: [1.0, 2.0], positive: [0.5, -0.0] };
        let bytes = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0x3f, 0, 0, 0, 0x80];
        assert_eq!(range.to_bytes(), bytes);
        assert_eq!(LogRange::from_bytes(bytes).to_bytes(), bytes);
    }

    #[test]
    fn refuses_what_no_weights_have() {
        let tiny = f32::from_bits(1);
        for good in [[0.0, 0.0], [1.0, 1.0], [tiny, f32::MAX]] {
            assert_eq!(LogRange { negative: good, positive: good }.check(), Ok(()));
        }
        let bad = [
            [0.0, 1.0],
            [1.0, 0.0],
            [2.0, 1.0],
            [-1.0, 1.0],
            [-0.0, 0.0],
            [1.0, f32::INFINITY],
            [f32::NAN, 1.0],
        ];
        for pair in bad {
            assert!(
                LogRange { negative: pair, ..LogRange::default() }.check().is_err(),
                "{pair:?}"
            );
            assert!(
                LogRange { positive: pair, ..LogRange::default() }.check().is_err(),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn the_ends_of_f32_stay_finite() {
        let range = LogRange::of(&[f32::MAX, f32::MIN, 1e-45, -1e-45]);
        assert_eq!(range.level(0, 256), Some(f32::MIN));
        assert_eq!(range.level(255, 256), Some(f32::MAX));
    }
}
