//! The memory of an evaluation: one slice, cut into what the layers need.
//!
//! ```text
//! maps         feature maps, a stack: the skips of the encoder, the present map, temporaries
//! gathered     what a convolution is about to read: channels with their margins, or rows
//! row          one row of weights, or the part of it that meets the gathered channels
//! vector       one bias or gain
//! affine       gain and offset of each channel after a norm
//! embedding    time and label
//! modulation   the embedding as one block sees it
//! floats       the image, then the velocity, where maps are bytes
//! skips        the scales of the skips, where maps are bytes
//! ```

use super::map::{Map, Values};
use crate::error::{Error, Result};

const PARTS: usize = 9;

/// A number of floats for each part of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) maps: usize,
    pub(super) gathered: usize,
    pub(super) row: usize,
    pub(super) vector: usize,
    pub(super) affine: usize,
    pub(super) embedding: usize,
    pub(super) modulation: usize,
    pub(super) floats: usize,
    pub(super) skips: usize,
}

impl Sizes {
    const fn parts(&self) -> [usize; PARTS] {
        let Self { maps, gathered, row, vector, affine, .. } = *self;
        let Self { embedding, modulation, floats, skips, .. } = *self;
        [maps, gathered, row, vector, affine, embedding, modulation, floats, skips]
    }

    /// All parts together, `None` beyond the address space.
    pub(super) fn total(&self) -> Option<usize> {
        self.parts().iter().try_fold(0usize, |sum, &part| sum.checked_add(part))
    }

    /// The larger size of each part.
    pub(super) fn max(&self, other: &Self) -> Self {
        let (own, other) = (self.parts(), other.parts());
        let mut parts = own.iter().zip(other).map(|(&own, other)| own.max(other));
        let mut next = || parts.next().unwrap_or(0);
        Self {
            maps: next(),
            gathered: next(),
            row: next(),
            vector: next(),
            affine: next(),
            embedding: next(),
            modulation: next(),
            floats: next(),
            skips: next(),
        }
    }
}

/// The parts of the memory.
#[derive(Debug, Default)]
pub(super) struct Workspace<'a> {
    pub(super) maps: &'a mut [f32],
    pub(super) gathered: &'a mut [f32],
    pub(super) row: &'a mut [f32],
    pub(super) vector: &'a mut [f32],
    pub(super) affine: &'a mut [f32],
    pub(super) embedding: &'a mut [f32],
    pub(super) modulation: &'a mut [f32],
    pub(super) floats: &'a mut [f32],
    pub(super) skips: &'a mut [f32],
    /// The largest value after the last norm, in the fixed point of bytes.
    pub(super) peak: i32,
}

impl<'a> Workspace<'a> {
    /// Cuts `arena` up.
    ///
    /// # Errors
    /// [`Error::Length`] where it is shorter than all parts together.
    pub(super) fn new(sizes: &Sizes, arena: &'a mut [f32]) -> Result<Self> {
        let (expected, found) = (sizes.total().unwrap_or(usize::MAX), arena.len());
        let mut left = arena;
        let mut next = |len: usize| {
            let (part, rest) = core::mem::take(&mut left).split_at_mut_checked(len)?;
            left = rest;
            Some(part)
        };
        let mut cut = || {
            Some(Self {
                maps: next(sizes.maps)?,
                gathered: next(sizes.gathered)?,
                row: next(sizes.row)?,
                vector: next(sizes.vector)?,
                affine: next(sizes.affine)?,
                embedding: next(sizes.embedding)?,
                modulation: next(sizes.modulation)?,
                floats: next(sizes.floats)?,
                skips: next(sizes.skips)?,
                peak: 0,
            })
        };
        cut().ok_or(Error::Length { what: "arena in floats", expected, found })
    }
}

/// The first `len` values of a part of the memory.
///
/// # Errors
/// [`Error::Length`] where they are not all there.
pub(super) fn first<T>(part: &mut [T], len: usize) -> Result<&mut [T]> {
    let found = part.len();
    part.get_mut(..len).ok_or_else(|| too_small(len, found))
}

/// The memory of a plan that is not the model's.
#[cold]
pub(super) const fn too_small(expected: usize, found: usize) -> Error {
    Error::Length { what: "plan of another model: its arena", expected, found }
}

/// The stack of maps, counted in their values.
#[derive(Debug, Default)]
pub(super) struct Stack {
    end: usize,
    /// Kind of the values of new maps.
    values: Values,
    /// The highest end so far.
    pub(super) peak: usize,
}

impl Stack {
    /// A stack whose new maps hold such values.
    pub(super) fn of(values: Values) -> Self {
        Self { values, ..Self::default() }
    }

    /// A map above all others.
    pub(super) fn push(&mut self, channels: usize, height: usize, width: usize) -> Map {
        let map = Map { at: self.end, channels, height, width, values: self.values };
        self.end = map.end();
        self.peak = self.peak.max(self.end);
        map
    }

    /// Gives up all maps above `end`.
    pub(super) fn cut(&mut self, end: usize) {
        self.end = end;
    }
}
