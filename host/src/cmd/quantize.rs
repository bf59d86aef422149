//! `fmq quantize`: a checkpoint into low bits.

use core::str::FromStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::checkpoint::{self, NET_KEY, Source, TensorInfo};
use fm_candle::model::{UNetConfig, identify, order};
use fm_candle::quantize::{Discard, Report, Treatment, is_sensitive, quantize, quantize_to_file};
use globset::{Glob, GlobMatcher};
use quant_core::quantize::{Granularity, Levels, Options};
use quant_core::scheme::Scheme;
use serde::Serialize;

use crate::cli::Common;
use crate::cmd::net;

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
    /// Bits per weight, 1 to 8
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: u8,
    /// Output: .fmq (packed) or .safetensors (dequantized)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Precision of the codebooks' entries
    #[arg(
        long = "codebook-dtype",
        value_name = "f32|f16|i16|i8",
        default_value = "f32",
        value_parser = levels
    )]
    codebook_dtype: Levels,
    /// Which weights share a codebook: channel, group:N (channels), tensor, or auto (for each
    /// tensor whatever has the best error for its true size)
    #[arg(long, default_value = "channel", value_parser = granularity)]
    granularity: Granularity,
    /// Tensors to keep at other bits, GLOB=BITS with BITS 1 to 8, 16 or 32; or `recommended`: first
    /// and last convolution, time and label embedding, norms and biases at 16 bits. May be
    /// repeated; the first that matches counts
    #[arg(long, value_name = "recommended|GLOB=BITS", num_args = 1..)]
    keep: Vec<Keep>,
    /// Price of a bit of entropy under ecq, in units of a channel's variance [default: the slope of
    /// Shannon's bound at BITS, 2 ln 2 / 4^BITS]
    #[arg(long, value_parser = price)]
    lambda: Option<f64>,
    /// Quantize only the tensors whose name matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    only: Option<GlobMatcher>,
    /// The net, where the file does not say: a preset or a JSON file with upstream's fields
    #[arg(long, value_name = "NAME|FILE.json")]
    arch: Option<String>,
    /// Take the raw weights although the file has an EMA
    #[arg(long = "raw-weights", alias = "raw_weights")]
    raw_weights: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// One `--keep`.
#[derive(Clone)]
enum Keep {
    /// The usual sensitive tensors, at 16 bits.
    Recommended,
    /// Those of a name.
    Named { glob: GlobMatcher, bits: u8 },
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "recommended" {
            return Ok(Self::Recommended);
        }
        let (pattern, bits) = text.rsplit_once('=').ok_or("expected recommended or GLOB=BITS")?;
        let bits = bits.parse().ok().filter(|bits| matches!(bits, 1..=8 | 16 | 32));
        let bits = bits.ok_or("BITS must be 1 to 8, 16 or 32")?;
        Ok(Self::Named { glob: glob(pattern)?, bits })
    }
}

impl Keep {
    /// The bits that a tensor is kept at, if it is.
    fn bits(&self, name: &str, shape: &[usize]) -> Option<u8> {
        match self {
            Self::Recommended => is_sensitive(name, shape).then_some(16),
            Self::Named { glob, bits } => glob.is_match(name).then_some(*bits),
        }
    }
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| *price >= 0.0 && price.is_finite());
    price.ok_or_else(|| "expected a number of at least 0".into())
}

fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    Ok(Glob::new(pattern).map_err(|e| e.to_string())?.compile_matcher())
}

fn levels(text: &str) -> Result<Levels, String> {
    match text {
        "f32" => Ok(Levels::F32),
        "f16" => Ok(Levels::F16),
        "i16" => Ok(Levels::I16),
        "i8" => Ok(Levels::I8),
        _ => Err("expected f32, f16, i16 or i8".into()),
    }
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "channel" => Ok(Granularity::Channel),
        "tensor" => Ok(Granularity::Tensor),
        "auto" => Ok(Granularity::Auto),
        _ => match text.strip_prefix("group:").and_then(|n| n.parse().ok()) {
            Some(n) if n > 0 => Ok(Granularity::Group(n)),
            _ => Err("expected channel, group:N with N at least 1, tensor or auto".into()),
        },
    }
}

/// The JSON of a quantization.
#[derive(Serialize)]
struct Output<'a> {
    scheme: &'a str,
    bits: u8,
    seconds: f64,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    let kind = OutputKind::of(&args.output)?;
    atomic::check_target(&args.output)?;
    let start = Instant::now();
    let source = Source::open(&args.input, args.raw_weights)?;
    args.check_globs(source.tensors())?;
    let report = args
        .quantize(&source, kind, common)
        .with_context(|| format!("`{}`", args.input.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let report = &report;
        let output = Output { scheme: args.scheme.name(), bits: args.bits, seconds, report };
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
    /// Quantizes and writes the output.
    fn quantize(&self, source: &Source, kind: OutputKind, common: &Common) -> Result<Report> {
        let net = match net::stated(source, self.arch.as_deref())? {
            Some(net) => Some(net),
            // Any state dict can be quantized; one of a preset's shape also becomes a net.
            None => identify(source.tensors()).ok(),
        };
        let indices = match &net {
            Some(net) => order(net, source.tensors())?,
            None => (0..source.tensors().len()).collect(),
        };
        let packed_net = net.as_ref().map(UNetConfig::to_packed).transpose()?;
        let weights: usize = source.tensors().iter().map(TensorInfo::count).sum();
        let bar = common.progress().bar("quantizing", weights as u64, "weights");
        let treat = |name: &str, shape: &[usize]| self.treat(name, shape);
        let report = match kind {
            OutputKind::Packed => quantize_to_file(
                &self.output,
                source,
                &indices,
                packed_net.as_ref(),
                treat,
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
                    packed_net.as_ref(),
                    Discard,
                    treat,
                    |info, treated| {
                        bar.inc(info.count() as u64);
                        tensors.push((info.name.clone(), treated.tensor(&info.shape)?));
                        Ok(())
                    },
                )?;
                let json = net.map(|net| net.to_json());
                let metadata: Vec<_> = json.iter().map(|json| (NET_KEY, json.as_str())).collect();
                checkpoint::safetensors::save(&self.output, &tensors, &metadata)?;
                packed.report
            }
        };
        bar.finish_and_clear();
        Ok(report)
    }

    /// Refuses globs that no tensor's name matches: they are misspelt.
    fn check_globs(&self, tensors: &[TensorInfo]) -> Result<()> {
        let keeps = self.keep.iter().filter_map(|keep| match keep {
            Keep::Recommended => None,
            Keep::Named { glob, .. } => Some(("--keep", glob)),
        });
        for (flag, glob) in keeps.chain(self.only.iter().map(|glob| ("--only", glob))) {
            if !tensors.iter().any(|tensor| glob.is_match(&tensor.name)) {
                bail!("{flag} {}: no tensor has such a name", glob.glob());
            }
        }
        Ok(())
    }

    fn treat(&self, name: &str, shape: &[usize]) -> Treatment {
        let options = Options {
            scheme: self.scheme,
            bits: self.bits,
            granularity: self.granularity,
            levels: self.codebook_dtype,
            lambda: self.lambda,
        };
        match self.keep.iter().find_map(|keep| keep.bits(name, shape)) {
            Some(32) => Treatment::F32,
            Some(16) => Treatment::F16,
            Some(bits) => Treatment::Quantize(Options { bits, ..options }),
            None => match &self.only {
                Some(only) if !only.is_match(name) => Treatment::F32,
                _ => Treatment::Quantize(options),
            },
        }
    }
}

/// What is written, by the output's extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    Packed,
    Safetensors,
}

impl OutputKind {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("fmq") => Ok(Self::Packed),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => bail!(
                "`{}`: the output must end in .fmq (packed) or .safetensors (dequantized)",
                path.display()
            ),
        }
    }
}

fn summary(args: &Args, report: &Report, seconds: f64) -> String {
    let sqnr = match report.sqnr_db {
        _ if report.quantized_parameters == 0 => "none quantized".into(),
        None => "exact".into(),
        Some(db) => format!("{db:.2} dB"),
    };
    format!(
        "{} at {} bits: SQNR {sqnr}; packed {:.3} bits per weight, {} bytes, {:.2}x smaller than \
         f32; {seconds:.2} s; wrote `{}`",
        args.scheme,
        args.bits,
        report.bits_per_weight,
        report.packed_bytes,
        report.ratio,
        args.output.display()
    )
}
