//! Reading a packed file: every tensor decoded to f32, with the net's configuration.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use quant_core::format::{self, Encoding, Model};

use super::{Checkpoint, Kind, NET_KEY};
use crate::error::{Error, Result};
use crate::model::UNetConfig;

/// Reads the packed file at `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a damaged file, or one whose net makes no sense.
pub(super) fn load(path: &Path) -> Result<Checkpoint> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    let model = Model::parse(&bytes).map_err(|e| Error::file(path, e.to_string()))?;
    let mut metadata = Vec::new();
    if let Some(net) = model.net() {
        let config = UNetConfig::from_packed(net).map_err(|e| Error::file(path, e.to_string()))?;
        metadata.push((NET_KEY.to_string(), config.to_json()));
    }
    let named = |tensor: format::Tensor<'_>| {
        let values = decode(&tensor)
            .map_err(|e| Error::file(path, format!("tensor `{}`: {e}", tensor.name())))?;
        Ok((tensor.name().to_string(), values))
    };
    let tensors = model.tensors().map(named).collect::<Result<_>>()?;
    Ok(Checkpoint { kind: Kind::Packed, tensors, ema: false, metadata })
}

/// The tensor's values: f32, or i64 as they are.
fn decode(tensor: &format::Tensor<'_>) -> Result<Tensor> {
    let shape = tensor.shape();
    if tensor.encoding() == Encoding::I64 {
        let values: Vec<i64> = tensor.integers().into_iter().flatten().collect();
        return Ok(Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    let mut values = vec![0f32; tensor.numel()];
    for (row, out) in values.chunks_mut(tensor.row_len().max(1)).enumerate() {
        tensor.decode_row(row, out)?;
    }
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
