//! A tuning run in a file, to go on from exactly where it stood.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::tuner::{TuneConfig, Tuner};
use crate::checkpoint::{load, safetensors};
use crate::error::{Error, Result};
use crate::train::AdamMoments;

/// Metadata key of the state, JSON of [`TuneState`].
const KEY: &str = "fmq.tune";

/// All of a run but its tensors.
#[derive(Serialize, Deserialize)]
struct TuneState {
    config: TuneConfig,
    /// The net and the way that it is quantized, as the caller names them.
    of: String,
    step: u64,
}

impl Tuner {
    /// Writes the run to the file at `path`, whole or not at all; `of` names the net and the way that it
    /// is quantized.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path, of: &str) -> Result<()> {
        let mut tensors = Vec::new();
        for group in [&self.parts, &self.latents] {
            for ((name, var), moments) in group.vars.iter().zip(group.adam.moments()) {
                let AdamMoments { mean, square, .. } = &*moments?;
                let tensor =
                    |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
                tensors.push((name.clone(), var.as_tensor().detach().copy()?));
                tensors.push((format!("{name}.mean"), tensor(mean)?));
                tensors.push((format!("{name}.square"), tensor(square)?));
            }
        }
        let state = TuneState { config: self.config, of: of.into(), step: self.step };
        let json = serde_json::to_string(&state).unwrap_or_default();
        safetensors::save(path, &tensors, &[(KEY, json.as_str())])
    }

    /// Goes on from the run that [`save`](Self::save) wrote; its number of steps counts.
    ///
    /// # Errors
    /// A file that is none of a tuning run, or of another net or other settings.
    pub fn take_up(&mut self, path: &Path, of: &str) -> Result<()> {
        let file = load(path, true)?;
        let json = file.metadata.iter().find(|(key, _)| key == KEY);
        let state = json.and_then(|(_, json)| serde_json::from_str(json).ok());
        let Some(TuneState { config, of: found, step }) = state else {
            return Err(Error::file(path, "holds no tuning run"));
        };
        if found != of {
            return Err(Error::file(path, format!("is of another run: {found}; not {of}")));
        }
        if (TuneConfig { steps: self.config.steps, ..config }) != self.config {
            let reason = format!("was tuned with {config:?}, not {:?}", self.config);
            return Err(Error::file(path, reason));
        }
        for group in [&mut self.parts, &mut self.latents] {
            for (index, (name, var)) in group.vars.iter().enumerate() {
                let find = |name: &str| -> Result<Tensor> {
                    let tensor = file.tensor(name).filter(|tensor| tensor.dims() == var.dims());
                    let missing = || Error::tensor(name, "is missing in the tuning run");
                    tensor.cloned().ok_or_else(missing)
                };
                let values = |part: &str| -> Result<Vec<f32>> {
                    Ok(find(&format!("{name}.{part}"))?.to_vec1()?)
                };
                let (mean, square) = (values("mean")?, values("square")?);
                var.set(&find(name)?)?;
                let moments = AdamMoments { mean, square, average: Vec::new() };
                group.adam.set_moments(index, moments, var)?;
            }
            group.adam.updates = step;
        }
        self.config = config;
        self.step = step;
        self.refresh()
    }
}
