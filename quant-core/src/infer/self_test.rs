//! The self-test: whether this build on this device computes what the file says its net does.

use super::{Input, Plan, Precision};
use crate::error::{Error, Result, check_length};
use crate::format::{
    Activations, Model, SelfTestChecksum, SelfTestInput, SelfTestVector, VelocityDigest,
};
use crate::{noise, num};

/// Version of the engine's arithmetic: another one may give other bits for the same file.
pub const ARITHMETIC: u8 = 1;

/// Outcome of a self-test that did not fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SelfTest {
    /// The file holds nothing to test with.
    Absent,
    /// The file's checksum is of another version of the arithmetic, of images of another size, or of floats
    /// alone where the plan is of integers: it says nothing about this device.
    NotComparable,
    /// The device computes what the net does.
    Passed {
        /// Greatest difference of an element of the velocity, 0 by a checksum.
        off: f32,
    },
}

impl Plan {
    /// Computes the velocity of the file's self-test, and compares: with its checksum where that is of
    /// this arithmetic, else with its vector.
    ///
    /// # Shapes
    /// `arena`: at least [`Plan::arena_len`] and an image of as many channels as the net has.
    ///
    /// # Errors
    /// [`Error::Crc`] for another checksum; [`Error::SelfTest`] where an element is off by more than the
    /// vector allows; [`Error::Length`] for a vector of other images or a short arena; those of
    /// [`Plan::velocity`].
    pub fn self_test(&self, model: &Model<'_>, arena: &mut [f32]) -> Result<SelfTest> {
        let checksum = model.self_test_checksum();
        if let Some((checksum, stored)) =
            checksum.and_then(|sum| Some((sum, self.stored_in(model, sum)?)))
        {
            let computed = self.velocity_checksum(model, checksum.input, arena)?;
            let wrong = Error::Crc { what: "self-test velocity", stored, computed };
            return if stored == computed { Ok(SelfTest::Passed { off: 0.0 }) } else { Err(wrong) };
        }
        match model.self_test_vector() {
            Some(vector) => self.compare(model, vector, arena),
            None if checksum.is_some() => Ok(SelfTest::NotComparable),
            None => Ok(SelfTest::Absent),
        }
    }

    /// CRC-32 of the velocity of a self-test's input, as [`SelfTestChecksum`] holds it.
    ///
    /// # Shapes
    /// As [`Plan::self_test`].
    ///
    /// # Errors
    /// [`Error::Length`] for a short arena; those of [`Plan::velocity`].
    pub fn velocity_checksum(
        &self,
        model: &Model<'_>,
        input: SelfTestInput,
        arena: &mut [f32],
    ) -> Result<u32> {
        let mut digest = VelocityDigest::new();
        self.with_velocity(model, input, arena, |_, v| digest.add(v))?;
        Ok(digest.finish())
    }

    /// The checksum to compare with, `None` where none is of this arithmetic and this size.
    fn stored_in(&self, model: &Model<'_>, checksum: SelfTestChecksum) -> Option<u32> {
        let side = model.net()?.image_size?;
        let of_this = checksum.arithmetic == ARITHMETIC && self.image_size() == (side, side);
        let stored = match self.precision() {
            Precision::Float => Some(checksum.float),
            Precision::Integer => checksum.integer,
        };
        stored.filter(|_| of_this)
    }

    /// Calls with the place in the image and the value of each element of the velocity, in the order in
    /// which the last convolution writes them.
    fn with_velocity(
        &self,
        model: &Model<'_>,
        input: SelfTestInput,
        arena: &mut [f32],
        call: impl FnMut(usize, f32),
    ) -> Result<usize> {
        let channels = model.net().map_or(0, |net| net.in_channels);
        let (height, width) = self.image_size();
        let inputs = channels.saturating_mul(height).saturating_mul(width);
        let (expected, found) = (self.arena_len().saturating_add(inputs), arena.len());
        let short = Error::Length { what: "arena in floats", expected, found };
        let (x, arena) = arena.split_at_mut_checked(inputs).ok_or(short)?;
        noise::fill_normal(input.seed, 0, 0, x);
        let input = Input { x, concat: &[], t: input.t, label: input.label };
        let velocity = self.evaluate(model, &input, arena, None)?;
        velocity.each(call);
        Ok(velocity.values().len())
    }

    fn compare(
        &self,
        model: &Model<'_>,
        vector: &SelfTestVector<'_>,
        arena: &mut [f32],
    ) -> Result<SelfTest> {
        let (height, width) = self.image_size();
        check_length("rows of the self-test vector", height, vector.size.0.into())?;
        check_length("columns of the self-test vector", width, vector.size.1.into())?;
        let tolerance = match self.precision() {
            Precision::Float => vector.tolerance,
            // Integers are right only if they are just as far off as they were on the host.
            Precision::Integer => model.activations().map_or(0.0, Activations::self_test_error),
        };
        let (mut worst, mut worst_at) = (0f32, 0);
        let mut failed = None;
        let len = self.with_velocity(model, vector.input, arena, |index, v| {
            let off = vector.velocity_at(index).map_or(f32::NAN, |right| num::abs_f32(v - right));
            // A NaN is off too.
            if off.is_nan() || off > tolerance {
                failed = failed.or(Some(index));
            }
            if off > worst {
                (worst, worst_at) = (off, index);
            }
        })?;
        check_length("velocity of the self-test vector", len, vector.velocity().len())?;
        if let Some(index) = failed {
            return Err(Error::SelfTest { index });
        }
        if self.precision() == Precision::Integer && worst < tolerance {
            return Err(Error::SelfTest { index: worst_at });
        }
        Ok(SelfTest::Passed { off: worst })
    }
}
