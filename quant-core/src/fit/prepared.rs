//! Weights sorted once, for any number of levels.

use super::room::Room;
use super::{Fit, Scratch, ScratchLen, check_weights, lloyd_max};
use crate::bits::MAX_BITS;
use crate::error::{Error, Result, check_count, check_length};

/// The most levels, `2^8`.
const MOST: usize = 1 << MAX_BITS;

/// Sorted weights with their prefix sums: `lloyd-max` for one `K` after the other without a further
/// sort, as a search for the width of codes wants it.
#[derive(Debug)]
pub struct Prepared<'a> {
    room: Room<'a>,
    n: usize,
}

impl<'a> Prepared<'a> {
    /// What [`Self::new`] takes for `n` weights.
    ///
    /// # Errors
    /// [`Error::Range`] for no weights or more than 2^32 - 1, or for lengths beyond the address
    /// space.
    pub fn scratch_len(n: usize) -> Result<ScratchLen> {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        check_count("number of weights", n, 1, most)?;
        let found = u64::try_from(n).unwrap_or(u64::MAX);
        let too_many =
            Error::Range { what: "number of weights", found, min: 1, max: u64::from(u32::MAX) };
        Room::scratch_len(n, MOST).ok_or(too_many)
    }

    /// Sorts some weights; for importance see [`super::Group::importance`].
    ///
    /// # Errors
    /// As [`Self::scratch_len`]; [`Error::Length`] for a scratch slice shorter than it says, or for
    /// importance of another length; [`Error::NonFinite`], [`Error::Negative`] and [`Error::Real`]
    /// as [`super::fit`].
    pub fn new(
        weights: &[f32],
        importance: Option<&'a [f32]>,
        scratch: Scratch<'a>,
    ) -> Result<Self> {
        let scratch = scratch.take(Self::scratch_len(weights.len())?)?;
        check_weights(weights, importance)?;
        Ok(Self { room: Room::new(weights, importance, scratch, MOST), n: weights.len() })
    }

    /// Fits the weights under `lloyd-max` with at most `levels.len()` levels.
    ///
    /// # Shapes
    /// `levels`: `[1..=256]`; `codes`: `[n]`.
    ///
    /// # Errors
    /// [`Error::Range`] for another number of levels, [`Error::Length`] for another one of codes.
    pub fn lloyd_max(&mut self, levels: &mut [f32], codes: &mut [u8]) -> Result<Fit> {
        check_count("number of levels", levels.len(), 1, MOST)?;
        check_length("codes", self.n, codes.len())?;
        Ok(lloyd_max::fit(&mut self.room, levels, codes))
    }
}
