//! Time and label: their embedding, and how a block sees it.

use super::executor::{Executor, Params, grow, silu};
use super::map::{Map, part_mut};
use super::workspace::Workspace;
use crate::error::Result;
use crate::format::Tensor;
use crate::num;

impl Executor<'_, '_> {
    /// Adds to each channel of a map its value of the modulation.
    pub(super) fn add_modulation(&mut self, to: Map) {
        if self.integers() {
            self.shifted = true;
            return;
        }
        if self.measured(&[0]) {
            return;
        }
        let Workspace { maps, modulation, .. } = &mut self.memory;
        for (channel, &value) in (0..to.channels).zip(&**modulation) {
            to.plane_mut(maps, channel).iter_mut().for_each(|x| *x += value);
        }
    }

    /// The embedding as a block sees it: `W e + b`, or of a net that has neither time nor label a
    /// constant.
    pub(super) fn modulate(&mut self, weight: Tensor<'_>, bias: Option<Tensor<'_>>) -> Result<()> {
        let len = bias.map_or(weight.row_len(), |bias| bias.numel());
        grow(&mut self.sizes.modulation, len);
        grow(&mut self.sizes.row, weight.row_len());
        if self.measured(&[len, if bias.is_some() { weight.row_len() } else { 0 }]) {
            return Ok(());
        }
        let Workspace { row, embedding, modulation, .. } = &mut self.memory;
        let out = part_mut(modulation, 0, len);
        match bias {
            Some(bias) => linear(&Params { weight, bias }, embedding, row, out),
            None => weight.decode_row(0, out),
        }
    }

    /// The embedding of a time: a wave of each frequency, through two linear layers.
    ///
    /// ```text
    /// waves = [cos(t f_i), sin(t f_i)],  f_i = 10000^(-i / half)
    /// e = W2 SiLU(W1 waves + b1) + b2
    /// ```
    pub(super) fn embed_time(&mut self, t: f32, layers: &[Params<'_>; 2]) -> Result<()> {
        let [first, second] = layers;
        let (waves, len) = (first.weight.row_len(), second.bias.numel());
        grow(&mut self.sizes.gathered, waves);
        grow(&mut self.sizes.modulation, len);
        grow(&mut self.sizes.embedding, len);
        grow(&mut self.sizes.row, waves.max(len));
        if self.measured(&[len, waves.saturating_add(len)]) {
            return Ok(());
        }
        let Workspace { gathered, row, embedding, modulation, .. } = &mut self.memory;
        let waves = part_mut(gathered, 0, waves);
        waves.fill(0.0);
        let half = waves.len() / 2;
        let step = -num::ln(10000.0) / num::f32_of_usize(half.max(1));
        let (cosines, sines) = waves.split_at_mut_checked(half).unwrap_or_default();
        for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
            let phase = t * num::exp(step * num::f32_of_usize(i));
            (*sine, *cosine) = num::sin_cos(phase);
        }
        let hidden = part_mut(modulation, 0, len);
        linear(first, waves, row, hidden)?;
        for x in hidden.iter_mut() {
            *x = silu(*x);
        }
        linear(second, hidden, row, part_mut(embedding, 0, len))
    }

    /// An embedding of zeros, where the time is ignored.
    pub(super) fn embed_nothing(&mut self, len: usize) {
        grow(&mut self.sizes.embedding, len);
        self.memory.embedding.fill(0.0);
    }

    /// Adds the row of a label to the embedding.
    pub(super) fn embed_label(&mut self, table: Tensor<'_>, label: usize) -> Result<()> {
        grow(&mut self.sizes.row, table.row_len());
        if self.measured(&[0]) {
            return Ok(());
        }
        let Workspace { row, embedding, .. } = &mut self.memory;
        let row = part_mut(row, 0, table.row_len());
        table.decode_row(label, row)?;
        embedding.iter_mut().zip(&*row).for_each(|(e, &x)| *e += x);
        Ok(())
    }

    /// The form in which every block uses the embedding: `SiLU(e)`.
    pub(super) fn finish_embedding(&mut self) {
        self.memory.embedding.iter_mut().for_each(|x| *x = silu(*x));
    }
}

/// `W x + b`, row after row.
fn linear(params: &Params<'_>, x: &[f32], row: &mut [f32], out: &mut [f32]) -> Result<()> {
    params.bias.decode_row(0, out)?;
    let row = part_mut(row, 0, params.weight.row_len());
    for (o, out) in out.iter_mut().enumerate() {
        params.weight.decode_row(o, row)?;
        *out += row.iter().zip(x).fold(0.0, |sum, (&w, &x)| sum + w * x);
    }
    Ok(())
}
