//! Layers that move or average bytes: pooling, copies, the first map.

use super::super::map::{LayerInput, Map, Values, part, part_mut};
use super::super::op::Prologue;
use super::super::workspace::Workspace;
use super::arena::bytes;
use super::input_quantizer::InputQuantizer;
use super::requantizer::byte;
use crate::num;

/// Averages blocks of 2 x 2; see [`Op::Pool`](super::super::op::Op).
pub(super) fn pool(from: Map, prologue: Prologue, to: Map, workspace: &mut Workspace<'_>) {
    let Workspace { maps, affine, peak, .. } = workspace;
    let maps = bytes(maps);
    let source = LayerInput::from(from);
    let quantizer = InputQuantizer::new(&source, prologue, affine, *peak, i32::MAX);
    let scale = 0.25 * quantizer.scale() / to.values.scale();
    for channel in 0..to.channels {
        let affine = quantizer.affine(channel, from.values);
        for y in 0..to.height {
            for x in 0..to.width {
                let plane = from.plane(maps, channel);
                let mut sum = 0f32;
                for at in [2 * y * from.width, (2 * y + 1) * from.width] {
                    for &q in part(plane, at + 2 * x, 2) {
                        let value = quantizer.exact(affine, q);
                        sum += num::f32_of_i32(value);
                    }
                }
                if let Some(out) = to.plane_mut(maps, channel).get_mut(y * to.width + x) {
                    *out = byte(sum * scale);
                }
            }
        }
    }
}

/// Copies what a layer reads; see [`Op::Copy`](super::super::op::Op).
pub(super) fn copy(from: &LayerInput, to: Map, workspace: &mut Workspace<'_>) {
    let maps = bytes(workspace.maps);
    for channel in 0..to.channels {
        let scale = from.values(channel).scale() / to.values.scale();
        let doubled = from.repeats(channel) > 1;
        for i in 0..to.plane_len() {
            let (y, x) = (i / to.width.max(1), i % to.width.max(1));
            let at = if doubled { y / 2 * from.first.width + x / 2 } else { i };
            let value = from.plane(maps, channel).get(at).copied().unwrap_or(0);
            if let Some(out) = to.plane_mut(maps, channel).get_mut(i) {
                *out = byte(f32::from(value) * scale);
            }
        }
    }
}

/// Rounds the image to bytes.
pub(super) fn first_map(image: Map, to: Map, workspace: &mut Workspace<'_>) {
    let Workspace { maps, floats, .. } = workspace;
    if let Values::Bytes(scale) = to.values {
        let out = part_mut(bytes(maps), to.at, to.len());
        let image = part(floats, image.at, image.len());
        out.iter_mut().zip(image).for_each(|(out, &x)| *out = byte(x / scale));
    }
}
