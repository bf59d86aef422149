//! The blocks of the net: residual block, attention, change of resolution.

use super::map::{LayerInput, Map};
use super::op::{Accumulate, ConvKernel, Modulation, Op, Prologue};
use super::walk::Walk;
use crate::error::Result;
use crate::net::{Resample, UNetConfig};

impl Walk<'_, '_> {
    /// A residual block, its result above `x`; in its place where that can be and it is not to be kept,
    /// or where the resolution is doubled.
    pub(super) fn res_block(
        &mut self,
        config: &UNetConfig,
        x: Map,
        channels: usize,
        resample: Resample,
        keep: bool,
    ) -> Result<Map> {
        let (height, width) = match resample {
            Resample::Keep => (x.height, x.width),
            Resample::Up => (2 * x.height, 2 * x.width),
            Resample::Down => (x.height / 2, x.width / 2),
        };
        let in_place = !keep && resample == Resample::Keep && channels == x.channels;
        let out = if in_place { x } else { self.stack.push(channels, height, width) };
        let source = LayerInput { up: resample == Resample::Up, ..x.into() };
        let out = self.residual(config, source, resample, out)?;
        if resample == Resample::Up {
            return self.move_to(out, x.at);
        }
        self.stack.cut(out.end());
        Ok(out)
    }

    /// A residual block of the decoder, which reads a map and a skip; its result lies where one of
    /// them does, if that has room for it, else above.
    pub(super) fn up_block(
        &mut self,
        config: &UNetConfig,
        source: LayerInput,
        channels: usize,
    ) -> Result<Map> {
        let parts = [source.second, Some(source.first).filter(|_| !source.up)];
        // What is only copied cannot lie where it is read.
        let copied = channels == source.channels();
        let room = parts.into_iter().flatten().find(|map| map.channels >= channels && !copied);
        let out = match room {
            Some(map) => Map { channels, ..map },
            None => self.stack.push(channels, source.height(), source.width()),
        };
        self.residual(config, source, Resample::Keep, out)
    }

    /// `skip(x) + conv(SiLU(norm(conv(SiLU(norm(x))), embedding)))`, from what is read into `out`, which
    /// may be the map that is read.
    fn residual(
        &mut self,
        config: &UNetConfig,
        source: LayerInput,
        resample: Resample,
        out: Map,
    ) -> Result<Map> {
        let Map { channels, height, width, .. } = out;
        let x = source.first;
        self.norm(source, Modulation::None)?;
        let (source_of_conv, prologue) = if resample == Resample::Down {
            let pooled = self.stack.push(x.channels, height, width);
            (self.pool(x, Prologue::NormSilu, pooled)?.into(), Prologue::Plain)
        } else {
            (source, Prologue::NormSilu)
        };
        let hidden = self.stack.push(channels, height, width);
        let hidden =
            self.conv(ConvKernel::Three, source_of_conv, prologue, hidden, Accumulate::No)?;
        self.modulate(config.embeds_nothing())?;
        let scale_shift = config.use_scale_shift_norm;
        let modulation = if scale_shift { Modulation::ScaleShift } else { Modulation::Shift };
        self.norm(hidden.into(), modulation)?;
        let second = self.defer();
        let out = if channels != source.channels() {
            self.conv(ConvKernel::One, source, Prologue::Plain, out, Accumulate::No)?
        } else if resample == Resample::Down {
            self.pool(x, Prologue::Plain, out)?
        } else if out == x {
            out
        } else {
            self.copy(source, out)?
        };
        let rest = self.resume(second);
        let out =
            self.conv(ConvKernel::Three, hidden.into(), Prologue::NormSilu, out, Accumulate::Yes)?;
        self.resume(rest);
        Ok(out)
    }

    /// `x + proj(attention(qkv(norm(x))))`, in its place.
    pub(super) fn attention(&mut self, config: &UNetConfig, x: Map, heads: usize) -> Result<Map> {
        let channels = x.channels;
        let width = channels.checked_div(heads).unwrap_or(0);
        self.norm(x.into(), Modulation::None)?;
        let all = self.stack.push(channels.saturating_mul(3), x.height, x.width);
        let all = self.conv(ConvKernel::One, x.into(), Prologue::Norm, all, Accumulate::No)?;
        let new_order = config.use_new_attention_order;
        self.run(&Op::Attend { qkv: all, heads, new_order })?;
        let mixed = if new_order {
            Map { channels, ..all }.into()
        } else {
            LayerInput { every_third: Some(width), ..all.into() }
        };
        let x = self.conv(ConvKernel::One, mixed, Prologue::Plain, x, Accumulate::Yes)?;
        self.stack.cut(x.end());
        Ok(x)
    }

    /// Half the resolution, above `x`, or by a convolution twice of it, in the place of `x`.
    pub(super) fn resample(&mut self, x: Map, resample: Resample, conv: bool) -> Result<Map> {
        let up = resample == Resample::Up;
        let (height, width) =
            if up { (2 * x.height, 2 * x.width) } else { (x.height / 2, x.width / 2) };
        let out = self.stack.push(x.channels, height, width);
        if !conv {
            return self.pool(x, Prologue::Plain, out);
        }
        let source = LayerInput { up, ..x.into() };
        let out = self.conv(ConvKernel::Three, source, Prologue::Plain, out, Accumulate::No)?;
        if up { self.move_to(out, x.at) } else { Ok(out) }
    }
}
