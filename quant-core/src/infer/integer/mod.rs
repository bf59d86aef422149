//! The layers on maps of bytes.
//!
//! A map's byte `q` means `q s`, with `s` from the file's activation scales. What a convolution reads is
//! gathered as integers of 16 bits, norm and `SiLU` applied in fixed point; a row of weights is decoded
//! to the integers that its codebook's levels are closest to. Sums are exact, so they may be taken in
//! any order: two channels share a word, whose two products a Cortex-M4 adds with one instruction.
//!
//! ```text
//! y = 2^-16 Y,  Y = G q + O              the norm, for each channel
//! x = SiLU(Y) >> shift                   16 bits, as many of them as the sum below has room for
//! w = round(level / scale)                likewise
//! out = sum w x · scale 2^(shift - 16) + bias, rounded in the scale of its map
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `input_quantizer` | bytes → what a convolution multiplies |
//! | `levels` | a row of codes → what it is multiplied by |
//! | `conv` | bands of rows, gathered and multiplied |
//! | `requantizer` | sums → bytes, or floats |
//! | `norm` `pool` `attention` | the other layers |

mod arena;
mod attention;
mod conv;
mod input_quantizer;
mod levels;
mod norm;
mod pool;
mod requantizer;

use super::embedding;
use super::executor::Layers;
use super::float::{attention_sizes, load, norm_sizes};
use super::map::{Map, Values, move_down, part_mut};
use super::op::{Op, head_width};
use super::precision::Precision;
use super::workspace::{Sizes, Workspace};
use crate::error::Result;
use arena::bytes;

impl Layers for i8 {
    const PRECISION: Precision = Precision::Integer;
    const PER_FLOAT: usize = 4;

    fn sizes(op: &Op<'_, '_>) -> Sizes {
        match op {
            Op::Conv(op) => Sizes { floats: floats_of(op.to), ..conv::sizes(op) },
            Op::Load { to, .. } => Sizes { floats: floats_of(*to), ..Sizes::default() },
            Op::Norm { source, .. } => norm_sizes(source.channels()),
            Op::Attend { qkv, heads, .. } => {
                attention_sizes(qkv.plane_len(), head_width(*qkv, *heads))
            }
            _ => embedding::sizes(op),
        }
    }

    fn run(op: &Op<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
        match *op {
            Op::Load { to, value } => load(part_mut(workspace.floats, to.at, to.len()), value),
            Op::First { image, to } => pool::first_map(image, to, workspace),
            Op::Conv(ref op) => return conv::conv(op, workspace),
            Op::Norm { params, ref source, modulation } => {
                return norm::norm(params, source, modulation, workspace);
            }
            Op::Pool { from, prologue, to } => pool::pool(from, prologue, to, workspace),
            Op::Copy { ref from, to } => pool::copy(from, to, workspace),
            Op::Attend { qkv, heads, new_order } => {
                return attention::attend(qkv, heads, new_order, workspace);
            }
            Op::Move { map, at } => move_down(bytes(workspace.maps), map.at, at, map.len()),
            _ => {}
        }
        Ok(())
    }

    fn floats<'w>(workspace: &'w Workspace<'_>) -> &'w [f32] {
        workspace.floats
    }

    fn into_floats(workspace: Workspace<'_>) -> &[f32] {
        workspace.floats
    }
}

/// Floats of a map that lies beside the maps of bytes.
const fn floats_of(map: Map) -> usize {
    match map.values {
        Values::Floats => map.len(),
        Values::Bytes(_) => 0,
    }
}
