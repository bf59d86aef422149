//! The width of a code.

use crate::error::{Error, Result};
use core::fmt;

/// Width of a code in bits, 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// One bit, the narrowest code.
    pub const MIN: Self = Self(1);
    /// The greatest width, 8 bits.
    pub const MAX: Self = Self(8);

    /// Every width, ascending from 1 bit.
    pub const ALL: [Self; 8] =
        [Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8)];

    /// A width of so many bits.
    ///
    /// # Errors
    /// [`Error::Bits`] outside 1..=8.
    pub const fn new(bits: u8) -> Result<Self> {
        match bits {
            1..=8 => Ok(Self(bits)),
            _ => Err(Error::Bits(bits)),
        }
    }

    /// The number of bits.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number of codes, `K = 2^bits`.
    pub const fn code_count(self) -> usize {
        1 << self.0
    }

    /// The greatest code, `2^bits - 1`.
    pub const fn max_code(self) -> u8 {
        u8::MAX >> (8 - self.0)
    }

    /// The bytes that `n` packed codes take, `⌈n·bits / 8⌉`.
    pub const fn packed_len(self, n: usize) -> usize {
        // Eight codes take `bits` whole bytes: in this order nothing overflows.
        n / 8 * self.0 as usize + (n % 8 * self.0 as usize).div_ceil(8)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A width that is right.
    pub(crate) fn width(bits: u8) -> Bits {
        Bits::new(bits).unwrap()
    }

    /// Any width.
    pub(crate) fn any_width() -> impl Strategy<Value = Bits> {
        prop::sample::select(&Bits::ALL[..])
    }

    #[test]
    fn rejects_widths_outside_one_to_eight() {
        for bits in [0, 9, 255] {
            assert_eq!(Bits::new(bits), Err(Error::Bits(bits)));
        }
        assert!((1..=8).map(Bits::new).eq(Bits::ALL.map(Ok)));
    }

    #[test]
    fn counts_codes_and_bytes() {
        let sizes = Bits::ALL.map(|bits| (bits.code_count(), bits.max_code(), bits.packed_len(5)));
        let expected = [
            (2, 1, 1),
            (4, 3, 2),
            (8, 7, 2),
            (16, 15, 3),
            (32, 31, 4),
            (64, 63, 4),
            (128, 127, 5),
            (256, 255, 5),
        ];
        assert_eq!(sizes, expected);
        assert_eq!(Bits::MAX.packed_len(usize::MAX), usize::MAX);
    }
}
