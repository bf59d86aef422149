//! The way through the net: embeddings, the way down, the middle, the way up.
//!
//! The maps form a stack. On the way down each block leaves its result above the one before: these
//! are the skips. The present map lies on top of them; what a block needs for itself lies above and
//! is given up behind it. On the way up a block reads the present map and the topmost skip side by
//! side, writes its result where one of the two lies if that has room, and the result takes the skip's
//! place.

use super::blocks::Resample;
use super::machine::{Entry, Machine, Put};
use super::map::{Map, Source};
use crate::error::{Error, Result, check_length};
use crate::net::NetConfig;
use crate::num;

/// What a velocity is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The image, `[c, h, w]`.
    pub x: &'a [f32],
    /// Channels behind those of the image, for nets with more input than image channels.
    pub concat: &'a [f32],
    /// The time, noise at 0, data at 1.
    pub t: f32,
    /// The class; none, or the number of classes, is "no label".
    pub label: Option<u32>,
}

/// A net with the size of its images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net<'m> {
    pub(super) config: &'m NetConfig,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Net<'_> {
    /// Runs all layers; the result is the velocity of the patches.
    pub(super) fn forward(&self, machine: &mut Machine<'_, '_>, input: &Input<'_>) -> Result<Map> {
        let Self { config, .. } = *self;
        self.embed(machine, input)?;
        let mut h = self.enter(machine, input)?;
        machine.push_skip(h);
        let levels = config.channel_mult.len();
        for (level, &mult) in config.channel_mult.iter().enumerate() {
            for _ in 0..config.num_res_blocks {
                h = self.res_block(machine, h, channels(config, mult), Resample::Keep, true)?;
                h = self.attention_at(machine, level, h, config.num_heads)?;
                machine.push_skip(h);
            }
            if level + 1 < levels {
                h = self.step_down(machine, h)?;
                machine.push_skip(h);
            }
        }
        let mut skips_end = h.end();
        h = self.res_block(machine, h, h.channels, Resample::Keep, true)?;
        h = self.attention(machine, h, config.num_heads)?;
        h = self.res_block(machine, h, h.channels, Resample::Keep, false)?;

        let heads = config.num_heads_upsample.unwrap_or(config.num_heads);
        let first = config.channel_mult.first().map_or(0, |&mult| channels(config, mult));
        let mut up = false;
        for (level, &mult) in config.channel_mult.iter().enumerate().rev() {
            let own = channels(config, mult);
            // A way down without blocks keeps the width of the first map.
            let above = level.checked_sub(1).filter(|_| config.num_res_blocks > 0);
            let before = above.and_then(|above| config.channel_mult.get(above));
            let before = before.map_or(first, |&mult| channels(config, mult));
            let (height, width) = (self.height >> level, self.width >> level);
            let last = num::index(config.num_res_blocks);
            for i in 0..=last {
                let channels = if i < last { own } else { before };
                let skip = Map { at: 0, channels, height, width, values: machine.pop_skip() };
                let skip = Map { at: skips_end.saturating_sub(skip.len()), ..skip };
                let source = Source { up, second: Some(skip), ..h.into() };
                h = self.up_block(machine, source, own)?;
                h = machine.move_to(h, skip.at);
                (skips_end, up) = (skip.at, false);
                h = self.attention_at(machine, level, h, heads)?;
            }
            if level > 0 {
                (h, up) = self.step_up(machine, h)?;
            }
        }
        let norm = machine.params()?;
        machine.norm(&norm, h.into(), false)?;
        let conv = machine.params()?;
        let v = machine.push_floats(conv.bias.numel(), h.height, h.width);
        machine.conv(&conv, h.into(), Entry::NormSilu, v, Put::Set)
    }

    /// `SiLU(time_mlp(t) + label_row)`.
    fn embed(&self, machine: &mut Machine<'_, '_>, input: &Input<'_>) -> Result<()> {
        let config = self.config;
        if config.ignore_time {
            machine.embed_nothing(num::index(config.model_channels).saturating_mul(4));
        } else {
            let layers = [machine.params()?, machine.params()?];
            machine.embed_time(input.t, &layers)?;
        }
        if let Some(classes) = config.num_classes {
            let table = machine.tensor()?;
            machine.embed_label(table, num::index(input.label.unwrap_or(classes)))?;
        }
        machine.finish_embedding();
        Ok(())
    }

    /// The first map: the image's patches, projected.
    fn enter(&self, machine: &mut Machine<'_, '_>, input: &Input<'_>) -> Result<Map> {
        let config = self.config;
        let (height, width) = (self.height, self.width);
        let planes = self.planes();
        let load = |machine: &mut Machine<'_, '_>| {
            let map = machine.push_floats(planes, height, width);
            let value = |i: usize| self.value(input, i, map.plane_len());
            machine.load(map, (0..map.len()).map(value));
            map
        };
        if !config.input_projection {
            let image = load(machine);
            return Ok(machine.first_map(image));
        }
        let conv = machine.params()?;
        let first = machine.stack.push(conv.bias.numel(), height, width);
        let image = load(machine);
        let first = machine.conv(&conv, image.into(), Entry::Plain, first, Put::Set)?;
        machine.stack.cut(first.end());
        Ok(first)
    }

    /// Planes of the first map: the image's, as patches, with its Fourier features and what is
    /// concatenated; without a projection as many as the first level has channels.
    fn planes(&self) -> usize {
        let config = self.config;
        if config.input_projection {
            num::index(config.in_channels) * self.patch() * self.patch() + self.fourier()
        } else {
            config.channel_mult.first().map_or(0, |&mult| channels(config, mult))
        }
    }

    /// Planes of Fourier features: four for each of an image's three channels.
    const fn fourier(&self) -> usize {
        if self.config.with_fourier_features { 12 } else { 0 }
    }

    /// Element `i` of the first map: the image's pixels, their Fourier features, what is concatenated.
    fn value(&self, input: &Input<'_>, i: usize, plane: usize) -> f32 {
        let (channel, pixel) = (i / plane.max(1), i % plane.max(1));
        if self.fourier() == 0 {
            let mut pixels = input.x.iter().chain(input.concat);
            return pixels.nth(self.pixel(channel, pixel)).copied().unwrap_or(0.0);
        }
        let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(0.0);
        let Some(feature) = i.checked_sub(input.x.len()) else { return at(input.x, i) };
        if let Some(behind) = feature.checked_sub(12 * plane) {
            return at(input.concat, behind);
        }
        // Six sines, then six cosines, of 2 pi 2^f x for f = 6, 7, channel by channel.
        let feature = feature / plane.max(1);
        let octave = if feature.is_multiple_of(2) { 64.0 } else { 128.0 };
        let x = at(input.x, feature % 6 / 2 * plane + pixel);
        let (sine, cosine) = num::sin_cos(core::f32::consts::TAU * octave * x);
        if feature < 6 { sine } else { cosine }
    }

    /// Where in the image the pixel of a plane of patches lies: channel `c p^2 + dy p + dx` holds the
    /// pixels at (dy, dx) of channel c.
    pub(super) fn pixel(&self, channel: usize, pixel: usize) -> usize {
        let (patch, width) = (self.patch(), self.width.max(1));
        let area = (patch * patch).max(1);
        let (c, within) = (channel / area, channel % area);
        let y = pixel / width * patch + within / patch;
        let x = pixel % width * patch + within % patch;
        (c * self.height * patch + y) * width * patch + x
    }

    /// Side of a patch.
    pub(super) fn patch(&self) -> usize {
        num::index(self.config.patch.unwrap_or(1)).max(1)
    }

    fn attention_at(
        &self,
        machine: &mut Machine<'_, '_>,
        level: usize,
        h: Map,
        heads: u32,
    ) -> Result<Map> {
        let rate = 1u32.checked_shl(num::u32_of(level)).unwrap_or(0);
        let there = self.config.attention_resolutions.contains(&rate);
        if there { self.attention(machine, h, heads) } else { Ok(h) }
    }

    /// Fails unless the input has the size that is planned for, and a label that the net has.
    pub(super) fn check(&self, input: &Input<'_>) -> Result<()> {
        let config = self.config;
        let plane = self.height.saturating_mul(self.width);
        let expected = self.planes().saturating_sub(self.fourier()).saturating_mul(plane);
        check_length("image", expected, input.x.len() + input.concat.len())?;
        if self.fourier() > 0 {
            check_length("image with Fourier features", plane.saturating_mul(3), input.x.len())?;
        }
        match (input.label, config.num_classes) {
            (Some(label), classes) if label > classes.unwrap_or(0) || classes.is_none() => {
                let max = u64::from(classes.unwrap_or(0));
                Err(Error::Range { what: "label", found: u64::from(label), min: 0, max })
            }
            _ => Ok(()),
        }
    }
}

/// Channels of a level.
fn channels(config: &NetConfig, mult: f64) -> usize {
    usize::try_from(config.channels(mult)).unwrap_or(usize::MAX)
}
