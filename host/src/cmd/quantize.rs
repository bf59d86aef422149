//! `fmq quantize`: a checkpoint into low bits.

use core::str::FromStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fm_candle::checkpoint::{self, NET_KEY};
use fm_candle::model::{UNetConfig, identify};
use fm_candle::quantize::{Report, Treatment, quantize};
use fm_candle::{Tensor, atomic};
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
    /// ot, uniform, pwl, log (the paper's four) or lloyd-max (the exact W2 optimum)
    #[arg(long)]
    scheme: Scheme,
    /// Bits per weight, 1 to 8
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: u8,
    /// Output: .fmq (packed) or .safetensors (dequantized)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Precision of the codebooks' entries
    #[arg(long = "codebook-dtype", value_name = "f32|f16", default_value = "f32", value_parser = levels)]
    codebook_dtype: Levels,
    /// Which weights share a codebook: channel, group:N (channels) or tensor
    #[arg(long, default_value = "channel", value_parser = granularity)]
    granularity: Granularity,
    /// Tensors to keep at other bits, GLOB=BITS with BITS 1 to 8, 16 or 32; may be repeated
    #[arg(long, value_name = "GLOB=BITS", num_args = 1..)]
    keep: Vec<Keep>,
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
struct Keep {
    glob: GlobMatcher,
    bits: u8,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, bits) = text.rsplit_once('=').ok_or("expected GLOB=BITS")?;
        let bits = bits.parse().ok().filter(|bits| matches!(bits, 1..=8 | 16 | 32));
        let bits = bits.ok_or("BITS must be 1 to 8, 16 or 32")?;
        Ok(Self { glob: glob(pattern)?, bits })
    }
}

fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    Ok(Glob::new(pattern).map_err(|e| e.to_string())?.compile_matcher())
}

fn levels(text: &str) -> Result<Levels, String> {
    match text {
        "f32" => Ok(Levels::F32),
        "f16" => Ok(Levels::F16),
        _ => Err("expected f32 or f16".into()),
    }
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "channel" => Ok(Granularity::Channel),
        "tensor" => Ok(Granularity::Tensor),
        _ => match text.strip_prefix("group:").and_then(|n| n.parse().ok()) {
            Some(n) if n > 0 => Ok(Granularity::Group(n)),
            _ => Err("expected channel, group:N with N at least 1, or tensor".into()),
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
    let checkpoint = checkpoint::load(&args.input, args.raw_weights)?;
    args.check_globs(&checkpoint.tensors)?;
    let net = match (checkpoint.net(), &args.arch) {
        (Some(_), Some(arch)) => {
            bail!("`{}`: the file says its own net; leave out --arch {arch}", args.input.display())
        }
        (Some(json), None) => Some(
            UNetConfig::from_json(json).with_context(|| format!("`{}`", args.input.display()))?,
        ),
        (None, Some(arch)) => Some(net::named(arch)?),
        // Any state dict can be quantized; one of a preset's shape also becomes a net.
        (None, None) => identify(&checkpoint.tensors).ok(),
    };
    let packed_net = net.as_ref().map(UNetConfig::to_packed).transpose()?;
    let quantized = quantize(&checkpoint.tensors, packed_net.as_ref(), |name, _| args.treat(name))
        .with_context(|| format!("`{}`", args.input.display()))?;
    match kind {
        OutputKind::Packed => atomic::write(&args.output, quantized.packed())?,
        OutputKind::Safetensors => {
            let json = net.map(|net| net.to_json());
            let metadata: Vec<_> = json.iter().map(|json| (NET_KEY, json.as_str())).collect();
            checkpoint::safetensors::save(&args.output, &quantized.dequantized()?, &metadata)?;
        }
    }
    let (report, seconds) = (quantized.report(), start.elapsed().as_secs_f64());
    if args.json {
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
    common.progress().line(&summary(args, report, seconds));
    Ok(())
}

impl Args {
    /// Refuses globs that no tensor's name matches: they are misspelt.
    fn check_globs(&self, tensors: &[(String, Tensor)]) -> Result<()> {
        let keeps = self.keep.iter().map(|keep| ("--keep", &keep.glob));
        for (flag, glob) in keeps.chain(self.only.iter().map(|glob| ("--only", glob))) {
            if !tensors.iter().any(|(name, _)| glob.is_match(name)) {
                bail!("{flag} {}: no tensor has such a name", glob.glob());
            }
        }
        Ok(())
    }

    fn treat(&self, name: &str) -> Treatment {
        let options = Options {
            scheme: self.scheme,
            bits: self.bits,
            granularity: self.granularity,
            levels: self.codebook_dtype,
        };
        if let Some(keep) = self.keep.iter().find(|keep| keep.glob.is_match(name)) {
            return match keep.bits {
                32 => Treatment::F32,
                16 => Treatment::F16,
                bits => Treatment::Quantize(Options { bits, ..options }),
            };
        }
        match &self.only {
            Some(only) if !only.is_match(name) => Treatment::F32,
            _ => Treatment::Quantize(options),
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
