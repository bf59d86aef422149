//! `fmq calibrate`: a packed file that a device can compute with integers.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fm_candle::atomic;
use fm_candle::quantize::{Calibration, calibrate};
use quant_core::format::Model;
use quant_core::infer::Precision;
use quant_core::method::Method;

use crate::args::common::Common;
use crate::args::packed;
use crate::export::drawing_cost::DrawingCost;

/// Tell a packed file's device how to compute with integers
///
/// Draws images with the file's own net and notes how far each feature map reaches; the file that is
/// written says so in a section of its own (activation scales), all else keeps its bytes. A device can
/// then hold feature maps as bytes, a quarter of the memory, and multiply integers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Packed file, of a net with its image size
    #[arg(value_name = "IN.fmq")]
    input: PathBuf,
    /// Output: a packed file; may be IN.fmq
    #[arg(short, long, value_name = "OUT.fmq")]
    output: PathBuf,
    /// Images that are drawn, of each label in turn and none
    #[arg(long, default_value_t = 22, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    images: u16,
    /// Steps of Euler's method of each image
    #[arg(long, default_value_t = 16, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    atomic::check_target(&args.output)?;
    let named = || format!("`{}`", args.input.display());
    let file = packed::read(&args.input)?;
    let by =
        Calibration { images: args.images.into(), steps: args.steps.into(), seed: common.seed };
    let bar = common.progress().bar("calibrating", by.images, "images");
    let calibrated = calibrate(&file, by, || bar.inc(1)).with_context(named)?;
    bar.finish_and_clear();
    atomic::write(&args.output, &calibrated)?;

    let model = Model::parse(&calibrated)?;
    let arena = |precision| -> Result<usize> {
        Ok(DrawingCost::of(&model, precision, Method::Euler)?.arena_bytes())
    };
    let [floats, integers] = [arena(Precision::Float)?, arena(Precision::Integer)?];
    let maps = model.activations().map_or(0, |activations| activations.ranges().len());
    let output = args.output.display();
    writeln!(
        out,
        "scales of {maps} feature maps, from {} images of {} steps; an arena of {integers} bytes \
         instead of {floats}; {} bytes; wrote `{output}`",
        args.images,
        args.steps,
        calibrated.len(),
    )?;
    Ok(())
}
