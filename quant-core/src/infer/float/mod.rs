//! The layers on maps of floats.
//!
//! Sums are added in one fixed order, and products and sums are rounded apart: every target gives the
//! same bits.

mod attention;
mod conv;
mod norm;
mod norm_act;
mod pool;

pub(super) use attention::softmax;
pub(super) use norm::{EPS, finish};

use super::embedding;
use super::executor::Layers;
use super::map::{move_down, part_mut};
use super::op::{ConvKernel, Op, head_width};
use super::precision::Precision;
use super::workspace::{Sizes, Workspace};
use crate::error::Result;

impl Layers for f32 {
    const PRECISION: Precision = Precision::Float;
    const PER_FLOAT: usize = 1;

    fn sizes(op: &Op<'_, '_>) -> Sizes {
        match op {
            Op::Conv(op) => match op.kernel {
                ConvKernel::Three => conv::sizes(op),
                ConvKernel::One => conv::pointwise_sizes(op),
            },
            Op::Norm { source, .. } => norm_sizes(source.channels()),
            Op::Pool { to, .. } | Op::Copy { to, .. } => {
                Sizes { gathered: to.width, ..Sizes::default() }
            }
            Op::Attend { qkv, heads, .. } => {
                attention_sizes(qkv.plane_len(), head_width(*qkv, *heads))
            }
            _ => embedding::sizes(op),
        }
    }

    fn run(op: &Op<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
        match *op {
            Op::Load { to, value } => load(part_mut(workspace.maps, to.at, to.len()), value),
            Op::Conv(ref op) => {
                return match op.kernel {
                    ConvKernel::Three => conv::conv(op, workspace),
                    ConvKernel::One => conv::pointwise(op, workspace),
                };
            }
            Op::Norm { params, ref source, modulation } => {
                return norm::norm(params, source, modulation, workspace);
            }
            Op::Pool { from, prologue, to } => return pool::pool(from, prologue, to, workspace),
            Op::Copy { ref from, to } => return pool::copy(from, to, workspace),
            Op::Attend { qkv, heads, new_order } => {
                return attention::attend(qkv, heads, new_order, workspace);
            }
            Op::Move { map, at } => move_down(workspace.maps, map.at, at, map.len()),
            _ => {}
        }
        Ok(())
    }

    fn floats<'w>(workspace: &'w Workspace<'_>) -> &'w [f32] {
        workspace.maps
    }

    fn into_floats(workspace: Workspace<'_>) -> &[f32] {
        workspace.maps
    }
}

/// Writes the values of an image.
pub(super) fn load(map: &mut [f32], value: &dyn Fn(usize) -> f32) {
    map.iter_mut().enumerate().for_each(|(i, out)| *out = value(i));
}

/// Workspace of a norm.
pub(super) fn norm_sizes(channels: usize) -> Sizes {
    Sizes { affine: channels.saturating_mul(2), vector: channels, ..Sizes::default() }
}

/// Workspace of attention: scores, and a query.
pub(super) fn attention_sizes(pixels: usize, width: usize) -> Sizes {
    Sizes { gathered: pixels.saturating_add(width), ..Sizes::default() }
}
