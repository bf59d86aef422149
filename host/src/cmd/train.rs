//! `fmq train`: upstream's `train.py`, its flags and its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::folder::FolderOptions;
use fm_candle::data::{Dataset, ImageSet, Split};
use fm_candle::device::{self, Device};
use fm_candle::model::UNetConfig;
use fm_candle::sample::{Sampler, batch_size};
use fm_candle::solver::Method;
use fm_candle::train::{Precision, Rank, Ranks, TrainConfig, Trainer};

use crate::cli::{self, Common};
use crate::cmd::folder;
use crate::cmd::images;
use crate::cmd::images::named;
use crate::cmd::launcher::Launcher;
use crate::cmd::ode::{OdeOptions, Steps};
use crate::cmd::sample::finite;
use fid::Fid;
use journal::Journal;
use run::Run;
use serde_json::{Map, Value};
use signals::Signals;

mod fid;
mod journal;
mod namespace;
mod ranks;
mod resume;
mod run;
mod signals;

/// Train a flow-matching U-Net (upstream's flags, in snake_case or kebab-case)
#[derive(clap::Args, Clone)]
#[command(args_override_self = true)]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches, one to one")]
pub(crate) struct Args {
    /// Images per batch
    #[arg(long = "batch_size", alias = "batch-size", default_value_t = 32)]
    batch_size: usize,
    /// Passes over the data
    #[arg(long, default_value_t = 921)]
    epochs: u64,
    /// Batches per update
    #[arg(long = "accum_iter", alias = "accum-iter", default_value_t = 1)]
    accum_iter: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-4)]
    lr: f64,
    /// AdamW's two decays
    #[arg(long = "optimizer_betas", alias = "optimizer-betas", num_args = 2, default_values_t = [0.9, 0.95])]
    optimizer_betas: Vec<f64>,
    /// Let the learning rate fall linearly to 1e-8
    #[arg(long = "decay_lr", alias = "decay-lr")]
    decay_lr: bool,
    /// Probability that a batch is trained without labels
    #[arg(long = "class_drop_prob", alias = "class-drop-prob", default_value_t = 0.2)]
    class_drop_prob: f64,
    /// Draw times from the skewed distribution
    #[arg(long = "skewed_timesteps", alias = "skewed-timesteps")]
    skewed_timesteps: bool,
    /// Sample on the EDM time grid (nfe in --ode_options)
    #[arg(long = "edm_schedule", alias = "edm-schedule")]
    edm_schedule: bool,
    /// Keep a moving average of the weights and evaluate with it
    #[arg(long = "use_ema", alias = "use-ema")]
    use_ema: bool,
    /// imagenet, cifar10, celeba, mnist or fashionmnist; imagenet is any folder of class folders,
    /// celeba any folder of images
    #[arg(long, default_value_t = Dataset::ImageNet)]
    dataset: Dataset,
    /// Folder of the data set
    #[arg(long = "data_path", alias = "data-path", default_value = "./data/image_generation")]
    data_path: PathBuf,
    /// Folder for everything written
    #[arg(long = "output_dir", alias = "output-dir", default_value = "./output_dir")]
    output_dir: PathBuf,
    /// Solver of the snapshots, as `fmq sample` knows them
    #[arg(long = "ode_method", alias = "ode-method", default_value_t = Method::Midpoint)]
    ode_method: Method,
    #[command(flatten)]
    count: Steps,
    /// JSON: step_size; nfe with --edm_schedule; the solver's own, as `fmq sample` knows them
    #[arg(
        long = "ode_options",
        alias = "ode-options",
        default_value = r#"{"step_size": 0.01}"#,
        conflicts_with = "steps"
    )]
    ode_options: OdeOptions,
    /// Guidance of the snapshots
    #[arg(long = "cfg_scale", alias = "cfg-scale", default_value = "0.2", value_parser = finite)]
    cfg_scale: f64,
    /// Go on from a checkpoint, ours or upstream's (checkpoint.pth, checkpoint-N.pth), or with
    /// "auto" from the one in --output_dir; from a file with weights alone, start from them
    #[arg(long, default_value = "")]
    resume: String,
    /// Epochs between evaluations and checkpoints
    #[arg(long = "eval_frequency", alias = "eval-frequency", default_value_t = 50)]
    eval_frequency: u64,
    /// Train on the batches of one update, and evaluate on one batch
    #[arg(long = "test_run", alias = "test-run")]
    test_run: bool,
    /// Only evaluate the file of --resume, with the net and the average that it holds: write these
    /// weights and a snapshot
    #[arg(long = "eval_only", alias = "eval-only")]
    eval_only: bool,
    /// Measure FID against the training set at every evaluation
    #[arg(long = "compute_fid", alias = "compute-fid")]
    compute_fid: bool,
    /// Samples for it, at most one for each training image
    #[arg(long = "fid_samples", alias = "fid-samples", default_value_t = 50_000)]
    fid_samples: usize,
    /// Keep these samples as PNGs in fid_samples/
    #[arg(long = "save_fid_samples", alias = "save-fid-samples")]
    save_fid_samples: bool,
    /// Weights of the Inception network [default: those that `fmq data fetch inception` has put into
    /// --data_path]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Not supported
    #[arg(long = "discrete_flow_matching", alias = "discrete-flow-matching", hide = true)]
    discrete_flow_matching: bool,
    /// First epoch; a resumed run knows its own
    #[arg(long = "start_epoch", alias = "start-epoch", hide = true)]
    start_epoch: Option<u64>,
    #[command(flatten)]
    launcher: Launcher,
    /// The net: a preset or a JSON file with upstream's fields [default: the data set's]
    #[arg(long)]
    arch: Option<String>,
    /// Side to which the images of a folder are resized [default: their own]
    #[arg(long = "image-size", alias = "image_size")]
    image_size: Option<usize>,
    /// Pass over files that are no images, links to nothing and pipes instead of ending with an error
    #[arg(long = "skip-bad", alias = "skip_bad")]
    skip_bad: bool,
    /// Memory for decoded images of a folder, in MiB
    #[arg(long = "cache-mib", alias = "cache_mib", default_value_t = 4096)]
    cache_mib: u64,
    /// Do not flip images left to right
    #[arg(long = "no-flip", alias = "no_flip")]
    no_flip: bool,
    /// What the net computes in; weights and optimizer stay f32
    #[arg(long, default_value = "f32", value_parser = ["f32", "tf32", "bf16", "f16"])]
    precision: String,
    /// Compute each block again when its gradient is due, instead of keeping what it computed
    #[arg(long = "gradient-checkpointing", alias = "gradient_checkpointing")]
    gradient_checkpointing: bool,
    /// Seconds between saves of the run inside an epoch
    #[arg(long = "save-seconds", alias = "save_seconds", default_value_t = 120)]
    save_seconds: u64,
}

/// File names in the output folder.
const RUN: &str = "checkpoint.pth";
const MODEL: &str = "model.safetensors";

pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    let ranks = ranks::join()?;
    let result = run_as(args, common, &ranks);
    if let Err(error) = &result
        && ranks.rank().size > 1
    {
        let line = cli::one_line(error);
        eprintln!("error: process {} of {}: {line}", ranks.rank().index, ranks.rank().size);
        ranks.abort();
    }
    result
}

/// The run of one process among those that train together.
fn run_as(args: &Args, common: &Common, ranks: &Arc<dyn Ranks>) -> Result<()> {
    let rank = ranks.rank();
    let device = common.device_for(ranks::local())?;
    let progress = common.progress_of(rank);
    check_flags(args)?;
    let dataset = args.dataset;
    let config = config(args, common, rank, &device)?;
    let sampler = sampler(args, &device)?;
    let fid = Fid::open(args, &device)?;
    let saved = resume::path(args)?;
    let mut arch = resume::arch(args, saved.as_deref())?;
    let options = FolderOptions {
        image_size: args.image_size,
        skip_bad: args.skip_bad,
        cache_bytes: args.cache_mib.saturating_mul(1 << 20),
        ..dataset.folder_options()
    };
    let data: Arc<dyn ImageSet> = dataset.open(&args.data_path, Split::Train, &options)?.into();
    check_fit(&arch, &*data, &config, args)?;
    if !ranks.agree(&format!("{} images", data.len()))? {
        bail!("--data_path `{}` is not the same for all processes", args.data_path.display());
    }
    let evaluation =
        (args.eval_frequency, args.compute_fid, args.fid_samples, args.test_run, args.eval_only);
    if !ranks.agree(&format!("{evaluation:?}"))? {
        bail!(
            "--eval_frequency, --compute_fid, --fid_samples, --test_run and --eval_only must be the \
             same for all processes"
        );
    }
    arch.image_size = Some(data.shape()[1]);
    let (trainer, told) = match &saved {
        Some(path) => resume::take_up(path, args, &arch, &config, &*data, &device)
            .map_err(|error| named(&path.to_string_lossy(), error).context("--resume"))?,
        None => (Trainer::new(&arch, &config, &device)?, Vec::new()),
    };
    let trainer = trainer.with_ranks(Arc::clone(ranks))?;
    progress.line(&images::summary(&*data, &format!("{dataset}:{}", Split::Train)));
    for line in notes(args, &config, &*data).iter().chain(&told) {
        progress.line(line);
    }
    let namespace = namespace::namespace(args, common, &arch, rank);
    // The first process alone writes.
    let journal =
        if rank.index == 0 { Some(open_folder(args, &trainer, &namespace)?) } else { None };
    let signals = Signals::watch().context("watching for signals")?;
    let mut run = Run {
        args,
        trainer,
        ranks: Arc::clone(ranks),
        data,
        sampler,
        device,
        progress,
        namespace,
        journal,
        signals,
        fid,
        skipped: BTreeSet::new(),
    };
    if args.eval_only { run.evaluate().map(drop) } else { run.train() }
}

/// What the run is asked to do; an evaluation asks nothing of the settings of the training.
fn config(args: &Args, common: &Common, rank: Rank, device: &Device) -> Result<TrainConfig> {
    let of_both = TrainConfig {
        batch_size: args.batch_size,
        seed: common.seed,
        world_size: rank.size,
        ..TrainConfig::default()
    };
    if args.eval_only {
        return Ok(of_both);
    }
    let config = TrainConfig {
        epochs: args.epochs,
        accum_iter: args.accum_iter,
        lr: args.lr,
        optimizer_betas: (args.optimizer_betas[0], args.optimizer_betas[1]),
        decay_lr: args.decay_lr,
        class_drop_prob: args.class_drop_prob,
        skewed_timesteps: args.skewed_timesteps,
        use_ema: args.use_ema,
        flip: !args.no_flip,
        precision: precision(args, device)?,
        recompute: args.gradient_checkpointing,
        ..of_both
    };
    config.check()?;
    Ok(config)
}

/// What is otherwise than one might think, in words.
fn notes(args: &Args, config: &TrainConfig, data: &dyn ImageSet) -> Vec<String> {
    let mut notes = Vec::new();
    let ignored = args.launcher.given();
    if !ignored.is_empty() {
        notes.push(format!("warning: ignored here: --{}", ignored.join(", --")));
    }
    for (flag, given) in
        [("save_fid_samples", args.save_fid_samples), ("weights", args.weights.is_some())]
    {
        if given && !args.compute_fid {
            notes.push(format!("warning: --{flag} has no effect without --compute_fid"));
        }
    }
    if args.eval_only {
        return notes;
    }
    if config.flip && matches!(args.dataset, Dataset::Mnist | Dataset::FashionMnist) {
        notes.push(
            "warning: images are flipped left to right, as upstream does; digits want --no-flip"
                .into(),
        );
    }
    let batches = config.batches(data.len()).unwrap_or(0);
    match batches % config.accum_iter as u64 {
        0 => {}
        rest => notes.push(format!(
            "note: --accum_iter {}: the last {rest} of {batches} batches of an epoch make no update, \
             as upstream's",
            config.accum_iter
        )),
    }
    notes
}

/// The type to compute in, which the CPU has no fast way for but one.
fn precision(args: &Args, device: &Device) -> Result<Precision> {
    let precision = match args.precision.as_str() {
        "bf16" => Precision::Bf16,
        "f16" => Precision::F16,
        _ => Precision::F32,
    };
    if args.precision != "f32" && device.is_cpu() {
        bail!(
            "--precision {}: the CPU trains in f32; all others need --device cuda",
            args.precision
        );
    }
    if args.precision == "tf32" {
        device::allow_tf32();
    }
    Ok(precision)
}

/// Makes the output folder ready for a run, and begins its journal.
fn open_folder(args: &Args, trainer: &Trainer, namespace: &Map<String, Value>) -> Result<Journal> {
    let folder = &args.output_dir;
    fs::create_dir_all(folder.join("snapshots"))
        .with_context(|| format!("creating `{}`", folder.display()))?;
    // An earlier checkpoint may be evaluated without taking back what the run did afterwards.
    let goes_on = (trainer.progress().epoch, trainer.optimizer().updates);
    let journal = Journal::open(folder, (!args.eval_only).then_some(goes_on))?;
    atomic::remove_leftovers(folder)?;
    if !args.eval_only {
        let described = serde_json::to_string_pretty(namespace)?;
        atomic::write(&folder.join("args.json"), described.as_bytes())?;
    }
    Ok(journal)
}

/// Refuses what cannot be done, before any work.
fn check_flags(args: &Args) -> Result<()> {
    if args.discrete_flow_matching {
        let error = clap::Error::raw(
            clap::error::ErrorKind::ArgumentConflict,
            "--discrete_flow_matching is not supported: fmq trains continuous flows\n",
        );
        error.exit();
    }
    if args.start_epoch.is_some_and(|epoch| epoch != 0) {
        bail!("--start_epoch: a run taken up with --resume knows its own epoch; leave it out");
    }
    if args.compute_fid && args.fid_samples < 2 {
        bail!("--fid_samples {}: a covariance needs at least 2", args.fid_samples);
    }
    folder::check_place(&args.output_dir).context("--output_dir")
}

fn sampler(args: &Args, device: &Device) -> Result<Sampler> {
    let method = args.ode_method;
    let (grid, options) = args.ode_options.steps(method, args.edm_schedule, 0.01)?;
    let grid = args.count.grid(method, args.edm_schedule, grid)?;
    Ok(Sampler { method, grid, options, cfg_scale: args.cfg_scale, batch_size: batch_size(device) })
}

/// Refuses a net that cannot take the images, and too few of them.
fn check_fit(
    net: &UNetConfig,
    data: &dyn ImageSet,
    config: &TrainConfig,
    args: &Args,
) -> Result<()> {
    let ([channels, height, width], set) = (data.shape(), args.dataset);
    if net.in_channels != channels || net.out_channels != channels {
        bail!(
            "--dataset {set} has {channels} channel(s), the net has {} in and {} out; choose \
             another --arch",
            net.in_channels,
            net.out_channels
        );
    }
    if let Some(side) = args.image_size.filter(|&side| side != height) {
        bail!("--image-size {side}: the images of {set} have side {height}");
    }
    if height != width {
        bail!("--dataset {set}: images of {height} x {width} are not square");
    }
    match (net.num_classes, data.classes()) {
        (Some(known), 0) if config.class_drop_prob < 1.0 && !is_own_net(net, set) => bail!(
            "--dataset {set}: the images in `{}` have no classes, but the net has {known}; put them \
             into a folder for each class, give an --arch FILE.json with \"num_classes\": null, or \
             train without labels by --class_drop_prob 1",
            args.data_path.display()
        ),
        (Some(known), classes) if known < classes => {
            bail!("--dataset {set} has {classes} classes, the net only {known}")
        }
        _ => {}
    }
    // An evaluation draws as many images as are in a batch, but for a test run of none from the set.
    if !args.eval_only || args.test_run {
        config.batches(data.len())?;
    }
    Ok(())
}

/// Whether a set without classes of its own has this net, which knows some: that of CelebA is
/// upstream's of ImageNet, as the paper takes it, and learns its row for images without a label.
fn is_own_net(net: &UNetConfig, set: Dataset) -> bool {
    set.classes() == 0 && UNetConfig::preset(set.name()).is_ok_and(|own| own == *net)
}
