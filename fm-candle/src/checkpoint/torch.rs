//! Writing torch files.
//!
//! From a torch file comes a file of the same layout: everything but the values of the tensors
//! taken stays as it is, bit for bit. From any other comes a bare state dict. Tensors elsewhere
//! in a torch file that view the storage of one taken show its new values, as they would in
//! torch. A training run is written as a whole.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use candle_core::{DType, Tensor};
use half::{bf16, f16};

use super::entry::TensorInfo;
use super::pth::fresh::Fresh;
use super::pth::object::{pickle, storage};
use super::pth::rewrite::{Rewrite, RewriteError};
use super::source::Source;
use crate::atomic;
use crate::error::{Error, Result};

pub(crate) use super::pth::object::{Object, attributes};

/// Writes the tensors of `source` at `indices` to the file at `path`, whole or not at all, one
/// at a time: `fill` gets a function that takes the elements of each, in that order, as many as
/// the tensor has, of its dtype, little-endian, in row-major order.
///
/// # Errors
///
/// Those of `fill`, of names and dtypes that torch cannot hold, and of
/// [`atomic::write_through`]; [`Error::Tensor`] where the storage of a torch file cannot take
/// the elements: it is compressed, or tensors that share it differ.
pub(crate) fn write<T>(
    path: &Path,
    source: &Source,
    indices: &[usize],
    fill: impl FnOnce(&mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let io = |cause| Error::io(path, cause);
    let tensors = source.tensors();
    if let Some(archive) = source.torch() {
        return atomic::write_through(path, |out| {
            let mut copy = Rewrite::start(archive, out).map_err(io)?;
            let result = fill(&mut |index, bytes| {
                copy.put(out, source.entry(index), bytes).map_err(|failure| match failure {
                    RewriteError::Io(cause) => io(cause),
                    RewriteError::Refused(reason) => Error::tensor(&tensors[index].name, reason),
                })
            })?;
            copy.finish(out).map_err(io)?;
            Ok(result)
        });
    }
    let object = state_dict(indices.iter().map(|&index| &tensors[index]))?;
    fresh(path, &object, |put| fill(&mut |_, bytes| put(bytes)))
}

/// Writes a Python object to the torch file at `path`, whole or not at all; `elements` gives those
/// of its tensors in their order, as many as each has, little-endian, in row-major order.
///
/// # Errors
///
/// Those of `elements` and of [`atomic::write_through`].
pub(crate) fn save_object(
    path: &Path,
    object: &Object,
    elements: impl IntoIterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    fresh(path, object, |put| elements.into_iter().try_for_each(|bytes| put(&bytes?)))
}

/// Writes f32 tensors as a bare state dict to the torch file at `path`, whole or not at all.
///
/// # Errors
///
/// Those of [`atomic::write_through`]; [`Error::Tensor`] for names that torch cannot hold.
pub fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let info = |(name, tensor): &(String, Tensor)| TensorInfo {
        name: name.clone(),
        dtype: DType::F32,
        shape: tensor.dims().to_vec(),
    };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let elements = tensors.iter().map(|(_, tensor)| {
        Ok(bytes(&tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, f32::to_le_bytes))
    });
    save_object(path, &state_dict(&infos)?, elements)
}

/// Writes an object; `fill` gets a function that takes the elements of each tensor.
fn fresh<T>(
    path: &Path,
    object: &Object,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let io = |cause| Error::io(path, cause);
    let pickle = pickle(object);
    atomic::write_through(path, |out| {
        let mut file = Fresh::start(out, &pickle).map_err(io)?;
        let result = fill(&mut |bytes| file.put(bytes).map_err(io))?;
        file.finish().map_err(io)?;
        Ok(result)
    })
}

/// A state dict of these tensors.
///
/// # Errors
///
/// [`Error::Tensor`] for a name used twice and a dtype that torch has no storage for.
fn state_dict<'a>(tensors: impl IntoIterator<Item = &'a TensorInfo>) -> Result<Object> {
    let mut seen = HashSet::new();
    let entry = |info: &'a TensorInfo| {
        let TensorInfo { name, dtype, shape } = info;
        if !seen.insert(name) {
            return Err(Error::tensor(name, "the name is already taken in the file"));
        }
        if storage(*dtype).is_none() {
            return Err(Error::tensor(name, format!("dtype {dtype:?} cannot be written")));
        }
        Ok((Object::Text(name.clone()), Object::Tensor(*dtype, shape.clone())))
    };
    Ok(Object::Ordered(tensors.into_iter().map(entry).collect::<Result<_>>()?))
}

/// Writes all tensors of `source` to the torch file at `path`, whole or not at all: a bare state
/// dict, or from a torch file a copy.
///
/// # Errors
///
/// Those of [`Source::elements`] and of [`atomic::write_through`]; [`Error::Tensor`] for names and
/// dtypes that torch cannot hold.
pub fn save(path: &Path, source: &Source) -> Result<()> {
    let indices: Vec<usize> = (0..source.tensors().len()).collect();
    write(path, source, &indices, |put| {
        indices.iter().try_for_each(|&index| put(index, &kept(source, index)?))
    })
}

/// The elements of the tensor at `index` as [`write()`] takes them: a torch file's in its own
/// dtype, others as they are read.
///
/// # Errors
///
/// Those of [`Source::elements`].
pub(crate) fn kept(source: &Source, index: usize) -> Result<Cow<'_, [u8]>> {
    match source.torch() {
        Some(archive) => {
            let entry = source.entry(index);
            archive.bytes(entry).map_err(source.of_tensor(entry))
        }
        None => Ok(source.elements(index)?.into_bytes()),
    }
}

/// The bytes of `values` in a floating dtype, rounded to nearest.
///
/// # Errors
///
/// Why a value does not fit.
///
/// # Panics
///
/// If the dtype is not floating.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, String> {
    Ok(match dtype {
        DType::F32 => bytes(values, f32::to_le_bytes),
        DType::F64 => bytes(values, |value| f64::from(value).to_le_bytes()),
        DType::BF16 => bytes(values, |value| bf16::from_f32(value).to_le_bytes()),
        DType::F16 => {
            let beyond = |&value: &f32| f16::from_f32(value).is_infinite();
            if let Some(index) = values.iter().position(beyond) {
                let value = values[index];
                return Err(format!("weight {index} becomes {value}, beyond its dtype f16"));
            }
            bytes(values, |value| f16::from_f32(value).to_le_bytes())
        }
        other => panic!("{other:?} is no floating dtype"),
    })
}

fn bytes<const N: usize>(values: &[f32], bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_dtype() {
        let value = 1.0 + 1.0 / 512.0;
        let encoded = |dtype| encode(&[-2.0, value], dtype).unwrap();
        assert_eq!(encoded(DType::F32), [[0, 0, 0, 0xc0], [0, 0x40, 0x80, 0x3f]].concat());
        assert_eq!(encoded(DType::F64)[8..], (1.0_f64 + 1.0 / 512.0).to_le_bytes());
        assert_eq!(encoded(DType::F16), [0, 0xc0, 2, 0x3c]);
        assert_eq!(encoded(DType::BF16), [0, 0xc0, 0x80, 0x3f]);
    }

    #[test]
    fn refuses_names_twice_and_dtypes_without_a_storage() {
        let info = |name: &str, dtype| TensorInfo { name: name.into(), dtype, shape: vec![2] };
        let refused = |infos: &[TensorInfo]| state_dict(infos).unwrap_err().to_string();
        let twice = [info("w", DType::F32), info("w", DType::F32)];
        assert!(refused(&twice).contains("`w`: the name"));
        assert!(refused(&[info("w", DType::U32)]).contains("`w`: dtype"));
    }

    #[test]
    fn a_value_beyond_f16_is_refused() {
        assert!(encode(&[65_504.0], DType::F16).is_ok());
        let error = encode(&[0.0, -65_520.0], DType::F16).unwrap_err();
        assert_eq!(error, "weight 1 becomes -65520, beyond its dtype f16");
    }
}
