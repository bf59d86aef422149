//! Error-feedback rounding of a net on its own trajectories, and where tuning starts.

use anyhow::Result;
use fm_candle::Tensor;
use fm_candle::model::UNetConfig;
use fm_candle::quantize::{QuantizedNet, TensorPolicy, quantize_with_feedback};
use quant_core::scheme::Scheme;

use super::own_points::own_points;
use crate::progress::Reporter;

/// Trajectories, where their number is not given.
pub(crate) const TRAJECTORIES: u16 = 64;
/// Steps of tuning below which it starts from error feedback: nearer at first, farther off in the end.
const FEW_STEPS: u64 = 100;
/// Points of a trajectory that are looked at.
const POINTS: usize = 4;

/// The net of `tensors`, quantized with error feedback by the points of so many trajectories.
pub(crate) fn round(
    config: &UNetConfig,
    tensors: &[(String, Tensor)],
    trajectories: u16,
    scheme: Scheme,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    seed: u64,
    progress: Reporter,
) -> Result<QuantizedNet> {
    let trajectories = usize::from(trajectories);
    let points = own_points(config, tensors, trajectories, POINTS * trajectories, seed)?;
    let bar = progress.bar("rounding", tensors.len() as u64, "tensors");
    let name = scheme.name();
    let net = quantize_with_feedback(config, tensors, &points, name, policy, seed, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok(net)
}

/// The net of `tensors`, quantized, from which tuning of so many steps starts.
pub(crate) fn tuning_start(
    config: &UNetConfig,
    tensors: &[(String, Tensor)],
    steps: u64,
    scheme: Scheme,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    seed: u64,
    progress: Reporter,
) -> Result<QuantizedNet> {
    if steps < FEW_STEPS {
        return round(config, tensors, TRAJECTORIES, scheme, policy, seed, progress);
    }
    Ok(QuantizedNet::nearest(config, tensors, scheme.name(), policy)?)
}
