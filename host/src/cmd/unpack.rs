//! `fmq unpack`: a packed file into ordinary tensors.

use std::path::PathBuf;

use anyhow::{Result, bail};
use fm_candle::checkpoint::{self, Kind};

use crate::cmd::quantize::OutputKind;

/// Turn a packed file into dequantized tensors
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Packed file
    #[arg(value_name = "IN.fmq")]
    input: PathBuf,
    /// Output: .safetensors
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if OutputKind::of(&args.output).ok() != Some(OutputKind::Safetensors) {
        bail!("`{}`: the output must end in .safetensors", args.output.display());
    }
    let checkpoint = checkpoint::load(&args.input, false)?;
    if checkpoint.kind != Kind::Packed {
        bail!("`{}`: is not a packed .fmq file", args.input.display());
    }
    let metadata: Vec<_> =
        checkpoint.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    Ok(checkpoint::safetensors::save(&args.output, &checkpoint.tensors, &metadata)?)
}
