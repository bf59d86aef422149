//! Regular files: nothing else is opened, as a pipe could keep us waiting for ever.

use std::fs::{self, File, FileType};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a regular file for reading; links are followed.
///
/// # Errors
///
/// [`Error::File`] for anything else, by what it is; [`Error::Io`] where it cannot be opened.
pub fn open(path: &Path) -> Result<File> {
    let io = |error| Error::io(path, error);
    let kind = fs::metadata(path).map_err(io)?.file_type();
    if !kind.is_file() {
        return Err(Error::file(path, format!("is {}; a regular file is needed", noun(kind))));
    }
    File::open(path).map_err(io)
}

/// Returns true if something that is no folder lies there, to be opened.
pub(super) fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_dir())
}

/// The name of the kind of a file that is not regular: `a pipe`.
pub(super) fn noun(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    "no regular file"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_open_and_folders_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"x").unwrap();
        assert!(open(&path).is_ok());
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("is a folder; a regular file is needed"), "{error}");
        assert!(matches!(open(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, what) in
            [(&*socket, "a socket"), (&pipe, "a pipe"), (Path::new("/dev/null"), "a device")]
        {
            let error = open(path).unwrap_err().to_string();
            assert!(error.contains(&format!("is {what};")), "{error}");
        }
    }
}
