//! Attention over bytes: few multiplications, in floats.

use super::super::attention::softmax;
use super::super::executor::{Executor, grow};
use super::super::map::{Map, part_mut};
use super::super::workspace::Workspace;
use super::bytes;
use super::requantizer::byte;
use crate::num;

impl Executor<'_, '_> {
    /// Attention of every pixel to every pixel, as [`Executor::attend`]; what is mixed is no larger than the
    /// values, and keeps their unit.
    pub(in super::super) fn integer_attend(&mut self, qkv: Map, heads: usize, new_order: bool) {
        let width = (qkv.channels / 3).checked_div(heads).unwrap_or(0);
        let pixels = qkv.plane_len();
        grow(&mut self.sizes.gathered, pixels.saturating_add(width));
        if self.measured(&[2, heads, width, pixels, pixels]) {
            return;
        }
        let Workspace { maps, gathered, .. } = &mut self.memory;
        let maps = bytes(maps);
        let (scores, query) = gathered.split_at_mut_checked(pixels).unwrap_or_default();
        let query = part_mut(query, 0, width);
        let unit = qkv.values.unit();
        let scale = unit * unit / num::sqrt(num::f32_of_usize(width));
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
    }
}
