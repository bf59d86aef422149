//! The state of a tuning run: the net, the parts of its weights, their optimizers.

use core::f64::consts::PI;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use half::f16;
use serde::{Deserialize, Serialize};

use super::matrix::TunedMatrix;
use super::points::CalibrationPoints;
use crate::error::{Error, Result};
use crate::model::{Mode, RandomInit, UNet};
use crate::path::loss;
use crate::process_group::{self, ProcessGroup, SingleProcess};
use crate::quantize::{PackedTensor, QuantizedNet, TensorPolicy, pack_tensor};
use crate::train::{AdamW, AdamWConfig, Regression, TrainPrecision};

/// Part of the steps in which the learning rates rise from nearly 0.
const WARM_UP: f64 = 0.05;

/// Batches at which [`Tuner::error`] is measured, and their points.
const ERROR_BATCHES: u64 = 8;
const ERROR_BATCH: usize = 32;

/// Settings of a tuning run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneConfig {
    /// Steps in all; the learning rates rise over the first twentieth, and fall to 0 by a cosine.
    pub steps: u64,
    /// Points of a step.
    pub batch_size: usize,
    /// Learning rate of levels, scales, norms and biases, in units of each.
    pub lr: f64,
    /// Learning rate of the latent weights, in units of their level and scale; 0 keeps the codes.
    pub code_lr: f64,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self { steps: 1200, batch_size: 32, lr: 1e-3, code_lr: 2e-3, seed: 0 }
    }
}

/// A parameter that is tuned as it is: a norm, a bias, a weight that is kept.
struct TunedFloats {
    index: usize,
    /// Encoding of the values in the packed file: f32, f16 or uniform codes of 8 bits.
    encoding: TensorPolicy,
    /// Root mean square of the values, their unit.
    unit: f32,
    values: Var,
}

/// Parameters that one optimizer moves at one learning rate.
pub(super) struct ParameterGroup {
    pub(super) vars: Vec<(String, Var)>,
    pub(super) adam: AdamW,
}

impl ParameterGroup {
    fn new(vars: Vec<(String, Var)>) -> Result<Self> {
        let config =
            AdamWConfig { weight_decay: 0.0, betas: (0.9, 0.99), ..AdamWConfig::default() };
        Ok(Self { adam: AdamW::new(config, &vars)?, vars })
    }
}

/// A quantized net under tuning.
pub struct Tuner {
    pub(super) config: TuneConfig,
    regression: Regression,
    originals: Vec<(String, Tensor)>,
    matrices: Vec<TunedMatrix>,
    floats: Vec<TunedFloats>,
    /// Levels, scales and floats.
    pub(super) parts: ParameterGroup,
    /// Latent weights.
    pub(super) latents: ParameterGroup,
    scheme: &'static str,
    pub(super) step: u64,
    group: Arc<dyn ProcessGroup>,
    device: Device,
}

impl Tuner {
    /// Starts from a quantized net; `originals` are its parameters in full precision, in order.
    ///
    /// # Errors
    /// Settings that cannot tune.
    pub fn new(
        start: &QuantizedNet,
        originals: &[(String, Tensor)],
        config: TuneConfig,
        device: &Device,
    ) -> Result<Self> {
        if config.steps == 0 || config.batch_size == 0 {
            return Err(Error::Config("tuning takes at least 1 step of at least 1 point".into()));
        }
        let mut initial = RandomInit::new(config.seed, device);
        let unet = UNet::new(start.config(), &mut initial)?;
        let (mut matrices, mut floats) = (Vec::new(), Vec::new());
        for (index, (packed, targets)) in start.tensors().enumerate() {
            let (_, original) = &originals[index];
            let original = original.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let encoding = packed.value_encoding();
            if encoding.is_none()
                && let PackedTensor::Quantized(packed) = packed
                && let Some(matrix) = TunedMatrix::new(index, original, targets, packed)?
            {
                matrices.push(matrix);
                continue;
            }
            let shape = initial.vars[index].1.dims();
            let values = packed.tensor(shape)?.flatten_all()?.to_vec1::<f32>()?;
            let square = values.iter().map(|value| value * value).sum::<f32>();
            let unit = (square / values.len().max(1) as f32).sqrt().max(1e-3);
            let scaled: Vec<f32> = values.iter().map(|value| value / unit).collect();
            floats.push(TunedFloats {
                index,
                encoding: encoding.unwrap_or(TensorPolicy::F32),
                unit,
                values: Var::from_vec(scaled, values.len(), &Device::Cpu)?,
            });
        }
        let named = |index: usize, part: &str, var: &Var| {
            (format!("{}.{part}", originals[index].0), var.clone())
        };
        let (mut parts, mut latents) = (Vec::new(), Vec::new());
        for matrix in &matrices {
            parts.push(named(matrix.index, "levels", &matrix.levels));
            parts.extend(matrix.scales.iter().map(|var| named(matrix.index, "scales", var)));
            latents.push(named(matrix.index, "latent", &matrix.latent));
        }
        parts.extend(floats.iter().map(|floats| named(floats.index, "values", &floats.values)));
        let regression = Regression::new(unet, initial.vars, TrainPrecision::F32, false, device);
        let mut tuner = Self {
            config,
            regression,
            originals: originals.to_vec(),
            matrices,
            floats,
            parts: ParameterGroup::new(parts)?,
            latents: ParameterGroup::new(latents)?,
            scheme: start.scheme(),
            step: 0,
            group: Arc::new(SingleProcess),
            device: device.clone(),
        };
        tuner.refresh()?;
        Ok(tuner)
    }

    /// This run as one process of several, each of which takes its share of a step's points.
    ///
    /// # Errors
    /// Fewer points in a step than processes; processes that are not all of one run and at the same step.
    pub fn with_group(self, group: Arc<dyn ProcessGroup>) -> Result<Self> {
        let (size, points) = (group.rank().size, self.config.batch_size);
        if points < size {
            let reason = format!("steps of {points} points are too few for {size} processes");
            return Err(Error::Config(reason));
        }
        let (config, step, on_cpu) = (&self.config, self.step, self.device.is_cpu());
        if !group.all_equal(&format!("{config:?} {step} {on_cpu}"))? {
            return Err(Error::Config(format!(
                "the {size} processes do not all tune the same run from the same step; this one is \
                 at step {step}: give all the same arguments and files, and a GPU or none"
            )));
        }
        Ok(Self { group, ..self })
    }

    /// The processes that tune together.
    pub fn group(&self) -> &dyn ProcessGroup {
        &*self.group
    }

    /// The quantized net as it stands.
    pub fn net(&self) -> &UNet {
        &self.regression.net
    }

    /// Steps that are done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The settings.
    pub fn config(&self) -> &TuneConfig {
        &self.config
    }

    /// Moves all parts against the error at the points of the next step; returns it, as it was before.
    ///
    /// # Errors
    /// An error that is not finite; an allocation that fails on the device.
    pub fn step(&mut self, points: &CalibrationPoints) -> Result<f64> {
        let TuneConfig { seed, batch_size, .. } = self.config;
        let batch = points.batch(seed, self.step, batch_size, &self.device)?;
        let rank = self.group.rank();
        let (first, last) = rank.share(batch_size);
        let part = ((last - first) * rank.size) as f64 / batch_size as f64;
        let own = batch.narrow(first, last - first)?;
        let loss = self.regression.accumulate(&own, part, |_| None)?;
        let loss = process_group::mean(&self.group, loss * part)?;
        let Regression { vars, pending, .. } = &mut self.regression;
        process_group::average(&self.group, vars, pending)?;
        if !loss.is_finite() {
            let step = self.step;
            return Err(Error::Config(format!("the error is {loss} in step {step} of the tuning")));
        }
        let (mut parts, mut latents) = (Vec::new(), Vec::new());
        for matrix in &self.matrices {
            let [levels, scales, latent] = match &self.regression.pending[matrix.index] {
                Some(gradient) => matrix.gradients(gradient)?,
                None => [None, None, None],
            };
            parts.push(levels);
            if matrix.scales.is_some() {
                parts.push(scales);
            }
            latents.push(latent);
        }
        for floats in &self.floats {
            let gradient = self.regression.pending[floats.index].as_ref();
            let scaled = |gradient: &Tensor| -> Result<Tensor> {
                let gradient = gradient.flatten_all()?.to_device(&Device::Cpu)?;
                Ok((gradient * f64::from(floats.unit))?)
            };
            parts.push(gradient.map(scaled).transpose()?);
        }
        let progress = self.step as f64 / self.config.steps as f64;
        let rate = 0.5 * (1.0 + (PI * progress).cos()) * (progress / WARM_UP + 0.01).min(1.0);
        self.parts.adam.step(&self.parts.vars, &parts, self.config.lr * rate)?;
        if self.config.code_lr > 0.0 {
            let lr = self.config.code_lr * rate;
            self.latents.adam.step(&self.latents.vars, &latents, lr)?;
        }
        self.regression.pending.fill(None);
        self.step += 1;
        self.refresh()?;
        Ok(loss)
    }

    /// Mean squared error of the velocity at 256 of `points`, always the same.
    ///
    /// # Errors
    /// An allocation that fails on the device.
    pub fn error(&self, points: &CalibrationPoints) -> Result<f64> {
        let mut sum = 0.0;
        for batch in 0..ERROR_BATCHES {
            let (seed, step) = (self.config.seed, u64::MAX - batch);
            let points = points.batch(seed, step, ERROR_BATCH, &self.device)?;
            let label = points.label.as_ref();
            let v = self.net().forward(&points.x, &points.t, label, None, Mode::Eval)?;
            sum += f64::from(loss(&v, &points.u)?.to_scalar::<f32>()?);
        }
        Ok(sum / ERROR_BATCHES as f64)
    }

    /// Puts the weights that the parts make into the net.
    pub(super) fn refresh(&mut self) -> Result<()> {
        for matrix in &mut self.matrices {
            matrix.refresh(&self.regression.vars[matrix.index].1)?;
        }
        for floats in &self.floats {
            let var = &self.regression.vars[floats.index].1;
            let packed = floats.packed(&self.originals[floats.index].0)?;
            var.set(&packed.tensor(var.dims())?.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// The quantized net as its packed file holds it.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn quantized(&self) -> Result<QuantizedNet> {
        let mut packed: Vec<_> = self.originals.iter().map(|_| None).collect();
        for matrix in &self.matrices {
            packed[matrix.index] = Some(PackedTensor::Quantized(matrix.packed()?));
        }
        for floats in &self.floats {
            packed[floats.index] = Some(floats.packed(&self.originals[floats.index].0)?);
        }
        let packed = packed.into_iter().flatten().collect();
        let none = vec![None; self.originals.len()];
        QuantizedNet::new(self.net().config(), &self.originals, packed, none, self.scheme)
    }

    /// Plans as many steps as fit a time of which those done have taken this part.
    pub fn set_duration(&mut self, part: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let steps = (self.step as f64 / part.max(1e-9)).min(1e12) as u64;
        self.config.steps = steps.max(self.step + 1);
    }
}

impl TunedFloats {
    /// The values of the tensor of this name as the packed file holds them; their gradient goes straight
    /// through the rounding.
    fn packed(&self, name: &str) -> Result<PackedTensor> {
        let mut values = (&*self.values * f64::from(self.unit))?;
        if self.encoding == TensorPolicy::F16 {
            values = values.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())?;
        }
        pack_tensor(&values, name, self.encoding)
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::quantize::QuantizeOptions;
    use quant_core::scheme::Scheme;

    use super::*;
    use crate::model::config::tiny;
    use crate::process_group::threads;
    use crate::sample::BatchSampler;
    use crate::solver::{Method, SolverOptions, uniform_grid};

    /// Losses of three steps as one of some processes, and the weights after them.
    fn tune(group: &Arc<dyn ProcessGroup>, batch_size: usize) -> Result<(Vec<f64>, Vec<f32>)> {
        let config = tiny();
        let mut weights = RandomInit::new(1, &Device::Cpu);
        let net = UNet::new(&config, &mut weights)?;
        let tensors: Vec<(String, Tensor)> = weights
            .vars
            .iter()
            .map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap()))
            .collect();
        for (name, var) in &weights.vars {
            if name == "out.2.weight" {
                var.set(&(var.as_tensor() + 0.1)?)?;
            }
        }
        let sampler = BatchSampler {
            method: Method::Euler,
            grid: uniform_grid(0.25)?,
            options: SolverOptions::default(),
            cfg_scale: 0.0,
            batch_size: 4,
        };
        let points =
            CalibrationPoints::draw(&net, &sampler, [1, 8, 8], 8, 7, &Device::Cpu, |_| {})?;
        let options = QuantizeOptions::new(Scheme::LloydMax, Bits::new(2).unwrap());
        let start = QuantizedNet::nearest(&config, &tensors, "lloyd-max", |_, shape| {
            if shape.len() < 2 { TensorPolicy::F16 } else { TensorPolicy::Quantize(options) }
        })?;
        let settings = TuneConfig { steps: 3, batch_size, ..TuneConfig::default() };
        let tuner = Tuner::new(&start, &tensors, settings, &Device::Cpu)?;
        let mut tuner = tuner.with_group(Arc::clone(group))?;
        let losses = (0..3).map(|_| tuner.step(&points)).collect::<Result<_>>()?;
        let weights = tuner.quantized()?.weights()?;
        let values = weights.iter().map(|(_, tensor)| tensor.flatten_all()?.to_vec1::<f32>());
        Ok((losses, values.collect::<candle_core::Result<Vec<_>>>()?.concat()))
    }

    #[test]
    fn several_processes_share_a_step_s_points() {
        let alone = threads::run(1, |group| tune(&group, 8).unwrap()).remove(0);
        assert!(alone.0[0] > 0.0);
        let three = threads::run(3, |group| tune(&group, 8).unwrap());
        for (losses, weights) in &three {
            for (found, expected) in losses.iter().zip(&alone.0) {
                assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
            }
            assert_eq!(weights, &three[0].1, "the same bits in each");
        }
        let error = threads::run(3, |group| tune(&group, 2).err().unwrap().to_string());
        assert!(error[0].contains("2 points are too few for 3 processes"), "{error:?}");
    }
}
