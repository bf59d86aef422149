//! `fmq velocity`: the net itself, at given points.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use fm_candle::checkpoint::{self, Checkpoint};
use fm_candle::model::{Mode, UNetConfig};
use fm_candle::ops::is_finite;
use fm_candle::{DType, Tensor, atomic};

use crate::args::common::Common;
use crate::args::label;
use crate::args::net::NetArgs;
use crate::output::{self, samples};

/// Evaluate the velocity v(x, t, label) at given points
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Safetensors with x (n, c, h, w), t (n), and where wanted label (n, i64; left out: no label) and
    /// concat_conditioning (n, c, h, w)
    #[arg(long, value_name = "IN.safetensors")]
    inputs: PathBuf,
    /// Output: .safetensors with v (n, c, h, w)
    #[arg(
        short,
        long,
        value_name = "OUT.safetensors",
        value_parser = PathBufValueParser::new().try_map(output::safetensors),
    )]
    output: PathBuf,
}

pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    atomic::check_target(&args.output)?;
    let device = common.device()?;
    let net = args.net.build(&device, common.progress())?;
    let inputs = VelocityInputs::read(&args.inputs, net.config())?;
    let moved = |tensor: &Option<Tensor>| {
        tensor.as_ref().map(|tensor| tensor.to_device(&device)).transpose()
    };
    let v = net
        .forward(
            &inputs.x.to_device(&device)?,
            &inputs.t.to_device(&device)?,
            moved(&inputs.label)?.as_ref(),
            moved(&inputs.concat)?.as_ref(),
            Mode::Eval,
        )
        .with_context(|| format!("`{}`", args.inputs.display()))?;
    Ok(checkpoint::safetensors::save(&args.output, &[("v".into(), v)], &[])?)
}

/// The points at which the net is evaluated.
struct VelocityInputs {
    x: Tensor,
    t: Tensor,
    label: Option<Tensor>,
    concat: Option<Tensor>,
}

impl VelocityInputs {
    /// Reads and checks the points.
    fn read(path: &Path, config: &UNetConfig) -> Result<Self> {
        let file = checkpoint::load(path, true)?;
        let named = || format!("`{}`", path.display());
        let x = real(&file, "x").and_then(|x| x.context("no tensor x")).with_context(named)?;
        let t = real(&file, "t").and_then(|t| t.context("no tensor t")).with_context(named)?;
        let concat = real(&file, "concat_conditioning").with_context(named)?;
        let n = x.dim(0)?;
        if x.rank() != 4 || n == 0 {
            bail!(
                "{}: x has shape {:?}, expected [n, c, h, w] with n at least 1",
                named(),
                x.dims()
            );
        }
        if t.dims() != [n] {
            bail!("{}: t has shape {:?}, expected [{n}]", named(), t.dims());
        }
        let labels = label::in_file(&file, n, config).with_context(named)?;
        let label = labels.map(|labels| samples::label_tensor(&labels)).transpose()?;
        Ok(Self { x, t, label, concat })
    }
}

/// A floating tensor as f32.
fn real(file: &Checkpoint, name: &str) -> Result<Option<Tensor>> {
    let Some(tensor) = file.tensor(name) else { return Ok(None) };
    if !tensor.dtype().is_float() {
        bail!("tensor {name} is {:?}, expected F32", tensor.dtype());
    }
    if !is_finite(tensor)? {
        bail!("tensor {name} holds values that are not finite");
    }
    Ok(Some(tensor.to_dtype(DType::F32)?))
}
