//! The bits of the tensors: one number for all, or what a size of the file allows.

use std::collections::HashMap;

use anyhow::{Result, bail};
use clap::Args;
use fm_candle::device::Device;
use fm_candle::quantize::{PackedNet, TensorPolicy, all_widths, allocate};
use fm_candle::sample::{BatchSampler, batch_size};
use fm_candle::solver::{Method, SolverOptions, steps_grid};
use fm_candle::tune::CalibrationPoints;
use fm_candle::{DType, Tensor};
use quant_core::bits::Bits;

use crate::cmd::net::build;
use crate::cmd::policy::bits;
use crate::cmd::sample::image_shape;
use crate::common::Common;

/// Trajectories, their steps, and points of them, at which errors of the velocity are measured.
const TRAJECTORIES: usize = 16;
const STEPS: usize = 8;
const POINTS: usize = 32;

/// Bits of the tensors, or the size of the file.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SizeArgs {
    /// Bits per weight, 1 to 8
    #[arg(long, value_parser = bits())]
    pub(crate) bits: Option<Bits>,
    /// Bits per weight of the whole packed file, at most; each tensor gets those that the velocity
    /// needs (1 to 8, or 16)
    #[arg(long = "bits-per-weight", alias = "bits_per_weight", value_name = "X", value_parser = above_0)]
    bits_per_weight: Option<f64>,
    /// Size of the whole packed file, at most; likewise
    #[arg(long, value_name = "BYTES")]
    budget: Option<u64>,
}

impl SizeArgs {
    /// The bytes that a packed file of so many weights may have; `None` where the bits are given.
    fn bytes(&self, weights: usize) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a file's size"
        )]
        let of = |bits: f64| (bits * weights as f64 / 8.0).floor() as u64;
        self.budget.or(self.bits_per_weight.map(of))
    }

    /// Returns true where the file's size decides.
    pub(crate) fn is_size(&self) -> bool {
        self.bits.is_none()
    }

    /// The bits or the size, in words.
    pub(crate) fn describe(&self) -> String {
        match (self.bits, self.bits_per_weight, self.budget) {
            (Some(bits), ..) => format!("{bits} bits"),
            (_, Some(bits), _) => format!("{bits} bits per weight"),
            (.., budget) => format!("{} bytes", budget.unwrap_or(0)),
        }
    }

    /// The policy of each tensor by its name, where the file's size decides: of `fixed` for those that
    /// have one, else of the widths by `of`.
    pub(crate) fn allocate(
        &self,
        net: PackedNet<'_>,
        tensors: &[(String, Tensor)],
        fixed: impl Fn(&str, &[usize]) -> Option<TensorPolicy>,
        of: impl Fn(Bits, &str, &[usize]) -> TensorPolicy,
        common: &Common,
    ) -> Result<HashMap<String, TensorPolicy>> {
        let weights = tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum();
        let Some(budget) = self.bytes(weights) else { bail!("the bits are given") };
        let device = Device::Cpu;
        let full = build(net.config, tensors.to_vec(), &device, DType::F32)?;
        let sampler = BatchSampler {
            method: Method::Euler,
            grid: steps_grid(STEPS)?,
            options: SolverOptions::default(),
            cfg_scale: 0.0,
            batch_size: batch_size(&device),
        };
        let (c, h, w) = image_shape(net.config)?;
        let (seed, shape) = (common.seed, [c, h, w]);
        let points =
            CalibrationPoints::draw(&full, &sampler, shape, TRAJECTORIES, seed, &device, |_| {})?;
        let points = points.batch(seed, 0, POINTS, &device)?;
        drop(full);
        let choices = |name: &str, shape: &[usize]| match fixed(name, shape) {
            Some(policy) => vec![policy],
            None if shape.len() < 2 => vec![TensorPolicy::F16],
            None => all_widths(|bits| of(bits, name, shape)),
        };
        let matrices = tensors.iter().filter(|(_, tensor)| tensor.rank() > 1).count();
        let bar =
            common.progress().bar("errors of the velocity", 4 * matrices as u64 + 9, "tensors");
        let allocation = allocate(net, tensors, &points, budget, choices, || bar.inc(1))?;
        bar.finish_and_clear();
        let names = tensors.iter().map(|(name, _)| name.clone());
        Ok(names.zip(allocation.policies).collect())
    }
}

fn above_0(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| *bits > 0.0 && *bits <= 64.0);
    bits.ok_or_else(|| "expected a number of bits above 0".into())
}
