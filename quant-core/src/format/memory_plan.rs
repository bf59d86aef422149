//! The memory plan: memory and work of an evaluation of the net on a device.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | height of the images, from 1 |
//! | 4 | 4 | width, from 1 |
//! | 8 | 8 | bytes of the arena, a multiple of 4; 0 where they are not known |
//! | 16 | 8 | multiplications of one evaluation |
//!
//! It tells tools how large an arena to reserve; the engine plans again, for itself.

use super::bytes::{long, put, word};
use crate::error::{Result, check_length, check_range};

mod field {
    pub(super) const HEIGHT: usize = 0;
    pub(super) const WIDTH: usize = 4;
    pub(super) const ARENA_BYTES: usize = 8;
    pub(super) const MACS: usize = 16;
    pub(super) const END: usize = 24;
}

/// Memory and work of an evaluation of the net, in the engine that wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Height and width of the images in pixels, from 1.
    pub size: (u32, u32),
    /// Bytes of the arena of [`crate::infer`], a multiple of 4; 0 where they are not known.
    pub arena_bytes: u64,
    /// Multiplications of one evaluation.
    pub macs: u64,
}

impl MemoryPlan {
    /// Reads the contents of the section.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) unless there are 24 bytes;
    /// [`Error::Range`](crate::Error::Range) for a side of 0 or an arena of a fraction of floats.
    pub fn parse(section: &[u8]) -> Result<Self> {
        check_length("memory plan", field::END, section.len())?;
        let size = (word(section, field::HEIGHT), word(section, field::WIDTH));
        for side in [size.0, size.1] {
            check_range("side of the memory plan's images", side.into(), 1, u32::MAX.into())?;
        }
        let (arena_bytes, macs) = (long(section, field::ARENA_BYTES), long(section, field::MACS));
        check_range("bytes of the arena modulo 4", arena_bytes % 4, 0, 0)?;
        Ok(Self { size, arena_bytes, macs })
    }

    /// The contents of the section.
    pub fn emit(&self) -> [u8; field::END] {
        let mut section = [0; field::END];
        put(&mut section, field::HEIGHT, self.size.0.to_le_bytes());
        put(&mut section, field::WIDTH, self.size.1.to_le_bytes());
        put(&mut section, field::ARENA_BYTES, self.arena_bytes.to_le_bytes());
        put(&mut section, field::MACS, self.macs.to_le_bytes());
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_as_documented() {
        let plan = MemoryPlan { size: (28, 30), arena_bytes: 0x0102_0304, macs: 1 << 40 };
        let section = plan.emit();
        assert_eq!(section[..12], [28, 0, 0, 0, 30, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(section[12..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(MemoryPlan::parse(&section), Ok(plan));
        assert!(MemoryPlan::parse(&section[1..]).is_err());
        for (at, value) in [(0, 0), (4, 0), (8, 1)] {
            let mut section = section;
            section[at] = value;
            assert!(MemoryPlan::parse(&section).is_err(), "{at}");
        }
    }
}
