//! The blocks of the net: residual block, attention, change of resolution.

use super::machine::{Entry, Machine, Params, Put};
use super::map::{Map, Source};
use super::unet::Net;
use crate::error::Result;
use crate::net::Resample;

impl Net<'_> {
    /// `skip(x) + conv(SiLU(norm(conv(SiLU(norm(x))), embedding)))`, the result above `x`; in its
    /// place where that can be and it is not to be kept, or where the resolution is doubled.
    pub(super) fn res_block(
        &self,
        machine: &mut Machine<'_, '_>,
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
        let out = if in_place { x } else { machine.stack.push(channels, height, width) };
        let source = Source { up: resample == Resample::Up, ..x.into() };
        let norm = machine.params()?;
        machine.norm(&norm, source, false)?;
        let conv = machine.params()?;
        let hidden = if resample == Resample::Down {
            let pooled = machine.stack.push(x.channels, height, width);
            let hidden = machine.stack.push(channels, height, width);
            let pooled = machine.pool(x, Entry::NormSilu, pooled);
            machine.conv(&conv, pooled.into(), Entry::Plain, hidden, Put::Set)?
        } else {
            let hidden = machine.stack.push(channels, height, width);
            machine.conv(&conv, source, Entry::NormSilu, hidden, Put::Set)?
        };
        let conv = self.second_norm(machine, hidden)?;
        let out = if channels != x.channels {
            let skip = machine.params()?;
            machine.pointwise(&skip, source, Entry::Plain, out, Put::Set)?
        } else if resample == Resample::Down {
            machine.pool(x, Entry::Plain, out)
        } else if in_place {
            out
        } else {
            machine.copy(source, out)
        };
        let out = machine.conv(&conv, hidden.into(), Entry::NormSilu, out, Put::Add)?;
        if resample == Resample::Up {
            return Ok(machine.move_to(out, x.at));
        }
        machine.stack.cut(out.end());
        Ok(out)
    }

    /// The same for a block of the way up, which reads a map and a skip; its result lies where one of
    /// them does, if that has room for it, else above.
    pub(super) fn up_block(
        &self,
        machine: &mut Machine<'_, '_>,
        source: Source,
        channels: usize,
    ) -> Result<Map> {
        let (height, width) = (source.height(), source.width());
        let parts = [source.second, Some(source.first).filter(|_| !source.up)];
        let room = parts.into_iter().flatten().find(|map| map.channels >= channels);
        let out = match room {
            Some(map) => Map { channels, ..map },
            None => machine.stack.push(channels, height, width),
        };
        let norm = machine.params()?;
        machine.norm(&norm, source, false)?;
        let conv = machine.params()?;
        let hidden = machine.stack.push(channels, height, width);
        let hidden = machine.conv(&conv, source, Entry::NormSilu, hidden, Put::Set)?;
        let conv = self.second_norm(machine, hidden)?;
        let skip = machine.params()?;
        let out = machine.pointwise(&skip, source, Entry::Plain, out, Put::Set)?;
        machine.conv(&conv, hidden.into(), Entry::NormSilu, out, Put::Add)
    }

    /// The embedding's part in a block, and its second norm; returns its second convolution.
    fn second_norm<'m>(&self, machine: &mut Machine<'m, '_>, hidden: Map) -> Result<Params<'m>> {
        let weight = machine.tensor()?;
        let bias = if self.config.embeds_nothing() { None } else { Some(machine.tensor()?) };
        machine.modulate(weight, bias)?;
        let scale_shift = self.config.use_scale_shift_norm;
        if !scale_shift {
            machine.add_modulation(hidden);
        }
        let norm = machine.params()?;
        machine.norm(&norm, hidden.into(), scale_shift)?;
        machine.params()
    }

    /// `x + proj(attention(qkv(norm(x))))`, in its place.
    pub(super) fn attention(
        &self,
        machine: &mut Machine<'_, '_>,
        x: Map,
        heads: usize,
    ) -> Result<Map> {
        let channels = x.channels;
        let width = channels.checked_div(heads).unwrap_or(0);
        let norm = machine.params()?;
        machine.norm(&norm, x.into(), false)?;
        let (qkv, proj) = (machine.params()?, machine.params()?);
        let all = machine.stack.push(channels.saturating_mul(3), x.height, x.width);
        let all = machine.pointwise(&qkv, x.into(), Entry::Norm, all, Put::Set)?;
        let new_order = self.config.use_new_attention_order;
        machine.attend(all, heads, new_order);
        let mixed = if new_order {
            Map { channels, ..all }.into()
        } else {
            Source { every_third: Some(width), ..all.into() }
        };
        let x = machine.pointwise(&proj, mixed, Entry::Plain, x, Put::Add)?;
        machine.stack.cut(x.end());
        Ok(x)
    }

    /// Half the resolution, above `x`, or by a convolution twice of it, in the place of `x`.
    pub(super) fn resample(
        machine: &mut Machine<'_, '_>,
        x: Map,
        resample: Resample,
        conv: bool,
    ) -> Result<Map> {
        if resample == Resample::Up {
            let conv = machine.params()?;
            let out = machine.stack.push(x.channels, 2 * x.height, 2 * x.width);
            let doubled = Source { up: true, ..x.into() };
            let out = machine.conv(&conv, doubled, Entry::Plain, out, Put::Set)?;
            return Ok(machine.move_to(out, x.at));
        }
        let out = machine.stack.push(x.channels, x.height / 2, x.width / 2);
        if conv {
            let conv = machine.params()?;
            machine.conv(&conv, x.into(), Entry::Plain, out, Put::Set)
        } else {
            Ok(machine.pool(x, Entry::Plain, out))
        }
    }
}
