//! The activation scales: the range of each feature map, for maps of bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | f32: how far the worst element of the self-test velocity is off in integers; 0 without a self-test vector |
//! | 4 | 4n | f32: for each map, in the order in which the layers write them, its range, above 0 |
//!
//! A map's byte `q`, -127 to 127, means `q range / 127`; what lies beyond the range is clipped. Integers give the same bits on every target, so a device is
//! right if it finds exactly that worst difference.

use super::bytes::real;
use crate::error::{Error, Result};
use crate::num::u64_of;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

mod field {
    pub(super) const SELF_TEST_ERROR: usize = 0;
    pub(super) const RANGES: usize = 4;
}

/// Ranges of the feature maps, by which maps of bytes are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activations<'a> {
    section: &'a [u8],
}

impl<'a> Activations<'a> {
    /// Reads the contents of the section.
    ///
    /// # Errors
    /// [`Error::Truncated`] below 4 bytes; [`Error::Trailing`] for a part of a number; [`Error::Real`] for a
    /// range that is not a finite number above 0, or a difference that is not one from 0.
    pub fn parse(section: &'a [u8]) -> Result<Self> {
        let (words, rest) = section.as_chunks::<4>();
        let left = u64_of(section.len());
        if words.is_empty() {
            return Err(Error::Truncated { what: "activation scales", needed: 4, left });
        }
        if !rest.is_empty() {
            return Err(Error::Trailing { bytes: u64_of(rest.len()) });
        }
        let activations = Self { section };
        let error = activations.self_test_error();
        if !(error >= 0.0 && error.is_finite()) {
            return Err(Error::Real { what: "error of the self-test", range: "from 0" });
        }
        // Not below the normal numbers: 127 to the range is finite.
        let right = |range: f32| range >= f32::MIN_POSITIVE && range.is_finite();
        if !activations.ranges().all(right) {
            return Err(Error::Real { what: "activation scale", range: "above 0" });
        }
        Ok(activations)
    }

    /// Greatest error of an element of the self-test velocity in integers; 0 without a self-test vector.
    pub fn self_test_error(self) -> f32 {
        real(self.section, field::SELF_TEST_ERROR)
    }

    /// Range of each map.
    pub fn ranges(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        let words = self.section.get(field::RANGES..).unwrap_or(&[]).as_chunks().0;
        words.iter().map(|&bytes| f32::from_le_bytes(bytes))
    }

    /// The range of a map.
    pub(crate) fn range(self, map: usize) -> Option<f32> {
        let words = self.section.get(field::RANGES..)?.as_chunks().0;
        words.get(map).map(|&bytes| f32::from_le_bytes(bytes))
    }

    /// Makes the contents of the section; [`Activations::parse`] tells whether they are right.
    #[cfg(feature = "alloc")]
    pub fn emit(self_test_error: f32, ranges: &[f32]) -> Vec<u8> {
        [&[self_test_error], ranges].concat().into_iter().flat_map(f32::to_le_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A difference of 0.25, then ranges of 1 and 2.
    const SECTION: [u8; 12] = [0, 0, 0x80, 0x3e, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];

    #[test]
    fn reads_the_documented_bytes() {
        let activations = Activations::parse(&SECTION).unwrap();
        assert_eq!(activations.self_test_error(), 0.25);
        assert!(activations.ranges().eq([1.0, 2.0]));
        #[cfg(feature = "alloc")]
        assert_eq!(Activations::emit(0.25, &[1.0, 2.0]), SECTION);
        assert_eq!([0, 1, 2].map(|map| activations.range(map)), [Some(1.0), Some(2.0), None]);
    }

    #[test]
    fn refuses_what_scales_nothing() {
        for (at, byte) in [(3, 0xbe), (3, 0x7f), (7, 0xbf), (11, 0), (11, 0x7f)] {
            let mut section = SECTION;
            section[at] = byte;
            // 2^-127 is no normal number, 2^128 is infinite.
            section[10] = if at == 11 { 0x80 * (byte >> 6) } else { 0 };
            assert!(Activations::parse(&section).is_err(), "byte {at} = {byte}");
        }
        assert!(Activations::parse(&[]).is_err());
        assert!(Activations::parse(&SECTION[..11]).is_err());
    }
}
