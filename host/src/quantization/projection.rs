//! The rank of the projection that a tuned net's blocks read in place of the embedding.

use anyhow::Result;
use fm_candle::device::Device;
use fm_candle::model::{EmbeddingProjector, Mode, UNetConfig};
use fm_candle::{DType, Tensor};

use super::own_points::own_points;
use crate::args::net::build;

/// Trajectories, and points of them, at which errors of the velocity are measured.
const TRAJECTORIES: usize = 16;
const POINTS: usize = 64;
/// Part of the velocity's mean square that a projection may change at 0 bits per weight; each bit allows
/// a fourth of it, as the error of codes does.
const TOLERANCE: f64 = 5e-3;

/// The net with the projection of least rank that changes the velocity by less than codes of `bits` bits per
/// weight do, and its parameters; as it is where none makes it smaller.
pub(crate) fn project(
    net: UNetConfig,
    tensors: Vec<(String, Tensor)>,
    bits: f64,
    seed: u64,
) -> Result<(UNetConfig, Vec<(String, Tensor)>)> {
    let read: usize = tensors
        .iter()
        .filter(|(name, _)| name.ends_with(".emb_layers.1.weight"))
        .map(|(_, weight)| weight.dims()[0])
        .sum();
    if read == 0 || net.embedding_rank.is_some() {
        return Ok((net, tensors));
    }
    let embedding = net.embedding();
    let smaller = |rank: &usize| rank * (embedding + read) < embedding * read;
    let points = own_points(&net, &tensors, TRAJECTORIES, POINTS, seed)?;
    let projector = EmbeddingProjector::new(&net, &tensors)?;
    let ranks = (0..).flat_map(|octave| [2 << octave, 3 << octave]).take_while(smaller);
    for rank in ranks {
        let (projected, parameters) = projector.project(rank)?;
        let unet = build(&projected, parameters.clone(), &Device::Cpu, DType::F32)?;
        let v = unet.forward(&points.x, &points.t, points.label.as_ref(), None, Mode::Eval)?;
        let square =
            |x: &Tensor| -> Result<f64> { Ok(f64::from(x.sqr()?.mean_all()?.to_scalar::<f32>()?)) };
        let changed = square(&(v - &points.u)?)? / square(&points.u)?;
        if changed < TOLERANCE * 0.25f64.powf(bits) {
            return Ok((projected, parameters));
        }
    }
    Ok((net, tensors))
}
