//! Fitting with buffers of its own.

use super::{Fit, Group, Scratch, ScratchLen, fit};
use crate::bits::code_count;
use crate::error::Result;
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
        self.keys.resize(need.keys, 0);
        self.reals.resize(need.reals, 0.0);
        self.cuts.resize(need.cuts, 0);
        self.levels.resize(code_count(group.bits)?, 0.0);
        self.codes.resize(group.weights.len(), 0);
        let mut scratch =
            Scratch { keys: &mut self.keys, reals: &mut self.reals, cuts: &mut self.cuts };
        let fit = fit(scheme, group, &mut scratch, &mut self.levels, &mut self.codes)?;
        let (levels, codes) = match fit {
            Fit::Copied => (0, 0),
            Fit::Table { levels } => (levels, self.codes.len()),
            Fit::Affine { .. } => (self.levels.len(), self.codes.len()),
        };
        Ok(Fitted { fit, levels: &self.levels[..levels], codes: &self.codes[..codes] })
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
    /// The values that replace `weights`, the weights which were fitted.
    pub fn dequantized(self, weights: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let copied = if self.fit == Fit::Copied { weights } else { &[] };
        let coded = self.codes.iter().map(move |&code| self.levels[usize::from(code)]);
        copied.iter().copied().chain(coded)
    }
}
