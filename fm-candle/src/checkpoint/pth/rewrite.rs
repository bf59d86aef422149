//! A torch file with other values: a copy in which the elements of some tensors are replaced.
//!
//! A value of the same dtype takes the place of the old one, so everything else stays where and
//! what it is: pickle, names, order, alignment, other records. That holds for zip archives and
//! legacy streams, in both orders of bytes; of an archive the CRC-32 of each changed storage is
//! renewed.
//!
//! Tensors that view a storage together are put together in memory, where it shows if two of
//! them, or two places of one, want different values for an element.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io::{self, Seek, SeekFrom, Write};

use super::super::entry::size_of;
use super::TorchArchive;
use super::checksum::renew;
use super::records::RecordLayout;
use crate::atomic::Writer;

/// A copy under construction.
#[derive(Debug)]
pub(in crate::checkpoint) struct Rewrite<'a> {
    archive: &'a TorchArchive,
    /// The number of tensors that view a storage.
    views: HashMap<&'a str, usize>,
    /// Storages that several tensors view, or that one views out of order.
    shared: HashMap<&'a str, Shared>,
    /// Storages that have changed.
    changed: Vec<&'a str>,
}

/// A storage put together in memory.
#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    /// True for elements that have their new value.
    put: Vec<bool>,
}

/// The reason why a tensor did not get its elements.
#[derive(Debug)]
pub(in crate::checkpoint) enum RewriteError {
    /// The file cannot be written.
    Io(io::Error),
    /// The tensor's storage cannot take them, for this reason.
    Refused(String),
}

impl From<io::Error> for RewriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for RewriteError {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl<'a> Rewrite<'a> {
    /// Copies the file.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn start(
        archive: &'a TorchArchive,
        out: &mut Writer<'_>,
    ) -> io::Result<Self> {
        out.write_all(&archive.records.file)?;
        let mut views = HashMap::new();
        for view in &archive.views {
            *views.entry(view.key.as_str()).or_insert(0) += 1;
        }
        Ok(Self { archive, views, shared: HashMap::new(), changed: Vec::new() })
    }

    /// Gives the tensor of the entry at `index` new elements: as many, of the same dtype,
    /// little-endian, in row-major order.
    ///
    /// # Errors
    ///
    /// Those of writing; why its storage cannot take them.
    pub(in crate::checkpoint) fn put(
        &mut self,
        out: &mut Writer<'_>,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), RewriteError> {
        let archive = self.archive;
        let (entry, view) = (&archive.entries[index], &archive.views[index]);
        let (size, key) = (size_of(entry.dtype), view.key.as_str());
        assert_eq!(bytes.len(), view.elements * size, "elements given and held");
        if bytes.is_empty() {
            return Ok(());
        }
        let mut bytes = view.signed(entry.dtype, bytes.into());
        if archive.big_endian {
            bytes.to_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        let range = archive.records.plain(key)?;
        if self.views[key] == 1 && view.is_plain(&entry.shape) {
            out.seek(SeekFrom::Start(range.start + view.place(size).0))?;
            out.write_all(&bytes)?;
            self.changed.push(key);
            return Ok(());
        }
        let shared = match self.shared.entry(key) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let mut tensors = archive.entries.iter().zip(&archive.views);
                if let Some((other, _)) =
                    tensors.find(|(other, view)| view.key == key && other.dtype != entry.dtype)
                {
                    let name = &other.name;
                    let reason = format!("shares a storage with `{name}`, which has another dtype");
                    return Err(reason.into());
                }
                let len = range.end - range.start;
                let bytes = archive.records.read(key, 0, len)?.into_owned();
                slot.insert(Shared { put: vec![false; bytes.len() / size], bytes })
            }
        };
        for (element, place) in bytes.chunks_exact(size).zip(view.places(&entry.shape)) {
            shared.put(element, place)?;
        }
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn finish(mut self, out: &mut Writer<'_>) -> io::Result<()> {
        for (&key, shared) in &self.shared {
            let range = self.archive.records.plain(key).map_err(io::Error::other)?;
            out.seek(SeekFrom::Start(range.start))?;
            out.write_all(&shared.bytes)?;
            self.changed.push(key);
        }
        let RecordLayout::Zip { archive, folder } = &self.archive.records.layout else {
            return Ok(());
        };
        for key in &self.changed {
            let index = archive.index_for_name(&format!("{folder}data/{key}"));
            let renewed = renew(out, archive, index.ok_or(io::ErrorKind::NotFound)?);
            renewed.map_err(|error| io::Error::other(format!("storage `{key}`: {error}")))?;
        }
        Ok(())
    }
}

impl Shared {
    /// Sets the element at `place`, which keeps the value once it has one.
    fn put(&mut self, element: &[u8], place: usize) -> Result<(), String> {
        let size = element.len();
        let put = self.put.get_mut(place).ok_or("its storage is cut off")?;
        let old = &mut self.bytes[place * size..][..size];
        if core::mem::replace(put, true) && old != element {
            return Err("shares memory with another tensor or within itself, and quantized both \
                        would differ; clone() it before saving"
                .into());
        }
        old.copy_from_slice(element);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_takes_one_value() {
        let mut shared = Shared { bytes: vec![0; 4], put: vec![false; 2] };
        assert!(shared.put(&[1, 2], 1).is_ok());
        assert!(shared.put(&[1, 2], 1).is_ok());
        assert!(shared.put(&[1, 3], 1).unwrap_err().starts_with("shares memory"));
        assert!(shared.put(&[1, 3], 2).unwrap_err().contains("cut off"));
        assert_eq!(shared.bytes, [0, 0, 1, 2]);
    }
}
