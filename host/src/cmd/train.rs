//! `fmq train`: upstream's `train.py`, its flags and its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::folder::FolderOptions;
use fm_candle::data::{Dataset, ImageSet, Split};
use fm_candle::device::{self, Device};
use fm_candle::model::UNetConfig;
use fm_candle::sample::{Sampler, batch_size};
use fm_candle::solver::Method;
use fm_candle::train::{Precision, Ranks, TrainConfig, Trainer};

use crate::cli::{self, Common};
use crate::cmd::launcher::Launcher;
use crate::cmd::ode::OdeOptions;
use crate::cmd::{images, net};
use crate::progress::Progress;
use fid::Fid;
use journal::Journal;
use run::Run;
use serde_json::{Map, Value};
use signals::Signals;

mod fid;
mod journal;
mod namespace;
mod ranks;
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
    /// JSON: step_size; nfe with --edm_schedule; the solver's own, as `fmq sample` knows them
    #[arg(long = "ode_options", alias = "ode-options", default_value = r#"{"step_size": 0.01}"#)]
    ode_options: OdeOptions,
    /// Guidance of the snapshots
    #[arg(long = "cfg_scale", alias = "cfg-scale", default_value_t = 0.2)]
    cfg_scale: f64,
    /// Go on from a checkpoint, ours or upstream's (checkpoint.pth, checkpoint-N.pth), or with
    /// "auto" from the one in --output_dir; from a file with weights alone, start from them
    #[arg(long, default_value = "")]
    resume: String,
    /// Epochs between evaluations and checkpoints
    #[arg(long = "eval_frequency", alias = "eval-frequency", default_value_t = 50)]
    eval_frequency: u64,
    /// Train and evaluate on one batch
    #[arg(long = "test_run", alias = "test-run")]
    test_run: bool,
    /// Only evaluate the saved run of --resume: write its weights and a snapshot
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
    check_flags(args, progress)?;
    let dataset = args.dataset;
    let mut arch = net::named(args.arch.as_deref().unwrap_or(dataset.name()))?;
    let config = TrainConfig {
        batch_size: args.batch_size,
        epochs: args.epochs,
        accum_iter: args.accum_iter,
        lr: args.lr,
        optimizer_betas: (args.optimizer_betas[0], args.optimizer_betas[1]),
        decay_lr: args.decay_lr,
        class_drop_prob: args.class_drop_prob,
        skewed_timesteps: args.skewed_timesteps,
        use_ema: args.use_ema,
        seed: common.seed,
        flip: !args.no_flip,
        precision: precision(args, &device)?,
        recompute: args.gradient_checkpointing,
        world_size: rank.size,
    };
    config.check()?;
    let sampler = sampler(args, &device)?;
    let fid = Fid::open(args, &device)?;
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
    progress.line(&images::summary(&*data, &format!("{dataset}:{}", Split::Train)));
    arch.image_size = i64::try_from(data.shape()[1])?;
    if config.flip && matches!(dataset, Dataset::Mnist | Dataset::FashionMnist) {
        progress.line(
            "warning: images are flipped left to right, as upstream does; digits want --no-flip",
        );
    }
    let saved = resume_path(args)?;
    let trainer = match &saved {
        Some(path) => {
            let trainer = Trainer::resume(path, &arch, &config, &device)
                .with_context(|| format!("--resume `{}`", path.display()))?;
            tell_resumed(&trainer, args, progress);
            trainer
        }
        None => Trainer::new(&arch, &config, &device)?,
    };
    let trainer = trainer.with_ranks(Arc::clone(ranks))?;
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

/// Refuses what cannot be done, before any work, and names what is ignored.
fn check_flags(args: &Args, progress: Progress) -> Result<()> {
    if args.discrete_flow_matching {
        let error = clap::Error::raw(
            clap::error::ErrorKind::ArgumentConflict,
            "--discrete_flow_matching is not supported: fmq trains continuous flows\n",
        );
        error.exit();
    }
    if args.eval_only && args.resume.is_empty() {
        bail!("--eval_only needs the run to evaluate: --resume PATH or auto");
    }
    if args.start_epoch.is_some_and(|epoch| epoch != 0) {
        bail!("--start_epoch: a run taken up with --resume knows its own epoch; leave it out");
    }
    let ignored = args.launcher.given();
    if !ignored.is_empty() {
        progress.line(&format!("warning: ignored here: --{}", ignored.join(", --")));
    }
    Ok(())
}

/// Says where a run goes on, and which of its own settings stand against the command line's.
fn tell_resumed(trainer: &Trainer, args: &Args, progress: Progress) {
    let (at, schedule) = (trainer.progress(), trainer.schedule());
    progress.line(&format!("resumed at epoch {}, batch {}", at.epoch, at.batch));
    let (beta1, beta2) = trainer.optimizer().config().betas;
    let asked = (args.lr, args.decay_lr, &args.optimizer_betas[..]);
    if asked != (schedule.initial, schedule.falls(), &[beta1, beta2][..]) {
        let decay = if schedule.falls() { " --decay_lr" } else { "" };
        progress.line(&format!(
            "note: the checkpoint's optimizer goes on as it was, as upstream's does: \
             --lr {}{decay} --optimizer_betas {beta1} {beta2}",
            schedule.initial
        ));
    }
}

fn sampler(args: &Args, device: &Device) -> Result<Sampler> {
    let method = args.ode_method;
    let (grid, options) = args.ode_options.steps(method, args.edm_schedule, 0.01)?;
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
    let (size, n) = (config.world_size, data.len());
    if n.div_ceil(size) < args.batch_size {
        bail!(
            "--batch_size {}: the data set has only {n} images for {size} process(es)",
            args.batch_size
        );
    }
    Ok(())
}

/// Whether a set without classes of its own has this net, which knows some: that of CelebA is
/// upstream's of ImageNet, as the paper takes it, and learns its row for images without a label.
fn is_own_net(net: &UNetConfig, set: Dataset) -> bool {
    set.classes() == 0 && UNetConfig::preset(set.name()).is_ok_and(|own| own == *net)
}

/// The saved run to go on with; a folder that holds one is never started over by mistake.
fn resume_path(args: &Args) -> Result<Option<PathBuf>> {
    let own = args.output_dir.join(RUN);
    match args.resume.as_str() {
        "" if own.exists() => bail!(
            "`{}` is a saved run: go on with --resume auto, or choose another --output_dir",
            own.display()
        ),
        "auto" if own.exists() => Ok(Some(own)),
        "auto" if args.eval_only => bail!("`{}`: no such run to evaluate", own.display()),
        "" | "auto" => Ok(None),
        path if Path::new(path).is_file() => Ok(Some(path.into())),
        path => bail!("--resume `{path}`: no such file"),
    }
}
