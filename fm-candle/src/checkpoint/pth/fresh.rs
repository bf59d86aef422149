//! A torch file of our own: an archive in the layout of `torch.save`.
//!
//! The records are stored, their data at multiples of 64 bytes, as torch has them.
//!
//! Source: `PyTorch`, `torch/serialization.py` (`_save`).

use std::io::{self, Seek, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime};

use crate::zipped::ZipOutput;

/// The folder in the archive, when torch is given a buffer instead of a path.
const FOLDER: &str = "archive";
/// At which multiples of bytes the records' data lie.
const ALIGNMENT: u16 = 64;
/// Longest record without the 64-bit extension of the format.
const MAX_SMALL: u64 = 0xffff_ffff;

/// A file under construction.
pub(in crate::checkpoint) struct Fresh<W: Write + Seek> {
    archive: ZipOutput<W>,
    storages: usize,
}

impl<W: Write + Seek> Fresh<W> {
    /// Writes what comes before the storages: the pickle of an [`Object`](super::object::Object).
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn start(out: W, pickle: &[u8]) -> io::Result<Self> {
        let mut fresh = Self { archive: ZipOutput::new(out), storages: 0 };
        fresh.record("data.pkl", pickle)?;
        fresh.record("byteorder", b"little")?;
        Ok(fresh)
    }

    /// Writes the elements of the next tensor, little-endian, in row-major order.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.record(&format!("data/{}", self.storages), bytes)?;
        self.storages += 1;
        Ok(())
    }

    /// Writes the record after the storages, and the directory.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn finish(mut self) -> io::Result<()> {
        self.record("version", b"3\n")?;
        self.archive.finish()
    }

    fn record(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(bytes.len() as u64 > MAX_SMALL)
            .with_alignment(ALIGNMENT);
        self.archive.record(&format!("{FOLDER}/{name}"), options, &[bytes])
    }
}
