//! `fmq tune`: a quantized net fitted to its full-precision self.

use core::time::Duration;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fm_candle::data::{Dataset, Split};
use fm_candle::device::Device;
use fm_candle::eval::paired;
use fm_candle::model::{EmbeddingProjector, UNet, UNetConfig, config};
use fm_candle::process_group::ProcessGroup;
use fm_candle::quantize::{Budget, PackedNet, Report};
use fm_candle::sample::{BatchSampler, start_noise};
use fm_candle::tune::{CalibrationPoints, TuneConfig, Tuner};
use fm_candle::{DType, Tensor, atomic, fingerprint};
use quant_core::bits::Bits;
use quant_core::scheme::Scheme;
use serde::Serialize;
use serde_json::Number;

use crate::args::common::Common;
use crate::args::golden::GoldenArgs;
use crate::args::label::class_cycle;
use crate::args::net::{NetArgs, NetPrecision, build, check_images, image_shape};
use crate::args::numbers::{above_0, at_least_0, at_least_1, finite};
use crate::args::ode::{self, COARSE_STEP, SolverArgs};
use crate::args::policy::PolicyArgs;
use crate::args::size::{SizeArgs, count};
use crate::output::net::OutputKind;
use crate::processes;
use crate::progress::Reporter;
use crate::quantization::allocation::{Policies, policies_within, tuned_policies};
use crate::quantization::feedback::tuning_start;
use crate::quantization::projection::project;
use crate::signals::Signals;

/// Most memory of the calibration set.
const MAX_POINTS: usize = 512 << 20;
/// Held-out images that progress is measured on.
const HELD_OUT: usize = 16;
/// Measurements of them over a run.
const MEASUREMENTS: u64 = 8;
/// Steps whose time tells how many `--minutes` hold.
const MEASURED_STEPS: u64 = 4;
/// Time between saves of the run.
const SAVE: Duration = Duration::from_mins(1);

/// Quantize a net and tune it against itself in full precision, without data
///
/// Levels, scales, norms, biases and codes are moved until the velocity along the net's own
/// trajectories is that of full precision. Without --keep no tensor has fewer bits than --bits says, and
/// the file spends 0.7 bits beyond those per weight that it holds, where the velocity needs them.
#[derive(clap::Args)]
#[command(
    mut_arg("granularity", |arg| arg.default_value("auto")),
    mut_arg("ode_options", ode::coarse)
)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Scheme that the tuning starts from: ot, uniform, pwl, log, uniform-mse, lloyd-max or ecq
    #[arg(long, default_value_t = Scheme::LloydMax)]
    scheme: Scheme,
    #[command(flatten)]
    size: SizeArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Steps of tuning
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = at_least_1::<u64>)]
    steps: u64,
    /// Tune for so many minutes instead, as many steps as they hold
    #[arg(long, value_name = "M", conflicts_with = "steps", value_parser = minutes)]
    minutes: Option<f64>,
    /// Points of a step
    #[arg(long, default_value_t = 32, value_parser = at_least_1::<usize>)]
    batch_size: usize,
    /// Learning rate of levels, scales, norms and biases, in units of each
    #[arg(long, default_value_t = 1e-3, value_parser = above_0)]
    lr: f64,
    /// Learning rate of the weights behind the codes, in units of their level; 0 keeps the codes
    #[arg(long, default_value_t = 2e-3, value_parser = at_least_0)]
    code_lr: f64,
    /// Trajectories of the net's own noise that points are taken from
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_1::<usize>)]
    trajectories: usize,
    /// Tune at points on paths to the training images of this data set, in place of trajectories
    #[arg(long, requires = "data_path")]
    data: Option<Dataset>,
    /// Folder of the data set
    #[arg(long, value_name = "DIR", requires = "data")]
    data_path: Option<PathBuf>,
    #[command(flatten)]
    solver: SolverArgs,
    /// Guidance of the trajectories; 0 is off
    #[arg(long, default_value = "0", value_name = "S", value_parser = finite)]
    cfg_scale: f64,
    /// Go on with a run that a signal stopped; it lies beside the output as OUT.tune
    #[arg(long)]
    resume: bool,
    /// Output: .fmq (packed), .safetensors or .pth (dequantized)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Values of a projection of the embedding that all blocks read in its place, or 0 for none; multiplied
    /// out where the output is not packed [default: the fewest that change the velocity less than the bits
    /// do]
    #[arg(long, value_name = "N")]
    embedding_rank: Option<usize>,
    #[command(flatten)]
    golden: GoldenArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The JSON of a tuning.
#[derive(Serialize)]
struct TuneJson<'a> {
    scheme: String,
    bits: Option<Number>,
    steps: u64,
    seconds: f64,
    /// Paired PSNR of held-out images before and after, mean over images, dB.
    paired_psnr_before_db: f64,
    paired_psnr_db: f64,
    #[serde(flatten)]
    report: &'a Report,
}

/// The run of one process among those that tune together; the first alone writes.
pub(crate) fn run(
    args: &Args,
    common: &Common,
    group: &Arc<dyn ProcessGroup>,
    out: &mut dyn Write,
) -> Result<()> {
    let is_first = group.rank().index == 0;
    let (kind, state) = args.check()?;
    let signals = Signals::watch().context("watching for signals")?;
    let (progress, start) = (common.progress_of(group.rank()), Instant::now());
    let device = common.device_for(processes::local())?;
    let (source, net) = args.net.open(progress)?;
    let tensors = source.parameters(&net)?;
    let shapes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
    if let Some(note) = args.policy.check(&shapes.collect::<Vec<_>>())? {
        progress.line(note);
    }
    let sampler = args.sampler(&device)?;
    let context = || format!("`{}`", args.net.path.display());
    let full = build(&net, tensors.clone(), &device, DType::F32).with_context(context)?;
    let points = args.points(&full, &sampler, common, &device)?;
    let held_out = HeldOut::of(&full, &sampler, common.seed, &device).with_context(context)?;
    drop(full);
    let (parameters, budget) = (count(&tensors) as u64, args.size.budget(&tensors));
    let (net, tensors) = args.project(net, tensors, common.seed)?;

    let settings = TuneConfig {
        steps: args.steps,
        batch_size: args.batch_size,
        lr: args.lr,
        code_lr: args.code_lr,
        seed: common.seed,
    };
    let policies = args.policies(budget, &net, &tensors, common)?;
    let policy = |name: &str, _: &[usize]| policies[name];
    let quantized =
        tuning_start(&net, &tensors, args.steps, args.scheme, policy, common.seed, progress)
            .with_context(context)?;
    let mut tuner = Tuner::new(&quantized, &tensors, settings, &device).with_context(context)?;
    let before = held_out.psnr(tuner.net())?;
    let of = args.describe(&net, &tensors)?;
    if args.resume {
        tuner.take_up(&state, &of).context("--resume")?;
    }
    let mut tuner = tuner.with_group(Arc::clone(group))?;
    progress.line(&format!(
        "{} points; {} at {}: paired PSNR {before:.2} dB",
        points.count(),
        args.scheme,
        args.size.describe()
    ));
    if args.resume {
        progress.line(&format!("goes on at step {} of {}", tuner.steps(), tuner.config().steps));
    }
    let save = |tuner: &Tuner| -> Result<()> {
        if is_first {
            tuner.save(&state, &of)?;
        }
        Ok(())
    };
    if !args.tune(&mut tuner, &points, &held_out, save, &signals, progress)? {
        progress.line(&format!(
            "stopped by a signal at step {} of {}, saved; go on with --resume",
            tuner.steps(),
            tuner.config().steps
        ));
        return Ok(());
    }
    let found = held_out.psnr(tuner.net())?;
    let (psnr, tuned) =
        if found < before { (before, quantized) } else { (found, tuner.quantized()?) };
    if found < before {
        progress.line(&format!("that led to {found:.2} dB: the net is left as it was before"));
    }
    if !is_first {
        return Ok(());
    }
    let report = kind.write(&args.output, &tuned, &net, args.golden.form())?;
    let report = report.relative_to(parameters);
    if state.exists() {
        fs::remove_file(&state).with_context(|| format!("removing `{}`", state.display()))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let output = TuneJson {
            scheme: format!("{}+tune", args.scheme),
            bits: args.size.bits.map(crate::rate::number),
            steps: tuner.steps(),
            seconds,
            paired_psnr_before_db: before,
            paired_psnr_db: psnr,
            report: &report,
        };
        writeln!(out, "{}", serde_json::to_string(&output)?)?;
    }
    progress.line(&format!(
        "{} at {}, tuned in {} steps: paired PSNR {psnr:.2} dB (before {before:.2}); packed \
         {:.3} bits per weight, {} bytes; {seconds:.0} s; wrote `{}`",
        args.scheme,
        args.size.describe(),
        tuner.steps(),
        report.bits_per_weight,
        report.packed_bytes,
        args.output.display()
    ));
    Ok(())
}

impl Args {
    /// Refuses what cannot be done; the kind of the output, and the file of the run's state.
    fn check(&self) -> Result<(OutputKind, PathBuf)> {
        let (kind, state) = (OutputKind::of(&self.output)?, self.state());
        self.golden.check(kind, &self.output)?;
        if self.net.dtype != NetPrecision::F32 {
            bail!("--dtype {}: nets are tuned in f32", self.net.dtype.name());
        }
        atomic::check_target(&self.output)?;
        self.solver.steps(COARSE_STEP)?;
        if self.resume && !state.is_file() {
            bail!("--resume: there is no stopped run `{}`", state.display());
        }
        Ok((kind, state))
    }

    /// The solver of the trajectories.
    fn sampler(&self, device: &Device) -> Result<BatchSampler> {
        let (grid, options) = self.solver.steps(COARSE_STEP)?;
        let (method, cfg_scale) = (self.solver.ode_method, self.cfg_scale);
        Ok(BatchSampler { options, cfg_scale, ..BatchSampler::new(method, grid, device) })
    }

    /// The calibration set of the full-precision net.
    fn points(
        &self,
        full: &UNet,
        sampler: &BatchSampler,
        common: &Common,
        device: &Device,
    ) -> Result<CalibrationPoints> {
        let named = || format!("`{}`", self.net.path.display());
        let (c, h, w) = image_shape(full.config())?;
        let guided = if self.cfg_scale == 0.0 { 1 } else { 2 };
        let bytes = CalibrationPoints::bytes([c, h, w], sampler.nfe().unwrap_or(200) * guided);
        let n = self.trajectories.min((MAX_POINTS / bytes.max(1)).max(1));
        if let (Some(data), Some(dir)) = (self.data, &self.data_path) {
            let set = data.open(dir, Split::Train, &data.folder_options())?;
            check_images(&self.net.path, full.config(), data, set.shape())?;
            let classes = full.config().num_classes.unwrap_or(usize::MAX);
            if set.classes() > classes {
                bail!("--data {data}: it has {} classes, the net {classes}", set.classes());
            }
            let n = n * sampler.nfe().unwrap_or(200) * guided;
            let bar = common.progress().bar("points", n as u64, "points");
            let done = |n: usize| bar.inc(n as u64);
            let points = CalibrationPoints::on_paths(full, &*set, n, common.seed, device, done)
                .with_context(named)?;
            bar.finish_and_clear();
            return Ok(points);
        }
        let bar = common.progress().bar("trajectories", n as u64, "img");
        let done = |n: usize| bar.inc(n as u64);
        let points =
            CalibrationPoints::draw(full, sampler, [c, h, w], n, common.seed, device, done)
                .with_context(named)?;
        bar.finish_and_clear();
        Ok(points)
    }

    /// Runs the steps that are left; `false` where a signal has come before the last, and the run is
    /// saved.
    fn tune(
        &self,
        tuner: &mut Tuner,
        points: &CalibrationPoints,
        held_out: &HeldOut<'_>,
        save: impl Fn(&Tuner) -> Result<()>,
        signals: &Signals,
        progress: Reporter,
    ) -> Result<bool> {
        let bar = progress.bar("tuning", tuner.config().steps, "steps");
        bar.set_position(tuner.steps());
        bar.reset_eta();
        let (start, mut saved) = (Instant::now(), Instant::now());
        let (mut error, mut psnr) = (f64::NAN, String::new());
        while tuner.steps() < tuner.config().steps {
            if tuner.group().any(signals.asked())? {
                save(tuner)?;
                return Ok(false);
            }
            let now = tuner.step(points)?;
            error = if error.is_nan() { now } else { 0.95 * error + 0.05 * now };
            let step = tuner.steps();
            if let Some(minutes) = self.minutes
                && step == MEASURED_STEPS
            {
                let mut part = [start.elapsed().as_secs_f64() / (60.0 * minutes)];
                tuner.group().broadcast(0, &mut part)?;
                tuner.set_duration(part[0]);
                bar.set_length(tuner.config().steps);
            }
            bar.inc(1);
            bar.set_message(format!("error {error:.5}{psnr}"));
            if saved.elapsed() > SAVE {
                save(tuner)?;
                saved = Instant::now();
            }
            let total = tuner.config().steps;
            if step < total && step.is_multiple_of(total.div_ceil(MEASUREMENTS)) {
                psnr = format!(", paired PSNR {:.2} dB", held_out.psnr(tuner.net())?);
                bar.suspend(|| progress.line(&format!("step {step}: error {error:.5}{psnr}")));
            }
        }
        bar.finish_and_clear();
        Ok(true)
    }

    /// The net with the projection that its blocks read of the embedding.
    fn project(
        &self,
        net: UNetConfig,
        tensors: Vec<(String, Tensor)>,
        seed: u64,
    ) -> Result<(UNetConfig, Vec<(String, Tensor)>)> {
        match self.embedding_rank {
            Some(0) => Ok((net, tensors)),
            Some(rank) => EmbeddingProjector::new(&net, &tensors)
                .and_then(|projector| projector.project(rank))
                .context("--embedding-rank"),
            None => {
                let bits = self.size.bits_per_weight(&tensors);
                project(net, tensors, bits, seed)
            }
        }
    }

    /// The policies of the tensors, by the file's size or the bits that are asked for.
    fn policies(
        &self,
        budget: Option<Budget>,
        net: &UNetConfig,
        tensors: &[(String, Tensor)],
        common: &Common,
    ) -> Result<Policies> {
        let net = PackedNet { config: net, self_test: self.golden.form() };
        let (scheme, policy) = (self.scheme, &self.policy);
        let (seed, progress) = (common.seed, common.progress());
        match (budget, self.size.bits) {
            (None, Some(bits)) => {
                tuned_policies(bits, scheme, policy, net, tensors, seed, progress)
            }
            (budget, _) => {
                let budget = budget.context("neither bits nor a size are given")?;
                let choices = |name: &str, shape: &[usize]| {
                    policy.choices(scheme, Bits::MIN.into(), name, shape)
                };
                policies_within(budget, net, tensors, choices, seed, progress)
                    .with_context(|| self.size.option())
            }
        }
    }

    /// The run's state, beside the output.
    fn state(&self) -> PathBuf {
        let mut name = self.output.clone().into_os_string();
        name.push(".tune");
        name.into()
    }

    /// The net and the way that it is quantized and tuned, in words.
    fn describe(&self, net: &UNetConfig, tensors: &[(String, Tensor)]) -> Result<String> {
        let (scheme, size) = (self.scheme, self.size.describe());
        Ok(format!(
            "weights {} of {}, {scheme} at {size}, {}, {} trajectories, {}, {}{}, guidance {}, {}",
            fingerprint::of_weights(tensors)?,
            config::to_json(net),
            self.policy.differences().unwrap_or_default(),
            self.trajectories,
            self.solver.ode_method,
            serde_json::to_string(&self.solver.ode_options)?,
            if self.solver.edm_schedule { ", EDM time grid" } else { "" },
            self.cfg_scale,
            self.data.map_or_else(|| "no data".into(), |data| data.to_string())
        ))
    }
}

/// Images of noise that is not tuned on, by the full-precision net.
struct HeldOut<'a> {
    sampler: &'a BatchSampler,
    noise: Tensor,
    labels: Option<Vec<u32>>,
    images: Tensor,
}

impl<'a> HeldOut<'a> {
    fn of(full: &UNet, sampler: &'a BatchSampler, seed: u64, device: &Device) -> Result<Self> {
        let net = full.config();
        let noise = start_noise(seed, 0, HELD_OUT, image_shape(net)?, device)?;
        let labels = class_cycle(net, HELD_OUT)?;
        let images = sampler.run(full, &noise, labels.as_deref(), false, |_| {})?.images;
        Ok(Self { sampler, noise, labels, images })
    }

    /// The mean over the images of the PSNR of those of `net`, dB.
    fn psnr(&self, net: &UNet) -> Result<f64> {
        let labels = self.labels.as_deref();
        let images = self.sampler.run(net, &self.noise, labels, false, |_| {})?.images;
        Ok(paired::mean_psnr(&images, &self.images)?)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes: &f64| *minutes > 0.0 && *minutes < 1e5);
    minutes.ok_or_else(|| "expected a number of minutes above 0".into())
}
