//! The walk through the net: it hands operations to a target, and keeps account of parameters and maps.

use super::map::{LayerInput, Map, Values};
use super::op::{Accumulate, Conv, ConvKernel, Modulation, Op, Params, Prologue};
use super::workspace::Stack;
use crate::error::{Error, Result};
use crate::format::{Activations, Tensor, Tensors};

/// Runs the operations of a walk, or measures them.
pub(super) trait Target {
    /// Takes the next operation.
    fn run(&mut self, op: &Op<'_, '_>) -> Result<()>;

    /// Keeps the scale of a skip.
    fn keep(&mut self, skip: usize, scale: f32) -> Result<()>;

    /// The scale of a skip.
    fn kept(&self, skip: usize) -> Result<f32>;
}

/// A walk over the parameters of a net, in their order.
pub(super) struct Walk<'m, 't> {
    tensors: Tensors<'m>,
    /// The range of each map, where maps are bytes.
    activations: Option<Activations<'m>>,
    target: &'t mut dyn Target,
    pub(super) stack: Stack,
    /// Maps written so far: those of which a file says the range.
    pub(super) written: usize,
    skips: usize,
    /// Multiplications so far.
    pub(super) macs: u64,
}

impl<'m, 't> Walk<'m, 't> {
    /// The start of a walk, whose maps are bytes where the range of each is given.
    pub(super) fn new(
        tensors: Tensors<'m>,
        activations: Option<Activations<'m>>,
        target: &'t mut dyn Target,
    ) -> Self {
        let values = activations.map_or(Values::Floats, |_| Values::Bytes(1.0));
        let stack = Stack::of(values);
        Self { tensors, activations, target, stack, written: 0, skips: 0, macs: 0 }
    }

    /// The next parameter.
    pub(super) fn tensor(&mut self) -> Result<Tensor<'m>> {
        self.tensors.next().ok_or(Error::NotOfTheNet { tensor: 0 })
    }

    /// The next weight and bias.
    pub(super) fn params(&mut self) -> Result<Params<'m>> {
        Ok(Params { weight: self.tensor()?, bias: self.tensor()? })
    }

    /// Passes over the next weight and bias; returns where they are.
    pub(super) fn defer(&mut self) -> Tensors<'m> {
        let here = self.tensors.clone();
        self.tensors.nth(1);
        here
    }

    /// Goes on with the parameters from some place; returns where the next would have been.
    pub(super) fn resume(&mut self, there: Tensors<'m>) -> Tensors<'m> {
        core::mem::replace(&mut self.tensors, there)
    }

    /// Hands on an operation.
    pub(super) fn run(&mut self, op: &Op<'_, '_>) -> Result<()> {
        self.macs = self.macs.saturating_add(op.macs());
        self.target.run(op)
    }

    /// A map about to be written, in the scale that the file has for it; the velocity stays in floats.
    pub(super) fn scaled(&mut self, map: Map) -> Map {
        let range = self.activations.and_then(|activations| activations.range(self.written));
        self.written += 1;
        let values = match map.values {
            Values::Floats => Values::Floats,
            Values::Bytes(_) => Values::Bytes(range.unwrap_or(1.0) / 127.0),
        };
        Map { values, ..map }
    }

    /// A map of floats above all others; where maps are bytes, in a part of its own.
    pub(super) fn push_floats(&mut self, channels: usize, height: usize, width: usize) -> Map {
        match self.activations {
            None => self.stack.push(channels, height, width),
            Some(_) => Map { at: 0, channels, height, width, values: Values::Floats },
        }
    }

    /// Makes an image the first map.
    pub(super) fn first(&mut self, image: Map) -> Result<Map> {
        let to = match self.activations {
            None => image,
            Some(_) => self.stack.push(image.channels, image.height, image.width),
        };
        let to = self.scaled(to);
        self.run(&Op::First { image, to })?;
        Ok(to)
    }

    /// Keeps the scale of a skip, which lies on the stack of maps.
    pub(super) fn push_skip(&mut self, map: Map) -> Result<()> {
        if let Values::Bytes(scale) = map.values {
            self.target.keep(self.skips, scale)?;
            self.skips += 1;
        }
        Ok(())
    }

    /// Kind of the values of the topmost skip.
    pub(super) fn pop_skip(&mut self) -> Result<Values> {
        if self.activations.is_none() {
            return Ok(Values::Floats);
        }
        self.skips = self.skips.saturating_sub(1);
        self.target.kept(self.skips).map(Values::Bytes)
    }

    /// A norm by the next parameters.
    #[inline(never)]
    pub(super) fn norm(&mut self, source: LayerInput, modulation: Modulation) -> Result<()> {
        let params = &self.params()?;
        self.run(&Op::Norm { params, source, modulation })
    }

    /// The embedding's part in a block, by the next parameters: of a net without an embedding a constant.
    #[inline(never)]
    pub(super) fn modulate(&mut self, constant: bool) -> Result<()> {
        let weight = &self.tensor()?;
        let bias = if constant { None } else { Some(self.tensor()?) };
        self.run(&Op::Modulate { weight, bias: bias.as_ref() })
    }

    /// A convolution by the next parameters.
    #[inline(never)]
    pub(super) fn conv(
        &mut self,
        kernel: ConvKernel,
        source: LayerInput,
        prologue: Prologue,
        to: Map,
        accumulate: Accumulate,
    ) -> Result<Map> {
        let params = &self.params()?;
        let (before, to) = (to.values, self.scaled(to));
        self.run(&Op::Conv(Conv { kernel, params, source, prologue, to, before, accumulate }))?;
        Ok(to)
    }

    /// Averages blocks of 2 x 2; what is averaged as it is keeps its scale.
    pub(super) fn pool(&mut self, from: Map, prologue: Prologue, to: Map) -> Result<Map> {
        let to = match prologue {
            Prologue::Plain => Map { values: from.values, ..to },
            _ => self.scaled(to),
        };
        self.run(&Op::Pool { from, prologue, to })?;
        Ok(to)
    }

    /// Copies what a layer reads, in the larger scale of its maps.
    pub(super) fn copy(&mut self, from: LayerInput, to: Map) -> Result<Map> {
        let second = from.second.map_or(from.first.values, |second| second.values);
        let first = from.first.values;
        let values = if second.scale() > first.scale() { second } else { first };
        let to = Map { values, ..to };
        self.run(&Op::Copy { from, to })?;
        Ok(to)
    }

    /// Moves a map down the stack, to `at`, and gives up what lies above it.
    pub(super) fn move_to(&mut self, map: Map, at: usize) -> Result<Map> {
        self.run(&Op::Move { map, at })?;
        let moved = Map { at, ..map };
        self.stack.cut(moved.end());
        Ok(moved)
    }
}
