//! Safetensors files: a JSON header, then the tensors' bytes.
//!
//! The header lists the tensors in the order of the state dict, and reading takes the order
//! from there. The bytes lie in the order of falling element size, so that each tensor is
//! aligned without the gaps that the format forbids.
//!
//! Source: <https://github.com/huggingface/safetensors#format>.

use core::ops::Range;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, View};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};

use super::entry::TensorEntry;
use crate::atomic;
use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// Longest header in bytes: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// Entry of the header that is no tensor but a map from text to text.
const METADATA: &str = "__metadata__";

/// Writes `tensors` with `metadata` to the file at `path`, whole or not at all.
///
/// The order of both is kept. The same input gives the same bytes.
///
/// # Errors
///
/// [`Error::Tensor`] for a name used twice or a dtype the format lacks; [`Error::Candle`] where
/// a tensor cannot be brought to the CPU; those of [`atomic::write_with`].
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let mut by_size: Vec<usize> = (0..tensors.len()).collect();
    by_size.sort_by_key(|&index| core::cmp::Reverse(tensors[index].1.dtype().size_in_bytes()));
    let header = header(tensors, metadata, &by_size)?;
    atomic::write_with(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for &index in &by_size {
            let tensor = tensors[index].1.to_device(&Device::Cpu).map_err(io::Error::other)?;
            out.write_all(&View::data(&tensor))?;
        }
        Ok(())
    })
}

/// The tensors of a safetensors file in memory, by name, on the CPU.
///
/// # Errors
///
/// [`Error::Candle`] where the bytes are no such file.
pub fn decode(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?)
}

/// The header, padded with spaces to a multiple of 8 bytes; the data lie in the order `layout`.
fn header(
    tensors: &[(String, Tensor)],
    metadata: &[(&str, &str)],
    layout: &[usize],
) -> Result<Vec<u8>> {
    let mut begins = vec![0; tensors.len()];
    let mut end = 0;
    for &index in layout {
        begins[index] = end;
        end += View::data_len(&tensors[index].1);
    }
    let mut header = Map::new();
    if !metadata.is_empty() {
        let map: Map<_, _> =
            metadata.iter().map(|&(key, value)| (key.to_string(), value.into())).collect();
        header.insert(METADATA.into(), map.into());
    }
    for ((name, tensor), begin) in tensors.iter().zip(begins) {
        if !is_writable(tensor.dtype()) {
            return Err(Error::tensor(
                name,
                format!("dtype {:?} cannot be written", tensor.dtype()),
            ));
        }
        let entry = json!({
            "dtype": Dtype::from(tensor.dtype()),
            "shape": tensor.dims(),
            "data_offsets": [begin, begin + View::data_len(tensor)],
        });
        if name == METADATA || header.insert(name.clone(), entry).is_some() {
            return Err(Error::tensor(name, "the name is already taken in the file"));
        }
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// Candle's dtypes that hold whole bytes of plain numbers.
fn is_writable(dtype: DType) -> bool {
    use DType::{BF16, F16, F32, F64, I16, I32, I64, U8, U32};
    matches!(dtype, U8 | U32 | I16 | I32 | I64 | BF16 | F16 | F32 | F64)
}

/// An opened safetensors file.
#[derive(Debug)]
pub(super) struct Reader {
    file: Mapped,
    entries: Vec<TensorEntry>,
    /// The byte range of each entry in the file.
    places: Vec<Range<usize>>,
    /// The header's metadata, in its order.
    metadata: Vec<(String, String)>,
}

impl Reader {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    ///
    /// Why the header is longer than the file or malformed, or its tensors overlap, leave gaps,
    /// or do not end where the file does.
    pub(super) fn open(file: Mapped) -> Result<Self, String> {
        let length = file.len();
        let (size, behind) = file.split_first_chunk().ok_or("ends before its header")?;
        let size = u64::from_le_bytes(*size);
        let header = usize::try_from(size).ok().filter(|_| size <= MAX_HEADER);
        let header = header
            .and_then(|size| behind.get(..size))
            .ok_or_else(|| format!("claims a header of {size} bytes in a file of {length}"))?;
        let data = size_of_val(&size) + header.len();

        let malformed = |error| format!("malformed header: {error}");
        // The checked table has no order, the plain map no checks.
        let table: Metadata = serde_json::from_slice(header).map_err(malformed)?;
        let order: Map<String, Value> = serde_json::from_slice(header).map_err(malformed)?;
        let end = data.saturating_add(table.data_len());
        if end != length {
            return Err(format!("ends at byte {length}, but its tensors at byte {end}"));
        }
        let mut entries = Vec::new();
        let mut places = Vec::new();
        for name in order.keys() {
            if let Some(info) = table.info(name) {
                let (name, shape) = (name.clone(), info.shape.clone());
                entries.push(TensorEntry { group: String::new(), name, dtype: info.dtype, shape });
                // The table's check tied the offsets to the shape and to each other.
                places.push(data + info.data_offsets.0..data + info.data_offsets.1);
            }
        }
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.into()));
        let metadata = order.get(METADATA).and_then(Value::as_object);
        let metadata = metadata.map(|map| map.iter().filter_map(text).collect());
        Ok(Self { file, entries, places, metadata: metadata.unwrap_or_default() })
    }

    pub(super) fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    pub(super) fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The elements of the entry at `index`.
    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        &self.file[self.places[index].clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{FileKind, NET_KEY, load};

    fn named(name: &str, tensor: candle_core::Result<Tensor>) -> (String, Tensor) {
        (name.into(), tensor.unwrap())
    }

    /// Loads a file with this content.
    fn load_bytes(bytes: &[u8]) -> Result<crate::checkpoint::Checkpoint> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        std::fs::write(&path, bytes).unwrap();
        load(&path, false)
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn round_trip_keeps_order_dtypes_values_and_net() {
        let cpu = &Device::Cpu;
        let tensors = [
            named("z", Tensor::new(&[1_u8, 2, 3], cpu)),
            named("b", Tensor::new(&[[1_f32, 2.], [3., 4.]], cpu).and_then(|t| t.t())),
            named("a", Tensor::new(-7_i64, cpu)),
            named("h", Tensor::new(&[0.5_f64], cpu).and_then(|t| t.to_dtype(DType::F16))),
            named("empty", Tensor::zeros((0, 3), DType::F32, cpu)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        save(&path, &tensors, &[("who", "us"), (NET_KEY, r#"{"in_channels":3}"#)]).unwrap();
        let first = std::fs::read(&path).unwrap();
        save(&path, &tensors, &[("who", "us"), (NET_KEY, r#"{"in_channels":3}"#)]).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());

        let loaded = load(&path, false).unwrap();
        assert_eq!((loaded.kind, loaded.ema), (FileKind::Safetensors, false));
        assert_eq!(loaded.net(), Some(r#"{"in_channels":3}"#));
        assert_eq!(loaded.metadata[0], ("who".into(), "us".into()));
        assert_eq!(loaded.tensors.len(), tensors.len());
        for ((name, wrote), (found, read)) in tensors.iter().zip(&loaded.tensors) {
            assert_eq!((name, wrote.dtype(), wrote.dims()), (found, read.dtype(), read.dims()));
            assert_eq!(View::data(wrote), View::data(read), "{name}");
        }
    }

    #[test]
    fn other_readers_agree() {
        let tensors = [
            named("odd", Tensor::new(&[9_u8], &Device::Cpu)),
            named("w", Tensor::new(&[1_f32, 2.], &Device::Cpu)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        save(&path, &tensors, &[]).unwrap();
        let theirs = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(theirs["w"].to_vec1::<f32>().unwrap(), [1., 2.]);
        assert_eq!(theirs["odd"].to_vec1::<u8>().unwrap(), [9]);
    }

    #[test]
    fn rejects_lying_headers() {
        let good = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(load_bytes(&with_header(good, &[0; 8])).is_ok());
        for (header, data) in [
            (good, 7),
            (good, 9),
            (r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
            (r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
            (r#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            (r#"{"w":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            (r#"{"w":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#, 8),
            (r#"{"w":{"dtype":"nonsense","shape":[1],"data_offsets":[0,8]}}"#, 8),
            (r#"{"w":1}"#, 0),
            ("{", 0),
            ("{}", 0),
        ] {
            let error = load_bytes(&with_header(header, &vec![0; data])).unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{header}: {error}");
        }
    }

    #[test]
    fn rejects_a_header_longer_than_the_file() {
        let mut bytes = (u64::MAX - 3).to_le_bytes().to_vec();
        bytes.push(b'{');
        let error = load_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("claims a header of"), "{error}");
    }

    #[test]
    fn refuses_a_name_twice() {
        let twice = [
            named("w", Tensor::new(1_f32, &Device::Cpu)),
            named("w", Tensor::new(2_f32, &Device::Cpu)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let error = save(&folder.path().join("x.safetensors"), &twice, &[]).unwrap_err();
        assert!(matches!(error, Error::Tensor { name, .. } if name == "w"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
