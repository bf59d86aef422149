//! Points of a net's own trajectories, from its own noise: where its velocity is compared.

use anyhow::Result;
use fm_candle::device::Device;
use fm_candle::model::UNetConfig;
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{Method, steps_grid};
use fm_candle::train::Points;
use fm_candle::tune::CalibrationPoints;
use fm_candle::{DType, Tensor};

use crate::args::net::{build, image_shape};

/// Euler steps of a trajectory.
const STEPS: usize = 8;

/// `points` points of `trajectories` of the net of `tensors`.
pub(crate) fn own_points(
    config: &UNetConfig,
    tensors: &[(String, Tensor)],
    trajectories: usize,
    points: usize,
    seed: u64,
) -> Result<Points> {
    let device = Device::Cpu;
    let full = build(config, tensors.to_vec(), &device, DType::F32)?;
    let sampler = BatchSampler::new(Method::Euler, steps_grid(STEPS)?, &device);
    let (c, h, w) = image_shape(config)?;
    let all =
        CalibrationPoints::draw(&full, &sampler, [c, h, w], trajectories, seed, &device, |_| {})?;
    Ok(all.batch(seed, 0, points, &device)?)
}
