//! One convolution alone: what a layer costs on a chip.

use super::Arithmetic;
use super::executor::{Engine, Needs};
use super::map::Map;
use super::op::{Accumulate, ConvKernel, Params, Prologue};
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::format::{Model, Tensors};

/// A convolution of a file over one map, which nothing else is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvLayer {
    weight: usize,
    side: usize,
    needs: Needs,
    engine: Engine,
}

impl ConvLayer {
    /// The convolution by tensor `weight` of the file and the bias after it, over a map of `side` x `side`.
    ///
    /// # Shapes
    /// The weight is `[out, in, 3, 3]`, `[out, in, 1, 1]` or `[out, in, 1]`, the bias `[out]`.
    ///
    /// # Errors
    /// [`Error::NotOfTheNet`] for another tensor; [`Error::Encoding`] for integers of a file without
    /// activation scales.
    pub fn new<A: Arithmetic>(model: &Model<'_>, weight: usize, side: usize) -> Result<Self> {
        let engine = A::ENGINE;
        let layer = Self { weight, side, needs: Needs::default(), engine };
        let path = |walk: &mut Walk<'_, '_>| layer.forward(walk);
        let needs = (engine.measure)(model, layer.tensors(model), &path)?;
        Ok(Self { needs, ..layer })
    }

    /// The floats that it takes, both maps among them.
    pub fn arena_len(&self) -> usize {
        self.needs.arena_len()
    }

    /// Multiplications of the layer.
    pub const fn macs(&self) -> u64 {
        self.needs.macs
    }

    /// Computes it over the map at the start of the arena, whatever that holds; the result lies after it.
    ///
    /// # Shapes
    /// `arena`: at least [`ConvLayer::arena_len`].
    ///
    /// # Errors
    /// [`Error::Length`] for a shorter arena; those of [`ConvLayer::new`] for another model.
    pub fn run(&self, model: &Model<'_>, arena: &mut [f32]) -> Result<()> {
        let path = |walk: &mut Walk<'_, '_>| self.forward(walk);
        let execute = self.engine.execute;
        execute(model, self.tensors(model), &path, &self.needs, arena, None).map(|_| ())
    }

    /// The tensors from the weight on.
    fn tensors<'m>(&self, model: &Model<'m>) -> Tensors<'m> {
        let mut tensors = model.tensors();
        if let Some(before) = self.weight.checked_sub(1) {
            tensors.nth(before);
        }
        tensors
    }

    fn forward(&self, walk: &mut Walk<'_, '_>) -> Result<Map> {
        let none = Error::NotOfTheNet { tensor: self.weight };
        let here = walk.defer();
        walk.resume(here.clone());
        let Params { weight, bias } = walk.params()?;
        walk.resume(here);
        let &[out, channels, ref taps @ ..] = weight.shape() else { return Err(none) };
        if bias.shape() != [out] {
            return Err(none);
        }
        let from = walk.stack.push(channels, self.side, self.side);
        let from = walk.scaled(from);
        let to = walk.stack.push(out, self.side, self.side);
        let (plain, replace) = (Prologue::Plain, Accumulate::No);
        match taps {
            [1] | [1, 1] => walk.conv(ConvKernel::One, from.into(), plain, to, replace),
            [3, 3] => walk.conv(ConvKernel::Three, from.into(), plain, to, replace),
            _ => Err(none),
        }
    }
}
