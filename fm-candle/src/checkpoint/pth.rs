//! Torch's checkpoint files: a pickle that describes tensors, and the storages they view.
//!
//! The zip archive (since 1.6) holds `DIR/data.pkl`, a record `DIR/data/KEY` per storage, and
//! `DIR/byteorder`. The legacy stream holds five pickles: a magic number, a version, the
//! writer's system, the object, and the list of storage keys; then each storage as a count and
//! its bytes.
//!
//! The pickle alone is read on opening; what it says about each tensor of the state dict is
//! checked before one byte of it is read.
//!
//! Source: `PyTorch`, `torch/serialization.py`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Cursor, Read};

use serde_json::Value as Json;
use zip::ZipArchive;

use self::records::{RecordLayout, Records};
use self::view::{NoView, View};
use super::entry::{LeftOut, TensorEntry, size_of};
use super::metadata::METADATA_KEY;
use crate::mapped::Mapped;
use crate::pickle::{self, Pickle, PickledTensor, Value};
use crate::zipped;

mod checksum;
pub(super) mod fresh;
mod nets;
pub(super) mod object;
mod records;
pub(super) mod rewrite;
mod view;

/// The legacy format's magic number, as a pickle writes it.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Returns true if a file with these first bytes is a legacy stream.
pub(super) fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(&[0x80]) && head.windows(LEGACY_MAGIC.len()).any(|bytes| bytes == LEGACY_MAGIC)
}

/// An opened torch file.
#[derive(Debug)]
pub(super) struct TorchArchive {
    records: Records,
    big_endian: bool,
    entries: Vec<TensorEntry>,
    /// The place of the elements of each entry.
    views: Vec<View>,
    left_out: Vec<LeftOut>,
    /// Names of the classes of objects that were passed over.
    foreign: Vec<String>,
    metadata: Vec<(String, String)>,
    /// The entries of a training run beside its tensors; null where there are none or only the net
    /// was asked for.
    rest: Json,
}

/// The part of a torch file that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordPart {
    /// The state dicts of nets.
    Net,
    /// In upstream's training layout, that of the optimizer, and all that is no tensor.
    Training,
}

impl TorchArchive {
    /// Reads the pickle of a zip archive.
    ///
    /// # Errors
    ///
    /// Why an archive or pickle is damaged, hostile or no checkpoint, or where a tensor does
    /// not fit its storage.
    pub(super) fn open_zip(file: Mapped, part: RecordPart) -> Result<Self, String> {
        Self::open(read_zip(file)?, part)
    }

    /// Reads the pickles of a legacy stream.
    ///
    /// # Errors
    ///
    /// Those of [`TorchArchive::open_zip`].
    pub(super) fn open_legacy(file: Mapped, part: RecordPart) -> Result<Self, String> {
        Self::open(read_legacy(file)?, part)
    }

    fn open(contents: Contents, part: RecordPart) -> Result<Self, String> {
        let Contents { records, pickle, big_endian } = contents;
        let root = pickle.root();
        let dict = |key| pickle.get(root, key).filter(|&value| pickle.dict(value).is_some());
        let (groups, rest) = match (part, dict("optimizer")) {
            (RecordPart::Net, _) => (nets::nets(&pickle), Json::Null),
            // Upstream's training layout keeps the optimizer's state beside the state dict.
            (RecordPart::Training, Some(optimizer)) => {
                (vec![(String::new(), optimizer)], rest(&pickle)?)
            }
            (RecordPart::Training, None) => (Vec::new(), Json::Null),
        };
        let skip =
            |key: &str, value| part == RecordPart::Net && nets::is_optimizer(&pickle, key, value);
        let (mut entries, mut views, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for (group, value) in groups {
            for (name, found) in pickle.tensors(value, skip)? {
                let checked = match found {
                    PickledTensor::Plain(rebuild) => View::check(&pickle, rebuild),
                    PickledTensor::Special(special) => Err(NoView::LeftOut(special.to_string())),
                };
                match checked {
                    Ok((dtype, shape, view)) => {
                        entries.push(TensorEntry { group: group.clone(), name, dtype, shape });
                        views.push(view);
                    }
                    Err(NoView::LeftOut(reason)) => left_out.push(LeftOut { name, reason }),
                    Err(NoView::Damaged(reason)) => {
                        return Err(format!("tensor `{name}`: {reason}"));
                    }
                }
            }
        }
        let own = dict(METADATA_KEY).and_then(|own| pickle.dict(own)).unwrap_or_default();
        let text = |value| pickle.text(value).map(str::to_string);
        let metadata = own.iter().filter_map(|&(key, value)| Some((text(key)?, text(value)?)));
        let metadata = metadata.collect();
        let foreign = pickle.foreign().to_vec();
        Ok(Self { records, big_endian, entries, views, left_out, foreign, metadata, rest })
    }

    pub(super) fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    pub(super) fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    pub(super) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The elements of the tensor, and those of its storage that have to be read for them.
    pub(super) fn cost(&self, index: usize) -> Result<u64, String> {
        let view = &self.views[index];
        let size = size_of(self.entries[index].dtype);
        let (start, len) = view.place(size);
        let elements = (view.elements * size) as u64;
        Ok(elements.saturating_add(self.records.cost(&view.key, start, len)?))
    }

    pub(super) fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>, String> {
        let TensorEntry { dtype, shape, .. } = &self.entries[index];
        let view = &self.views[index];
        let size = size_of(*dtype);
        let (start, len) = view.place(size);
        let spanned = self.records.read(&view.key, start, len)?;
        let mut bytes = view.elements(spanned, size, shape);
        if self.big_endian && size > 1 {
            bytes.to_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(view.signed(*dtype, bytes))
    }

    /// Names of the classes of objects that were passed over.
    pub(super) fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// The entries of a training run beside its tensors, with the keys of its dictionary.
    pub(super) fn rest(&self) -> &Json {
        &self.rest
    }
}

/// The entries of the root's dictionary beside the net's state dict, without tensors.
fn rest(pickle: &Pickle) -> Result<Json, String> {
    let mut rest = serde_json::Map::new();
    for &(key, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        if let Some(key) = pickle.text(key).filter(|&key| key != "model") {
            rest.insert(key.to_string(), pickle.json(value)?);
        }
    }
    Ok(Json::Object(rest))
}

/// The parts of a torch file, of either layout.
struct Contents {
    records: Records,
    pickle: Pickle,
    big_endian: bool,
}

fn read_zip(file: Mapped) -> Result<Contents, String> {
    let archive =
        ZipArchive::new(Cursor::new(file.clone())).map_err(|error| zipped::fault(&error))?;
    let folder = folder(archive.file_names().filter_map(|name| name.ok().map(String::from)))?;
    let record = |name: &str, limit| {
        let Some(index) = archive.index_for_name(&format!("{folder}{name}")) else {
            return Ok(Cow::Borrowed(&[][..]));
        };
        records::whole(&file, &archive, index, limit).map_err(|error| format!("{name}: {error}"))
    };
    let big_endian = *record("byteorder", 8)? == *b"big";
    let pickle = Pickle::load(&*record("data.pkl", pickle::MAX_BYTES)?)?;
    let records = Records { file, layout: RecordLayout::Zip { archive, folder } };
    Ok(Contents { records, pickle, big_endian })
}

/// The folder of a torch archive's records, with its slash, by the names of all of them.
fn folder(names: impl Iterator<Item = String>) -> Result<String, String> {
    let names: Vec<String> = names.filter(|name| !name.starts_with("__MACOSX/")).collect();
    let folders = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
    let folders = folders.filter(|folder| folder.is_empty() || folder.ends_with('/'));
    // The outermost, where an archive holds another.
    let folder = folders.min_by_key(|folder| folder.len());
    let beside = |file: &str| names.iter().any(|name| name.ends_with(file));
    match folder {
        _ if beside("/constants.pkl")
            || names.iter().any(|name| name.contains("/code/__torch__")) =>
        {
            Err("is a program of TorchScript; load it with torch.jit.load and save its \
                 state_dict()"
                .into())
        }
        Some(folder) => Ok(folder.to_string()),
        None if beside(".npy") => Err("is an archive of NumPy arrays (.npz), no checkpoint".into()),
        None => Err("is a zip archive, but without the data.pkl of torch".into()),
    }
}

fn read_legacy(file: Mapped) -> Result<Contents, String> {
    let mut left = Cursor::new(&*file);
    let _magic = Pickle::load(&mut left)?;
    let _version = Pickle::load(&mut left)?;
    let system = Pickle::load(&mut left)?;
    let pickle = Pickle::load(&mut left)?;
    let keys = Pickle::load(&mut left)?;

    let big_endian = system.get(system.root(), "little_endian") == Some(Value::Bool(false));
    let sizes: HashMap<_, _> =
        pickle.storages().map(|storage| (storage.key.as_str(), storage.element.size())).collect();
    let mut places = HashMap::new();
    for &key in keys.items(keys.root()).ok_or("has no list of storages")? {
        let key = keys.text(key).ok_or("has a storage without a name")?;
        let size = *sizes.get(key).ok_or_else(|| format!("storage `{key}` is of unknown type"))?;
        let mut count = [0; 8];
        left.read_exact(&mut count).map_err(|error| format!("storage `{key}`: {error}"))?;
        let count = if big_endian { u64::from_be_bytes(count) } else { u64::from_le_bytes(count) };
        let start = left.position();
        let end = count.checked_mul(size as u64).and_then(|bytes| bytes.checked_add(start));
        let end = end
            .filter(|&end| end <= file.len() as u64)
            .ok_or_else(|| format!("storage `{key}` is cut off"))?;
        places.insert(key.to_string(), start..end);
        left.set_position(end);
    }
    let records = Records { file, layout: RecordLayout::Stream(places) };
    Ok(Contents { records, pickle, big_endian })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_folder_of_the_records_and_tells_other_archives_apart() {
        let folder = |names: &[&str]| folder(names.iter().map(ToString::to_string));
        assert_eq!(folder(&["net/data.pkl", "net/data/0"]).unwrap(), "net/");
        assert_eq!(folder(&["data.pkl"]).unwrap(), "");
        let mac = ["__MACOSX/net/._data.pkl", "net/._data.pkl", "a/net/data.pkl", "net/data.pkl"];
        assert_eq!(folder(&mac).unwrap(), "net/");
        assert!(folder(&["m/data.pkl", "m/constants.pkl"]).unwrap_err().contains("TorchScript"));
        assert!(folder(&["mu.npy"]).unwrap_err().contains("NumPy"));
        assert!(folder(&["net/olddata.pkl"]).unwrap_err().contains("without the data.pkl"));
    }

    #[test]
    fn knows_the_legacy_magic_number() {
        let head = [&[0x80, 2, 0x8a, 10], &LEGACY_MAGIC[..], b"."].concat();
        assert!(is_legacy(&head));
        assert!(!is_legacy(&head[..13]));
        assert!(!is_legacy(b""));
    }
}
