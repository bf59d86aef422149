//! Attention of every pixel to every pixel.

use super::executor::{Executor, grow};
use super::map::{Map, part_mut};
use super::workspace::Workspace;
use crate::num;

impl Executor<'_, '_> {
    /// Attention of every pixel to every pixel: each head's queries become
    /// `sum_s softmax_s(q_t k_s / sqrt(width)) v_s`, in their own place.
    ///
    /// # Shapes
    /// `qkv`: `[3 heads width, h, w]`; queries, keys and values one after the other, of all heads
    /// (`new_order`) or head by head.
    pub(super) fn attend(&mut self, qkv: Map, heads: usize, new_order: bool) {
        if self.integers() {
            return self.integer_attend(qkv, heads, new_order);
        }
        let width = (qkv.channels / 3).checked_div(heads).unwrap_or(0);
        let pixels = qkv.plane_len();
        grow(&mut self.sizes.gathered, pixels.saturating_add(width));
        if self.measured(&[2, heads, width, pixels, pixels]) {
            return;
        }
        let Workspace { maps, gathered, .. } = &mut self.memory;
        let (scores, query) = gathered.split_at_mut_checked(pixels).unwrap_or_default();
        let query = part_mut(query, 0, width);
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
    }
}

fn value(plane: &[f32], at: usize) -> f32 {
    plane.get(at).copied().unwrap_or(0.0)
}

/// `exp(x_i - max) / sum_j exp(x_j - max)`.
pub(super) fn softmax(values: &mut [f32]) {
    let most = values.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    for x in values.iter_mut() {
        *x = num::exp(*x - most);
    }
    let sum = values.iter().fold(0.0, |sum, &x| sum + x);
    for x in values.iter_mut() {
        *x /= sum;
    }
}
