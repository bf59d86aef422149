//! Attention over bytes: few multiplications, in floats.

use super::super::float::softmax;
use super::super::map::Map;
use super::super::op::head_width;
use super::super::workspace::{Workspace, first};
use super::arena::bytes;
use super::requantizer::byte;
use crate::error::Result;
use crate::num;

/// See [`Op::Attend`](super::super::op::Op); what is mixed is no larger than the values, and keeps their
/// scale.
pub(super) fn attend(
    qkv: Map,
    heads: usize,
    new_order: bool,
    workspace: &mut Workspace<'_>,
) -> Result<()> {
    let width = head_width(qkv, heads);
    let pixels = qkv.plane_len();
    let Workspace { maps, gathered, .. } = workspace;
    let maps = bytes(maps);
    let (scores, query) = gathered.split_at_mut_checked(pixels).unwrap_or_default();
    let query = first(query, width)?;
    let scale = qkv.values.scale();
    let scale = scale * scale / num::sqrt(num::f32_of_usize(width));
    let (between, next) = if new_order { (heads * width, width) } else { (width, 3 * width) };
    for head in 0..heads {
        let first = head * next;
        for t in 0..pixels {
            for (j, q) in query.iter_mut().enumerate() {
                let plane = qkv.plane(maps, first + j);
                *q = scale * plane.get(t).copied().map_or(0.0, f32::from);
            }
            scores.fill(0.0);
            for (j, &q) in query.iter().enumerate() {
                let keys = qkv.plane(maps, first + between + j);
                scores.iter_mut().zip(keys).for_each(|(s, &k)| *s += q * f32::from(k));
            }
            softmax(scores);
            for j in 0..width {
                let values = qkv.plane(maps, first + 2 * between + j);
                let mixed =
                    scores.iter().zip(values).fold(0.0, |sum, (&s, &v)| sum + s * f32::from(v));
                if let Some(q) = qkv.plane_mut(maps, first + j).get_mut(t) {
                    *q = byte(mixed);
                }
            }
        }
    }
    Ok(())
}
