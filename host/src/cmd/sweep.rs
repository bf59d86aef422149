//! `fmq sweep`: one model, all schemes and bits, one report.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use fm_candle::data::{Dataset, ImageSet, Images, Split};
use fm_candle::fid::{Features, lenet};
use fm_candle::fingerprint;
use fm_candle::model::UNetConfig;
use fm_candle::process_group::ProcessGroup;
use fm_candle::sample::BatchSampler;
use quant_core::rate::Rate;

use crate::args::common::Common;
use crate::args::features::FeaturesArgs;
use crate::args::method::QuantizeMethod;
use crate::args::net::{NetArgs, check_images};
use crate::args::numbers::{at_least_1, at_least_2, finite};
use crate::args::ode::{self, COARSE_STEP, OdeArgs};
use crate::args::policy::PolicyArgs;
use crate::embedded;
use crate::features::NamedFeatureNet;
use crate::images;
use crate::output::folder;
use crate::processes;
use crate::progress::Reporter;
use crate::report::{distinct, tables};
use crate::study::{Reference, Study};

/// Judge a model over schemes and bits: errors, true sizes, samples, distances, one report
#[derive(clap::Args)]
#[command(mut_arg("ode_options", ode::coarse))]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Data set to compare with: samples with its training half, analyses on its test half
    #[arg(long)]
    data: Dataset,
    /// Folder of the data set. Built in is what the built-in features of mnist need, with 512 of its test
    /// images; statistics of other images under mnist's names are computed
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    #[command(flatten)]
    features: FeaturesArgs,
    /// Schemes, separated by commas; SCHEME+feedback chooses the codes by the layers' outputs,
    /// SCHEME+tune also tunes levels, scales, norms and biases (0.7 bits more per weight that the file
    /// holds, where the velocity needs them)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ot,uniform,pwl,log,uniform-mse,lloyd-max,lloyd-max+feedback"
    )]
    schemes: Vec<QuantizeMethod>,
    /// Steps of tuning for SCHEME+tune
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = at_least_1::<u64>)]
    tune_steps: u64,
    /// Bits, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8")]
    bits: Vec<Rate>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Images sampled per row, from each seed
    #[arg(short, default_value_t = 256, value_parser = at_least_2)]
    n: usize,
    /// Sets of samples per row, from --seed and those behind it; intervals then are over the sets
    #[arg(long, default_value_t = 1, value_parser = at_least_1::<usize>)]
    seeds: usize,
    /// Leave out the analyses of latents, noise, trajectories and bounds
    #[arg(long)]
    no_analyses: bool,
    /// Take latents and velocities of images in [0, 1], as the paper's code does with nets of [-1, 1]
    #[arg(long)]
    unit_range: bool,
    #[command(flatten)]
    ode: OdeArgs,
    /// Guidance; 0 is off
    #[arg(long, default_value = "0", value_name = "S", value_parser = finite)]
    cfg_scale: f64,
    /// Folder for everything written; an unfinished sweep there is continued
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

/// Test images of the data set that are looked at, at most.
const REAL: usize = 10_000;

/// The run of one process among those that share the rows out; the first prints.
pub(crate) fn run(
    args: &Args,
    common: &Common,
    group: &dyn ProcessGroup,
    out: &mut dyn Write,
) -> Result<()> {
    let progress = common.progress_of(group.rank());
    folder::check_place(&args.output)?;
    let (grid, options) = args.ode.steps(COARSE_STEP)?;
    let dir = args.data_path.as_deref();
    let (source, config) = args.net.open(progress)?;
    let device = common.device_for(processes::local())?;
    let features = NamedFeatureNet::open(&args.features, dir, &device)?;
    let (real, summary) = images::test_half(args.data, dir, REAL)?;
    check(args, &config, &real)?;
    let mut found = vec![summary];
    let reference = reference(args, &features, progress, group, &mut found)?;
    let study = Study {
        model: args.net.name(),
        tensors: source.parameters(&config)?,
        config,
        methods: distinct(args.schemes.iter().copied()),
        tune_steps: args.tune_steps,
        shipped: |_, _| None,
        bits: distinct(args.bits.iter().copied()),
        policy: args.policy.clone(),
        n: args.n,
        seeds: args.seeds,
        sampler: BatchSampler {
            options,
            cfg_scale: args.cfg_scale,
            ..BatchSampler::new(args.ode.solver.ode_method, grid, &device)
        },
        seed: common.seed,
        features: features.net,
        features_name: features.name,
        fid_label: distance_name(&args.features)?,
        reference,
        real,
        found,
        analyses: !args.no_analyses,
        unit_range: args.unit_range,
        command: common.command_line.clone(),
        dir: args.output.clone(),
        replace: false,
        device,
        dtype: args.net.dtype,
    };
    let Some((summary, rows)) = study.run(progress, group)? else { return Ok(()) };
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "summary": summary, "rows": rows }))?;
    } else {
        write!(out, "{}", tables::text(&summary, &rows))?;
    }
    progress.line(&format!("report: `{}`", args.output.join("report.html").display()));
    Ok(())
}

/// Name of the distance, with the filter that brings images to the net's size.
fn distance_name(features: &FeaturesArgs) -> Result<String> {
    let title = features.kind().title();
    Ok(features.resize()?.map_or(title.clone(), |how| format!("{title}, resize: {how}")))
}

/// Refuses images that the net does not draw, or the features are not for.
fn check(args: &Args, config: &UNetConfig, real: &Images) -> Result<()> {
    let shape = [real.channels, real.height, real.width];
    check_images(&args.net.path, config, args.data, shape)?;
    if args.features.kind() == Features::LeNet && shape != [1, lenet::SIDE, lenet::SIDE] {
        bail!(
            "--data {}: its images are {shape:?}, the built-in features are for [1, 28, 28]; give \
             Inception's --weights FILE",
            args.data
        );
    }
    Ok(())
}

/// Statistics of the training half: the built-in ones where no folder is given, or where MNIST lies
/// in it. Adds what it finds in the folder to `found`.
fn reference(
    args: &Args,
    features: &NamedFeatureNet,
    progress: Reporter,
    group: &dyn ProcessGroup,
    found: &mut Vec<String>,
) -> Result<Reference> {
    let built_in = args.features.are_built_in() && args.data == Dataset::Mnist;
    let Some(dir) = &args.data_path else {
        ensure!(built_in, "--data {}: needs --data-path DIR", args.data);
        return Reference::built_in();
    };
    let set: Box<dyn ImageSet> = if built_in {
        let images = args.data.load(dir, Split::Train)?;
        if embedded::is_mnist_train(&images)? {
            return Reference::built_in();
        }
        Box::new(images)
    } else {
        args.data.open(dir, Split::Train, &args.data.folder_options())?
    };
    let name = format!("{}:{}", args.data, Split::Train);
    found.push(images::summary(&*set, &name));
    let bar = progress.bar("training half", set.len() as u64, "img");
    let read = |range| Ok(vec![Images::read(&*set, range)?]);
    Ok(Reference {
        statistics: features.statistics(group, set.len(), read, &bar, |_| Ok(()))?,
        name: format!("the {} images of {} train in `{}`", set.len(), args.data, dir.display()),
        images: fingerprint::of_images(&*set, set.len(), |_| {})?,
    })
}
