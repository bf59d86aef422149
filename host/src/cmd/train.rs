//! `fmq train`: upstream's `train.py`, its flags and its files.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::folder::FolderOptions;
use fm_candle::data::{Dataset, ImageSet, Split};
use fm_candle::device::{self, Device};
use fm_candle::model::UNetConfig;
use fm_candle::process_group::{ProcessGroup, Rank};
use fm_candle::sample::BatchSampler;
use fm_candle::train::{TrainConfig, TrainPrecision, Trainer};
use serde_json::{Map, Value};

use crate::args::common::Common;
use crate::images;
use crate::images::named;
use crate::output::folder;
mod args;
mod fid;
mod journal;
mod launcher;
mod namespace;
mod resume;
mod run;
mod setup;

pub(crate) use self::args::Args;
use self::fid::Fid;
use self::journal::Journal;
use self::run::TrainRun;
use self::setup::Setup;
use crate::processes;
use crate::signals::Signals;

/// The run of one process among those that train together.
pub(crate) fn run(args: &Args, common: &Common, group: &Arc<dyn ProcessGroup>) -> Result<()> {
    let rank = group.rank();
    let device = common.device_for(processes::local())?;
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
    if !group.all_equal(&format!("{} images", data.len()))? {
        bail!("--data_path `{}` is not the same for all processes", args.data_path.display());
    }
    let evaluation =
        (args.eval_frequency, args.compute_fid, args.fid_samples, args.test_run, args.eval_only);
    if !group.all_equal(&format!("{evaluation:?}"))? {
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
    let trainer = trainer.with_group(Arc::clone(group))?;
    progress.line(&images::summary(&*data, &format!("{dataset}:{}", Split::Train)));
    for line in notes(args, &config, &*data).iter().chain(&told) {
        progress.line(line);
    }
    let namespace = namespace::namespace(args, common, &arch, rank);
    // The first process alone writes.
    let journal =
        if rank.index == 0 { Some(open_folder(args, &trainer, &namespace)?) } else { None };
    let signals = Signals::watch().context("watching for signals")?;
    let setup = Setup {
        args,
        seed: trainer.config().seed,
        group: Arc::clone(group),
        data,
        sampler,
        device,
        progress,
        signals,
    };
    let evaluated = saved.filter(|_| args.eval_only).map(|path| resume::catalogue(&path));
    let (evaluated, skipped) = (evaluated.transpose()?, BTreeSet::new());
    let mut run = TrainRun { setup, trainer, namespace, journal, fid, evaluated, skipped };
    if args.eval_only { run.evaluate().map(drop) } else { run.train() }
}

/// The settings of the run; an evaluation ignores the settings of the training.
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

/// Notes on settings with an unexpected effect, in words.
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
fn precision(args: &Args, device: &Device) -> Result<TrainPrecision> {
    let precision = match args.precision.as_str() {
        "bf16" => TrainPrecision::Bf16,
        "f16" => TrainPrecision::F16,
        _ => TrainPrecision::F32,
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
        bail!("--fid_samples {}: must be at least 2, for a covariance", args.fid_samples);
    }
    folder::check_place(&args.output_dir).context("--output_dir")
}

fn sampler(args: &Args, device: &Device) -> Result<BatchSampler> {
    let method = args.ode_method;
    let (grid, options) = args.ode_options.steps(method, args.edm_schedule, 0.01)?;
    let grid = args.count.grid(method, args.edm_schedule, grid)?;
    let cfg_scale = args.cfg_scale;
    Ok(BatchSampler { options, cfg_scale, ..BatchSampler::new(method, grid, device) })
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

/// Returns true if the net is that of a set without classes of its own although it knows some: that
/// of CelebA is upstream's of ImageNet, as the paper takes it, and learns its row for images
/// without a label.
fn is_own_net(net: &UNetConfig, set: Dataset) -> bool {
    set.classes() == 0 && UNetConfig::preset(set.name()).is_ok_and(|own| own == *net)
}
