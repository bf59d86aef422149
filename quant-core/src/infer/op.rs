//! The operations that the walk through the net consists of, as data.

use super::map::{LayerInput, Map, Values};
use crate::format::Tensor;

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'m> {
    pub(super) weight: Tensor<'m>,
    pub(super) bias: Tensor<'m>,
}

/// Step between a map and the layer that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prologue {
    /// Nothing.
    Plain,
    /// The norm whose gains and offsets were made last.
    Norm,
    /// The norm that was made last, then `SiLU`.
    NormSilu,
}

/// Addition of a layer's result to what its map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accumulate {
    /// It replaces that.
    No,
    /// It is added.
    Yes,
}

/// The part of the embedding in a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modulation {
    /// None.
    None,
    /// Added to each channel before the norm.
    Shift,
    /// A scale and a shift of each channel after the norm.
    ScaleShift,
}

/// The kernel of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConvKernel {
    /// 1 x 1; the result may lie where one of the maps lies that are read.
    One,
    /// 3 x 3 with a margin of zeros, at every pixel or at every second.
    Three,
}

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv<'o, 'm> {
    pub(super) kernel: ConvKernel,
    pub(super) params: &'o Params<'m>,
    pub(super) source: LayerInput,
    pub(super) prologue: Prologue,
    pub(super) to: Map,
    /// Kind of the values of `to` before.
    pub(super) before: Values,
    pub(super) accumulate: Accumulate,
}

/// One operation.
#[derive(Clone, Copy)]
pub(super) enum Op<'o, 'm> {
    /// Writes an image into a map of floats: plane after plane, row after row.
    Load { to: Map, value: &'o dyn Fn(usize) -> f32 },
    /// Makes an image the first map, of a net that does not project it.
    First { image: Map, to: Map },
    /// The embedding of a time: a wave of each frequency, through two linear layers.
    EmbedTime { t: f32, layers: &'o [Params<'m>; 2] },
    /// An embedding of zeros, where the time is ignored.
    EmbedNothing { len: usize },
    /// Adds the row of a label to the embedding.
    EmbedLabel { table: &'o Tensor<'m>, label: usize },
    /// The form in which every block uses the embedding: `SiLU(e)`.
    FinishEmbedding,
    /// Puts a projection of the embedding in its place: `W e + b`, shorter than `e`.
    ProjectEmbedding(&'o Params<'m>),
    /// The embedding as a block sees it: `W e + b`, or without a bias a constant, of a net that has
    /// neither time nor label.
    Modulate { weight: &'o Tensor<'m>, bias: Option<&'o Tensor<'m>> },
    /// Gains and offsets of a norm over what a layer reads, for the layers with such a prologue.
    Norm { params: &'o Params<'m>, source: LayerInput, modulation: Modulation },
    /// A convolution.
    Conv(Conv<'o, 'm>),
    /// Averages blocks of 2 x 2, after the prologue; an odd last row or column is left out.
    Pool { from: Map, prologue: Prologue, to: Map },
    /// Copies what a layer reads into a map of the same shape, doubled or not.
    Copy { from: LayerInput, to: Map },
    /// Attention of every pixel to every pixel: each head's queries become
    /// `sum_s softmax_s(q_t k_s / sqrt(width)) v_s`, in their own place.
    ///
    /// `qkv`: `[3 heads width, h, w]`; queries, keys and values one after the other, of all heads
    /// (`new_order`) or head by head.
    Attend { qkv: Map, heads: usize, new_order: bool },
    /// Moves a map down the stack, to `at`.
    Move { map: Map, at: usize },
}

impl Op<'_, '_> {
    /// Multiplications of weights or of attention.
    pub(super) fn macs(&self) -> u64 {
        let factors: [usize; 5] = match *self {
            Op::Conv(Conv { kernel, to, source, .. }) => {
                let taps = if kernel == ConvKernel::Three { 9 } else { 1 };
                [to.len(), source.channels(), taps, 1, 1]
            }
            Op::Attend { qkv, heads, .. } => {
                [2, heads, head_width(qkv, heads), qkv.plane_len(), qkv.plane_len()]
            }
            Op::Modulate { weight, bias: Some(bias) } => [bias.numel(), weight.row_len(), 1, 1, 1],
            Op::ProjectEmbedding(Params { weight, bias }) => {
                [bias.numel(), weight.row_len(), 1, 1, 1]
            }
            Op::EmbedTime { layers: [first, second], .. } => {
                let len = second.bias.numel();
                [len, first.weight.row_len().saturating_add(len), 1, 1, 1]
            }
            _ => [0; 5],
        };
        factors.iter().fold(1, |product: u64, &factor| {
            product.saturating_mul(u64::try_from(factor).unwrap_or(u64::MAX))
        })
    }

    /// The map that it writes, where a file says the range of that map.
    pub(super) fn written(&self) -> Option<Map> {
        match *self {
            Op::First { to, .. }
            | Op::Conv(Conv { to, .. })
            | Op::Pool { to, prologue: Prologue::Norm | Prologue::NormSilu, .. } => Some(to),
            _ => None,
        }
    }

    /// The maps that it reads or writes.
    pub(super) fn maps(&self) -> [Option<Map>; 3] {
        let of = |source: &LayerInput, to| [Some(source.first), source.second, to];
        match *self {
            Op::Load { to, .. } => [Some(to), None, None],
            Op::First { image, to } => [Some(image), Some(to), None],
            Op::Norm { source, .. } => of(&source, None),
            Op::Conv(Conv { source, to, .. }) => of(&source, Some(to)),
            Op::Copy { from, to } => of(&from, Some(to)),
            Op::Pool { from, to, .. } => [Some(from), Some(to), None],
            Op::Attend { qkv, .. } => [Some(qkv), None, None],
            Op::Move { map, at } => [Some(map), Some(Map { at, ..map }), None],
            _ => [None; 3],
        }
    }
}

/// Channels of a head of attention.
pub(super) fn head_width(qkv: Map, heads: usize) -> usize {
    (qkv.channels / 3).checked_div(heads).unwrap_or(0)
}
