//! Torch's checkpoint files: a pickle that describes tensors, and the storages they view.
//!
//! The zip archive (since 1.6) holds `DIR/data.pkl`, a record `DIR/data/KEY` per storage, and
//! `DIR/byteorder`. The legacy stream holds five pickles: a magic number, a version, the
//! writer's system, the object, and the list of storage keys; then each storage as a count and
//! its bytes.
//!
//! The pickle alone is read on opening; what it says about each tensor of the state dict is
//! checked before one byte of it is read. All tensors together may unfold to
//! [`MAX_UNFOLDING`] times the file, which stops zip bombs, expanded views and storages shared
//! too often.
//!
//! Source: `PyTorch`, `torch/serialization.py`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use candle_core::Tensor;
use zip::{CompressionMethod, ZipArchive};

use self::pickle::{Pickle, Rebuild, Value};
use super::{Entry, Store, count, size_of, tensor};
use crate::error::{Error, Result};

mod pickle;

/// Most bytes that tensors may hold per byte of their file; 1 for what torch writes, 2 for
/// tied weights, more only for views that repeat elements and for compressed archives.
const MAX_UNFOLDING: u64 = 64;
/// What even the smallest file may unfold to.
const MIN_BUDGET: u64 = 64 << 20;

/// The legacy format's magic number, as a pickle writes it.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file with these first bytes is a legacy stream.
pub(super) fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(&[0x80]) && head.windows(LEGACY_MAGIC.len()).any(|bytes| bytes == LEGACY_MAGIC)
}

/// An opened torch file.
pub(super) struct Archive {
    path: PathBuf,
    records: Records,
    big_endian: bool,
    budget: Budget,
    entries: Vec<Entry>,
    /// Where the elements of each entry lie.
    views: Vec<View>,
}

impl Archive {
    /// Reads the pickle of the zip archive at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened; [`Error::File`] for an archive or pickle
    /// that is damaged, hostile or no checkpoint, and for tensors that do not fit their
    /// storages.
    pub(super) fn open_zip(path: &Path) -> Result<Self> {
        Self::open(path, |file, _| read_zip(file))
    }

    /// Reads the pickles of the legacy stream at `path`.
    ///
    /// # Errors
    ///
    /// Those of [`Archive::open_zip`].
    pub(super) fn open_legacy(path: &Path) -> Result<Self> {
        Self::open(path, read_legacy)
    }

    fn open(
        path: &Path,
        read: impl FnOnce(BufReader<File>, u64) -> Result<Contents, String>,
    ) -> Result<Self> {
        let io = |source| Error::io(path, source);
        let damaged = |reason| Error::file(path, reason);
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let Contents { records, pickle, big_endian } =
            read(BufReader::new(file), len).map_err(damaged)?;

        // Upstream's training layout keeps the state dict beside the optimizer's state.
        let root = pickle.root();
        let model = pickle.get(root, "model").filter(|&model| pickle.dict(model).is_some());
        let (mut entries, mut views) = (Vec::new(), Vec::new());
        for (name, found) in pickle.tensors(model.unwrap_or(root)).map_err(damaged)? {
            let (dtype, shape, view) = View::check(&pickle, found)
                .map_err(|reason| damaged(format!("tensor `{name}`: {reason}")))?;
            entries.push(Entry { name, dtype, shape });
            views.push(view);
        }
        let budget = Budget(len.saturating_mul(MAX_UNFOLDING).max(MIN_BUDGET));
        Ok(Self { path: path.to_path_buf(), records, big_endian, budget, entries, views })
    }

    fn values(&mut self, index: usize) -> Result<Tensor, String> {
        let Entry { dtype, shape, .. } = &self.entries[index];
        let View { key, start, span, elements, strides } = &self.views[index];
        let size = size_of(*dtype);
        self.budget.spend((elements * size) as u64)?;
        let (start, len) = ((start * size) as u64, (span * size) as u64);
        let mut bytes = self.records.read(key, start, len, &mut self.budget)?;
        if *elements > 0 && !is_row_major(shape, strides) {
            bytes = gather(&bytes, size, shape, strides);
        }
        if self.big_endian {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        tensor(*dtype, shape, &bytes)
    }
}

impl Store for Archive {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&mut self, index: usize) -> Result<Tensor> {
        self.values(index).map_err(|reason| {
            let name = &self.entries[index].name;
            Error::file(&self.path, format!("tensor `{name}`: {reason}"))
        })
    }
}

/// Bytes that may still be read or made.
struct Budget(u64);

impl Budget {
    fn spend(&mut self, bytes: u64) -> Result<(), String> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or("with it the tensors unfold to far more than the file holds")?;
        Ok(())
    }
}

/// What either layout consists of.
struct Contents {
    records: Records,
    pickle: Pickle,
    big_endian: bool,
}

fn read_zip(file: BufReader<File>) -> Result<Contents, String> {
    let mut archive = ZipArchive::new(file).map_err(|error| format!("damaged archive: {error}"))?;
    let folder = |name: &str| name.strip_suffix("data.pkl").map(str::to_string);
    let folder = archive.file_names().find_map(|name| folder(&name.ok()?));
    let folder = folder.ok_or("is a zip archive, but without the data.pkl of torch")?;
    let mut order = String::new();
    if let Some(index) = archive.index_for_name(&format!("{folder}byteorder")) {
        let record = archive.by_index(index).map_err(io::Error::from);
        let read = record.and_then(|record| record.take(8).read_to_string(&mut order));
        read.map_err(|error| format!("byteorder: {error}"))?;
    }
    let pickle = archive.by_name(&format!("{folder}data.pkl"));
    let pickle = pickle.map_err(|error| format!("data.pkl: {error}"))?;
    let pickle = Pickle::load(BufReader::new(pickle))?;
    Ok(Contents { records: Records::Zip { archive, folder }, pickle, big_endian: order == "big" })
}

fn read_legacy(mut file: BufReader<File>, len: u64) -> Result<Contents, String> {
    let _magic = Pickle::load(&mut file)?;
    let _version = Pickle::load(&mut file)?;
    let system = Pickle::load(&mut file)?;
    let pickle = Pickle::load(&mut file)?;
    let keys = Pickle::load(&mut file)?;

    let big_endian = system.get(system.root(), "little_endian") == Some(Value::Bool(false));
    let sizes: HashMap<_, _> =
        pickle.storages().map(|storage| (storage.key.as_str(), size_of(storage.dtype))).collect();
    let mut places = HashMap::new();
    for &key in keys.items(keys.root()).ok_or("has no list of storages")? {
        let key = keys.text(key).ok_or("has a storage without a name")?;
        let size = *sizes.get(key).ok_or_else(|| format!("storage `{key}` is of unknown type"))?;
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(|error| format!("storage `{key}`: {error}"))?;
        let count = if big_endian { u64::from_be_bytes(count) } else { u64::from_le_bytes(count) };
        let start = file.stream_position().map_err(|error| error.to_string())?;
        let end = count.checked_mul(size as u64).and_then(|bytes| bytes.checked_add(start));
        let end =
            end.filter(|&end| end <= len).ok_or_else(|| format!("storage `{key}` is cut off"))?;
        places.insert(key.to_string(), (start, end));
        file.seek(SeekFrom::Start(end)).map_err(|error| error.to_string())?;
    }
    Ok(Contents { records: Records::Legacy { file, places }, pickle, big_endian })
}

/// The storages of a file.
enum Records {
    Zip {
        archive: ZipArchive<BufReader<File>>,
        folder: String,
    },
    /// With the first byte of each storage and the one after its last.
    Legacy {
        file: BufReader<File>,
        places: HashMap<String, (u64, u64)>,
    },
}

impl Records {
    /// Reads `len` bytes from `start` on of the storage `key`.
    fn read(
        &mut self,
        key: &str,
        start: u64,
        len: u64,
        budget: &mut Budget,
    ) -> Result<Vec<u8>, String> {
        let missing = || format!("its storage `{key}` is missing");
        let failed = |error| format!("its storage `{key}`: {error}");
        budget.spend(len)?;
        match self {
            Self::Zip { archive, folder } => {
                let index = archive.index_for_name(&format!("{folder}data/{key}"));
                let index = index.ok_or_else(missing)?;
                let method = archive.by_index_raw(index).map(|record| record.compression());
                if method.map_err(|error| failed(error.into()))? == CompressionMethod::Stored {
                    let record = archive.by_index_seek(index);
                    let mut record = record.map_err(|error| failed(error.into()))?;
                    record.seek(SeekFrom::Start(start)).map_err(failed)?;
                    exactly(record, len)
                } else {
                    budget.spend(start)?;
                    let record = archive.by_index(index);
                    let mut record = record.map_err(|error| failed(error.into()))?;
                    io::copy(&mut record.by_ref().take(start), &mut io::sink()).map_err(failed)?;
                    exactly(record, len)
                }
            }
            Self::Legacy { file, places } => {
                let &(begin, end) = places.get(key).ok_or_else(missing)?;
                let held = end - begin;
                file.seek(SeekFrom::Start(begin + start.min(held))).map_err(failed)?;
                exactly(file.take(held.saturating_sub(start)), len)
            }
        }
        .map_err(failed)
    }
}

/// The next `len` bytes of `from`.
fn exactly(from: impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// Where the elements of a tensor lie, counted in elements of its storage.
struct View {
    key: String,
    start: usize,
    /// From the first element to behind the last, with the gaps between.
    span: usize,
    elements: usize,
    /// Per axis; 0 where the axis has one element.
    strides: Vec<usize>,
}

impl View {
    /// Dtype, shape and place of the tensor that `found` describes, checked against the
    /// storage.
    fn check(pickle: &Pickle, found: Rebuild) -> Result<(Dtype, Vec<usize>, Self), String> {
        let storage = pickle.storage(found.storage).ok_or("it has no storage")?;
        let number = |value| match value {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let numbers = |value| -> Option<Vec<_>> {
            pickle.items(value)?.iter().map(|&item| number(item)).collect()
        };
        let start = number(found.offset).ok_or("its offset is no count")?;
        let shape = numbers(found.shape).ok_or("its shape is no list of counts")?;
        let mut strides = numbers(found.stride).ok_or("its strides are no list of counts")?;
        if shape.len() != strides.len() {
            let (rank, given) = (shape.len(), strides.len());
            return Err(format!("{rank} axes, but {given} strides"));
        }
        let elements = count(&shape).ok_or_else(|| format!("shape {shape:?} overflows"))?;
        let mut span = Some(usize::from(elements > 0));
        for (&size, stride) in shape.iter().zip(&mut strides) {
            match size {
                0 | 1 => *stride = 0,
                _ if elements > 0 => {
                    let reach = stride.checked_mul(size - 1);
                    span = span.and_then(|span| span.checked_add(reach?));
                }
                _ => {}
            }
        }
        let end = span.and_then(|span| span.checked_add(start)).filter(|&end| end <= storage.len);
        let bytes = |count: usize| count.checked_mul(size_of(storage.dtype));
        match (span, end.and_then(bytes), bytes(elements)) {
            (Some(span), Some(_), Some(_)) => {
                let key = storage.key.clone();
                Ok((storage.dtype, shape, Self { key, start, span, elements, strides }))
            }
            _ => Err(format!("it reaches past the {} elements of its storage", storage.len)),
        }
    }
}

/// Whether the elements lie one after the other, the last axis fastest.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size <= 1 || stride == expected;
        expected *= size.max(1);
        fits
    })
}

/// The elements of a strided view, `size` bytes each, in row-major order; no axis is empty.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let mut places = vec![0];
    for (&len, &stride) in shape.iter().zip(strides) {
        places = places.iter().flat_map(|&at| (0..len).map(move |i| at + i * stride)).collect();
    }
    places.iter().flat_map(|&at: &usize| &bytes[at * size..][..size]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_a_transposed_view() {
        // [[0, 1, 2], [3, 4, 5]] seen as [3, 2], of one byte and of two bytes per element.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5], 1, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gather(&[0, 9, 1, 9, 2, 9], 2, &[2], &[2]), [0, 9, 2, 9]);
        assert_eq!(gather(&[7, 8], 1, &[2, 2], &[0, 1]), [7, 8, 7, 8]);
    }

    #[test]
    fn tells_row_major_order_apart() {
        assert!(is_row_major(&[], &[]));
        assert!(is_row_major(&[2, 1, 3], &[3, 0, 1]));
        assert!(!is_row_major(&[3, 2], &[1, 3]));
        assert!(!is_row_major(&[2, 3], &[0, 1]));
    }

    #[test]
    fn budget_is_spent_once() {
        let mut budget = Budget(10);
        assert!(budget.spend(6).is_ok());
        assert!(budget.spend(5).is_err());
        assert!(budget.spend(u64::MAX).is_err());
        assert!(budget.spend(4).is_ok());
    }

    #[test]
    fn knows_the_legacy_magic_number() {
        let head = [&[0x80, 2, 0x8a, 10], &LEGACY_MAGIC[..], b"."].concat();
        assert!(is_legacy(&head));
        assert!(!is_legacy(&head[..13]));
        assert!(!is_legacy(b""));
    }
}
