//! Error-feedback rounding: codes chosen by the error of each layer's outputs, layer after layer, on the
//! inputs that the layers before, already quantized, give it.
//!
//! Codebooks and scales are those that the scheme fits; only codes change, and biases that are stored as
//! floats or in 8 bits take the mean of the error. After GPTQ (Frantar et al., arXiv 2210.17323), with the
//! full-precision net's outputs as the aim (GPTAQ, arXiv 2504.02692).

mod metric;
mod moments;
mod patches;
mod rounding;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use quant_core::bits::Bits;
use quant_core::quantize::QuantizeOptions;

use self::moments::Moments;
use self::patches::PatchRecorder;
use super::net::QuantizedNet;
use super::tensor::{PackedTensor, TensorPolicy, pack_tensor};
use crate::error::{Error, Result};
use crate::model::{
    InputObserver, Observed, StageState, StateDict, UNet, UNetConfig, stage_prefixes,
};
use crate::train::Points;

/// Points that run through a stage at once.
const BATCH: usize = 32;
/// Patches of a layer's inputs: for each column of its weight so many, and in all at least so many, where
/// there are as many.
const PATCHES_PER_COLUMN: usize = 4;
const MIN_PATCHES: usize = 1 << 14;
/// Most memory of the maps of both nets between two stages, bytes.
const MAX_MAPS: usize = 1 << 30;

/// Quantizes a net with error feedback: `tensors` are its parameters in order, each by its `policy`,
/// codes by a scheme called `scheme`. `done` is told of each tensor.
///
/// Points are left out from where the maps of both nets take more than 1 GiB.
///
/// # Errors
/// Those of quantizing and of evaluating the net.
pub fn quantize_with_feedback(
    config: &UNetConfig,
    tensors: &[(String, Tensor)],
    points: &Points,
    scheme: &'static str,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    seed: u64,
    done: impl Fn(),
) -> Result<QuantizedNet> {
    let device = points.x.device();
    let mut nets = PairedNets::new(config, tensors, points, seed)?;
    let mut packed: Vec<Option<PackedTensor>> = tensors.iter().map(|_| None).collect();
    let mut targets = vec![None; tensors.len()];
    for (stage, prefixes) in stage_prefixes(config).iter().enumerate() {
        for (index, (name, _)) in tensors.iter().enumerate() {
            if !prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let tensor = nets.quantized[index].1.clone();
            let mut chosen = pack_tensor(&tensor, name, policy(name, tensor.dims()))?;
            if tensor.rank() > 1 {
                let bias = name
                    .strip_suffix("weight")
                    .and_then(|layer| nets.place(&format!("{layer}bias")))
                    .filter(|&bias| {
                        let (name, tensor) = &tensors[bias];
                        let few = |options: QuantizeOptions| options.rate.code_bits() < Bits::MAX;
                        !matches!(policy(name, tensor.dims()), TensorPolicy::Quantize(it) if few(it))
                    });
                (chosen, targets[index]) = nets.reassign(stage, index, chosen, bias)?;
            }
            nets.quantized[index].1 = chosen.tensor(tensor.dims())?.to_device(device)?;
            packed[index] = Some(chosen);
            done();
        }
        nets.advance(stage)?;
    }
    let packed = packed.into_iter().zip(tensors).map(|(packed, (name, _))| {
        packed.ok_or_else(|| Error::tensor(name, "is no parameter of a stage of the net"))
    });
    QuantizedNet::new(config, tensors, packed.collect::<Result<_>>()?, targets, scheme)
}

/// The full-precision net and the quantized one, run side by side stage by stage.
struct PairedNets<'a> {
    config: &'a UNetConfig,
    /// The parameters in full precision, and as quantized so far.
    full: &'a [(String, Tensor)],
    quantized: Vec<(String, Tensor)>,
    batches: Vec<Points>,
    /// Maps of each batch after the last stage that was run: of the full net and of the quantized one.
    states: Vec<[Option<StageState>; 2]>,
    seed: u64,
    device: Device,
}

impl<'a> PairedNets<'a> {
    fn new(
        config: &'a UNetConfig,
        full: &'a [(String, Tensor)],
        points: &Points,
        seed: u64,
    ) -> Result<Self> {
        let n = points.len()?;
        let mut batches = Vec::new();
        for first in (0..n).step_by(BATCH) {
            batches.push(points.narrow(first, BATCH.min(n - first))?);
        }
        let as_f32 = |(name, tensor): &(String, Tensor)| -> Result<_> {
            Ok((name.clone(), tensor.to_device(points.x.device())?.to_dtype(DType::F32)?))
        };
        let quantized = full.iter().map(as_f32).collect::<Result<Vec<_>>>()?;
        let states = batches.iter().map(|_| [None, None]).collect();
        let device = points.x.device().clone();
        Ok(Self { config, full, quantized, batches, states, seed, device })
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.full.iter().position(|(known, _)| known == name)
    }

    /// Gives a weight the codes by which its layer's outputs are nearest to those of the full net, and
    /// tells what was rounded to them; the parameter at `bias` takes the error's mean.
    fn reassign(
        &mut self,
        stage: usize,
        index: usize,
        packed: PackedTensor,
        bias: Option<usize>,
    ) -> Result<(PackedTensor, Option<Vec<f32>>)> {
        let PackedTensor::Quantized(tensor) = &packed else { return Ok((packed, None)) };
        let Some(moments) = self.moments(stage, index)? else { return Ok((packed, None)) };
        let name = &self.full[index].0;
        let originals = self.full[index].1.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let problem = moments.least_squares(name, &originals, bias.is_some())?;
        let targets =
            rounding::targets(&problem.metric, &problem.weights, |row| tensor.row_values(row));
        let tensor = tensor.reassigned(&targets, &originals)?;
        if let Some(bias) = bias {
            let [quantized, full] = moments.means();
            let values = tensor.dequantized();
            let columns = full.len();
            let rows = originals.chunks(columns).zip(values.chunks(columns));
            #[expect(clippy::cast_possible_truncation, reason = "biases are f32")]
            let shift = rows.map(|(w, q)| (dot(w, &full) - dot(q, &quantized)) as f32);
            let shift = Tensor::from_iter(shift, &self.device)?;
            let to = &mut self.quantized[bias].1;
            *to = (&*to + shift)?;
        }
        Ok((PackedTensor::Quantized(tensor), Some(targets)))
    }

    /// The moments of the inputs of a weight; `None` where no layer of the stage multiplies by it.
    fn moments(&self, stage: usize, index: usize) -> Result<Option<Moments>> {
        let (name, weight) = &self.full[index];
        let columns = weight.dims()[1..].iter().product::<usize>();
        let most = (PATCHES_PER_COLUMN * columns).max(MIN_PATCHES).div_ceil(self.batches.len());
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let nets = [self.full, &self.quantized].map(|weights| -> Result<_> {
            let recorder =
                Arc::new(PatchRecorder::new(weight.dims(), most, self.seed, index as u64));
            let observer = Arc::clone(&recorder) as Arc<dyn InputObserver>;
            let weights = StateDict::new(weights.to_vec(), &self.device);
            let net = UNet::new(self.config, &mut Observed { weights, name, observer })?;
            Ok((net, recorder))
        });
        let [full, quantized] = nets;
        let nets = [full?, quantized?];
        let mut moments = Moments::new(columns);
        for (batch, states) in self.batches.iter().zip(&self.states) {
            let mut patches = [Vec::new(), Vec::new()];
            for (((net, recorder), state), patches) in nets.iter().zip(states).zip(&mut patches) {
                run_stage(net, stage, batch, state.as_ref())?;
                *patches = recorder.take();
            }
            let [full, quantized] = &patches;
            if full.is_empty() {
                return Ok(None);
            }
            moments.add(quantized, full);
        }
        Ok(Some(moments))
    }

    /// Runs both nets through a stage; the first bounds the memory of all maps.
    fn advance(&mut self, stage: usize) -> Result<()> {
        let weights = [self.full.to_vec(), self.quantized.clone()];
        for (side, weights) in weights.into_iter().enumerate() {
            let net = UNet::new(self.config, &mut StateDict::new(weights, &self.device))?;
            for (batch, states) in self.batches.iter().zip(&mut self.states) {
                states[side] = Some(run_stage(&net, stage, batch, states[side].as_ref())?);
            }
        }
        let maps = self
            .states
            .iter()
            .map(|states| states.iter().flatten().map(StageState::bytes).sum::<usize>());
        let mut bytes = 0;
        let within = |maps: &usize| {
            bytes += maps;
            bytes <= MAX_MAPS
        };
        let count = maps.take_while(within).count().max(1);
        self.states.truncate(count);
        self.batches.truncate(count);
        Ok(())
    }
}

/// The state of a batch after a stage, from that before it.
fn run_stage(
    net: &UNet,
    stage: usize,
    batch: &Points,
    state: Option<&StageState>,
) -> Result<StageState> {
    match state {
        Some(state) => net.stage(stage, state.clone()),
        None => net.first_stage(&batch.x, &batch.t, batch.label.as_ref()),
    }
}

fn dot(weights: &[f32], x: &[f64]) -> f64 {
    weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::quantize::{Granularity, QuantizeOptions};
    use quant_core::scheme::Scheme;
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::model::config::tiny;
    use crate::model::{Mode, RandomInit};

    fn config() -> UNetConfig {
        UNetConfig {
            attention_resolutions: [2].into(),
            channel_mult: [1.0, 2.0].into(),
            num_classes: Some(3),
            ..tiny()
        }
    }

    /// A net whose zero convolutions are filled, and points at which it is evaluated.
    fn net() -> (Vec<(String, Tensor)>, Points) {
        let mut weights = RandomInit::new(1, &Device::Cpu);
        let unet = UNet::new(&config(), &mut weights).unwrap();
        let tensors = weights.vars.iter().enumerate().map(|(i, (name, var))| {
            let count = var.elem_count();
            let wave = (0..count).map(|j| ((i * 7 + j) as f32 * 1.7).sin() * 0.05);
            let wave = Tensor::from_iter(wave, &Device::Cpu).unwrap().reshape(var.shape()).unwrap();
            (name.clone(), (var.as_tensor() + wave).unwrap().detach())
        });
        let tensors: Vec<_> = tensors.collect();
        for ((_, var), (_, tensor)) in weights.vars.iter().zip(&tensors) {
            var.set(tensor).unwrap();
        }
        let n = 40;
        let noise = (0..n * 64).map(|i| (i as f32 * 2.3).sin() * 1.4).collect();
        let x = Tensor::from_vec(noise, (n, 1, 8, 8), &Device::Cpu).unwrap();
        let t = Tensor::from_iter((0..n).map(|i| i as f32 / n as f32), &Device::Cpu).unwrap();
        let label = Tensor::from_iter((0..n).map(|i| i as u32 % 4), &Device::Cpu).unwrap();
        let u = unet.forward(&x, &t, Some(&label), None, Mode::Eval).unwrap().detach();
        (tensors, Points { x, t, label: Some(label), u })
    }

    fn policy(
        scheme: Scheme,
        granularity: Granularity,
        keep: bool,
    ) -> impl Fn(&str, &[usize]) -> TensorPolicy {
        let bits = Bits::new(3).unwrap();
        move |_, shape| {
            if keep && shape.len() < 2 {
                return TensorPolicy::F16;
            }
            let options = QuantizeOptions::new(scheme, bits);
            TensorPolicy::Quantize(QuantizeOptions { granularity, ..options })
        }
    }

    fn error(weights: Vec<(String, Tensor)>, points: &Points) -> f32 {
        let net = UNet::new(&config(), &mut StateDict::new(weights, &Device::Cpu)).unwrap();
        let v = net.forward(&points.x, &points.t, points.label.as_ref(), None, Mode::Eval).unwrap();
        (v - &points.u).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_velocity_is_nearer_in_a_file_of_the_same_size() {
        let (tensors, points) = net();
        for (scheme, granularity, keep) in [
            (Scheme::LloydMax, Granularity::Auto, false),
            (Scheme::EqualMass, Granularity::Tensor, true),
            (Scheme::Uniform, Granularity::Channel, false),
            (Scheme::Logarithmic, Granularity::Group(3), true),
        ] {
            let policy = policy(scheme, granularity, keep);
            let plain = QuantizedNet::nearest(&config(), &tensors, "x", &policy).unwrap();
            let fed = quantize_with_feedback(&config(), &tensors, &points, "x", &policy, 0, || {})
                .unwrap();
            let errors = [&plain, &fed].map(|net| error(net.weights().unwrap(), &points));
            assert!(errors[1] < 0.6 * errors[0], "{scheme} {granularity:?}: {errors:?}");
            let sizes = [plain, fed].map(|net| net.report().unwrap().packed_bytes);
            assert_eq!(sizes[0], sizes[1], "{scheme} {granularity:?}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_codes() {
        let (tensors, points) = net();
        let policy = policy(Scheme::LloydMax, Granularity::Channel, true);
        let on = |threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let run =
                || quantize_with_feedback(&config(), &tensors, &points, "x", &policy, 0, || {});
            let net = pool.install(run).unwrap().weights().unwrap();
            net.into_iter()
                .map(|(_, x)| x.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .collect()
        };
        let (one, three): (Vec<_>, Vec<_>) = (on(1), on(3));
        assert_eq!(one, three);
    }

    #[test]
    fn stages_make_the_velocity() {
        let (tensors, points) = net();
        let net = UNet::new(&config(), &mut StateDict::new(tensors, &Device::Cpu)).unwrap();
        let mut state = net.first_stage(&points.x, &points.t, points.label.as_ref()).unwrap();
        let stages = stage_prefixes(&config()).len();
        for stage in 1..stages {
            state = net.stage(stage, state).unwrap();
        }
        let error = (state.map() - &points.u).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
    }
}
