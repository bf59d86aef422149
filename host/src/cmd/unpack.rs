//! `fmq unpack`: a packed file into ordinary tensors.

use std::path::PathBuf;

use anyhow::{Result, bail};
use fm_candle::atomic;
use fm_candle::checkpoint::{self, FileKind, Source};

use crate::args::net::stated;
use crate::output::net::OutputKind;

/// Turn a packed file into dequantized tensors
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Packed file
    #[arg(value_name = "IN.fmq")]
    input: PathBuf,
    /// Output: .safetensors, or .pth (a bare state dict)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let kind = OutputKind::of(&args.output).ok().filter(|&kind| kind != OutputKind::Packed);
    let Some(kind) = kind else {
        bail!("`{}`: the output must end in .safetensors or .pth", args.output.display());
    };
    atomic::check_target(&args.output)?;
    let source = Source::open(&args.input, false)?;
    if source.kind() != FileKind::Packed {
        bail!("`{}`: is no packed .fmq file", args.input.display());
    }
    if let Some(net) = stated(&source, None)?.filter(|net| net.embedding_rank.is_some()) {
        return kind.write_upstream(&args.output, &net, source.load()?.tensors);
    }
    if kind == OutputKind::Torch {
        return Ok(checkpoint::torch::save(&args.output, &source)?);
    }
    let checkpoint = source.load()?;
    let metadata: Vec<_> =
        checkpoint.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    Ok(checkpoint::safetensors::save(&args.output, &checkpoint.tensors, &metadata)?)
}
