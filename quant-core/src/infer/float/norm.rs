//! The norm of 32 groups, as a gain and an offset per channel.

use super::super::map::LayerInput;
use super::super::op::{Modulation, Params};
use super::super::workspace::{Workspace, first};
use crate::error::Result;
use crate::net::GROUPS;
use crate::num;

/// Added to a group's variance before the root.
pub(in super::super) const EPS: f32 = 1e-5;

/// Gains and offsets of a norm over what a layer reads, for the layers that take
/// [`Prologue::Norm`](super::super::op::Prologue): `y = gain x + offset` with
///
/// ```text
/// gain = gamma / sqrt(var + 1e-5)        offset = beta - mean gain
/// gain, offset <- gain (1 + scale), offset (1 + scale) + shift        where modulated
/// ```
pub(super) fn norm(
    params: &Params<'_>,
    source: &LayerInput,
    modulation: Modulation,
    workspace: &mut Workspace<'_>,
) -> Result<()> {
    let channels = source.channels();
    if modulation == Modulation::Shift {
        shift(source, workspace);
    }
    let Workspace { maps, vector, affine, modulation: values, .. } = workspace;
    let affine = first(affine, 2 * channels)?.as_chunks_mut::<2>().0;
    for (group, members) in affine.chunks_mut((channels / GROUPS).max(1)).enumerate() {
        let first = group * members.len();
        let planes = (first..first + members.len()).map(|channel| {
            let repeats = num::f32_of_usize(source.repeats(channel));
            (source.plane(maps, channel), repeats)
        });
        let over = |f: &dyn Fn(f32) -> f32| {
            planes.clone().fold(0.0, |all, (plane, repeats)| all + repeats * sum(plane, f))
        };
        let lens = planes.clone().map(|(plane, repeats)| repeats * num::f32_of_usize(plane.len()));
        let count = lens.fold(0.0, |all, len| all + len);
        let mean = over(&|x| x) / count;
        let var = over(&|x| (x - mean) * (x - mean)) / count;
        let scale = 1.0 / num::sqrt(var + EPS);
        members.fill([scale, -mean * scale]);
    }
    let modulated = (modulation == Modulation::ScaleShift).then_some(&**values);
    finish(params, channels, vector, affine, modulated)
}

/// Adds to each channel of a map its value of the modulation.
fn shift(source: &LayerInput, workspace: &mut Workspace<'_>) {
    let to = source.first;
    for (channel, &value) in (0..to.channels).zip(&*workspace.modulation) {
        to.plane_mut(workspace.maps, channel).iter_mut().for_each(|x| *x += value);
    }
}

/// Turns mean and variance, as gain and offset, into gain and offset of the whole norm.
///
/// # Shapes
/// `affine`: `[channels, 2]`; `modulation`: scales, then shifts of the channels.
pub(in super::super) fn finish(
    params: &Params<'_>,
    channels: usize,
    vector: &mut [f32],
    affine: &mut [[f32; 2]],
    modulation: Option<&[f32]>,
) -> Result<()> {
    let vector = first(vector, channels)?;
    params.weight.decode_row(0, vector)?;
    for ([gain, offset], &gamma) in affine.iter_mut().zip(&*vector) {
        (*gain, *offset) = (*gain * gamma, *offset * gamma);
    }
    params.bias.decode_row(0, vector)?;
    affine.iter_mut().zip(&*vector).for_each(|([_, offset], &beta)| *offset += beta);
    if let Some(modulation) = modulation {
        let (scales, shifts) = modulation.split_at_checked(channels).unwrap_or_default();
        for ([gain, offset], (&scale, &shift)) in affine.iter_mut().zip(scales.iter().zip(shifts)) {
            (*gain, *offset) = (*gain * (1.0 + scale), *offset * (1.0 + scale) + shift);
        }
    }
    Ok(())
}

/// `sum f(x)`, in parts of 32 whose sums are added: the rounding error grows with the parts, not
/// with the values.
fn sum(values: &[f32], f: &dyn Fn(f32) -> f32) -> f32 {
    let parts = values.chunks(32).map(|part| part.iter().fold(0.0, |sum, &x| sum + f(x)));
    parts.fold(0.0, |all, sum| all + sum)
}
