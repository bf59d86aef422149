//! `--resume` and `--eval_only`: the file that a run begins with, and what it must have in common with
//! the command line.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fm_candle::checkpoint::{Catalogue, Source, identify, order};
use fm_candle::data::ImageSet;
use fm_candle::device::Device;
use fm_candle::model::{UNetConfig, config};
use fm_candle::train::{TrainConfig, TrainProgress, Trainer};

use super::args::{Args, RUN};
use crate::args::weights::config_named;
use crate::images::named;

/// The saved run to go on with; a folder that holds one is never started over by mistake.
pub(super) fn path(args: &Args) -> Result<Option<PathBuf>> {
    let own = args.output_dir.join(RUN);
    match args.resume.as_str() {
        "" if args.eval_only => {
            bail!("--eval_only needs the run to evaluate: --resume PATH or auto")
        }
        "" if own.exists() => bail!(
            "`{}` is a saved run: go on with --resume auto, or choose another --output_dir",
            own.display()
        ),
        "auto" if own.exists() => Ok(Some(own)),
        "auto" if args.eval_only => bail!("`{}`: no such run to evaluate", own.display()),
        "" | "auto" => Ok(None),
        path if Path::new(path).is_file() => Ok(Some(path.into())),
        path if Path::new(path).is_dir() => {
            bail!("--resume `{path}`: is a folder; name a checkpoint, as `{RUN}`, in it")
        }
        path if path.contains("://") => {
            bail!("--resume `{path}`: is an address; download the file and name it")
        }
        path => bail!("--resume `{path}`: no such file"),
    }
}

/// The net of `--arch`, else of the data set; to evaluate a file the one that it says or fits.
pub(super) fn arch(args: &Args, saved: Option<&Path>) -> Result<UNetConfig> {
    let set = args.dataset.name();
    let path = match (saved, &args.arch) {
        (Some(path), None) if args.eval_only => path,
        (_, arch) => return config_named(arch.as_deref().unwrap_or(set)),
    };
    let find = || -> fm_candle::Result<UNetConfig> {
        let source = Source::open(path, false)?;
        if let Some(json) = source.net() {
            return config::from_json(json);
        }
        let preset = UNetConfig::preset(set)?;
        if order(&preset, source.tensors()).is_ok() {
            Ok(preset)
        } else {
            identify(source.tensors())
        }
    };
    find().map_err(|error| named(&path.to_string_lossy(), error.into()).context("--resume"))
}

/// The run in the file at `path`, to go on with or to evaluate; what is to be told of it.
pub(super) fn take_up(
    path: &Path,
    args: &Args,
    arch: &UNetConfig,
    config: &TrainConfig,
    data: &dyn ImageSet,
    device: &Device,
) -> Result<(Trainer, Vec<String>)> {
    if args.eval_only {
        let trainer = Trainer::evaluating(path, arch, config, device)?;
        let epochs = trainer.progress().epoch;
        return Ok((trainer, vec![format!("evaluates the weights after {epochs} epochs")]));
    }
    check_dataset(path, args)?;
    let trainer = Trainer::resume(path, arch, config, device)?;
    let TrainProgress { epoch, batch, .. } = trainer.progress();
    let batches = config.batches(data.len())?;
    if batch > batches {
        bail!(
            "was saved after batch {batch} of an epoch, which has only {batches} in the {} images of \
             --data_path; give those that the run was started with",
            data.len()
        );
    }
    if (epoch, batch) > (args.epochs, 0) {
        bail!("--epochs {}: the run is at epoch {epoch}, batch {batch}; give more", args.epochs);
    }
    let lines = told(&trainer, args);
    Ok((trainer, lines))
}

/// The facts about the weights (data set, epochs, loss, FID) in the metadata of the checkpoint at `path`.
pub(super) fn catalogue(path: &Path) -> Result<Catalogue> {
    Ok(Catalogue::of(Source::open(path, false)?.metadata()))
}

/// Refuses to go on with a run of ours on another data set; upstream's own runs call every folder
/// `imagenet`.
fn check_dataset(path: &Path, args: &Args) -> Result<()> {
    let Some((file, rest)) = Source::open_training(path)? else { return Ok(()) };
    match rest["args"]["dataset"].as_str() {
        Some(had) if had != args.dataset.name() && !file.metadata().is_empty() => bail!(
            "--dataset {}, but the run was started with --dataset {had}; a new run may start from its \
             weights alone, in a model.safetensors",
            args.dataset
        ),
        _ => Ok(()),
    }
}

/// The lines that say where a run goes on, and which of its own settings stand against the command
/// line's.
fn told(trainer: &Trainer, args: &Args) -> Vec<String> {
    let (at, schedule) = (trainer.progress(), trainer.schedule());
    if at == TrainProgress::default() {
        return vec!["the file holds weights alone: a new run starts from them".into()];
    }
    let mut lines = vec![format!("resumed at epoch {}, batch {}", at.epoch, at.batch)];
    if at.epoch == args.epochs {
        lines.push(format!("the run has its {} epochs: there is nothing to train", args.epochs));
    }
    if schedule.falls() && schedule.total() != args.epochs {
        lines.push(format!(
            "note: the learning rate falls over {} epochs, as the run was started, and stays at {:.1e} \
             from then on",
            schedule.total(),
            schedule.lr(u64::MAX)
        ));
    }
    let (beta1, beta2) = trainer.optimizer().config().betas;
    let asked = (args.lr, args.decay_lr, &args.optimizer_betas[..]);
    if asked != (schedule.initial, schedule.falls(), &[beta1, beta2][..]) {
        let decay = if schedule.falls() { " --decay_lr" } else { "" };
        lines.push(format!(
            "note: the checkpoint's optimizer goes on as it was, as upstream's does: \
             --lr {}{decay} --optimizer_betas {beta1} {beta2}",
            schedule.initial
        ));
    }
    lines
}
