//! The self-test vector: an input and the velocity of the net there, so that a device can test itself.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | seed of the input, image 0 of [`crate::noise`] |
//! | 8 | 4 | time `t` of the input, f32, 0 to 1 |
//! | 12 | 4 | label, or `ff ff ff ff` for none |
//! | 16 | 4 | tolerance, f32: the greatest difference of an element that is still right |
//! | 20 | 2 | height |
//! | 22 | 2 | width |
//! | 24 | 4m | velocity, f32: the `m = channels · height · width` elements of `v(x, t, label)` |

use super::bytes::{long, put, real, short, word};
use crate::error::{Error, Result};
use crate::num::{index, u64_of};
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// The label that says that there is none.
const NO_LABEL: u32 = u32::MAX;

mod field {
    pub(super) const SEED: usize = 0;
    pub(super) const TIME: usize = 8;
    pub(super) const LABEL: usize = 12;
    pub(super) const TOLERANCE: usize = 16;
    pub(super) const HEIGHT: usize = 20;
    pub(super) const WIDTH: usize = 22;
    pub(super) const VELOCITY: usize = 24;
}

/// Input of a self-test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTestInput {
    /// Seed of the noise that is the input, image 0 of [`crate::noise`].
    pub seed: u64,
    /// Time, 0 to 1.
    pub t: f32,
    /// Label, `None` for a net without classes or for "no label".
    pub label: Option<u32>,
}

impl SelfTestInput {
    /// Reads the input at the start of a section.
    pub(super) fn parse(section: &[u8]) -> Result<Self> {
        let (t, label) = (real(section, field::TIME), word(section, field::LABEL));
        if !(0.0..=1.0).contains(&t) {
            return Err(Error::Real { what: "time of the self-test", range: "0 to 1" });
        }
        let label = (label != NO_LABEL).then_some(label);
        Ok(Self { seed: long(section, field::SEED), t, label })
    }

    /// Writes the input at the start of a section.
    pub(super) fn emit(self, section: &mut [u8]) {
        put(section, field::SEED, self.seed.to_le_bytes());
        put(section, field::TIME, self.t.to_le_bytes());
        put(section, field::LABEL, self.label.unwrap_or(NO_LABEL).to_le_bytes());
    }
}

/// Input, given by its seed, and the velocity that the packed net has there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTestVector<'a> {
    /// Noise, time and label.
    pub input: SelfTestInput,
    /// Greatest difference of an element that is still right, above 0.
    pub tolerance: f32,
    /// Height and width of the input.
    pub size: (u16, u16),
    velocity: &'a [u8],
}

impl<'a> SelfTestVector<'a> {
    /// Reads the contents of the section.
    ///
    /// # Errors
    /// [`Error::Truncated`] below 24 bytes; [`Error::Real`] for a time outside 0 to 1 or a
    /// tolerance that is not a finite number above 0; [`Error::Range`] for a velocity that is not
    /// a whole number of images; [`Error::NonFinite`] for an element of it.
    pub fn parse(section: &'a [u8]) -> Result<Self> {
        let (needed, left) = (u64_of(field::VELOCITY), u64_of(section.len()));
        let truncated = Error::Truncated { what: "self-test vector", needed, left };
        let (head, velocity) = section.split_at_checked(field::VELOCITY).ok_or(truncated)?;
        let vector = Self {
            input: SelfTestInput::parse(head)?,
            tolerance: real(head, field::TOLERANCE),
            size: (short(head, field::HEIGHT), short(head, field::WIDTH)),
            velocity,
        };
        vector.check()?;
        Ok(vector)
    }

    /// Makes the contents of the section from an input and the velocity `[channels, height, width]` that
    /// the packed net has there.
    ///
    /// # Errors
    /// Those of [`SelfTestVector::parse`].
    #[cfg(feature = "alloc")]
    pub fn emit(
        input: SelfTestInput,
        tolerance: f32,
        (height, width): (u16, u16),
        velocity: &[f32],
    ) -> Result<Vec<u8>> {
        let mut section = alloc::vec![0; field::VELOCITY];
        input.emit(&mut section);
        put(&mut section, field::TOLERANCE, tolerance.to_le_bytes());
        put(&mut section, field::HEIGHT, height.to_le_bytes());
        put(&mut section, field::WIDTH, width.to_le_bytes());
        section.extend(velocity.iter().flat_map(|v| v.to_le_bytes()));
        SelfTestVector::parse(&section)?;
        Ok(section)
    }

    /// The velocity, `[channels, height, width]`.
    pub fn velocity(&self) -> impl ExactSizeIterator<Item = f32> + 'a {
        self.velocity.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
    }

    /// Element `i` of the velocity.
    pub(crate) fn velocity_at(&self, i: usize) -> Option<f32> {
        self.velocity.as_chunks().0.get(i).map(|&bytes| f32::from_le_bytes(bytes))
    }

    fn check(&self) -> Result<()> {
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::Real {
                what: "tolerance of the self-test vector",
                range: "above 0",
            });
        }
        let pixels = index(u32::from(self.size.0) * u32::from(self.size.1));
        let image = pixels.saturating_mul(4);
        let rest = self.velocity.len().checked_rem(image);
        if self.velocity.is_empty() || rest != Some(0) {
            let found = u64_of(self.velocity.len());
            let min = u64_of(image.max(4));
            return Err(Error::Range {
                what: "bytes of the self-test velocity",
                found,
                min,
                max: min,
            });
        }
        match self.velocity().position(|v| !v.is_finite()) {
            Some(index) => Err(Error::NonFinite { what: "self-test velocity", index }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: [u8; 32] = [
        1, 0, 0, 0, 2, 0, 0, 0, // seed
        0, 0, 0, 0x3f, 3, 0, 0, 0, // t = 0.5, label 3
        0, 0, 0, 0x3e, 1, 0, 2, 0, // tolerance 0.125, 1 x 2 pixels
        0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, // velocity 1, -2
    ];

    #[test]
    fn reads_and_writes_the_documented_bytes() {
        let vector = SelfTestVector::parse(&SECTION).unwrap();
        let input = SelfTestInput { seed: 1 | 2 << 32, t: 0.5, label: Some(3) };
        assert_eq!(vector.input, input);
        assert_eq!((vector.tolerance, vector.size), (0.125, (1, 2)));
        assert!(vector.velocity().eq([1.0, -2.0]));
        #[cfg(feature = "alloc")]
        assert_eq!(
            SelfTestVector::emit(input, 0.125, (1, 2), &[1.0, -2.0]).as_deref(),
            Ok(&SECTION[..])
        );
        let mut unlabelled = SECTION;
        unlabelled[12..16].fill(0xff);
        assert_eq!(SelfTestVector::parse(&unlabelled).unwrap().input.label, None);
    }

    #[test]
    fn refuses_what_no_device_could_compare() {
        let with = |at: usize, byte: u8| {
            let mut section = SECTION;
            section[at] = byte;
            SelfTestVector::parse(&section).map(|_| ())
        };
        assert_eq!(with(0, 9), Ok(()));
        // t = 2^125, tolerance below 0, three rows, no rows
        for (at, byte) in [(11, 0x7e), (19, 0xbe), (20, 3), (20, 0)] {
            assert!(with(at, byte).is_err(), "byte {at} = {byte}");
        }
        let mut infinite = SECTION;
        infinite[28..32].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let refused = Err(Error::NonFinite { what: "self-test velocity", index: 1 });
        assert_eq!(SelfTestVector::parse(&infinite), refused);
        assert!(SelfTestVector::parse(&SECTION[..23]).is_err());
        assert!(SelfTestVector::parse(&SECTION[..24]).is_err());
        assert!(SelfTestVector::parse(&SECTION[..31]).is_err());
    }
}
