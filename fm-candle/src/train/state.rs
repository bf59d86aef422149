//! Saving a run and taking it up again exactly where it stood.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::layout::{CheckpointHeader, FoundCheckpoint, finished};
use super::{AdamMoments, TrainConfig, TrainProgress, Trainer};
use crate::checkpoint::torch::save_object;
use crate::checkpoint::{Catalogue, NET_KEY, Source};
use crate::error::{Error, Result};
use crate::model::{UNetConfig, config};

/// Metadata key of the settings, JSON of [`TrainConfig`].
const CONFIG_KEY: &str = "fmq.train.config";
/// Metadata key of the position, JSON of [`TrainProgress`].
const PROGRESS_KEY: &str = "fmq.train.progress";

impl Trainer {
    /// Writes the run as a checkpoint of upstream's layout, which upstream's loader reads, with our
    /// own keys for an exact resume; `args` is the command line that it keeps.
    ///
    /// # Errors
    /// A file that cannot be written; or a call between two updates of a run with accumulation.
    pub fn save(&self, path: &Path, args: &Map<String, Json>) -> Result<()> {
        if self.regression.pending.iter().any(Option::is_some) {
            return Err(Error::Config("a run can only be saved after an update".into()));
        }
        let (adam, ema) = (&self.optimizer, self.config.use_ema);
        let json = |value| serde_json::to_string(value).unwrap_or_default();
        let progress = serde_json::to_string(&self.progress).unwrap_or_default();
        let mut metadata = vec![
            (NET_KEY, config::to_json(self.regression.net.config())),
            (CONFIG_KEY, json(&self.config)),
            (PROGRESS_KEY, progress),
        ];
        metadata.extend(self.catalogue(args.get("dataset").and_then(Json::as_str)).metadata());
        let layout = CheckpointHeader {
            parameters: self
                .regression
                .vars
                .iter()
                .map(|(name, var)| (&**name, var.dims()))
                .collect(),
            ema,
            moments: adam.updates > 0,
            adam: adam.config(),
            schedule: &self.schedule,
            scaler: &self.scaler,
            epochs: self.progress.epoch,
            args,
            metadata: &metadata,
        };
        let averaged = adam.averaged.cast_signed().to_le_bytes().to_vec();
        let weights = self.regression.vars.iter().map(|(_, var)| {
            let values = var.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            Ok(bytes(&values))
        });
        let shadows = adam.moments().filter(|_| ema).map(|state| Ok(bytes(&state?.average)));
        #[expect(clippy::cast_precision_loss, reason = "torch counts in f32")]
        let step = adam.updates as f32;
        let moments = adam.moments().filter(|_| layout.moments).flat_map(|state| {
            let state = state.map(|state| {
                [&[step][..], &state.mean, &state.square].map(|values| Ok(bytes(values)))
            });
            state.unwrap_or_else(|error| [Err(error), Ok(Vec::new()), Ok(Vec::new())])
        });
        let counter = ema.then_some(Ok(averaged));
        save_object(
            path,
            &layout.object(),
            counter.into_iter().chain(weights).chain(shadows).chain(moments),
        )
    }

    /// The facts about the weights as they are now, trained on the set of this name.
    pub fn catalogue(&self, dataset: Option<&str>) -> Catalogue {
        Catalogue {
            dataset: dataset.map(Into::into),
            epochs: Some(self.progress.epoch),
            loss: self.progress.loss,
            ..Catalogue::default()
        }
    }

    /// A run as it stands in the checkpoint at `path`, to go on under `config`: one of our own
    /// exactly where it stood, one of upstream after its last epoch, and from a file with weights
    /// alone at the start. As upstream's loader does, it takes AdamW's settings and the schedule
    /// from the checkpoint.
    ///
    /// # Errors
    /// A file that is no checkpoint of this net; one with an average where none is to be kept, or
    /// without; one of our own of other settings that a run keeps, or inside an epoch of
    /// batches of another size over all processes.
    pub fn resume(
        path: &Path,
        arch: &UNetConfig,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut run = Self::new(arch, config, device)?;
        let Some(found) = FoundCheckpoint::open(path)? else {
            let weights = Source::open(path, false)?;
            check_net(path, &weights, arch, &["dropout", "image_size"])?;
            run.set_weights(&weights.load()?.tensors)?;
            return Ok(run);
        };
        check_net(path, &found.weights, arch, &[])?;
        run.progress = progress(path, &found, config)?;
        match (&found.average, config.use_ema) {
            (Some(_), false) => return Err(Error::file(path, "keeps an average; add --use_ema")),
            (None, true) => return Err(Error::file(path, "keeps no average; leave out --use_ema")),
            _ => {}
        }
        run.set_weights(&found.weights.load()?.tensors)?;
        let average = found.average.as_ref().map(|(average, _)| average.load()).transpose()?;
        let average: HashMap<_, _> = average.map(|a| a.tensors).into_iter().flatten().collect();
        for (index, (name, var)) in run.regression.vars.iter().enumerate() {
            let len = var.elem_count();
            let moment = |kind| -> Result<Vec<f32>> {
                Ok(found.moment(index, kind, len)?.unwrap_or_else(|| vec![0.0; len]))
            };
            let average = match average.get(name) {
                Some(average) => average.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
                None => Vec::new(),
            };
            let (mean, square) = (moment("exp_avg")?, moment("exp_avg_sq")?);
            run.optimizer.set_moments(index, AdamMoments { mean, square, average }, var)?;
        }
        run.optimizer.take_up(&found.adam);
        run.optimizer.updates = found.updates;
        run.optimizer.averaged = found.average.map_or(0, |(_, updates)| updates);
        run.schedule = found.schedule;
        run.scaler = found.scaler;
        Ok(run)
    }

    /// The weights to evaluate of any file, the average where it keeps one, with the place in the run
    /// that the file says. Of `config` the seed and the number of processes count: nothing is asked of
    /// the settings that the weights were trained with, nor of the optimizer.
    ///
    /// # Errors
    /// A file without the weights of this net.
    pub fn evaluating(
        path: &Path,
        arch: &UNetConfig,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self> {
        let config = TrainConfig { use_ema: false, ..config.clone() };
        let mut run = Self::new(arch, &config, device)?;
        let weights = Source::open(path, false)?;
        check_net(path, &weights, arch, &["dropout"])?;
        run.set_weights(&weights.load()?.tensors)?;
        // An optimizer that could not go on counts no updates.
        run.optimizer.updates =
            FoundCheckpoint::open(path).ok().flatten().map_or(0, |found| found.updates);
        run.progress = entry(path, &weights, PROGRESS_KEY)?.unwrap_or_else(|| {
            let rest = Source::open_training(path).ok().flatten().map(|(_, rest)| rest);
            let epoch = rest.as_ref().and_then(finished).unwrap_or(0);
            TrainProgress { epoch, batches: run.optimizer.updates, ..TrainProgress::default() }
        });
        Ok(run)
    }
}

/// Refuses another net than the one that the file says, if it says one; `free` are fields that may be
/// others.
fn check_net(path: &Path, file: &Source, asked: &UNetConfig, free: &[&str]) -> Result<()> {
    let Some(net) = file.net() else { return Ok(()) };
    let had = config::from_json(net)?;
    let known = had.image_size.is_some();
    let map = |config: &UNetConfig| json_map(serde_json::to_value(config).ok());
    let (asked, had) = (map(asked), map(&had));
    for key in asked.keys().chain(had.keys()) {
        let field = |map: &Map<String, Json>| map.get(key).map_or("none".into(), Json::to_string);
        let (asked, had) = (field(&asked), field(&had));
        let counts = match key.as_str() {
            "use_checkpoint" => false,
            "image_size" if !known => false,
            key => !free.contains(&key),
        };
        if counts && asked != had {
            return Err(Error::file(
                path,
                match key.as_str() {
                    "image_size" => format!(
                        "images of side {asked} (--dataset, --image-size), but the file's net is of \
                         side {had}"
                    ),
                    key => format!("--arch: {key} {asked}, but the file's net has {key} {had}"),
                },
            ));
        }
    }
    Ok(())
}

/// The JSON value of a file of our own under `key`.
fn entry<T: DeserializeOwned>(path: &Path, file: &Source, key: &str) -> Result<Option<T>> {
    let entry = file.metadata().iter().find(|(k, _)| k == key);
    let read = entry.map(|(_, json)| serde_json::from_str(json)).transpose();
    read.map_err(|error| Error::file(path, format!("{key}: {error}")))
}

/// The progress of the run in a checkpoint.
fn progress(path: &Path, found: &FoundCheckpoint, config: &TrainConfig) -> Result<TrainProgress> {
    let saved: Option<TrainConfig> = entry(path, &found.weights, CONFIG_KEY)?;
    let progress: Option<TrainProgress> = entry(path, &found.weights, PROGRESS_KEY)?;
    let (Some(saved), Some(mut progress)) = (saved, progress) else {
        let (epoch, batches) = (found.epochs, found.updates * config.accum_iter as u64);
        let examples = batches * config.global_batch();
        return Ok(TrainProgress { epoch, batches, examples, ..TrainProgress::default() });
    };
    let differences = differences(config, &saved);
    if !differences.is_empty() {
        return Err(Error::file(path, differences.join("; ")));
    }
    if progress.batch > 0 && saved.global_batch() != config.global_batch() {
        let alone = config.world_size == saved.world_size;
        let of = |config: &TrainConfig| match config.world_size {
            _ if alone => format!("--batch_size {}", config.batch_size),
            1 => format!("--batch_size {} in 1 process", config.batch_size),
            size => format!("--batch_size {} in {size} processes", config.batch_size),
        };
        return Err(Error::file(
            path,
            format!(
                "{}, but the run was started with {} and saved after batch {} of an epoch, to whose \
                 end batches of {} images are needed",
                of(config),
                of(&saved),
                progress.batch,
                saved.global_batch(),
            ),
        ));
    }
    if progress.examples == 0 {
        // A run of one process, before the images were counted.
        progress.examples = progress.batches * saved.global_batch();
    }
    Ok(progress)
}

/// The settings that a run keeps to its end and that are others in `asked`, each as the command line
/// has it.
///
/// Free are `epochs`, `recompute`, what AdamW and the schedule take from the checkpoint, and between
/// epochs the size of batches.
fn differences(asked: &TrainConfig, had: &TrainConfig) -> Vec<String> {
    const FREE: [&str; 7] =
        ["epochs", "lr", "optimizer_betas", "decay_lr", "recompute", "batch_size", "world_size"];
    let map = |config| json_map(serde_json::to_value(config).ok());
    let (asked, had) = (map(asked), map(had));
    let differ = asked
        .iter()
        .filter(|(key, value)| !FREE.contains(&key.as_str()) && had.get(*key) != Some(*value));
    differ
        .map(|(key, value)| {
            let had = had.get(key).unwrap_or(&Json::Null);
            // `flip` is the command line's `--no-flip`.
            match (key.as_str(), value) {
                ("flip", Json::Bool(flip)) => switch("no-flip", !flip),
                (key, Json::Bool(on)) => switch(key, *on),
                (key, value) => {
                    let text = |value: &Json| value.to_string().replace('"', "");
                    let (value, had) = (text(value), text(had));
                    format!("--{key} {value}, but the run was started with --{key} {had}")
                }
            }
        })
        .collect()
}

/// A switch that a run was started without, or with.
fn switch(name: &str, asked: bool) -> String {
    if asked {
        format!("--{name}, but the run was started without --{name}")
    } else {
        format!("no --{name}, but the run was started with --{name}")
    }
}

fn json_map(value: Option<Json>) -> Map<String, Json> {
    match value {
        Some(Json::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Little-endian.
fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
