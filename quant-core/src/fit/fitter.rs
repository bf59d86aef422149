//! Fitting with buffers of its own.

use super::{Fit, Group, Prepared, Scratch, ScratchLen, fit};
use crate::bits::{MAX_BITS, code_count};
use crate::error::{Result, check_count};
use crate::scheme::Scheme;
use alloc::vec::Vec;

/// Reusable buffers for [`fit`]: make one per thread and feed it group after group.
#[derive(Clone, Debug, Default)]
pub struct Fitter {
    keys: Vec<u64>,
    reals: Vec<f64>,
    cuts: Vec<u32>,
    levels: Vec<f32>,
    codes: Vec<u8>,
}

impl Fitter {
    /// Empty buffers; they grow with the groups.
    pub const fn new() -> Self {
        Self {
            keys: Vec::new(),
            reals: Vec::new(),
            cuts: Vec::new(),
            levels: Vec::new(),
            codes: Vec::new(),
        }
    }

    /// Fits one group of weights.
    ///
    /// # Errors
    /// As [`fit`], less those about lengths.
    pub fn fit(&mut self, scheme: Scheme, group: &Group<'_>) -> Result<Fitted<'_>> {
        let need = ScratchLen::of(scheme, group.weights.len(), group.bits)?;
        self.resize(need, code_count(group.bits)?, group.weights.len());
        let mut scratch =
            Scratch { keys: &mut self.keys, reals: &mut self.reals, cuts: &mut self.cuts };
        let fit = fit(scheme, group, &mut scratch, &mut self.levels, &mut self.codes)?;
        Ok(Fitted::of(fit, &self.levels, &self.codes))
    }

    /// Sorts some weights once, for fits under `lloyd-max` with any number of levels.
    ///
    /// # Errors
    /// As [`Prepared::new`], less those about lengths of scratch.
    pub fn prepare<'a>(
        &'a mut self,
        weights: &[f32],
        importance: Option<&'a [f32]>,
    ) -> Result<PreparedFitter<'a>> {
        let need = Prepared::scratch_len(weights.len())?;
        self.resize(need, 1 << MAX_BITS, weights.len());
        let scratch =
            Scratch { keys: &mut self.keys, reals: &mut self.reals, cuts: &mut self.cuts };
        let prepared = Prepared::new(weights, importance, scratch)?;
        Ok(PreparedFitter { prepared, levels: &mut self.levels, codes: &mut self.codes })
    }

    fn resize(&mut self, need: ScratchLen, levels: usize, codes: usize) {
        resize(&mut self.keys, need.keys);
        resize(&mut self.reals, need.reals);
        resize(&mut self.cuts, need.cuts);
        resize(&mut self.levels, levels);
        resize(&mut self.codes, codes);
    }
}

/// Sets the length, without the room to spare that a vector would otherwise take.
fn resize<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, T::default());
}

/// Weights sorted once by [`Fitter::prepare`], in its buffers.
#[derive(Debug)]
pub struct PreparedFitter<'a> {
    prepared: Prepared<'a>,
    levels: &'a mut [f32],
    codes: &'a mut [u8],
}

impl PreparedFitter<'_> {
    /// Fits the weights under `lloyd-max` with at most `levels` levels, 1 to 256.
    ///
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) for another number of levels.
    pub fn lloyd_max(&mut self, levels: usize) -> Result<Fitted<'_>> {
        check_count("number of levels", levels, 1, self.levels.len())?;
        let fit = self.prepared.lloyd_max(&mut self.levels[..levels], self.codes)?;
        Ok(Fitted::of(fit, &self.levels[..levels], self.codes))
    }
}

/// A fitted group, in the buffers of its [`Fitter`].
#[derive(Clone, Copy, Debug)]
pub struct Fitted<'a> {
    /// How the group came out.
    pub fit: Fit,
    /// The levels; none if copied.
    pub levels: &'a [f32],
    /// One code per weight, each below the number of levels; none if copied.
    pub codes: &'a [u8],
}

impl<'a> Fitted<'a> {
    fn of(fit: Fit, levels: &'a [f32], codes: &'a [u8]) -> Self {
        let codes = if fit == Fit::Copied { &[] } else { codes };
        let count = fit.level_count(levels.len(), codes.len());
        Self { fit, levels: &levels[..count], codes }
    }

    /// The values that replace `weights`, the weights which were fitted.
    pub fn dequantized(self, weights: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let copied = if self.fit == Fit::Copied { weights } else { &[] };
        let coded = self.codes.iter().map(move |&code| self.levels[usize::from(code)]);
        copied.iter().copied().chain(coded)
    }
}
