//! `fmq demo`: the main job on the embedded model.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use fm_candle::fid::Features;
use fm_candle::process_group::SingleProcess;
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{Method, uniform_grid};
use quant_core::bits::Bits;
use quant_core::scheme::Scheme;

use crate::args::common::Common;
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net::NetPrecision;
use crate::args::ode::COARSE_STEP;
use crate::args::policy::PolicyArgs;
use crate::embedded::{self, EmbeddedNet};
use crate::output::folder;
use crate::report::tables;
use crate::study::{Reference, Study};

/// Steps of tuning of a row that is not built in.
const TUNE_STEPS: u64 = 40;

/// Quantize, pack, sample and judge the embedded MNIST model, and write a report
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for everything written; an unfinished demo there is continued
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
    /// The net
    #[arg(long, value_enum, default_value_t = EmbeddedNet::MnistSmall)]
    net: EmbeddedNet,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    folder::check_place(&args.output)?;
    let progress = common.progress();
    progress.line(
        "demo: 7 schemes at 2, 3, 4 and 8 bits, and lloyd-max with error feedback and tuned, 256 \
         samples each from the packed files",
    );
    let (config, tensors) = embedded::net(args.net)?;
    let device = common.device()?;
    let study = Study {
        model: args.net.name().into(),
        config,
        tensors,
        methods: methods(),
        tune_steps: TUNE_STEPS,
        shipped: match args.net {
            EmbeddedNet::MnistSmall => embedded::tuned_small,
            EmbeddedNet::MnistMicro => embedded::tuned_micro,
        },
        bits: [2, 3, 4, 8]
            .into_iter()
            .map(Bits::new)
            .map(|bits| Ok(bits?.into()))
            .collect::<Result<_>>()?,
        policy: PolicyArgs::default(),
        n: 256,
        seeds: 1,
        sampler: BatchSampler::new(Method::Midpoint, uniform_grid(COARSE_STEP)?, &device),
        seed: common.seed,
        features: Box::new(embedded::lenet()?),
        features_name: embedded::LENET.into(),
        fid_label: Features::LeNet.title(),
        reference: Reference::built_in()?,
        real: embedded::mnist_test_images()?,
        found: Vec::new(),
        analyses: false,
        unit_range: false,
        command: common.command_line.clone(),
        dir: args.output.clone(),
        replace: true,
        device,
        dtype: NetPrecision::F32,
    };
    let Some((summary, rows)) = study.run(progress, &SingleProcess)? else { return Ok(()) };
    write!(out, "{}", tables::text(&summary, &rows))?;
    let report = args.output.join("report.html");
    let report = report.canonicalize().unwrap_or(report);
    writeln!(out, "report: {}", report.display())?;
    Ok(())
}

/// All schemes, then the refinements of the best one.
fn methods() -> Vec<QuantizeMethod> {
    let refined = [Refinement::Feedback, Refinement::Tune]
        .map(|it| QuantizeMethod { scheme: Scheme::LloydMax, refinement: Some(it) });
    Scheme::ALL.into_iter().map(QuantizeMethod::from).chain(refined).collect()
}
