//! `fmq inspect`: what a file holds.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use fm_candle::checkpoint::{
    Catalogue, Checkpoint, FileKind, LeftOut, Source, identify, tensor_names as packed_names,
};
use fm_candle::model::{UNetConfig, config};
use fm_candle::ops::is_finite;
use quant_core::codebook::CodebookFormat;
use quant_core::format::{self, Encoding, Model};
use quant_core::infer::{Precision, STACK_BYTES};
use quant_core::matrix::{QuantLayout, RowScale};
use quant_core::method::Method;
use serde::Serialize;

use crate::args::common::Common;
use crate::args::net::stated;
use crate::args::weights::{Scope, WeightsArgs, named_net};
use crate::export::drawing_cost::DrawingCost;
use crate::export::packed_size::PackedSize;

/// Show what a checkpoint or a packed file holds, and check it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Any checkpoint or packed file, or a folder with model.safetensors
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    weights: WeightsArgs,
}

#[derive(Serialize)]
struct InspectJson {
    kind: &'static str,
    file_bytes: u64,
    ema: bool,
    /// The nets in the file, and which was taken.
    nets: Vec<NetJson>,
    /// The prefix of all names in the file that is left off.
    prefix: String,
    /// The preset with the same shapes or the configuration in the file.
    net: Option<UNetConfig>,
    parameters: u64,
    /// Data set, training, measured FID, licence and packed files, as far as they are known.
    catalogue: CatalogueJson,
    /// Tensors with NaN or infinite weights.
    not_finite: Vec<String>,
    /// Tensors of the file that cannot be weights.
    left_out: Vec<Excluded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed: Option<PackedJson>,
    tensors: Vec<TensorJson>,
}

/// The facts in the file's metadata, and the packed files: that file, or those of that folder.
#[derive(Serialize)]
struct CatalogueJson {
    #[serde(flatten)]
    facts: Catalogue,
    packed: Vec<PackedSize>,
}

impl CatalogueJson {
    fn of(path: &Path, source: &Source, file: &[u8]) -> Result<Self> {
        let packed = match source.kind() {
            _ if path.is_dir() => PackedSize::in_folder(path)?,
            FileKind::Packed => vec![PackedSize::of(path, file)?],
            _ => Vec::new(),
        };
        Ok(Self { facts: Catalogue::of(source.metadata()), packed })
    }

    /// A line for each fact that is known; the size of a packed file alone is told elsewhere.
    fn lines(&self, is_folder: bool) -> Vec<String> {
        let Catalogue { dataset, epochs, loss, fid, license } = &self.facts;
        let training = [
            dataset.as_ref().map(|name| format!("data set {name}")),
            epochs.map(|epochs| format!("{epochs} epochs")),
            loss.map(|loss| format!("loss {loss:.5}")),
        ];
        let training = training.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let known = [
            (!training.is_empty()).then(|| format!("training: {training}")),
            fid.as_ref().map(ToString::to_string),
            license.as_ref().map(|id| format!("licence: {id}")),
        ];
        let packed = self.packed.iter().filter(|_| is_folder);
        let packed = packed.map(|PackedSize { file, bytes, bits_per_weight }| {
            format!("packed: {file}, {bytes} bytes, {bits_per_weight:.3} bits per weight")
        });
        known.into_iter().flatten().chain(packed).collect()
    }
}

/// A net in the file.
#[derive(Serialize)]
struct NetJson {
    key: String,
    average: bool,
    tensors: Option<usize>,
    taken: bool,
}

/// A tensor that cannot be a weight.
#[derive(Serialize)]
struct Excluded {
    name: String,
    reason: String,
}

#[derive(Serialize)]
struct PackedJson {
    version: String,
    header_bytes: usize,
    sections: Vec<SectionJson>,
    bits_per_weight: f64,
    crc32: &'static str,
    /// Resources for drawing an image on a device, where the net and its images' size are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
}

/// Resources for drawing an image on a device: memory and multiplications.
#[derive(Serialize)]
struct Device {
    /// The file, read in place.
    flash_bytes: usize,
    /// The floats of one evaluation, and those of Euler's method around it.
    arena_bytes: usize,
    sampler_arena_bytes: usize,
    /// The arena of Euler's method in integers, for a file that has been calibrated.
    integer_arena_bytes: Option<usize>,
    /// An estimate: as measured on a Cortex-M4.
    stack_bytes: usize,
    /// Multiplications of one evaluation.
    macs: u64,
    /// True if the file holds a self-test for its device.
    golden: bool,
}

impl Device {
    fn of(model: &Model<'_>, file: &[u8]) -> Option<Self> {
        let by_euler = |precision| DrawingCost::of(model, precision, Method::Euler).ok();
        let cost = by_euler(Precision::Float)?;
        Some(Self {
            flash_bytes: file.len(),
            arena_bytes: cost.evaluation_bytes(),
            sampler_arena_bytes: cost.arena_bytes(),
            integer_arena_bytes: by_euler(Precision::Integer).map(|cost| cost.arena_bytes()),
            stack_bytes: STACK_BYTES,
            macs: cost.macs,
            golden: model.has_self_test(),
        })
    }
}

/// A part of the head of a packed file.
#[derive(Serialize)]
struct SectionJson {
    name: String,
    bytes: usize,
}

#[derive(Serialize)]
struct TensorJson {
    name: String,
    shape: Vec<usize>,
    encoding: String,
    bytes: usize,
    bits_per_weight: f64,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    let source = args.weights.open(&args.file, Scope::Net)?;
    args.weights.say_unused(&source, &args.file, common.progress());
    let checkpoint = source.load()?;
    let named = || format!("`{}`", args.file.display());
    let bytes = fs::read(source.path()).with_context(named)?;
    let net = match stated(&source, args.weights.arch.as_deref()).with_context(named)? {
        Some(net) => Some(net),
        None => identify(source.tensors()).ok(),
    };
    let nets = source.nets().iter().map(|net| NetJson {
        key: net.key.clone(),
        average: net.average,
        tensors: net.tensors,
        taken: net.taken,
    });
    let left_out = source.left_out().iter();
    let left_out = left_out
        .map(|LeftOut { name, reason }| Excluded { name: name.clone(), reason: reason.clone() });
    let parameters = checkpoint
        .tensors
        .iter()
        .filter(|(_, tensor)| tensor.dtype().is_float())
        .map(|(_, tensor)| tensor.elem_count() as u64)
        .sum::<u64>();
    let mut output = InspectJson {
        kind: match checkpoint.kind {
            FileKind::Torch => "torch zip",
            FileKind::TorchLegacy => "torch legacy",
            FileKind::Safetensors => "safetensors",
            FileKind::Packed => "packed",
        },
        file_bytes: bytes.len() as u64,
        ema: checkpoint.ema,
        nets: nets.collect(),
        prefix: source.prefix().to_string(),
        net,
        parameters,
        catalogue: CatalogueJson::of(&args.file, &source, &bytes)?,
        not_finite: not_finite(&checkpoint)?,
        left_out: left_out.collect(),
        packed: None,
        tensors: Vec::new(),
    };
    if checkpoint.kind == FileKind::Packed {
        let model = Model::parse(&bytes)?;
        output.packed = Some(PackedJson {
            version: format!("{}.{}", model.version().0, model.version().1),
            header_bytes: model.header_bytes(),
            sections: model.sections().map(|(kind, bytes)| section(kind, bytes)).collect(),
            bits_per_weight: 8.0 * bytes.len() as f64 / parameters.max(1) as f64,
            crc32: "ok",
            device: Device::of(&model, &bytes),
        });
        let names = packed_names(&model).map_err(|e| anyhow!("`{}`: {e}", args.file.display()))?;
        let tensors = names.into_iter().zip(model.tensors());
        output.tensors = tensors.map(|(name, tensor)| packed_row(name, &tensor)).collect();
    } else {
        output.tensors = dense_rows(&checkpoint);
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&output)?)?;
    } else {
        print(&output, &source, args.file.is_dir(), out)?;
    }
    Ok(())
}

/// The floating tensors that hold NaN or infinite weights.
fn not_finite(checkpoint: &Checkpoint) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, tensor) in &checkpoint.tensors {
        if tensor.dtype().is_float() && !is_finite(tensor)? {
            names.push(name.clone());
        }
    }
    Ok(names)
}

fn section(kind: format::SectionKind, contents: &[u8]) -> SectionJson {
    let name = match kind {
        format::SectionKind::NET => "net".into(),
        format::SectionKind::NAMES => "names".into(),
        format::SectionKind::MEMORY_PLAN => "memory plan".into(),
        format::SectionKind::ACTIVATION_SCALES => "activation scales".into(),
        format::SectionKind::BIAS_CORRECTIONS => "bias corrections".into(),
        format::SectionKind::SELF_TEST => "self-test vector".into(),
        format::SectionKind::SELF_TEST_CHECKSUM => "self-test checksum".into(),
        format::SectionKind(other) => format!("unknown ({other})"),
    };
    SectionJson { name, bytes: contents.len() }
}

fn packed_row(name: String, tensor: &format::Tensor<'_>) -> TensorJson {
    let encoding = match tensor.encoding() {
        Encoding::F32 => "f32".to_string(),
        Encoding::F16 => "f16".to_string(),
        Encoding::I64 => "i64".to_string(),
        Encoding::Quantized(layout) => quantized(layout),
    };
    TensorJson {
        name,
        shape: tensor.shape().to_vec(),
        encoding,
        bytes: tensor.record_bytes(),
        bits_per_weight: 8.0 * tensor.record_bytes() as f64 / tensor.numel().max(1) as f64,
    }
}

/// The layout of a quantized tensor, for people.
fn quantized(layout: QuantLayout) -> String {
    let book = match layout.codebook {
        CodebookFormat::F32 => "f32 table",
        CodebookFormat::F16 => "f16 table",
        CodebookFormat::I16 => "i16 table",
        CodebookFormat::I8 => "i8 table",
        CodebookFormat::Affine => "affine",
        CodebookFormat::Logarithmic => "logarithmic",
    };
    let scale = match layout.row_scale {
        RowScale::None => "",
        RowScale::F16 => ", f16 row scales",
        RowScale::F32 => ", f32 row scales",
        RowScale::Log => ", 8-bit row scales",
    };
    format!("{} bit, {book} per {} row(s){scale}", layout.bits, layout.rows_per_codebook)
}

fn dense_rows(checkpoint: &Checkpoint) -> Vec<TensorJson> {
    let row = |(name, tensor): &(String, fm_candle::Tensor)| {
        let size = tensor.dtype().size_in_bytes();
        TensorJson {
            name: name.clone(),
            shape: tensor.dims().to_vec(),
            encoding: tensor.dtype().as_str().to_string(),
            bytes: size * tensor.elem_count(),
            bits_per_weight: 8.0 * size as f64,
        }
    };
    checkpoint.tensors.iter().map(row).collect()
}

fn print(
    output: &InspectJson,
    source: &Source,
    is_folder: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let ema = if output.ema { ", EMA weights" } else { "" };
    writeln!(out, "{} file, {} bytes{ema}", output.kind, output.file_bytes)?;
    if let nets @ [_, _, ..] = source.nets() {
        for net in nets {
            let taken = if net.taken { ", shown here" } else { "" };
            let tensors = net.tensors.map_or("unusable".into(), |n| format!("{n} tensors"));
            writeln!(out, "holds {}: {tensors}{taken}", named_net(net))?;
        }
    }
    if !output.prefix.is_empty() {
        writeln!(out, "the prefix `{}.` of all names is left off", output.prefix)?;
    }
    match &output.net {
        Some(net) => writeln!(out, "net: {}", config::to_json(net))?,
        None => writeln!(out, "net: none known")?,
    }
    writeln!(out, "{} weights in {} tensors", output.parameters, output.tensors.len())?;
    for line in output.catalogue.lines(is_folder) {
        writeln!(out, "{line}")?;
    }
    match output.not_finite.as_slice() {
        [] => writeln!(out, "all weights are finite")?,
        names => writeln!(out, "NaN or infinite weights in: {}", names.join(", "))?,
    }
    for Excluded { name, reason } in &output.left_out {
        writeln!(out, "left out: `{name}` {reason}")?;
    }
    if let Some(packed) = &output.packed {
        writeln!(
            out,
            "format version {}, {} header bytes, {:.3} bits per weight, CRC-32 {}",
            packed.version, packed.header_bytes, packed.bits_per_weight, packed.crc32
        )?;
        for SectionJson { name, bytes } in &packed.sections {
            writeln!(out, "section {name}: {bytes} bytes")?;
        }
        if let Some(device) = &packed.device {
            let integers = device.integer_arena_bytes;
            let integers = integers.map_or_else(String::new, |it| format!("; {it} in integers"));
            writeln!(
                out,
                "on a device: {} bytes of flash, an arena of {} bytes ({} with Euler's method{}), \
                 about {} bytes of stack, {:.1} million multiplications per evaluation{}",
                device.flash_bytes,
                device.arena_bytes,
                device.sampler_arena_bytes,
                integers,
                device.stack_bytes,
                device.macs as f64 / 1e6,
                if device.golden { "; tests itself" } else { "" }
            )?;
        }
    }
    let width = output.tensors.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &output.tensors {
        let shape = format!("{:?}", row.shape);
        writeln!(
            out,
            "{:width$}  {shape:18} {:>9} B {:>7.3} bpw  {}",
            row.name, row.bytes, row.bits_per_weight, row.encoding
        )?;
    }
    Ok(())
}
