//! The machine that runs the layers of a net, or measures them; each layer is a method.
//!
//! Measuring does what running does but for the numbers: it notes how much of each part of the
//! memory a layer takes and counts its multiplications. Sums are added in one fixed order, without
//! fused multiply-add, so that every target gives the same bits.

use super::arena::{Memory, Sizes, Stack};
use super::map::{Map, Source, part, part_mut};
use crate::error::{Error, Result};
use crate::format::{Tensor, Tensors};
use crate::num;

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'m> {
    pub(super) weight: Tensor<'m>,
    pub(super) bias: Tensor<'m>,
}

/// What happens to a value between its map and a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing.
    Plain,
    /// The norm whose gains and offsets were made last.
    Norm,
    /// That norm, then `SiLU`.
    NormSilu,
}

/// Whether a layer's result replaces what its map holds, or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Set,
    Add,
}

/// What runs the layers over the memory, or measures them without any.
#[derive(Debug)]
pub(super) struct Machine<'m, 'a> {
    tensors: Tensors<'m>,
    pub(super) memory: Memory<'a>,
    pub(super) stack: Stack,
    /// Whether numbers are computed; else `sizes` and `macs` are gathered.
    running: bool,
    pub(super) sizes: Sizes,
    pub(super) macs: u64,
}

impl<'m, 'a> Machine<'m, 'a> {
    /// A machine over the parameters of a net, in their order; it runs where it has a memory.
    pub(super) fn new(tensors: Tensors<'m>, memory: Option<Memory<'a>>) -> Self {
        let running = memory.is_some();
        Self {
            tensors,
            memory: memory.unwrap_or_default(),
            stack: Stack::default(),
            running,
            sizes: Sizes::default(),
            macs: 0,
        }
    }

    /// The next parameter.
    pub(super) fn tensor(&mut self) -> Result<Tensor<'m>> {
        self.tensors.next().ok_or(Error::NotOfTheNet { tensor: 0 })
    }

    /// The next weight and bias.
    pub(super) fn params(&mut self) -> Result<Params<'m>> {
        let params = Params { weight: self.tensor()?, bias: self.tensor()? };
        grow(&mut self.sizes.vector, params.bias.numel());
        Ok(params)
    }

    /// Counts multiplications; whether there is nothing else to do.
    pub(super) fn measured(&mut self, macs: &[usize]) -> bool {
        let product = macs.iter().fold(1u64, |product, &factor| {
            product.saturating_mul(u64::try_from(factor).unwrap_or(u64::MAX))
        });
        self.macs = self.macs.saturating_add(product);
        grow(&mut self.sizes.maps, self.stack.peak);
        !self.running
    }

    /// Writes an image into a map: plane after plane, row after row.
    pub(super) fn load(&mut self, map: Map, values: impl Iterator<Item = f32>) {
        if !self.measured(&[0]) {
            let maps = part_mut(self.memory.maps, map.at, map.len());
            maps.iter_mut().zip(values).for_each(|(out, value)| *out = value);
        }
    }

    /// The values of a map; none where nothing is computed.
    pub(super) fn values(&self, map: Map) -> &[f32] {
        part(self.memory.maps, map.at, map.len())
    }

    /// Moves a map down the stack, to `at`.
    pub(super) fn move_to(&mut self, map: Map, at: usize) -> Map {
        // Not `copy_within`, which could panic.
        for i in 0..if self.running { map.len() } else { 0 } {
            let value = self.memory.maps.get(map.at + i).copied();
            if let (Some(to), Some(value)) = (self.memory.maps.get_mut(at + i), value) {
                *to = value;
            }
        }
        let moved = Map { at, ..map };
        self.stack.cut(moved.end());
        moved
    }

    /// Copies what a layer reads into a map of the same shape, doubled or not.
    pub(super) fn copy(&mut self, from: Source, to: Map) {
        grow(&mut self.sizes.gathered, to.width);
        if self.measured(&[0]) {
            return;
        }
        for channel in 0..to.channels {
            for y in 0..to.height {
                let row = part_mut(self.memory.gathered, 0, to.width);
                from.row(self.memory.maps, channel, y, row);
                let plane = to.plane_mut(self.memory.maps, channel);
                copy(part_mut(plane, y * to.width, to.width), row);
            }
        }
    }

    /// Averages blocks of 2 x 2, each value first entering as `entry` says; an odd last row or column
    /// is left out.
    pub(super) fn pool(&mut self, from: Map, entry: Entry, to: Map) {
        grow(&mut self.sizes.gathered, to.width);
        if self.measured(&[0]) {
            return;
        }
        for channel in 0..to.channels {
            let enter = Enter::new(entry, self.memory.affine, channel);
            for y in 0..to.height {
                let row = part_mut(self.memory.gathered, 0, to.width);
                let plane = from.plane(self.memory.maps, channel);
                let above = part(plane, 2 * y * from.width, from.width);
                let below = part(plane, (2 * y + 1) * from.width, from.width);
                for ((out, a), b) in row.iter_mut().zip(above.chunks(2)).zip(below.chunks(2)) {
                    if let (&[a, b], &[c, d]) = (a, b) {
                        let [a, b, c, d] = [a, b, c, d].map(|value| enter.of(value));
                        *out = 0.25 * ((a + b) + (c + d));
                    }
                }
                let plane = to.plane_mut(self.memory.maps, channel);
                copy(part_mut(plane, y * to.width, to.width), row);
            }
        }
    }
}

/// How the values of one channel enter a layer.
pub(super) enum Enter {
    Plain,
    Affine { gain: f32, offset: f32, active: bool },
}

impl Enter {
    /// # Shapes
    /// `affine`: gain and offset of each channel, as [`Machine::norm`] left them.
    pub(super) fn new(entry: Entry, affine: &[f32], channel: usize) -> Self {
        match affine.as_chunks().0.get(channel) {
            Some(&[gain, offset]) if entry != Entry::Plain => {
                Self::Affine { gain, offset, active: entry == Entry::NormSilu }
            }
            _ => Self::Plain,
        }
    }

    #[inline]
    pub(super) fn of(&self, x: f32) -> f32 {
        match *self {
            Self::Plain => x,
            Self::Affine { gain, offset, active: false } => gain * x + offset,
            Self::Affine { gain, offset, active: true } => silu(gain * x + offset),
        }
    }
}

/// `x / (1 + exp(-x))`.
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + num::exp(-x))
}

/// Raises a size to what is needed.
pub(super) fn grow(size: &mut usize, needed: usize) {
    *size = needed.max(*size);
}

fn copy(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
}
