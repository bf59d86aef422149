//! The packed file of a row: by its scheme alone, with error feedback, or tuned.

use std::path::Path;

use anyhow::Result;
use fm_candle::checkpoint::Source;
use fm_candle::model::{EmbeddingProjector, expand_embedding};
use fm_candle::quantize::{QuantizedNet, Report, TensorPolicy, quantize_in_memory};
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{Method, steps_grid};
use fm_candle::tune::{CalibrationPoints, TuneConfig, Tuner};
use fm_candle::{DType, Tensor, atomic};
use indicatif::ProgressBar;
use quant_core::format::Model;
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

use super::Study;
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net::{build, image_shape, stated};
use crate::progress::Reporter;
use crate::quantization::allocation::tuned_policies;
use crate::quantization::feedback::{self, tuning_start};
use crate::quantization::projection::project;

/// Note on the settings of tuned rows, for people.
pub(super) const TUNED_ROWS: &str = "Rows +tune have vectors in 8 or 16 bits and, unless --keep says otherwise, \
    have more bits where the velocity needs them, 0.7 per stored weight in all; their blocks read a projection of the \
    embedding; their codebooks are those of \
    --granularity auto.";

/// Midpoint steps of the trajectories that a row is tuned along, two points each.
const STEPS: usize = 10;
/// Trajectories, at most.
const TRAJECTORIES: u64 = 1024;

impl Study {
    /// Quantizes the net and writes the row's packed file; what it holds, beside the net as it was.
    pub(super) fn pack(
        &self,
        method: QuantizeMethod,
        bits: Rate,
        bar: &ProgressBar,
    ) -> Result<Report> {
        let path = self.packed_path(method, bits);
        let scheme = method.scheme;
        let policy = |name: &str, shape: &[usize]| self.policy.of(scheme, bits, name, shape);
        let net = match (method.refinement, (self.shipped)(method, bits)) {
            (_, Some(file)) => {
                QuantizedNet::of_packed(file, &self.originals(file)?, scheme.name())?
            }
            (Some(Refinement::Tune), None) => self.tune(scheme, bits, bar)?,
            (Some(Refinement::Feedback), None) => self.feed_back(scheme, policy)?,
            (None, None) => {
                let (packed, report) =
                    quantize_in_memory(&self.tensors, Some(&self.config), policy)?;
                atomic::write(&path, &packed)?;
                return Ok(report);
            }
        };
        Ok(net.write(&path, None)?.relative_to(self.parameters()))
    }

    /// The parameters in full precision of the net that a packed file holds.
    fn originals(&self, file: &[u8]) -> Result<Vec<(String, Tensor)>> {
        Ok(match Model::parse(file)?.net().and_then(|net| net.embedding_rank) {
            Some(rank) => EmbeddingProjector::new(&self.config, &self.tensors)?.project(rank)?.1,
            None => self.tensors.clone(),
        })
    }

    /// The length of the vector by which the weights of a row's packed file differ from those of full
    /// precision.
    pub(super) fn weight_change(&self, path: &Path) -> Result<f64> {
        let source = Source::open(path, false)?;
        let net = stated(&source, None)?.unwrap_or_else(|| self.config.clone());
        let (_, weights) = expand_embedding(&net, source.parameters(&net)?)?;
        let mut sum = 0.0;
        for ((_, weights), (_, original)) in weights.iter().zip(&self.tensors) {
            let change = (weights - original.to_dtype(DType::F32)?)?;
            sum += f64::from(change.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(sum.sqrt())
    }

    /// Steps that a row is tuned for in this study; none where it is not, or was before.
    pub(super) fn steps_of(&self, method: QuantizeMethod, bits: Rate) -> Option<u64> {
        let tuned = method.refinement == Some(Refinement::Tune);
        (tuned && (self.shipped)(method, bits).is_none()).then_some(self.tune_steps)
    }

    fn feed_back(
        &self,
        scheme: Scheme,
        policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    ) -> Result<QuantizedNet> {
        let (config, tensors) = (&self.config, &self.tensors);
        let (trajectories, silent) = (feedback::TRAJECTORIES, Reporter::silent());
        feedback::round(config, tensors, trajectories, scheme, policy, self.seed, silent)
    }

    /// Tunes the net for as many steps as a row gets.
    fn tune(&self, scheme: Scheme, bits: Rate, bar: &ProgressBar) -> Result<QuantizedNet> {
        let policy = self.policy.for_tuning();
        let (steps, seed, device) = (self.tune_steps, self.seed, &self.device);
        let silent = Reporter::silent();
        let per_weight = f64::from(bits.code_bits().get());
        let (net, tensors) = project(self.config.clone(), self.tensors.clone(), per_weight, seed)?;
        let (net, tensors) = (&net, &tensors[..]);
        let policies = tuned_policies(bits, scheme, &policy, net.into(), tensors, seed, silent)?;
        let policy = |name: &str, _: &[usize]| policies[name];
        let start = tuning_start(net, tensors, steps, scheme, policy, seed, silent)?;
        let config = TuneConfig { steps, seed, ..TuneConfig::default() };
        let sampler = BatchSampler::new(Method::Midpoint, steps_grid(STEPS)?, device);
        let points = steps.saturating_mul(config.batch_size as u64);
        let trajectories = points.div_ceil(2 * STEPS as u64).min(TRAJECTORIES);
        let trajectories = usize::try_from(trajectories)?;
        let full = build(&self.config, self.tensors.clone(), device, DType::F32)?;
        let (c, h, w) = image_shape(&self.config)?;
        let shape = [c, h, w];
        let points =
            CalibrationPoints::draw(&full, &sampler, shape, trajectories, seed, device, |_| {})?;
        let mut tuner = Tuner::new(&start, tensors, config, device)?;
        let before = tuner.error(&points)?;
        while tuner.steps() < steps {
            tuner.step(&points)?;
            let done = tuner.steps();
            bar.set_message(format!("{scheme}+tune, {bits} bits, step {done} of {steps}"));
        }
        // Few steps may leave many bits worse than they were.
        if tuner.error(&points)? > before { Ok(start) } else { Ok(tuner.quantized()?) }
    }
}
