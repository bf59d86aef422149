//! One convolution alone: what a layer costs on a chip.

use super::Precision;
use super::executor::{Accumulate, Executor, Prologue};
use super::workspace::{Sizes, Workspace};
use crate::error::{Error, Result};
use crate::format::Model;

/// A convolution of a file over one map, which nothing else is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    weight: usize,
    side: usize,
    precision: Precision,
    sizes: Sizes,
    macs: u64,
}

impl Layer {
    /// The convolution by tensor `weight` of the file and the bias behind it, over a map of `side` x `side`.
    ///
    /// # Shapes
    /// The weight is `[out, in, 3, 3]`, `[out, in, 1, 1]` or `[out, in, 1]`, the bias `[out]`.
    ///
    /// # Errors
    /// [`Error::NotOfTheNet`] for another tensor; [`Error::Encoding`] for integers of a file without
    /// activation scales.
    pub fn new(
        model: &Model<'_>,
        weight: usize,
        side: usize,
        precision: Precision,
    ) -> Result<Self> {
        let layer = Self { weight, side, precision, sizes: Sizes::default(), macs: 0 };
        let (sizes, macs) = layer.forward(model, None)?;
        Ok(Self { sizes, macs, ..layer })
    }

    /// The floats that it takes, both maps among them.
    pub fn arena_len(&self) -> usize {
        self.sizes.total().unwrap_or(usize::MAX)
    }

    /// Its multiplications.
    pub const fn macs(&self) -> u64 {
        self.macs
    }

    /// Computes it over the map at the start of the arena, whatever that holds; the result lies behind it.
    ///
    /// # Shapes
    /// `arena`: at least [`Layer::arena_len`].
    ///
    /// # Errors
    /// [`Error::Length`] for a shorter arena; those of [`Layer::new`] for another model.
    pub fn run(&self, model: &Model<'_>, arena: &mut [f32]) -> Result<()> {
        self.forward(model, Some(Workspace::new(&self.sizes, arena)?)).map(|_| ())
    }

    fn forward(&self, model: &Model<'_>, memory: Option<Workspace<'_>>) -> Result<(Sizes, u64)> {
        let none = Error::NotOfTheNet { tensor: self.weight };
        let mut tensors = model.tensors();
        if let Some(before) = self.weight.checked_sub(1) {
            tensors.nth(before);
        }
        let activations = self.precision.activations(model)?;
        let mut executor = Executor::new(tensors, activations, memory);
        let params = executor.params()?;
        let &[out, channels, ref taps @ ..] = params.weight.shape() else { return Err(none) };
        if params.bias.shape() != [out] {
            return Err(none);
        }
        let from = executor.stack.push(channels, self.side, self.side);
        let from = executor.next_bytes(from);
        let to = executor.stack.push(out, self.side, self.side);
        match taps {
            [1] | [1, 1] => {
                executor.pointwise(&params, from.into(), Prologue::Plain, to, Accumulate::No)?
            }
            [3, 3] => executor.conv(&params, from.into(), Prologue::Plain, to, Accumulate::No)?,
            _ => return Err(none),
        };
        Ok((executor.sizes, executor.macs))
    }
}
