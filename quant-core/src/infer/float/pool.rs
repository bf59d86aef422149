//! Layers that move or average values: pooling, copies.

use super::super::map::{LayerInput, Map, part, part_mut};
use super::super::op::Prologue;
use super::super::workspace::{Workspace, first};
use super::norm_act::NormAct;
use crate::error::Result;

/// Averages blocks of 2 x 2; see [`Op::Pool`](super::super::op::Op).
pub(super) fn pool(
    from: Map,
    prologue: Prologue,
    to: Map,
    workspace: &mut Workspace<'_>,
) -> Result<()> {
    let Workspace { maps, gathered, affine, .. } = workspace;
    let row = first(gathered, to.width)?;
    for channel in 0..to.channels {
        let norm_act = NormAct::new(prologue, affine, channel);
        for y in 0..to.height {
            let plane = from.plane(maps, channel);
            let above = part(plane, 2 * y * from.width, from.width);
            let below = part(plane, (2 * y + 1) * from.width, from.width);
            for ((out, a), b) in row.iter_mut().zip(above.chunks(2)).zip(below.chunks(2)) {
                if let (&[a, b], &[c, d]) = (a, b) {
                    let [a, b, c, d] = [a, b, c, d].map(|value| norm_act.of(value));
                    *out = 0.25 * ((a + b) + (c + d));
                }
            }
            set(part_mut(to.plane_mut(maps, channel), y * to.width, to.width), row);
        }
    }
    Ok(())
}

/// Copies what a layer reads; see [`Op::Copy`](super::super::op::Op).
pub(super) fn copy(from: &LayerInput, to: Map, workspace: &mut Workspace<'_>) -> Result<()> {
    let Workspace { maps, gathered, .. } = workspace;
    let row = first(gathered, to.width)?;
    for channel in 0..to.channels {
        for y in 0..to.height {
            from.row(maps, channel, y, row);
            set(part_mut(to.plane_mut(maps, channel), y * to.width, to.width), row);
        }
    }
    Ok(())
}

fn set(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
}
