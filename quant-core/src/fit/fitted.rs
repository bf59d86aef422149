//! The result of a fit.

use crate::codebook::Affine;
use crate::log_range::LogRange;
use alloc::vec::Vec;

/// Kind of levels of a fitted group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// No levels: the weights are kept as they are. This happens
    /// - to every empty group;
    /// - under `ot`, `pwl` and `log` in a tensor of fewer than K elements;
    /// - under `log` in a group of one weight;
    /// - under `uniform` and `uniform-mse` in a constant group, and where f32 cannot represent the
    ///   scale (it underflows to zero, the last level overflows, or the last code exceeds
    ///   K - 1).
    Copied,
    /// Any levels: weight `i` becomes `levels[codes[i]]`.
    Table,
    /// All K levels of a uniform quantizer: as `Table`, and `levels[code]` is [`Affine::value`].
    Affine(Affine),
    /// Geometric levels: as `Table`, and `levels[code]` is [`LogRange::level`] `code` of `min(K, n)`.
    Logarithmic(LogRange),
}

/// Levels and codes of a fitted group.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Kind of the levels.
    pub fit: Fit,
    /// Levels, 1 to K of them; empty if copied.
    pub levels: Vec<f32>,
    /// Code of each weight, below the number of levels; empty if copied.
    pub codes: Vec<u8>,
}

impl Fitted {
    /// A group that is kept as it is.
    pub(super) const fn copied() -> Self {
        Self { fit: Fit::Copied, levels: Vec::new(), codes: Vec::new() }
    }

    /// The values that replace `weights`, the weights which were fitted.
    pub fn dequantized<'a>(&'a self, weights: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let copied = if self.fit == Fit::Copied { weights } else { &[] };
        let coded = self.codes.iter().map(|&code| self.levels[usize::from(code)]);
        copied.iter().copied().chain(coded)
    }
}
