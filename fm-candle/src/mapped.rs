//! Files as memory: pages come from the disk when they are read, and go when memory is short.
//!
//! A map costs no memory of its own, so a checkpoint of any size can be read tensor by tensor. The
//! price is paid by whoever changes a file that is being read. Bytes written in place by another
//! process may be seen or not, and where the file is cut short, reading after its new end raises
//! SIGBUS on Unix, which ends the process. A file that is replaced, as [`crate::atomic`] does, is
//! safe: the map stays with the old one (Windows refuses to replace a file while it is mapped).

use core::ops::Deref;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::data::regular;
use crate::error::{Error, Result};

/// A file's bytes, read-only; clones share the map.
#[derive(Clone, Debug)]
pub struct Mapped(Arc<Mmap>);

impl Mapped {
    /// Maps the file at `path`, as long as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened or mapped; [`Error::File`] for a folder, a
    /// pipe or a device.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(&regular::open(path)?).map_err(|cause| Error::io(path, cause))
    }

    /// Maps an open file, as long as it is now.
    ///
    /// # Errors
    ///
    /// The system's error where it cannot be mapped.
    #[expect(unsafe_code, reason = "every call that maps a file is unsafe")]
    pub fn of(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is private to this type, which hands out shared slices of bytes only.
        // Every value of a byte is valid, so the slices are sound as long as nobody changes the
        // file meanwhile; that cannot be enforced, as for every reader of maps: a change by
        // another process may show, a cut may end this process by SIGBUS (see the module).
        Ok(Self(Arc::new(unsafe { Mmap::map(file)? })))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_the_file_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [&b""[..], b"x", &[7; 9000]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(&*Mapped::open(&path).unwrap(), bytes);
        }
    }

    #[cfg(unix)]
    #[test]
    fn stays_with_a_file_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let mapped = Mapped::open(&path).unwrap();
        crate::atomic::write(&path, b"").unwrap();
        assert_eq!(&*mapped, b"old");
    }

    #[test]
    fn refuses_folders_and_missing_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Mapped::open(folder.path()), Err(Error::File { .. })));
        assert!(matches!(Mapped::open(&folder.path().join("none")), Err(Error::Io { .. })));
    }
}
