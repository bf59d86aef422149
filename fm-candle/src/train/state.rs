//! Saving a run and taking it up again exactly where it stood.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Shape, Tensor};

use super::{Moments, Progress, TrainConfig, Trainer};
use crate::checkpoint::{self, NET_KEY, safetensors};
use crate::error::{Error, Result};
use crate::model::UNetConfig;

/// Metadata key of the settings, JSON of [`TrainConfig`].
const CONFIG_KEY: &str = "fmq.train.config";
/// Metadata key of the position, JSON of [`Progress`].
const PROGRESS_KEY: &str = "fmq.train.progress";
/// Metadata key of the number of updates.
const UPDATES_KEY: &str = "fmq.train.updates";

impl Trainer {
    /// Writes weights, moments, average and position to a safetensors file: tensors
    /// `model.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME` and, with an average, `ema.NAME`.
    ///
    /// # Errors
    /// A file that cannot be written; or a call between two updates of a run with accumulation.
    pub fn save(&self, path: &Path) -> Result<()> {
        if self.pending.iter().any(Option::is_some) {
            return Err(Error::Config("a run can only be saved after an update".into()));
        }
        let mut tensors = Vec::with_capacity(4 * self.vars.len());
        for ((name, var), state) in self.vars.iter().zip(&self.optimizer.moments) {
            tensors.push((format!("model.{name}"), var.as_tensor().detach()));
            let kept = [("exp_avg", &state.mean), ("exp_avg_sq", &state.square)];
            for (kind, values) in kept.into_iter().chain([("ema", &state.average)]) {
                if !values.is_empty() {
                    let values = Tensor::from_slice(values, var.shape(), var.device())?;
                    tensors.push((format!("{kind}.{name}"), values));
                }
            }
        }
        let net = self.net.config().to_json();
        let config = serde_json::to_string(&self.config).unwrap_or_default();
        let progress = serde_json::to_string(&self.progress).unwrap_or_default();
        let updates = self.optimizer.updates.to_string();
        let metadata = [
            (NET_KEY, net.as_str()),
            (CONFIG_KEY, &config),
            (PROGRESS_KEY, &progress),
            (UPDATES_KEY, &updates),
        ];
        safetensors::save(path, &tensors, &metadata)
    }

    /// A run as it stood when [`save`](Self::save) wrote `path`, to go on under `config`.
    ///
    /// # Errors
    /// A file that holds no such run, or one of another net or with other settings than epochs
    /// and learning rate.
    pub fn resume(
        path: &Path,
        arch: &UNetConfig,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self> {
        let file = checkpoint::load(path, true)?;
        let field = |key: &str| {
            let found = file.metadata.iter().find(|(k, _)| k == key);
            found.map(|(_, value)| value.as_str()).ok_or_else(|| {
                Error::file(path, format!("no `{key}` in the metadata; not a saved run"))
            })
        };
        let bad = |key: &str, e: &dyn core::fmt::Display| Error::file(path, format!("{key}: {e}"));
        let saved_arch = UNetConfig::from_json(field(NET_KEY)?)?;
        if saved_arch != *arch {
            return Err(Error::file(path, "the run was of another net than asked for"));
        }
        let saved: TrainConfig =
            serde_json::from_str(field(CONFIG_KEY)?).map_err(|e| bad(CONFIG_KEY, &e))?;
        let compared = TrainConfig { epochs: config.epochs, lr: config.lr, ..saved.clone() };
        if compared != *config {
            return Err(Error::file(
                path,
                format!("only epochs and lr may change; the run had {saved:?}"),
            ));
        }
        let mut run = Self::new(arch, config, device)?;
        let progress = serde_json::from_str::<Progress>(field(PROGRESS_KEY)?)
            .map_err(|e| bad(PROGRESS_KEY, &e))?;
        let updates = field(UPDATES_KEY)?.parse().map_err(|e| bad(UPDATES_KEY, &e))?;
        let mut tensors: HashMap<_, _> = file.tensors.into_iter().collect();
        let mut take = |kind: &str, name: &str, shape: &Shape| {
            let name = format!("{kind}.{name}");
            let tensor: Tensor = tensors
                .remove(&name)
                .ok_or_else(|| Error::file(path, format!("tensor `{name}` is missing")))?;
            if tensor.shape() != shape || tensor.dtype() != DType::F32 {
                return Err(Error::file(
                    path,
                    format!(
                        "tensor `{name}` is {:?} {:?}, not F32 {shape:?}",
                        tensor.dtype(),
                        tensor.dims()
                    ),
                ));
            }
            Ok(tensor)
        };
        for ((name, var), state) in run.vars.iter().zip(&mut run.optimizer.moments) {
            var.set(&take("model", name, var.shape())?.to_device(device)?)?;
            let mut values = |kind| -> Result<Vec<f32>> {
                Ok(take(kind, name, var.shape())?.flatten_all()?.to_vec1()?)
            };
            let average = if config.use_ema { values("ema")? } else { Vec::new() };
            *state = Moments { mean: values("exp_avg")?, square: values("exp_avg_sq")?, average };
        }
        (run.progress, run.optimizer.updates) = (progress, updates);
        Ok(run)
    }
}
