//! The executor that runs the layers of a net, or measures them; each layer is a method.
//!
//! Measuring does what running does but for the numbers: it notes how much of each part of the
//! memory a layer takes and counts its multiplications. Sums are added in one fixed order, without
//! fused multiply-add, so that every target gives the same bits.

use super::integer::bytes;
use super::map::{Map, Source, Values, part, part_mut};
use super::workspace::{Sizes, Stack, Workspace};
use crate::error::{Error, Result};
use crate::format::{Activations, Tensor, Tensors};
use crate::num;

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'m> {
    pub(super) weight: Tensor<'m>,
    pub(super) bias: Tensor<'m>,
}

/// What happens to a value between its map and a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prologue {
    /// Nothing.
    Plain,
    /// The norm whose gains and offsets were made last.
    Norm,
    /// That norm, then `SiLU`.
    NormSilu,
}

/// Whether a layer's result replaces what its map holds, or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accumulate {
    No,
    Yes,
}

/// Is told the number of each map of floats that is written, and its values.
pub(super) type Observer<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// What runs the layers over the memory, or measures them without any.
pub(super) struct Executor<'m, 'a> {
    tensors: Tensors<'m>,
    pub(super) memory: Workspace<'a>,
    pub(super) stack: Stack,
    /// The range of each map, where maps are bytes.
    activations: Option<Activations<'m>>,
    observer: Option<Observer<'a>>,
    /// Maps written so far.
    written: usize,
    /// Scales on the stack of skips.
    skips: usize,
    /// The largest value behind the norm that was made last, as `integer::InputQuantizer` counts.
    pub(super) peak: i32,
    /// Whether the next norm reads its map with the modulation added.
    pub(super) shifted: bool,
    /// Whether numbers are computed; else `sizes` and `macs` are gathered.
    running: bool,
    pub(super) sizes: Sizes,
    pub(super) macs: u64,
}

impl<'m, 'a> Executor<'m, 'a> {
    /// An executor over the parameters of a net, in their order; it runs where it has a memory, on
    /// bytes where it is told the range of each map.
    pub(super) fn new(
        tensors: Tensors<'m>,
        activations: Option<Activations<'m>>,
        memory: Option<Workspace<'a>>,
    ) -> Self {
        let running = memory.is_some();
        let values = activations.map_or(Values::Floats, |_| Values::Bytes(1.0));
        Self {
            tensors,
            activations,
            observer: None,
            written: 0,
            skips: 0,
            peak: 0,
            shifted: false,
            memory: memory.unwrap_or_default(),
            stack: Stack::of(values),
            running,
            sizes: Sizes::default(),
            macs: 0,
        }
    }

    /// The same, which also tells an observer of each map.
    pub(super) fn observed(self, observer: Option<Observer<'a>>) -> Self {
        Self { observer, ..self }
    }

    /// Whether maps are bytes.
    pub(super) const fn integers(&self) -> bool {
        self.activations.is_some()
    }

    /// Maps written so far: those of which a file says the range.
    pub(super) const fn written(&self) -> usize {
        self.written
    }

    /// The next map that is written, in its unit; the velocity stays in floats.
    pub(super) fn next_bytes(&mut self, map: Map) -> Map {
        let range = self.activations.and_then(|activations| activations.range(self.written));
        self.written += 1;
        let values = match map.values {
            Values::Floats => Values::Floats,
            Values::Bytes(_) => Values::Bytes(range.unwrap_or(1.0) / 127.0),
        };
        Map { values, ..map }
    }

    /// A map of floats that has been written: its observer is told.
    pub(super) fn stored(&mut self, map: Map) -> Map {
        if let Some(observer) = &mut self.observer {
            observer(self.written, part(self.memory.maps, map.at, map.len()));
        }
        self.written += 1;
        map
    }

    /// A map of floats above all others; where maps are bytes, in a part of its own.
    pub(super) fn push_floats(&mut self, channels: usize, height: usize, width: usize) -> Map {
        if !self.integers() {
            return self.stack.push(channels, height, width);
        }
        let map = Map { at: 0, channels, height, width, values: Values::Floats };
        grow(&mut self.sizes.floats, map.len());
        map
    }

    /// The image as the first map, of a net that does not project it.
    pub(super) fn first_map(&mut self, image: Map) -> Map {
        if self.integers() { self.integer_first(image) } else { self.stored(image) }
    }

    /// Keeps what the values of a skip are, which lies on the stack of maps.
    pub(super) fn push_skip(&mut self, map: Map) {
        if let Values::Bytes(scale) = map.values {
            if let Some(kept) = self.memory.skips.get_mut(self.skips) {
                *kept = scale;
            }
            self.skips += 1;
            grow(&mut self.sizes.skips, self.skips);
        }
    }

    /// What the values of the topmost skip are.
    pub(super) fn pop_skip(&mut self) -> Values {
        if !self.integers() {
            return Values::Floats;
        }
        self.skips = self.skips.saturating_sub(1);
        Values::Bytes(self.memory.skips.get(self.skips).copied().unwrap_or(1.0))
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
        let per_float = if self.integers() { 4 } else { 1 };
        grow(&mut self.sizes.maps, self.stack.peak.div_ceil(per_float));
        !self.running
    }

    /// Writes an image into a map: plane after plane, row after row.
    pub(super) fn load(&mut self, map: Map, values: impl Iterator<Item = f32>) {
        if !self.measured(&[0]) {
            let integers = self.integers();
            let Workspace { maps, floats, .. } = &mut self.memory;
            let maps = part_mut(if integers { floats } else { maps }, map.at, map.len());
            maps.iter_mut().zip(values).for_each(|(out, value)| *out = value);
        }
    }

    /// The values of a map of floats, which the executor leaves behind; none where nothing is computed.
    pub(super) fn into_values(self, map: Map) -> &'a [f32] {
        let memory = if self.integers() { self.memory.floats } else { self.memory.maps };
        part(memory, map.at, map.len())
    }

    /// Moves a map down the stack, to `at`.
    pub(super) fn move_to(&mut self, map: Map, at: usize) -> Map {
        let len = if self.running { map.len() } else { 0 };
        if self.integers() {
            move_down(bytes(self.memory.maps), map.at, at, len);
        } else {
            move_down(self.memory.maps, map.at, at, len);
        }
        let moved = Map { at, ..map };
        self.stack.cut(moved.end());
        moved
    }

    /// Copies what a layer reads into a map of the same shape, doubled or not.
    pub(super) fn copy(&mut self, from: Source, to: Map) -> Map {
        if self.integers() {
            return self.integer_copy(from, to);
        }
        grow(&mut self.sizes.gathered, to.width);
        if self.measured(&[0]) {
            return to;
        }
        for channel in 0..to.channels {
            for y in 0..to.height {
                let row = part_mut(self.memory.gathered, 0, to.width);
                from.row(self.memory.maps, channel, y, row);
                let plane = to.plane_mut(self.memory.maps, channel);
                copy(part_mut(plane, y * to.width, to.width), row);
            }
        }
        to
    }

    /// Averages blocks of 2 x 2, each value first entering as `prologue` says; an odd last row or column
    /// is left out.
    pub(super) fn pool(&mut self, from: Map, prologue: Prologue, to: Map) -> Map {
        if self.integers() {
            return self.integer_pool(from, prologue, to);
        }
        grow(&mut self.sizes.gathered, to.width);
        if self.measured(&[0]) {
            return self.pooled(prologue, to);
        }
        for channel in 0..to.channels {
            let norm_act = NormAct::new(prologue, self.memory.affine, channel);
            for y in 0..to.height {
                let row = part_mut(self.memory.gathered, 0, to.width);
                let plane = from.plane(self.memory.maps, channel);
                let above = part(plane, 2 * y * from.width, from.width);
                let below = part(plane, (2 * y + 1) * from.width, from.width);
                for ((out, a), b) in row.iter_mut().zip(above.chunks(2)).zip(below.chunks(2)) {
                    if let (&[a, b], &[c, d]) = (a, b) {
                        let [a, b, c, d] = [a, b, c, d].map(|value| norm_act.of(value));
                        *out = 0.25 * ((a + b) + (c + d));
                    }
                }
                let plane = to.plane_mut(self.memory.maps, channel);
                copy(part_mut(plane, y * to.width, to.width), row);
            }
        }
        self.pooled(prologue, to)
    }

    /// What was pooled as it was needs no range of its own.
    fn pooled(&mut self, prologue: Prologue, to: Map) -> Map {
        if prologue == Prologue::Plain { to } else { self.stored(to) }
    }
}

/// Moves values towards the start. Not `copy_within`, which could panic.
fn move_down<T: Copy>(values: &mut [T], from: usize, to: usize, len: usize) {
    for i in 0..len {
        let value = values.get(from + i).copied();
        if let (Some(to), Some(value)) = (values.get_mut(to + i), value) {
            *to = value;
        }
    }
}

/// How the values of one channel enter a layer.
pub(super) enum NormAct {
    Plain,
    Affine { gain: f32, offset: f32, active: bool },
}

impl NormAct {
    /// # Shapes
    /// `affine`: gain and offset of each channel, as [`Executor::norm`] left them.
    pub(super) fn new(prologue: Prologue, affine: &[f32], channel: usize) -> Self {
        match affine.as_chunks().0.get(channel) {
            Some(&[gain, offset]) if prologue != Prologue::Plain => {
                Self::Affine { gain, offset, active: prologue == Prologue::NormSilu }
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
