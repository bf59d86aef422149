//! The sizes of packed files, as catalogues list them.

use std::path::Path;

use anyhow::{Context, Result};
use fm_candle::model::{UNet, UNetConfig};
use quant_core::format::Model;
use serde::Serialize;

use crate::args::packed;

/// A packed file and its size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PackedSize {
    /// Its name, without a folder.
    pub(crate) file: String,
    pub(crate) bytes: usize,
    /// Bits of the whole file over the weights of its net, before a projection of the embedding.
    pub(crate) bits_per_weight: f64,
}

impl PackedSize {
    /// The size of the file of these bytes at `path`.
    pub(crate) fn of(path: &Path, bytes: &[u8]) -> Result<Self> {
        let model = Model::parse(bytes).with_context(|| format!("`{}`", path.display()))?;
        let weights: usize = match model.net() {
            Some(net) => {
                let net = UNetConfig { embedding_rank: None, ..net.clone() };
                UNet::shapes(&net)?.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
            }
            None => model.tensors().map(|tensor| tensor.numel()).sum(),
        };
        Ok(Self {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: bytes.len(),
            bits_per_weight: 8.0 * bytes.len() as f64 / weights.max(1) as f64,
        })
    }

    /// The sizes of the packed files in the folder `dir`, by name.
    pub(crate) fn in_folder(dir: &Path) -> Result<Vec<Self>> {
        let reading = || format!("reading `{}`", dir.display());
        let mut paths = Vec::new();
        for entry in dir.read_dir().with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if path.extension().is_some_and(|end| end == "fmq") && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::of(path, &packed::read(path)?)).collect()
    }
}
