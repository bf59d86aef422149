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

use self::records::{Layout, Records};
use self::view::View;
use super::{Entry, Store, size_of};
use crate::mapped::Mapped;
use crate::pickle::{self, Pickle, Value};

mod checksum;
pub(super) mod fresh;
pub(super) mod object;
mod records;
pub(super) mod rewrite;
mod view;

/// The legacy format's magic number, as a pickle writes it.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file with these first bytes is a legacy stream.
pub(super) fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(&[0x80]) && head.windows(LEGACY_MAGIC.len()).any(|bytes| bytes == LEGACY_MAGIC)
}

/// An opened torch file.
#[derive(Debug)]
pub(super) struct Archive {
    records: Records,
    big_endian: bool,
    entries: Vec<Entry>,
    /// Where the elements of each entry lie.
    views: Vec<View>,
    metadata: Vec<(String, String)>,
    /// What is beside the tensors of a training run; null where there is none or only its net was
    /// asked for.
    rest: Json,
}

/// Which part of a torch file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The state dict of the net.
    Net,
    /// In upstream's training layout, that of the optimizer, and all that is no tensor.
    Training,
}

/// Key of our metadata in the dictionary of a training run.
pub(crate) const METADATA_KEY: &str = "fmq";

impl Archive {
    /// Reads the pickle of a zip archive.
    ///
    /// # Errors
    ///
    /// Why an archive or pickle is damaged, hostile or no checkpoint, or where a tensor does
    /// not fit its storage.
    pub(super) fn open_zip(file: Mapped, part: Part) -> Result<Self, String> {
        Self::open(read_zip(file)?, part)
    }

    /// Reads the pickles of a legacy stream.
    ///
    /// # Errors
    ///
    /// Those of [`Archive::open_zip`].
    pub(super) fn open_legacy(file: Mapped, part: Part) -> Result<Self, String> {
        Self::open(read_legacy(file)?, part)
    }

    fn open(contents: Contents, part: Part) -> Result<Self, String> {
        let Contents { records, pickle, big_endian } = contents;
        let root = pickle.root();
        let dict = |key| pickle.get(root, key).filter(|&value| pickle.dict(value).is_some());
        let (from, rest) = match (part, dict("optimizer")) {
            // Upstream's training layout keeps the state dict beside the optimizer's state.
            (Part::Net, _) => (dict("model").unwrap_or(root), Json::Null),
            (Part::Training, Some(optimizer)) => (optimizer, rest(&pickle)?),
            (Part::Training, None) => (Value::None, Json::Null),
        };
        let (mut entries, mut views) = (Vec::new(), Vec::new());
        for (name, found) in pickle.tensors(from)? {
            let (dtype, shape, view) = View::check(&pickle, found)
                .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            entries.push(Entry { name, dtype, shape });
            views.push(view);
        }
        let own = dict(METADATA_KEY).and_then(|own| pickle.dict(own)).unwrap_or_default();
        let text = |value| pickle.text(value).map(str::to_string);
        let metadata = own.iter().filter_map(|&(key, value)| Some((text(key)?, text(value)?)));
        let metadata = metadata.collect();
        Ok(Self { records, big_endian, entries, views, metadata, rest })
    }

    /// What is beside the tensors of a training run, with the keys of its dictionary.
    pub(super) fn rest(&self) -> &Json {
        &self.rest
    }
}

/// What the root's dictionary holds beside the net's state dict, without tensors.
fn rest(pickle: &Pickle) -> Result<Json, String> {
    let mut rest = serde_json::Map::new();
    for &(key, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        if let Some(key) = pickle.text(key).filter(|&key| key != "model") {
            rest.insert(key.to_string(), pickle.json(value)?);
        }
    }
    Ok(Json::Object(rest))
}

impl Store for Archive {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The elements of the tensor, and those of its storage that have to be read for them.
    fn cost(&self, index: usize) -> Result<u64, String> {
        let view = &self.views[index];
        let size = size_of(self.entries[index].dtype);
        let (start, len) = view.place(size);
        let elements = (view.elements * size) as u64;
        Ok(elements.saturating_add(self.records.cost(&view.key, start, len)?))
    }

    fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>, String> {
        let Entry { dtype, shape, .. } = &self.entries[index];
        let view = &self.views[index];
        let size = size_of(*dtype);
        let (start, len) = view.place(size);
        let spanned = self.records.read(&view.key, start, len)?;
        let mut bytes = view.elements(spanned, size, shape);
        if self.big_endian && size > 1 {
            bytes.to_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }

    fn torch(&self) -> Option<&Archive> {
        Some(self)
    }
}

/// What either layout consists of.
struct Contents {
    records: Records,
    pickle: Pickle,
    big_endian: bool,
}

fn read_zip(file: Mapped) -> Result<Contents, String> {
    let archive = ZipArchive::new(Cursor::new(file.clone()))
        .map_err(|error| format!("damaged archive: {error}"))?;
    let folder = |name: &str| name.strip_suffix("data.pkl").map(str::to_string);
    let folder = archive.file_names().find_map(|name| folder(&name.ok()?));
    let folder = folder.ok_or("is a zip archive, but without the data.pkl of torch")?;
    let record = |name: &str, limit| {
        let Some(index) = archive.index_for_name(&format!("{folder}{name}")) else {
            return Ok(Cow::Borrowed(&[][..]));
        };
        records::whole(&file, &archive, index, limit).map_err(|error| format!("{name}: {error}"))
    };
    let big_endian = *record("byteorder", 8)? == *b"big";
    let pickle = Pickle::load(&*record("data.pkl", pickle::MAX_BYTES)?)?;
    let records = Records { file, layout: Layout::Zip { archive, folder } };
    Ok(Contents { records, pickle, big_endian })
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
        pickle.storages().map(|storage| (storage.key.as_str(), size_of(storage.dtype))).collect();
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
    let records = Records { file, layout: Layout::Stream(places) };
    Ok(Contents { records, pickle, big_endian })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_legacy_magic_number() {
        let head = [&[0x80, 2, 0x8a, 10], &LEGACY_MAGIC[..], b"."].concat();
        assert!(is_legacy(&head));
        assert!(!is_legacy(&head[..13]));
        assert!(!is_legacy(b""));
    }
}
