//! The bits of each tensor by what the velocity of the net needs, in a file of a given size.

use std::collections::HashMap;

use anyhow::Result;
use fm_candle::Tensor;
use fm_candle::quantize::{Budget, PackedNet, TensorPolicy, allocate, allocation_steps};
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

use super::own_points::own_points;
use crate::args::policy::PolicyArgs;
use crate::args::size::{bytes_at, count};
use crate::progress::Reporter;

/// Trajectories, and points of them, at which errors of the velocity are measured.
const TRAJECTORIES: usize = 16;
const POINTS: usize = 32;
/// Bits per weight that a file of tuned codes takes beyond those of the codes, at most.
const SPARE: f64 = 0.7;

/// Policies of tensors by their names.
pub(crate) type Policies = HashMap<String, TensorPolicy>;

/// The policy of each tensor for a packed file within `budget`, among its `choices`.
pub(crate) fn policies_within(
    budget: Budget,
    net: PackedNet<'_>,
    tensors: &[(String, Tensor)],
    choices: impl Fn(&str, &[usize]) -> Vec<TensorPolicy>,
    seed: u64,
    progress: Reporter,
) -> Result<Policies> {
    let points = own_points(net.config, tensors, TRAJECTORIES, POINTS, seed)?;
    let lens: Vec<usize> =
        tensors.iter().map(|(name, tensor)| choices(name, tensor.dims()).len()).collect();
    let steps = allocation_steps(&lens) as u64;
    let bar = progress.bar("errors of the velocity", steps, "choices");
    let allocation = allocate(net, tensors, &points, budget, choices, || bar.inc(1))?;
    bar.finish_and_clear();
    let names = tensors.iter().map(|(name, _)| name.clone());
    Ok(names.zip(allocation.policies).collect())
}

/// The policy of each tensor of a net that is tuned at `rate`: no fewer for any, and more where the
/// velocity needs them, of [`SPARE`] bits per weight in all. With a `--keep` all others have `rate`.
pub(crate) fn tuned_policies(
    rate: Rate,
    scheme: Scheme,
    policy: &PolicyArgs,
    net: PackedNet<'_>,
    tensors: &[(String, Tensor)],
    seed: u64,
    progress: Reporter,
) -> Result<Policies> {
    if policy.keeps_any() {
        let of = |(name, tensor): &(String, Tensor)| {
            (name.clone(), policy.of(scheme, rate, name, tensor.dims()))
        };
        return Ok(tensors.iter().map(of).collect());
    }
    let bytes = bytes_at(f64::from(rate.code_bits().get()) + SPARE, count(tensors));
    let choices = |name: &str, shape: &[usize]| policy.choices(scheme, rate, name, shape);
    policies_within(Budget::BytesOrLeast(bytes), net, tensors, choices, seed, progress)
}
