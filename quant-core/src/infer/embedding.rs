//! Time and label: their embedding, and how a block sees it; in floats for every arithmetic.

use super::op::{Op, Params};
use super::workspace::{Sizes, Workspace, first};
use crate::error::Result;
use crate::format::Tensor;
use crate::num::{self, silu};

/// Workspace of an operation on the embedding; nothing for any other.
pub(super) fn sizes(op: &Op<'_, '_>) -> Sizes {
    match op {
        Op::EmbedTime { layers: [first, second], .. } => {
            let (waves, len) = (first.weight.row_len(), second.bias.numel());
            Sizes {
                gathered: waves,
                modulation: len,
                embedding: len,
                row: waves.max(len),
                vector: len,
                ..Sizes::default()
            }
        }
        Op::EmbedNothing { len } => Sizes { embedding: *len, ..Sizes::default() },
        Op::EmbedLabel { table, .. } => Sizes { row: table.row_len(), ..Sizes::default() },
        Op::ProjectEmbedding(Params { weight, bias }) => {
            Sizes { modulation: bias.numel(), row: weight.row_len(), ..Sizes::default() }
        }
        Op::Modulate { weight, bias } => Sizes {
            modulation: bias.map_or(weight.row_len(), Tensor::numel),
            row: weight.row_len(),
            ..Sizes::default()
        },
        _ => Sizes::default(),
    }
}

/// Runs an operation on the embedding; returns whether it is one.
pub(super) fn run(op: &Op<'_, '_>, workspace: &mut Workspace<'_>) -> Result<bool> {
    match *op {
        Op::EmbedTime { t, layers } => embed_time(t, layers, workspace)?,
        Op::EmbedNothing { len } => first(workspace.embedding, len)?.fill(0.0),
        Op::EmbedLabel { table, label } => {
            let Workspace { row, embedding, .. } = workspace;
            let row = first(row, table.row_len())?;
            table.decode_row(label, row)?;
            embedding.iter_mut().zip(&*row).for_each(|(e, &x)| *e += x);
        }
        Op::FinishEmbedding => workspace.embedding.iter_mut().for_each(|x| *x = silu(*x)),
        Op::ProjectEmbedding(Params { weight, bias }) => {
            let Workspace { row, embedding, modulation, .. } = workspace;
            linear((weight, bias), embedding, row, modulation)?;
            let projected = first(modulation, bias.numel())?;
            first(embedding, projected.len())?.copy_from_slice(projected);
        }
        Op::Modulate { weight, bias } => {
            let Workspace { row, embedding, modulation, .. } = workspace;
            match bias {
                Some(bias) => linear((weight, bias), embedding, row, modulation)?,
                None => weight.decode_row(0, first(modulation, weight.row_len())?)?,
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The embedding of a time: a wave of each frequency, through two linear layers.
///
/// ```text
/// waves = [cos(t f_i), sin(t f_i)],  f_i = 10000^(-i / half)
/// e = W2 SiLU(W1 waves + b1) + b2
/// ```
fn embed_time(t: f32, layers: &[Params<'_>; 2], workspace: &mut Workspace<'_>) -> Result<()> {
    let [one, two] = layers;
    let Workspace { gathered, row, embedding, modulation, .. } = workspace;
    let waves = first(gathered, one.weight.row_len())?;
    waves.fill(0.0);
    let half = waves.len() / 2;
    let step = -num::ln(10000.0) / num::f32_of_usize(half.max(1));
    let (cosines, sines) = waves.split_at_mut_checked(half).unwrap_or_default();
    for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
        let phase = t * num::exp(step * num::f32_of_usize(i));
        (*sine, *cosine) = num::sin_cos(phase);
    }
    linear((&one.weight, &one.bias), waves, row, modulation)?;
    let hidden = first(modulation, one.bias.numel())?;
    for x in hidden.iter_mut() {
        *x = silu(*x);
    }
    linear((&two.weight, &two.bias), hidden, row, embedding)
}

/// `W x + b`, row after row, at the start of `out`.
fn linear(
    (weight, bias): (&Tensor<'_>, &Tensor<'_>),
    x: &[f32],
    row: &mut [f32],
    out: &mut [f32],
) -> Result<()> {
    let (out, row) = (first(out, bias.numel())?, first(row, weight.row_len())?);
    bias.decode_row(0, out)?;
    for (o, out) in out.iter_mut().enumerate() {
        weight.decode_row(o, row)?;
        *out += row.iter().zip(x).fold(0.0, |sum, (&w, &x)| sum + w * x);
    }
    Ok(())
}
