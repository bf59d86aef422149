//! The storages of a torch file, by key.

use core::ops::Range;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};

use zip::{CompressionMethod, ZipArchive};

use crate::mapped::Mapped;

/// A zip archive's table of contents, and a cursor in the map.
pub(super) type ZipRecords = ZipArchive<Cursor<Mapped>>;

/// The storages of a file.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) file: Mapped,
    pub(super) layout: RecordLayout,
}

/// The layout of the storages in the file.
#[derive(Debug)]
pub(super) enum RecordLayout {
    Zip {
        archive: ZipRecords,
        folder: String,
    },
    /// After the pickles of a legacy stream: the range of each storage.
    Stream(HashMap<String, Range<u64>>),
}

/// The place of a storage.
enum Place<'a> {
    /// Stored plainly, in the bytes of this range of the file, if that has them all.
    Plain(Range<u64>),
    /// Compressed, in the archive's record of this index.
    Compressed(&'a ZipRecords, usize),
}

impl Records {
    /// Bytes to be read for `len` bytes from `start` on of the storage `key`.
    pub(super) fn cost(&self, key: &str, start: u64, len: u64) -> Result<u64, String> {
        match self.find(key)? {
            Place::Plain(range) => self.part(&range, start, len).map(|_| len),
            // What lies before has to be unpacked too.
            Place::Compressed(..) => Ok(start.saturating_add(len)),
        }
        .map_err(|error| failed(key, &error))
    }

    /// The `len` bytes from `start` on of the storage `key`.
    pub(super) fn read(&self, key: &str, start: u64, len: u64) -> Result<Cow<'_, [u8]>, String> {
        match self.find(key)? {
            Place::Plain(range) => self.part(&range, start, len).map(Cow::Borrowed),
            Place::Compressed(archive, index) => unpack(archive, index, start, len).map(Cow::Owned),
        }
        .map_err(|error| failed(key, &error))
    }

    /// The byte range of the storage `key`, which must be stored plainly, in the file.
    pub(super) fn plain(&self, key: &str) -> Result<Range<u64>, String> {
        match self.find(key)? {
            Place::Plain(range) => {
                let len = range.end.saturating_sub(range.start);
                self.part(&range, 0, len).map_err(|error| failed(key, &error))?;
                Ok(range)
            }
            Place::Compressed(..) => Err(format!(
                "its storage `{key}` is compressed and cannot be replaced in place; load and save \
                 the file with torch, which compresses nothing"
            )),
        }
    }

    fn find(&self, key: &str) -> Result<Place<'_>, String> {
        let missing = || format!("its storage `{key}` is missing");
        match &self.layout {
            RecordLayout::Zip { archive, folder } => {
                let name = format!("{folder}data/{key}");
                let index = archive.index_for_name(&name).ok_or_else(missing)?;
                place(archive, index).map_err(|error| failed(key, &error))
            }
            RecordLayout::Stream(places) => {
                Ok(Place::Plain(places.get(key).ok_or_else(missing)?.clone()))
            }
        }
    }

    /// The `len` bytes from `start` on of the file's bytes in `range`.
    fn part(&self, range: &Range<u64>, start: u64, len: u64) -> io::Result<&[u8]> {
        let begin = range.start.checked_add(start);
        let end = begin.and_then(|begin| begin.checked_add(len)).filter(|&end| end <= range.end);
        let part = begin.zip(end).and_then(|(begin, end)| {
            self.file.get(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)
        });
        part.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn failed(key: &str, error: &io::Error) -> String {
    format!("its storage `{key}`: {error}")
}

/// The place of the record of this index.
///
/// The CRC-32 of a stored record is not looked at, as in torch, which can be told to write none
/// (`torch.serialization.set_crc32_options`).
fn place(archive: &ZipRecords, index: usize) -> io::Result<Place<'_>> {
    // A clone shares the table of contents and has a cursor of its own.
    let mut reader = archive.clone();
    let record = reader.by_index_raw(index)?;
    if record.encrypted() {
        return Err(io::Error::other("is encrypted"));
    }
    match (record.compression(), record.data_start()) {
        (CompressionMethod::Stored, Some(start)) => {
            Ok(Place::Plain(start..start.saturating_add(record.compressed_size())))
        }
        _ => Ok(Place::Compressed(archive, index)),
    }
}

/// The record of this index in the archive that `file` is; of a compressed one at most `limit`
/// bytes.
pub(super) fn whole<'a>(
    file: &'a Mapped,
    archive: &ZipRecords,
    index: usize,
    limit: u64,
) -> io::Result<Cow<'a, [u8]>> {
    if let Place::Plain(range) = place(archive, index)? {
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let bytes = bounds.and_then(|(start, end)| file.get(start..end));
        return bytes.map(Cow::Borrowed).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = Vec::new();
    archive.clone().by_index(index)?.take(limit).read_to_end(&mut bytes)?;
    Ok(Cow::Owned(bytes))
}

/// The `len` bytes from `start` on of a compressed record.
fn unpack(archive: &ZipRecords, index: usize, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut archive = archive.clone();
    let mut record = archive.by_index(index)?;
    io::copy(&mut record.by_ref().take(start), &mut io::sink())?;
    let mut bytes = Vec::new();
    record.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}
