//! Output files that appear whole or not at all: write beside, fsync, rename.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

/// The writer that [`write_with`] hands its caller: buffered, and seekable for archive formats.
pub type Writer<'a> = BufWriter<&'a File>;

/// Writes `bytes` to `path`, replacing what was there only once all of them are on disk.
///
/// # Errors
///
/// Those of [`write_with`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Lets `fill` write to `path`, replacing what was there only once `fill` is done and its
/// bytes are on disk.
///
/// The bytes go to a temporary file in the same folder, so that the final rename cannot
/// cross file systems. When anything fails the temporary file is removed and an older file
/// at `path` stays as it was. The folder is checked before `fill` starts to compute.
///
/// # Errors
///
/// Those of [`check_target`]; [`Error::Io`], naming `path`, where the folder is not writable, the disk
/// is full, or `fill` fails.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut Writer<'_>) -> io::Result<()>) -> Result<()> {
    write_through(path, |out| fill(out).map_err(|source| Error::io(path, source)))
}

/// Lets `fill` write to `path` as [`write_with`] does, for a `fill` with a result and errors of its
/// own.
///
/// # Errors
///
/// Those of [`write_with`], and those of `fill` as they are.
pub fn write_through<T>(path: &Path, fill: impl FnOnce(&mut Writer<'_>) -> Result<T>) -> Result<T> {
    check_target(path)?;
    let io = |source| Error::io(path, source);
    let folder = folder(path);
    let beside = beside(folder).map_err(io)?;
    let mut out = BufWriter::new(beside.as_file());
    let result = fill(&mut out)?;
    out.flush().map_err(io)?;
    drop(out);
    beside.as_file().sync_all().map_err(io)?;
    beside.persist(path).map_err(|failed| io(failed.error))?;
    sync_folder(folder).map_err(io)?;
    Ok(result)
}

/// Removes what writers that were killed have left beside their targets in `dir`.
///
/// # Errors
///
/// [`Error::Io`] where the folder cannot be read or a file in it not be removed.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    let io = |source| Error::io(dir, source);
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().as_encoded_bytes().starts_with(BESIDE.as_bytes()) {
            fs::remove_file(entry.path()).map_err(|source| Error::io(&entry.path(), source))?;
        }
    }
    Ok(())
}

/// Checks, before the work that fills it, that an output can be put at `path`.
///
/// # Errors
///
/// [`Error::File`] where something is there that is no regular file (a rename would replace the
/// device or folder itself), or where the folder of `path` does not exist; [`Error::Io`] where the
/// folder cannot be looked at.
pub fn check_target(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::file(path, "is a folder, and the output is a file"));
        }
        Ok(found) if !found.is_file() => {
            return Err(Error::file(path, "is no regular file, so it cannot be replaced"));
        }
        _ => {}
    }
    let folder = folder(path);
    let fault = match fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "is a file",
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => "does not exist",
        Err(cause) => return Err(Error::io(path, cause)),
    };
    Err(Error::file(path, format!("the folder `{}` {fault}", folder.display())))
}

/// Prefix of the names of temporary files.
const BESIDE: &str = ".fmq-";

/// Gives the finished file at `from`, open as `file`, the name `to` in the same folder, once its
/// bytes are on disk.
///
/// # Errors
///
/// [`Error::Io`], naming `to`, where the system refuses.
pub(crate) fn publish(file: &File, from: &Path, to: &Path) -> Result<()> {
    let io = |source| Error::io(to, source);
    file.sync_all().map_err(io)?;
    fs::rename(from, to).map_err(io)?;
    sync_folder(folder(to)).map_err(io)
}

/// The folder that `path` lies in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new file in `folder`, readable by whom the umask allows, as any other output.
fn beside(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(BESIDE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes the rename itself survive a power cut; other systems have no such call.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_an_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names_in(folder.path()), ["out.bin"]);
    }

    #[test]
    fn failure_keeps_the_older_file_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |out| {
            out.write_all(b"half of")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(error.unwrap_err().to_string().ends_with("out.bin`: the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["out.bin"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        let error = write(&absent.join("out.bin"), b"x").unwrap_err().to_string();
        assert!(error.ends_with(&format!("the folder `{}` does not exist", absent.display())));
        fs::write(&absent, "a file").unwrap();
        let error = write(&absent.join("out.bin"), b"x").unwrap_err().to_string();
        assert!(error.ends_with(&format!("the folder `{}` is a file", absent.display())));
    }

    #[test]
    fn refuses_to_replace_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(folder.path(), b"x").unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn output_has_the_permissions_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        write(&folder.path().join("ours"), b"x").unwrap();
        fs::write(folder.path().join("plain"), b"x").unwrap();
        assert_eq!(mode("ours"), mode("plain"));
    }
}
