//! The net's forward pass: embeddings, encoder, middle, decoder.
//!
//! The maps form a stack. In the encoder each block leaves its result above the one before: these
//! are the skips. The present map lies on top of them; what a block needs for itself lies above and
//! is given up after it. In the decoder a block reads the present map and the topmost skip side by
//! side, writes its result where one of the two lies if that has room, and the result takes the skip's
//! place.

use super::map::{LayerInput, Map};
use super::op::{Accumulate, ConvKernel, Modulation, Op, Prologue};
use super::walk::Walk;
use crate::error::{Error, Result, check_count, check_length};
use crate::net::{Layer, Part, Resample, UNetConfig};
use crate::num;

/// The point at which a velocity is computed: image, time and class.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The image, `[c, h, w]`.
    pub x: &'a [f32],
    /// Channels after those of the image, for nets with more input than image channels.
    pub concat: &'a [f32],
    /// The time, noise at 0, data at 1.
    pub t: f32,
    /// The class; `None`, or the number of classes, is "no label".
    pub label: Option<u32>,
}

/// A net with the size of its images.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizedNet<'m> {
    pub(super) config: &'m UNetConfig,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl SizedNet<'_> {
    /// Runs all layers; the result is the velocity of the patches.
    pub(super) fn forward(&self, walk: &mut Walk<'_, '_>, input: &Input<'_>) -> Result<Map> {
        self.embed(walk, input)?;
        let mut h = if self.config.input_projection {
            Map::default()
        } else {
            let image = self.load(walk, input)?;
            walk.first(image)?
        };
        // The end of the topmost skip, and whether the next block reads `h` doubled.
        let (mut skips_end, mut up) = (0usize, false);
        for block in self.config.blocks() {
            for (i, layer) in block.layers().enumerate() {
                h = match *layer {
                    Layer::Conv { output, .. } => self.input_proj(walk, input, output)?,
                    Layer::Residual { output, .. } if block.part == Part::Output && i == 0 => {
                        let (height, width) =
                            (self.height >> block.level, self.width >> block.level);
                        let values = walk.pop_skip()?;
                        let skip = Map { at: 0, channels: block.skip, height, width, values };
                        let skip = Map { at: skips_end.saturating_sub(skip.len()), ..skip };
                        let source = LayerInput { up, second: Some(skip), ..h.into() };
                        let h = walk.up_block(self.config, source, output)?;
                        (skips_end, up) = (skip.at, false);
                        walk.move_to(h, skip.at)?
                    }
                    // What a block reads first may be a skip.
                    Layer::Residual { output, resample, .. } => {
                        walk.res_block(self.config, h, output, resample, i == 0)?
                    }
                    Layer::Attention { channels, decoder } => {
                        walk.attention(self.config, h, self.config.heads(channels, decoder)?)?
                    }
                    Layer::Resample { resample: Resample::Up, conv: false, .. } => {
                        up = true;
                        h
                    }
                    Layer::Resample { resample, conv, .. } => walk.resample(h, resample, conv)?,
                };
            }
            if block.part == Part::Input {
                walk.push_skip(h)?;
                skips_end = h.end();
            }
        }
        walk.norm(h.into(), Modulation::None)?;
        let channels = self.config.patched(self.config.out_channels);
        let v = walk.push_floats(channels, h.height, h.width);
        walk.conv(ConvKernel::Three, h.into(), Prologue::NormSilu, v, Accumulate::No)
    }

    /// `SiLU(time_mlp(t) + label_row)`, or its projection.
    fn embed(&self, walk: &mut Walk<'_, '_>, input: &Input<'_>) -> Result<()> {
        let config = self.config;
        if config.ignore_time {
            walk.run(&Op::EmbedNothing { len: config.embedding() })?;
        } else {
            let layers = &[walk.params()?, walk.params()?];
            walk.run(&Op::EmbedTime { t: input.t, layers })?;
        }
        if let Some(classes) = config.num_classes {
            let table = &walk.tensor()?;
            let label = input.label.map_or(classes, num::index);
            walk.run(&Op::EmbedLabel { table, label })?;
        }
        walk.run(&Op::FinishEmbedding)?;
        match config.embedding_rank {
            Some(_) => {
                let projection = walk.params()?;
                walk.run(&Op::ProjectEmbedding(&projection))
            }
            None => Ok(()),
        }
    }

    /// The image's patches, above all other maps.
    fn load(&self, walk: &mut Walk<'_, '_>, input: &Input<'_>) -> Result<Map> {
        let map = walk.push_floats(self.config.input_channels(), self.height, self.width);
        let value = |i: usize| self.value(input, i, map.plane_len());
        walk.run(&Op::Load { to: map, value: &value })?;
        Ok(map)
    }

    /// The image's patches, projected to some channels.
    fn input_proj(
        &self,
        walk: &mut Walk<'_, '_>,
        input: &Input<'_>,
        channels: usize,
    ) -> Result<Map> {
        let first = walk.stack.push(channels, self.height, self.width);
        let image = self.load(walk, input)?;
        let (plain, replace) = (Prologue::Plain, Accumulate::No);
        let first = walk.conv(ConvKernel::Three, image.into(), plain, first, replace)?;
        walk.stack.cut(first.end());
        Ok(first)
    }

    /// Element `i` of the first map: the image's pixels, their Fourier features, what is concatenated.
    fn value(&self, input: &Input<'_>, i: usize, plane: usize) -> f32 {
        let (channel, pixel) = (i / plane.max(1), i % plane.max(1));
        if self.config.fourier_channels() == 0 {
            let mut pixels = input.x.iter().chain(input.concat);
            return pixels.nth(self.pixel(channel, pixel)).copied().unwrap_or(0.0);
        }
        let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(0.0);
        let Some(feature) = i.checked_sub(input.x.len()) else { return at(input.x, i) };
        if let Some(after) = feature.checked_sub(12 * plane) {
            return at(input.concat, after);
        }
        // Six sines, then six cosines, of 2 pi 2^f x for f = 6, 7, channel by channel.
        let feature = feature / plane.max(1);
        let octave = if feature.is_multiple_of(2) { 64.0 } else { 128.0 };
        let x = at(input.x, feature % 6 / 2 * plane + pixel);
        let (sine, cosine) = num::sin_cos(core::f32::consts::TAU * octave * x);
        if feature < 6 { sine } else { cosine }
    }

    /// The index in the image of a pixel of a plane of patches: channel `c p^2 + dy p + dx` holds
    /// the pixels at (dy, dx) of channel c.
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
        self.config.patch.max(1)
    }

    /// Fails unless the input has the size that is planned for, and a label that the net has.
    pub(super) fn check(&self, input: &Input<'_>) -> Result<()> {
        let config = self.config;
        let plane = self.height.saturating_mul(self.width);
        let expected = self
            .config
            .input_channels()
            .saturating_sub(self.config.fourier_channels())
            .saturating_mul(plane);
        check_length("image", expected, input.x.len() + input.concat.len())?;
        if self.config.fourier_channels() > 0 {
            check_length("image with Fourier features", plane.saturating_mul(3), input.x.len())?;
        }
        match input.label {
            Some(label) => {
                // The number of classes is "no label".
                let error = Error::Range { what: "label", found: label.into(), min: 0, max: 0 };
                let classes = config.num_classes.ok_or(error)?;
                check_count("label", num::index(label), 0, classes)
            }
            None => Ok(()),
        }
    }
}
