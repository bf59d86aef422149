//! `fmq quantize`: a checkpoint into low bits.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::checkpoint::{self, FileKind, NET_KEY, Source, TensorInfo, identify, order};
use fm_candle::model::{UNetConfig, config};
use fm_candle::quantize::{
    Discard, PackedNet, Report, TensorPolicy, quantize, quantize_to_file, quantize_to_torch,
};
use globset::GlobMatcher;
use quant_core::bits::Bits;
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;
use serde::Serialize;
use serde_json::Number;

use crate::args::common::Common;
use crate::args::golden::GoldenArgs;
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net;
use crate::args::policy::{PolicyArgs, check_glob, glob};
use crate::args::size::SizeArgs;
use crate::args::weights::{Scope, WeightsArgs, say_taken};
use crate::output::net::OutputKind;
use crate::quantization::allocation::{Policies, policies_within};
use crate::quantization::feedback;

/// Quantize the weights of a checkpoint
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint: .pth, .safetensors or .fmq; any state dict will do
    #[arg(value_name = "CKPT")]
    input: PathBuf,
    /// ot, uniform, pwl, log (the paper's four), uniform-mse (best clipping), lloyd-max (the exact
    /// W2 optimum) or ecq (entropy-constrained)
    #[arg(long)]
    scheme: Scheme,
    #[command(flatten)]
    size: SizeArgs,
    /// Output: .fmq (packed), .safetensors (dequantized) or .pth (dequantized, of the input's layout
    /// if that is a .pth: raw weights, EMA and all else)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Choose the codes by the errors of the layers' outputs (error feedback), on N trajectories of
    /// the net's own noise, and correct the biases that are kept as floats; the output holds the net
    /// alone [default where N is left out: 64]
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "64",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    feedback: Option<u16>,
    /// Quantize only the tensors whose name matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    only: Option<GlobMatcher>,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    golden: GoldenArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The JSON of a quantization.
#[derive(Serialize)]
struct QuantizeJson<'a> {
    scheme: String,
    bits: Option<Number>,
    seconds: f64,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    let kind = OutputKind::of(&args.output)?;
    args.golden.check(kind, &args.output)?;
    atomic::check_target(&args.output)?;
    let start = Instant::now();
    let source = args.open(kind)?;
    let shapes = source.tensors().iter().map(|info| info.shape.as_slice());
    let names = source.net_names().iter().map(String::as_str);
    let note = args.policy.check(&names.clone().zip(shapes).collect::<Vec<_>>())?;
    if let Some(only) = &args.only {
        check_glob("--only", only, names)?;
    }
    say_taken(&source, &args.input, common.progress());
    if let Some(note) = &note {
        common.progress().line(note);
    }
    let report = args
        .quantize(&source, kind, common)
        .with_context(|| format!("`{}`", args.input.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let report = &report;
        let output = QuantizeJson {
            scheme: args.method().to_string(),
            bits: args.size.bits.map(crate::rate::number),
            seconds,
            report,
        };
        writeln!(out, "{}", serde_json::to_string(&output)?)?;
    }
    if common.verbose {
        for tensor in &report.tensors {
            let sqnr = tensor.sqnr_db.map_or("exact".into(), |db| format!("{db:.2} dB"));
            let bits = tensor.bits_per_weight;
            let line = format!("{:48} {sqnr:>9} {bits:7.3} bits per weight", tensor.name);
            common.progress().line(&line);
        }
    }
    common.progress().line(&summary(args, &report, seconds));
    Ok(())
}

impl Args {
    /// Opens the input: from torch to torch with all that its state dict holds.
    fn open(&self, kind: OutputKind) -> Result<Source> {
        if kind == OutputKind::Torch && self.feedback.is_none() {
            let whole = self.weights.open(&self.input, Scope::Whole)?;
            if is_torch(&whole) {
                let all = "a .pth made from a .pth holds all nets of that, quantized";
                if self.weights.raw_weights {
                    bail!("--raw-weights: {all}");
                }
                if let Some(key) = &self.weights.checkpoint_key {
                    bail!("--checkpoint-key {key}: {all}");
                }
                return Ok(whole);
            }
        }
        self.weights.open(&self.input, Scope::Net)
    }

    /// The scheme and its refinement.
    fn method(&self) -> QuantizeMethod {
        let refinement = self.feedback.map(|_| Refinement::Feedback);
        QuantizeMethod { scheme: self.scheme, refinement }
    }

    /// Quantizes and writes the output.
    fn quantize(&self, source: &Source, kind: OutputKind, common: &Common) -> Result<Report> {
        let net = match net::stated(source, self.weights.arch.as_deref())? {
            // All that the file holds is more than the net.
            _ if kind == OutputKind::Torch && is_torch(source) => None,
            Some(net) => Some(net),
            // Any state dict can be quantized; one of a preset's shape also becomes a net.
            None => identify(source.tensors()).ok(),
        };
        let indices = match &net {
            Some(net) => order(net, source.tensors())?,
            None => (0..source.tensors().len()).collect(),
        };
        if self.golden.form().is_some() && net.is_none() {
            bail!("--golden: it is not known which net the weights are of; give --arch");
        }
        let allocated = match (self.size.is_size(), &net) {
            (false, _) => Policies::new(),
            (true, Some(net)) => self.allocate(net, source, common)?,
            (true, None) => {
                bail!("{}: it is not known which net this is; give --arch", self.size.option())
            }
        };
        let policy = |name: &str, shape: &[usize]| {
            allocated
                .get(name)
                .copied()
                .unwrap_or_else(|| self.policy(Bits::MAX.into(), name, shape))
        };
        if let Some(trajectories) = self.feedback {
            let Some(net) = &net else {
                bail!("--feedback: it is not known which net the weights are of; give --arch");
            };
            return self.feed_back(trajectories, net, source, policy, kind, common);
        }
        let weights: usize = source.tensors().iter().map(TensorInfo::count).sum();
        let bar = common.progress().bar("quantizing", weights as u64, "weights");
        let report = match kind {
            OutputKind::Torch => {
                quantize_to_torch(&self.output, source, &indices, policy, |info, _| {
                    bar.inc(info.count() as u64);
                    Ok(())
                })?
            }
            OutputKind::Packed => quantize_to_file(
                &self.output,
                source,
                &indices,
                net.as_ref().map(|config| PackedNet { config, self_test: self.golden.form() }),
                policy,
                |info, _| {
                    bar.inc(info.count() as u64);
                    Ok(())
                },
            )?,
            OutputKind::Safetensors => {
                let mut tensors = Vec::with_capacity(indices.len());
                let packed = quantize(
                    source,
                    &indices,
                    net.as_ref().map(Into::into),
                    Discard,
                    policy,
                    |info, packed| {
                        bar.inc(info.count() as u64);
                        tensors.push((info.name.clone(), packed.tensor(&info.shape)?));
                        Ok(())
                    },
                )?;
                let json = net.as_ref().map(config::to_json);
                let metadata: Vec<_> = json.iter().map(|json| (NET_KEY, json.as_str())).collect();
                checkpoint::safetensors::save(&self.output, &tensors, &metadata)?;
                packed.report
            }
        };
        bar.finish_and_clear();
        Ok(report)
    }

    /// Quantizes with error feedback and writes the output.
    fn feed_back(
        &self,
        trajectories: u16,
        config: &UNetConfig,
        source: &Source,
        policy: impl Fn(&str, &[usize]) -> TensorPolicy,
        kind: OutputKind,
        common: &Common,
    ) -> Result<Report> {
        let tensors = source.parameters(config)?;
        let net = feedback::round(
            config,
            &tensors,
            trajectories,
            self.scheme,
            policy,
            common.seed,
            common.progress(),
        )?;
        kind.write(&self.output, &net, config, self.golden.form())
    }

    /// The policies by which the file has the size that is asked for.
    fn allocate(&self, net: &UNetConfig, source: &Source, common: &Common) -> Result<Policies> {
        let tensors = source.parameters(net)?;
        let net = PackedNet { config: net, self_test: self.golden.form() };
        let choices = |name: &str, shape: &[usize]| {
            if self.is_left(name, shape) {
                return vec![TensorPolicy::F32];
            }
            self.policy.choices(self.scheme, Bits::MIN.into(), name, shape)
        };
        let budget = self.size.budget(&tensors).context("the bits are given")?;
        policies_within(budget, net, &tensors, choices, common.seed, common.progress())
            .with_context(|| self.size.option())
    }

    /// Returns true for a tensor that `--only` leaves as it is.
    fn is_left(&self, name: &str, shape: &[usize]) -> bool {
        let only = self.only.as_ref();
        only.is_some_and(|only| !only.is_match(name) && !self.policy.keeps(name, shape))
    }

    fn policy(&self, rate: Rate, name: &str, shape: &[usize]) -> TensorPolicy {
        if self.is_left(name, shape) {
            return TensorPolicy::F32;
        }
        self.policy.of(self.scheme, self.size.bits.unwrap_or(rate), name, shape)
    }
}

/// Returns true if the file is one of torch.
fn is_torch(source: &Source) -> bool {
    matches!(source.kind(), FileKind::Torch | FileKind::TorchLegacy)
}

fn summary(args: &Args, report: &Report, seconds: f64) -> String {
    let sqnr = match report.sqnr_db {
        _ if report.quantized_parameters == 0 => "none quantized".into(),
        None => "exact".into(),
        Some(db) => format!("{db:.2} dB"),
    };
    format!(
        "{} at {}: SQNR {sqnr}; packed {:.3} bits per weight, {} bytes, {:.2}x smaller than \
         f32; {seconds:.2} s; wrote `{}`",
        args.method(),
        args.size.describe(),
        report.bits_per_weight,
        report.packed_bytes,
        report.ratio,
        args.output.display()
    )
}
