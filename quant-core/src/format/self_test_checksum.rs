//! The self-test checksum: an input and the checksum of the net's velocity there, for this crate's
//! engine, whose velocity has the same bits on every target.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | seed of the input, image 0 of [`crate::noise`] |
//! | 8 | 4 | time `t` of the input, f32, 0 to 1 |
//! | 12 | 4 | label, or `ff ff ff ff` for none |
//! | 16 | 4 | CRC-32 of the velocity `v(x, t, label)` in floats: of its elements as f32, in the order in which the last convolution writes them, `[channels, height, width]` of patches |
//! | 20 | 4 | the same of the velocity in integers; 0 without it |
//! | 24 | 1 | version of the arithmetic that these are of, from 1: see [`crate::infer::ARITHMETIC`] |
//! | 25 | 1 | 1 where the velocity in integers has been computed, else 0 |
//! | 26 | 2 | zero |

use super::bytes::{byte, check_zero, put, short, word};
use super::header::{CRC, Running};
use super::self_test::SelfTestInput;
use crate::error::{Result, check_length, check_range};

mod field {
    // The input of the self-test stands before these.
    pub(super) const FLOAT: usize = 16;
    pub(super) const INTEGER: usize = 20;
    pub(super) const ARITHMETIC: usize = 24;
    pub(super) const HAS_INTEGER: usize = 25;
    pub(super) const ZERO: usize = 26;
    pub(super) const END: usize = 28;
}

/// Input, given by its seed, and the checksums of the velocity that the packed net has there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTestChecksum {
    /// Noise, time and label.
    pub input: SelfTestInput,
    /// Version of the engine's arithmetic that the checksums are of, from 1.
    pub arithmetic: u8,
    /// CRC-32 of the velocity in floats.
    pub float: u32,
    /// CRC-32 of the velocity in integers, where it has been computed.
    pub integer: Option<u32>,
}

impl SelfTestChecksum {
    /// Reads the contents of the section.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) unless there are 28 bytes;
    /// [`Error::Real`](crate::Error::Real) for a time outside 0 to 1;
    /// [`Error::Range`](crate::Error::Range) for the version 0;
    /// [`Error::NotZero`](crate::Error::NotZero) for a field that must be zero.
    pub fn parse(section: &[u8]) -> Result<Self> {
        check_length("self-test checksum", field::END, section.len())?;
        let input = SelfTestInput::parse(section)?;
        let arithmetic = byte(section, field::ARITHMETIC);
        check_range("arithmetic of the self-test", arithmetic.into(), 1, u8::MAX.into())?;
        let [has_integer, rest] = [field::HAS_INTEGER, field::ZERO].map(|at| short(section, at));
        let has_integer = has_integer & 0xff;
        check_range("flag of the self-test checksum", has_integer.into(), 0, 1)?;
        let integer = word(section, field::INTEGER);
        let unused = [u16::from(has_integer == 0 && integer != 0), rest];
        check_zero(
            "unused bytes of the self-test checksum",
            unused.map(u16::to_le_bytes).as_flattened(),
        )?;
        let integer = (has_integer == 1).then_some(integer);
        Ok(Self { input, arithmetic, float: word(section, field::FLOAT), integer })
    }

    /// The contents of the section.
    pub fn emit(self) -> [u8; 28] {
        let Self { input, arithmetic, float, integer } = self;
        let mut section = [0; field::END];
        input.emit(&mut section);
        put(&mut section, field::FLOAT, float.to_le_bytes());
        put(&mut section, field::INTEGER, integer.unwrap_or(0).to_le_bytes());
        put(&mut section, field::ARITHMETIC, [arithmetic, u8::from(integer.is_some())]);
        section
    }
}

/// The checksum of a velocity in the making.
pub(crate) struct VelocityDigest(Running);

impl VelocityDigest {
    pub(crate) fn new() -> Self {
        Self(CRC.digest())
    }

    /// Takes the next element.
    pub(crate) fn add(&mut self, v: f32) {
        self.0.update(&v.to_le_bytes());
    }

    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const SECTION: [u8; 28] = [
        1, 0, 0, 0, 2, 0, 0, 0, // seed
        0, 0, 0, 0x3f, 3, 0, 0, 0, // t = 0.5, label 3
        4, 3, 2, 1, 8, 7, 6, 5, // checksums
        1, 1, 0, 0, // arithmetic 1, with integers
    ];

    #[test]
    fn reads_and_writes_the_documented_bytes() {
        let input = SelfTestInput { seed: 1 | 2 << 32, t: 0.5, label: Some(3) };
        let (float, integer) = (0x0102_0304, Some(0x0506_0708));
        let checksum = SelfTestChecksum { input, arithmetic: 1, float, integer };
        assert_eq!(SelfTestChecksum::parse(&SECTION), Ok(checksum));
        assert_eq!(checksum.emit(), SECTION);
        let bare = SelfTestChecksum {
            input: SelfTestInput { label: None, ..input },
            integer: None,
            ..checksum
        };
        assert_eq!(SelfTestChecksum::parse(&bare.emit()), Ok(bare));
        assert_eq!(bare.emit()[12..], [0xff, 0xff, 0xff, 0xff, 4, 3, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        for (at, byte) in [(11, 0x7e), (24, 0), (25, 0), (25, 2), (26, 1), (27, 1)] {
            let mut section = SECTION;
            section[at] = byte;
            assert!(SelfTestChecksum::parse(&section).is_err(), "byte {at} = {byte}");
        }
        let short = SelfTestChecksum::parse(&SECTION[1..]);
        assert!(matches!(short, Err(Error::Length { .. })));
    }

    #[test]
    fn a_velocity_has_the_checksum_of_its_bytes() {
        let mut digest = VelocityDigest::new();
        for v in [1.0, -0.0, 1e-45] {
            digest.add(v);
        }
        let bytes = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x80, 1, 0, 0, 0];
        assert_eq!(digest.finish(), CRC.checksum(&bytes));
    }
}
