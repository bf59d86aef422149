//! What moves or joins bytes: pooling, copies, the first map.

use super::super::executor::{Executor, Prologue};
use super::super::map::{Map, Source, Values, part, part_mut};
use super::super::workspace::Workspace;
use super::bytes;
use super::input_quantizer::InputQuantizer;
use super::requantizer::byte;
use crate::num;

impl Executor<'_, '_> {
    /// Averages blocks of 2 x 2, as [`Executor::pool`]; what enters as it is keeps its unit.
    pub(in super::super) fn integer_pool(&mut self, from: Map, prologue: Prologue, to: Map) -> Map {
        let to = match prologue {
            Prologue::Plain => Map { values: from.values, ..to },
            _ => self.next_bytes(to),
        };
        if self.measured(&[0]) {
            return to;
        }
        let Workspace { maps, affine, .. } = &mut self.memory;
        let maps = bytes(maps);
        let source = Source::from(from);
        let quantizer = InputQuantizer::new(&source, prologue, affine, self.peak, i32::MAX);
        let rate = 0.25 * quantizer.unit() / to.values.unit();
        for channel in 0..to.channels {
            let line = quantizer.line(channel, from.values);
            for y in 0..to.height {
                for x in 0..to.width {
                    let plane = from.plane(maps, channel);
                    let mut sum = 0f32;
                    for at in [2 * y * from.width, (2 * y + 1) * from.width] {
                        for &q in part(plane, at + 2 * x, 2) {
                            let value = quantizer.exact(line, q);
                            sum += num::f32_of_i32(value);
                        }
                    }
                    if let Some(out) = to.plane_mut(maps, channel).get_mut(y * to.width + x) {
                        *out = byte(sum * rate);
                    }
                }
            }
        }
        to
    }

    /// Copies what a layer reads, as [`Executor::copy`].
    pub(in super::super) fn integer_copy(&mut self, from: Source, to: Map) -> Map {
        let to = Map { values: from.first.values, ..to };
        if self.measured(&[0]) {
            return to;
        }
        let maps = bytes(self.memory.maps);
        for channel in 0..to.channels {
            for i in 0..to.plane_len() {
                let (y, x) = (i / to.width.max(1), i % to.width.max(1));
                let at = if from.up { y / 2 * from.first.width + x / 2 } else { i };
                let value = from.plane(maps, channel).get(at).copied().unwrap_or(0);
                if let Some(out) = to.plane_mut(maps, channel).get_mut(i) {
                    *out = value;
                }
            }
        }
        to
    }

    /// The image in bytes, above all other maps.
    pub(in super::super) fn integer_first(&mut self, image: Map) -> Map {
        let map = self.stack.push(image.channels, image.height, image.width);
        let map = self.next_bytes(map);
        if self.measured(&[0]) {
            return map;
        }
        let Workspace { maps, floats, .. } = &mut self.memory;
        if let Values::Bytes(scale) = map.values {
            let out = part_mut(bytes(maps), map.at, map.len());
            out.iter_mut().zip(&**floats).for_each(|(out, &x)| *out = byte(x / scale));
        }
        map
    }
}
