//! What comes out of a fit.

use crate::log_range::LogRange;
use alloc::vec::Vec;

/// How a group came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Keep the weights as they are. This happens
    /// - to every empty group;
    /// - under `ot`, `pwl` and `log` in a tensor of fewer than K elements;
    /// - under `log` in a group of one weight;
    /// - under `uniform` and `uniform-mse` in a constant group, and where f32 cannot represent the
    ///   scale (it underflows to zero, the last level overflows, or the last code exceeds
    ///   K - 1).
    Copied,
    /// Weight `i` becomes `levels[codes[i]]`.
    Table,
    /// As `Table` with all K levels, and `levels[code] = code · scale + min`, in f32.
    Affine {
        /// The level of code 0.
        min: f32,
        /// The difference between neighbouring levels.
        scale: f32,
    },
    /// As `Table`, and `levels[code]` is [`LogRange::level`] `code` of `min(K, n)`.
    Logarithmic(LogRange),
}

/// A fitted group.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// How the group came out.
    pub fit: Fit,
    /// The levels, 1 to K; none if copied.
    pub levels: Vec<f32>,
    /// One code per weight, each below the number of levels; none if copied.
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
