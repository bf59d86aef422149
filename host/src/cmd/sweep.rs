//! `fmq sweep`: one model, all schemes and bits, one report.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use fm_candle::data::{Dataset, Split};
use fm_candle::sample::Sampler;
use quant_core::scheme::Scheme;

use crate::cli::Common;
use crate::cmd::net::NetArgs;
use crate::cmd::ode::OdeArgs;
use crate::cmd::treatment::TreatmentArgs;
use crate::embedded;
use crate::report::tables;
use crate::study::Study;

/// Judge a model over schemes and bits: errors, true sizes, samples, distances, one report
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Data set to compare with: mnist
    #[arg(long)]
    data: Dataset,
    /// Folder of the data set
    #[arg(long = "data-path", alias = "data_path", default_value = "./data/image_generation")]
    data_path: PathBuf,
    /// Schemes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "ot,uniform,pwl,log,uniform-mse,lloyd-max")]
    schemes: Vec<Scheme>,
    /// Bits, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8", value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: Vec<u8>,
    #[command(flatten)]
    treatment: TreatmentArgs,
    /// Images sampled per row
    #[arg(short, default_value_t = 256)]
    n: usize,
    #[command(flatten)]
    ode: OdeArgs,
    /// Guidance; 0 is off
    #[arg(long = "cfg-scale", alias = "cfg_scale", default_value_t = 0.0)]
    cfg_scale: f64,
    /// Folder for everything written; an unfinished sweep there is continued
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

/// The values in their order, each once.
fn distinct<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for &value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    if args.n < 2 {
        bail!("-n {}: at least 2 images are needed", args.n);
    }
    if args.data != Dataset::Mnist {
        bail!("--data {}: the embedded LeNet features are for mnist", args.data);
    }
    let (source, config) = args.net.open()?;
    let device = common.device()?;
    let (grid, options) = args.ode.steps(0.1)?;
    let study = Study {
        model: args.net.path.display().to_string(),
        config,
        tensors: source.load()?.tensors,
        schemes: distinct(&args.schemes),
        bits: distinct(&args.bits),
        treatment: args.treatment.clone(),
        n: args.n,
        sampler: Sampler {
            method: args.ode.ode_method,
            grid,
            options,
            cfg_scale: args.cfg_scale,
            batch_size: 8,
        },
        seed: common.seed,
        lenet: embedded::lenet()?,
        reference: embedded::lenet_mnist_train()?,
        reference_name: "the 60 000 images of MNIST train".into(),
        real: args.data.load(&args.data_path, Split::Test)?,
        dir: args.output.clone(),
        device,
    };
    let (summary, rows) = study.run(common.progress())?;
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "summary": summary, "rows": rows }))?;
    } else {
        write!(out, "{}", tables::text(&summary, &rows))?;
    }
    common.progress().line(&format!("report: `{}`", args.output.join("report.html").display()));
    Ok(())
}
