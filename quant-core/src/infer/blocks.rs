//! The blocks of the net: residual block, attention, change of resolution.

use super::executor::{Accumulate, Executor, Params, Prologue};
use super::map::{Map, Source};
use super::unet::Net;
use crate::error::Result;
use crate::net::Resample;

impl Net<'_> {
    /// `skip(x) + conv(SiLU(norm(conv(SiLU(norm(x))), embedding)))`, the result above `x`; in its
    /// place where that can be and it is not to be kept, or where the resolution is doubled.
    pub(super) fn res_block(
        &self,
        executor: &mut Executor<'_, '_>,
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
        let out = if in_place { x } else { executor.stack.push(channels, height, width) };
        let source = Source { up: resample == Resample::Up, ..x.into() };
        let norm = executor.params()?;
        executor.norm(&norm, source, false)?;
        let conv = executor.params()?;
        let hidden = if resample == Resample::Down {
            let pooled = executor.stack.push(x.channels, height, width);
            let hidden = executor.stack.push(channels, height, width);
            let pooled = executor.pool(x, Prologue::NormSilu, pooled);
            executor.conv(&conv, pooled.into(), Prologue::Plain, hidden, Accumulate::No)?
        } else {
            let hidden = executor.stack.push(channels, height, width);
            executor.conv(&conv, source, Prologue::NormSilu, hidden, Accumulate::No)?
        };
        let conv = self.second_norm(executor, hidden)?;
        let out = if channels != x.channels {
            let skip = executor.params()?;
            executor.pointwise(&skip, source, Prologue::Plain, out, Accumulate::No)?
        } else if resample == Resample::Down {
            executor.pool(x, Prologue::Plain, out)
        } else if in_place {
            out
        } else {
            executor.copy(source, out)
        };
        let out = executor.conv(&conv, hidden.into(), Prologue::NormSilu, out, Accumulate::Yes)?;
        if resample == Resample::Up {
            return Ok(executor.move_to(out, x.at));
        }
        executor.stack.cut(out.end());
        Ok(out)
    }

    /// The same for a block of the way up, which reads a map and a skip; its result lies where one of
    /// them does, if that has room for it, else above.
    pub(super) fn up_block(
        &self,
        executor: &mut Executor<'_, '_>,
        source: Source,
        channels: usize,
    ) -> Result<Map> {
        let (height, width) = (source.height(), source.width());
        let parts = [source.second, Some(source.first).filter(|_| !source.up)];
        let room = parts.into_iter().flatten().find(|map| map.channels >= channels);
        let out = match room {
            Some(map) => Map { channels, ..map },
            None => executor.stack.push(channels, height, width),
        };
        let norm = executor.params()?;
        executor.norm(&norm, source, false)?;
        let conv = executor.params()?;
        let hidden = executor.stack.push(channels, height, width);
        let hidden = executor.conv(&conv, source, Prologue::NormSilu, hidden, Accumulate::No)?;
        let conv = self.second_norm(executor, hidden)?;
        let skip = executor.params()?;
        let out = executor.pointwise(&skip, source, Prologue::Plain, out, Accumulate::No)?;
        executor.conv(&conv, hidden.into(), Prologue::NormSilu, out, Accumulate::Yes)
    }

    /// The embedding's part in a block, and its second norm; returns its second convolution.
    fn second_norm<'m>(&self, executor: &mut Executor<'m, '_>, hidden: Map) -> Result<Params<'m>> {
        let weight = executor.tensor()?;
        let bias = if self.config.embeds_nothing() { None } else { Some(executor.tensor()?) };
        executor.modulate(weight, bias)?;
        let scale_shift = self.config.use_scale_shift_norm;
        if !scale_shift {
            executor.add_modulation(hidden);
        }
        let norm = executor.params()?;
        executor.norm(&norm, hidden.into(), scale_shift)?;
        executor.params()
    }

    /// `x + proj(attention(qkv(norm(x))))`, in its place.
    pub(super) fn attention(
        &self,
        executor: &mut Executor<'_, '_>,
        x: Map,
        heads: usize,
    ) -> Result<Map> {
        let channels = x.channels;
        let width = channels.checked_div(heads).unwrap_or(0);
        let norm = executor.params()?;
        executor.norm(&norm, x.into(), false)?;
        let (qkv, proj) = (executor.params()?, executor.params()?);
        let all = executor.stack.push(channels.saturating_mul(3), x.height, x.width);
        let all = executor.pointwise(&qkv, x.into(), Prologue::Norm, all, Accumulate::No)?;
        let new_order = self.config.use_new_attention_order;
        executor.attend(all, heads, new_order);
        let mixed = if new_order {
            Map { channels, ..all }.into()
        } else {
            Source { every_third: Some(width), ..all.into() }
        };
        let x = executor.pointwise(&proj, mixed, Prologue::Plain, x, Accumulate::Yes)?;
        executor.stack.cut(x.end());
        Ok(x)
    }

    /// Half the resolution, above `x`, or by a convolution twice of it, in the place of `x`.
    pub(super) fn resample(
        executor: &mut Executor<'_, '_>,
        x: Map,
        resample: Resample,
        conv: bool,
    ) -> Result<Map> {
        if resample == Resample::Up {
            let conv = executor.params()?;
            let out = executor.stack.push(x.channels, 2 * x.height, 2 * x.width);
            let doubled = Source { up: true, ..x.into() };
            let out = executor.conv(&conv, doubled, Prologue::Plain, out, Accumulate::No)?;
            return Ok(executor.move_to(out, x.at));
        }
        let out = executor.stack.push(x.channels, x.height / 2, x.width / 2);
        if conv {
            let conv = executor.params()?;
            executor.conv(&conv, x.into(), Prologue::Plain, out, Accumulate::No)
        } else {
            Ok(executor.pool(x, Prologue::Plain, out))
        }
    }
}
