//! A state dict into a torch file of its dequantized values.

use std::collections::HashMap;
use std::path::Path;

use super::report::Report;
use super::sink::Discard;
use super::stream::quantize;
use super::tensor::{PackedTensor, TensorPolicy};
use crate::checkpoint::{Source, TensorInfo, torch};
use crate::error::{Error, Result};

/// Quantizes the tensors of `source` at `indices` as [`quantize`] does and writes their values,
/// in the dtypes that they have in the source, to the torch file at `path`, whole or not at all.
///
/// From a torch file comes one of the same layout, bit for bit but for these values; from any
/// other a bare state dict. No more than one tensor is held at a time, except for storages that
/// several share.
///
/// Integers, what is kept at 32 bits and floats of types that are only read (8 bits) keep their bits.
/// `policy` gets the net's names, so that
/// shadows of [`Source::open_whole`] are packed as their parameters are. The report's sizes are
/// those of a packed file of these tensors.
///
/// # Errors
///
/// Those of [`quantize`] and of [`atomic::write_through`](crate::atomic::write_through);
/// [`Error::Tensor`] for values beyond f16 where that is the dtype, and where the storage of a
/// torch file cannot take them: it is compressed, or tensors that share it would differ.
pub fn quantize_to_torch(
    path: &Path,
    source: &Source,
    indices: &[usize],
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    mut done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<Report> {
    let own_names = source.tensors().iter().map(|info| info.name.as_str());
    let places: HashMap<_, _> = own_names.zip(0..).collect();
    let policy = |name: &str, shape: &[usize]| {
        let place = places[name];
        if source.is_plain(place) {
            policy(&source.net_names()[place], shape)
        } else {
            TensorPolicy::F32
        }
    };
    torch::write(path, source, indices, |put| {
        let mut order = indices.iter();
        let packed = quantize(source, indices, None, Discard, policy, |info, packed| {
            let Some(&index) = order.next() else { return Ok(()) };
            let encode = |values: &[f32]| {
                let bytes = torch::encode(values, info.dtype);
                bytes.map_err(|reason| Error::tensor(&info.name, reason))
            };
            match packed {
                PackedTensor::Quantized(tensor) => put(index, &encode(&tensor.dequantized())?)?,
                PackedTensor::F16(values) => {
                    let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
                    put(index, &encode(&values)?)?;
                }
                PackedTensor::F32(_) | PackedTensor::I64(_) => {
                    put(index, &torch::kept(source, index)?)?;
                }
            }
            done(info, packed)
        })?;
        Ok(packed.report)
    })
}
