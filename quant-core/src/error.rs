//! The one error type: what was read, and the numbers that made it wrong.

use crate::num::u64_of;
use core::fmt;

/// The result of every fallible call of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Reason why an input was refused.
///
/// `what` names the thing being read, as in "tensor name" or "codes of a row".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A code width outside 1..=8.
    Bits(u8),
    /// A code that does not fit its width.
    Code {
        /// Position of the code.
        index: usize,
        /// The code found.
        code: u8,
        /// The largest code that would be right.
        max: u8,
    },
    /// A slice of the wrong length.
    Length {
        /// Name of the slice's contents.
        what: &'static str,
        /// The length that would be right.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A NaN or an infinity where a finite number is needed.
    NonFinite {
        /// Name of the number.
        what: &'static str,
        /// Position of the number.
        index: usize,
    },
    /// A number below zero where none may be.
    Negative {
        /// Name of the number.
        what: &'static str,
        /// Position of the number.
        index: usize,
    },
    /// A level too large for f16.
    F16Overflow {
        /// Position of the weight that has this level.
        index: usize,
    },
    /// A number outside its range.
    Range {
        /// Name of the number.
        what: &'static str,
        /// The number found.
        found: u64,
        /// Smallest right value.
        min: u64,
        /// Largest right value.
        max: u64,
    },
    /// A number that another does not divide.
    Multiple {
        /// Name of the number.
        what: &'static str,
        /// The number found.
        found: usize,
        /// The required divisor.
        of: usize,
        /// Meaning of the divisor, in words.
        why: &'static str,
    },
    /// A real number outside its range, or NaN.
    Real {
        /// Name of the number.
        what: &'static str,
        /// Right range in words.
        range: &'static str,
    },
    /// The input ends too early.
    Truncated {
        /// Name of the part that was being read.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes left.
        left: u64,
    },
    /// The input goes on after its end.
    Trailing {
        /// Bytes too many.
        bytes: u64,
    },
    /// The file does not start with the magic bytes of [`mod@crate::format`].
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
        /// First four bytes of every packed file.
        expected: [u8; 4],
    },
    /// A file of a version of the format that this code does not read.
    UnsupportedVersion {
        /// Major and minor version of the file.
        found: (u16, u16),
        /// The version that this code writes.
        supported: (u16, u16),
    },
    /// A file that uses features which this code does not know.
    UnknownFeatures {
        /// The unknown feature bits.
        bits: u32,
    },
    /// The checksum does not match: the file is damaged.
    Crc {
        /// The part of the file.
        what: &'static str,
        /// Checksum stored in the file.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// Bytes or bits that must be zero and are not.
    NotZero {
        /// Name of the bytes or bits.
        what: &'static str,
    },
    /// A tensor name that is not UTF-8.
    NotUtf8 {
        /// Position of the tensor.
        tensor: usize,
    },
    /// Two tensors of one name.
    DuplicateName {
        /// Position of the second tensor; the writer counts those added so far.
        tensor: usize,
    },
    /// A tensor that is not the net's parameter of this position.
    NotOfTheNet {
        /// Position of the tensor.
        tensor: usize,
    },
    /// A tensor whose elements are of another kind than the call needs.
    Encoding {
        /// The kind the call needs.
        needed: &'static str,
    },
    /// The device does not compute what the file says the net does.
    SelfTest {
        /// The first element of the velocity that is too far off.
        index: usize,
    },
    /// A method that the device's solver does not have.
    NotOnDevice(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bits(bits) => write!(f, "codes of {bits} bits: must be 1 to 8"),
            Self::Code { index, code, max } => {
                write!(f, "code {code} at {index}: must be at most {max}")
            }
            Self::Length { what, expected, found } => {
                write!(f, "{what}: length {found}, must be {expected}")
            }
            Self::NonFinite { what, index } => {
                write!(f, "{what} {index} is not finite: must be a finite number")
            }
            Self::Negative { what, index } => {
                write!(f, "{what} {index} is negative: must be at least 0")
            }
            Self::F16Overflow { index } => {
                write!(f, "level of weight {index} overflows f16: must be below 65520")
            }
            Self::Range { what, found, min, max } => {
                write!(f, "{what} is {found}: must be {min} to {max}")
            }
            Self::Multiple { what, found, of, why } => {
                write!(f, "{what} is {found}: must be a multiple of {of}, {why}")
            }
            Self::Real { what, range } => write!(f, "{what}: must be {range}"),
            Self::Truncated { what: "file", needed, left } => {
                write!(f, "ends at byte {left}, but its header says {needed}: it was cut short")
            }
            Self::Truncated { what, needed, left } => {
                write!(f, "{what}: {left} bytes left, must be {needed}")
            }
            Self::Trailing { bytes } => {
                write!(f, "{bytes} bytes after the end of the file: must be none")
            }
            Self::BadMagic { found, expected } => {
                write!(f, "first bytes {found:02x?}: must be {expected:02x?}")
            }
            Self::UnsupportedVersion { found, supported } => {
                let ((a, b), (major, _)) = (found, supported);
                write!(f, "format version {a}.{b}: must be {major}.x")
            }
            Self::UnknownFeatures { bits } => {
                write!(f, "unknown feature bits {bits:#x}: must be none")
            }
            Self::Crc { what, stored, computed } => {
                write!(f, "{what}: checksum {stored:#010x} stored, {computed:#010x} computed: ")?;
                write!(f, "must agree")
            }
            Self::NotZero { what } => write!(f, "{what}: must be zero"),
            Self::NotUtf8 { tensor } => write!(f, "name of tensor {tensor}: must be UTF-8"),
            Self::DuplicateName { tensor } => {
                write!(f, "name of tensor {tensor} occurs twice: must be unique")
            }
            Self::NotOfTheNet { tensor } => {
                write!(f, "tensor {tensor}: must be the parameter of the file's net in this place")
            }
            Self::Encoding { needed } => write!(f, "elements of the tensor: must be {needed}"),
            Self::SelfTest { index } => {
                write!(
                    f,
                    "self-test: element {index} of the velocity is off: must be that of the self-test vector"
                )
            }
            Self::NotOnDevice(method) => {
                write!(f, "the device's solver has euler, midpoint and heun2, not {method}")
            }
        }
    }
}

impl core::error::Error for Error {}

/// Fails unless a slice has the length it must have.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

/// Fails unless a number lies within its bounds.
pub(crate) fn check_range(what: &'static str, found: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(Error::Range { what, found, min, max }) }
}

/// Fails unless a count lies within its bounds.
pub(crate) fn check_count(what: &'static str, found: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let [found, min, max] = [found, min, max].map(u64_of);
    Err(Error::Range { what, found, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn says_what_would_be_right() {
        let error = Error::Truncated { what: "header", needed: 32, left: 7 };
        assert_eq!(error.to_string(), "header: 7 bytes left, must be 32");
        let error = Error::Truncated { what: "file", needed: 32, left: 7 };
        assert!(error.to_string().starts_with("ends at byte 7, but its header says 32"));
        assert_eq!(Error::Bits(9).to_string(), "codes of 9 bits: must be 1 to 8");
    }
}
