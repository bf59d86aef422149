//! Zip archives: what is wrong with one, and one under construction.

use core::cell::Cell;
use std::io::{self, Seek, SeekFrom, Write};
use std::rc::Rc;

use zip::ZipWriter;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;

/// The reason why an archive cannot be opened, in words.
pub(crate) fn fault(error: &ZipError) -> String {
    match error {
        // The record at the end of an archive, which says where its directory lies.
        ZipError::InvalidArchive(text) if text.contains("EOCD") => {
            "is cut short or no zip archive: it has no directory at its end".into()
        }
        error => format!("damaged archive: {error}"),
    }
}

/// An archive that is written record by record.
///
/// Where its file cannot be written, it gives the error and drops the rest. The crate's own writer
/// would try to finish the archive when it is dropped, and print what goes wrong.
pub(crate) struct ZipOutput<W: Write + Seek> {
    zip: ZipWriter<Latch<W>>,
    failed: Rc<Cell<Option<io::Error>>>,
}

impl<W: Write + Seek> ZipOutput<W> {
    /// An empty archive.
    pub(crate) fn new(out: W) -> Self {
        let failed = Rc::default();
        let out = Latch { out: Some(out), failed: Rc::clone(&failed), at: 0, end: 0 };
        Self { zip: ZipWriter::new(out), failed }
    }

    /// Writes a record made of these parts.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn record(
        &mut self,
        name: &str,
        options: SimpleFileOptions,
        parts: &[&[u8]],
    ) -> io::Result<()> {
        self.record_from(name, options, parts.iter().copied().map(Ok))
    }

    /// Writes a record made of parts that come one by one.
    ///
    /// # Errors
    /// Those of writing, and those of the parts.
    pub(crate) fn record_from<B: AsRef<[u8]>>(
        &mut self,
        name: &str,
        options: SimpleFileOptions,
        parts: impl IntoIterator<Item = io::Result<B>>,
    ) -> io::Result<()> {
        let started = self.zip.start_file(name, options).map_err(io::Error::from);
        let written = started.and_then(|()| {
            parts.into_iter().try_for_each(|part| self.zip.write_all(part?.as_ref()))
        });
        self.failed.take().map_or(written, Err)
    }

    /// Writes the directory after the records.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn finish(self) -> io::Result<()> {
        let finished = self.zip.finish().map(|_| ()).map_err(io::Error::from);
        self.failed.take().map_or(finished, Err)
    }
}

/// A writer that keeps its first error and takes all that follows for written.
struct Latch<W> {
    /// None from the first error on.
    out: Option<W>,
    failed: Rc<Cell<Option<io::Error>>>,
    /// Position of the next byte, and the number of bytes.
    at: u64,
    end: u64,
}

impl<W> Latch<W> {
    fn attempt(&mut self, work: impl FnOnce(&mut W) -> io::Result<()>) {
        if let Some(Err(error)) = self.out.as_mut().map(work) {
            self.out = None;
            self.failed.set(Some(error));
        }
    }
}

impl<W: Write> Write for Latch<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|out| out.write_all(bytes));
        self.at += bytes.len() as u64;
        self.end = self.end.max(self.at);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

impl<W: Seek> Seek for Latch<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(offset) => (self.end, offset),
            SeekFrom::Current(offset) => (self.at, offset),
        };
        self.at = from.checked_add_signed(offset).ok_or(io::ErrorKind::InvalidInput)?;
        let at = SeekFrom::Start(self.at);
        self.attempt(|out| out.seek(at).map(|_| ()));
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A disk with room for so many bytes.
    struct Small(Cursor<Vec<u8>>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.get_ref().len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Small {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_fills_up() {
        let write = |room: usize| {
            let mut archive = ZipOutput::new(Small(Cursor::default(), room));
            archive.record("a", SimpleFileOptions::default(), &[b"1", b"2"])?;
            archive.record("b", SimpleFileOptions::default(), &[&[3; 100]])?;
            archive.finish()
        };
        assert!(write(1000).is_ok());
        let enough = (0..1000).find(|&room| write(room).is_ok()).unwrap();
        for room in 0..enough {
            assert_eq!(write(room).unwrap_err().kind(), io::ErrorKind::StorageFull, "{room}");
        }
    }
}
