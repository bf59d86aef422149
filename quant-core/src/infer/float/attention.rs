//! Attention of every pixel to every pixel.

use super::super::map::Map;
use super::super::op::head_width;
use super::super::workspace::{Workspace, first};
use crate::error::Result;
use crate::num;

/// See [`Op::Attend`](super::super::op::Op).
pub(super) fn attend(
    qkv: Map,
    heads: usize,
    new_order: bool,
    workspace: &mut Workspace<'_>,
) -> Result<()> {
    let width = head_width(qkv, heads);
    let pixels = qkv.plane_len();
    let Workspace { maps, gathered, .. } = workspace;
    let (scores, query) = gathered.split_at_mut_checked(pixels).unwrap_or_default();
    let query = first(query, width)?;
    let scale = 1.0 / num::sqrt(num::sqrt(num::f32_of_usize(width)));
    let (between, next) = if new_order { (heads * width, width) } else { (width, 3 * width) };
    for head in 0..heads {
        let first = head * next;
        for t in 0..pixels {
            for (j, q) in query.iter_mut().enumerate() {
                *q = scale * value(qkv.plane(maps, first + j), t);
            }
            scores.fill(0.0);
            for (j, &q) in query.iter().enumerate() {
                let keys = qkv.plane(maps, first + between + j);
                scores.iter_mut().zip(keys).for_each(|(s, &k)| *s += q * (scale * k));
            }
            softmax(scores);
            for j in 0..width {
                let values = qkv.plane(maps, first + 2 * between + j);
                let mixed = scores.iter().zip(values).fold(0.0, |sum, (&s, &v)| sum + s * v);
                if let Some(q) = qkv.plane_mut(maps, first + j).get_mut(t) {
                    *q = mixed;
                }
            }
        }
    }
    Ok(())
}

fn value(plane: &[f32], at: usize) -> f32 {
    plane.get(at).copied().unwrap_or(0.0)
}

/// `exp(x_i - max) / sum_j exp(x_j - max)`.
pub(in super::super) fn softmax(values: &mut [f32]) {
    let most = values.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    for x in values.iter_mut() {
        *x = num::exp(*x - most);
    }
    let sum = values.iter().fold(0.0, |sum, &x| sum + x);
    for x in values.iter_mut() {
        *x /= sum;
    }
}
