//! Saving a run and taking it up again exactly where it stood.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device};
use serde_json::{Map, Value as Json};

use super::layout::{Found, Layout};
use super::{Moments, Progress, TrainConfig, Trainer};
use crate::checkpoint::torch::save_object;
use crate::checkpoint::{NET_KEY, Source};
use crate::error::{Error, Result};
use crate::model::{UNetConfig, config};

/// Metadata key of the settings, JSON of [`TrainConfig`].
const CONFIG_KEY: &str = "fmq.train.config";
/// Metadata key of the position, JSON of [`Progress`].
const PROGRESS_KEY: &str = "fmq.train.progress";

impl Trainer {
    /// Writes the run as a checkpoint of upstream's layout, which upstream's loader reads, with our
    /// own keys for an exact resume; `args` is the command line that it keeps.
    ///
    /// # Errors
    /// A file that cannot be written; or a call between two updates of a run with accumulation.
    pub fn save(&self, path: &Path, args: &Map<String, Json>) -> Result<()> {
        if self.pending.iter().any(Option::is_some) {
            return Err(Error::Config("a run can only be saved after an update".into()));
        }
        let (adam, ema) = (&self.optimizer, self.config.use_ema);
        let json = |value| serde_json::to_string(value).unwrap_or_default();
        let progress = serde_json::to_string(&self.progress).unwrap_or_default();
        let metadata = [
            (NET_KEY, config::to_json(self.net.config())),
            (CONFIG_KEY, json(&self.config)),
            (PROGRESS_KEY, progress),
        ];
        let layout = Layout {
            parameters: self.vars.iter().map(|(name, var)| (&**name, var.dims())).collect(),
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
        let weights = self.vars.iter().map(|(_, var)| {
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

    /// A run as it stands in the checkpoint at `path`, to go on under `config`: one of our own
    /// exactly where it stood, one of upstream behind its last epoch, and from a file with weights
    /// alone at the start. As upstream's loader does, it takes AdamW's settings and the schedule
    /// from the checkpoint.
    ///
    /// # Errors
    /// A file that is no checkpoint of this net; one with an average where none is to be kept, or
    /// without; one of our own of other settings than epochs, learning rate and decays, or inside an
    /// epoch of batches of another size over all processes.
    pub fn resume(
        path: &Path,
        arch: &UNetConfig,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut run = Self::new(arch, config, device)?;
        let Some(found) = Found::open(path)? else {
            run.set_weights(&Source::open(path, false)?.load()?.tensors)?;
            return Ok(run);
        };
        match (&found.average, config.use_ema) {
            (Some(_), false) => return Err(Error::file(path, "keeps an average; add --use_ema")),
            (None, true) => return Err(Error::file(path, "keeps no average; leave out --use_ema")),
            _ => {}
        }
        run.progress = progress(path, &found, arch, config)?;
        run.set_weights(&found.weights.load()?.tensors)?;
        let average = found.average.as_ref().map(|(average, _)| average.load()).transpose()?;
        let average: HashMap<_, _> = average.map(|a| a.tensors).into_iter().flatten().collect();
        for (index, (name, var)) in run.vars.iter().enumerate() {
            let len = var.elem_count();
            let moment = |kind| -> Result<Vec<f32>> {
                Ok(found.moment(index, kind, len)?.unwrap_or_else(|| vec![0.0; len]))
            };
            let average = match average.get(name) {
                Some(average) => average.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
                None => Vec::new(),
            };
            let (mean, square) = (moment("exp_avg")?, moment("exp_avg_sq")?);
            run.optimizer.set_moments(index, Moments { mean, square, average }, var)?;
        }
        run.optimizer.take_up(&found.adam);
        run.optimizer.updates = found.updates;
        run.optimizer.averaged = found.average.map_or(0, |(_, updates)| updates);
        run.schedule = found.schedule;
        run.scaler = found.scaler;
        Ok(run)
    }
}

/// Where the run in a checkpoint stands.
fn progress(
    path: &Path,
    found: &Found,
    arch: &UNetConfig,
    config: &TrainConfig,
) -> Result<Progress> {
    let metadata = found.weights.metadata();
    let field = |key: &str| metadata.iter().find(|(k, _)| k == key).map(|(_, value)| &**value);
    let bad = |key: &str, e: &dyn core::fmt::Display| Error::file(path, format!("{key}: {e}"));
    if let Some(net) = field(NET_KEY)
        && config::from_json(net)? != *arch
    {
        return Err(Error::file(path, "the run was of another net than asked for"));
    }
    let (Some(saved), Some(progress)) = (field(CONFIG_KEY), field(PROGRESS_KEY)) else {
        let (epoch, batches) = (found.epochs, found.updates * config.accum_iter as u64);
        let examples = batches * config.global_batch();
        return Ok(Progress { epoch, batches, examples, ..Progress::default() });
    };
    let saved: TrainConfig = serde_json::from_str(saved).map_err(|e| bad(CONFIG_KEY, &e))?;
    let TrainConfig { epochs, lr, optimizer_betas, decay_lr, recompute, .. } = *config;
    let TrainConfig { batch_size, world_size, .. } = *config;
    let compared =
        TrainConfig { epochs, lr, optimizer_betas, decay_lr, recompute, ..saved.clone() };
    if (TrainConfig { batch_size, world_size, ..compared }) != *config {
        let reason = format!(
            "only epochs may change, and between them the size of batches; the run had {saved:?}"
        );
        return Err(Error::file(path, reason));
    }
    let mut progress: Progress =
        serde_json::from_str(progress).map_err(|e| bad(PROGRESS_KEY, &e))?;
    if progress.batch > 0 && saved.global_batch() != config.global_batch() {
        return Err(Error::file(
            path,
            format!(
                "was saved after batch {} of an epoch, with --batch_size {} in {} process(es); the \
                 same {} images per batch are needed to its end, not {} in {world_size}",
                progress.batch,
                saved.batch_size,
                saved.world_size,
                saved.global_batch(),
                batch_size,
            ),
        ));
    }
    if progress.examples == 0 {
        // A run of one process, before the images were counted.
        progress.examples = progress.batches * saved.global_batch();
    }
    Ok(progress)
}

/// Little-endian.
fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
