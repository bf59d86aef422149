//! The rate of a quantizer: how many levels a codebook has.

use core::fmt;
use core::str::FromStr;

use crate::bits::Bits;

/// Rate of a quantizer of K levels, `log2 K` bits per weight: a whole number of bits, or three levels.
///
/// Codes of three levels are stored in 2 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    levels: u16,
}

impl Rate {
    /// Three levels, 1.58 bits.
    pub const THREE_LEVELS: Self = Self { levels: 3 };

    /// The greatest number of levels K of a codebook.
    pub fn levels(self) -> usize {
        self.levels.into()
    }

    /// Width of the codes, the least that has a code for each level.
    pub fn code_bits(self) -> Bits {
        let has_all = |bits: &Bits| bits.code_count() >= self.levels();
        Bits::ALL.into_iter().find(has_all).unwrap_or(Bits::MAX)
    }

    /// `log2 K`, 1.58 for three levels.
    pub fn bits(self) -> f64 {
        if self == Self::THREE_LEVELS { 1.58 } else { f64::from(self.code_bits().get()) }
    }

    /// `true` if every code of the width has a level.
    pub fn uses_all_codes(self) -> bool {
        self.levels() == self.code_bits().code_count()
    }
}

impl From<Bits> for Rate {
    fn from(bits: Bits) -> Self {
        Self { levels: 1 << bits.get() }
    }
}

impl PartialEq<Bits> for Rate {
    fn eq(&self, bits: &Bits) -> bool {
        *self == Self::from(*bits)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bits().fmt(f)
    }
}

impl FromStr for Rate {
    type Err = UnknownRate;

    fn from_str(text: &str) -> Result<Self, UnknownRate> {
        let bits = |bits: u8| Bits::new(bits).ok().map(Self::from);
        match text {
            "1.58" => Some(Self::THREE_LEVELS),
            _ => text.parse().ok().and_then(bits),
        }
        .ok_or(UnknownRate)
    }
}

/// A text that is no [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRate;

impl fmt::Display for UnknownRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be 1 to 8, or 1.58 for three levels")
    }
}

impl core::error::Error for UnknownRate {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn rates_read_back() {
        for text in ["1", "1.58", "2", "3", "8"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["0", "9", "1.5", "2.0", "", "-1", "1.580"] {
            assert_eq!(text.parse::<Rate>(), Err(UnknownRate), "{text}");
        }
    }

    #[test]
    fn three_levels_lie_between_one_and_two_bits_and_take_codes_of_two() {
        let [one, two] = [Bits::ALL[0], Bits::ALL[1]].map(Rate::from);
        assert!(one < Rate::THREE_LEVELS && Rate::THREE_LEVELS < two);
        let three = Rate::THREE_LEVELS;
        assert_eq!(
            (three.levels(), three.code_bits(), three.uses_all_codes()),
            (3, Bits::ALL[1], false)
        );
        for bits in Bits::ALL {
            let rate = Rate::from(bits);
            assert_eq!((rate.levels(), rate.code_bits()), (bits.code_count(), bits));
            assert!(rate.uses_all_codes() && rate == bits);
        }
    }
}
