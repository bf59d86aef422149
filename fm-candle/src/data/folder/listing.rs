//! The entries of one folder: images, folders, and those that are neither.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::data::regular;
use crate::error::{Error, Result};

/// Extensions of torchvision's images, in lower case.
pub(super) const EXTENSIONS: [&str; 9] =
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

/// Names that systems and programs give their own, beside those that begin with a dot.
const SYSTEM: [&str; 10] = [
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
];

/// Returns true if a name is one that systems and programs put into any folder: a hidden one, such
/// as `.ipynb_checkpoints` or `._1.jpg`, or one of their own, such as `__MACOSX`.
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || SYSTEM.iter().any(|system| name.eq_ignore_ascii_case(system))
}

/// Returns true if torchvision takes a file of this name for an image.
pub(super) fn is_image(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    EXTENSIONS.iter().any(|end| {
        name.len()
            .checked_sub(end.len())
            .is_some_and(|at| name[at..].eq_ignore_ascii_case(end.as_bytes()))
    })
}

/// The folders and images that were passed over for their names ([`is_hidden`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Number of them.
    pub count: usize,
    /// Path of one of them.
    pub example: Option<PathBuf>,
}

/// The entries of one folder, by name.
pub(super) struct Listing {
    pub(super) folder: PathBuf,
    pub(super) images: Vec<OsString>,
    pub(super) folders: Vec<OsString>,
    /// Folders and images with names that are passed over.
    hidden: Vec<OsString>,
    pub(super) strange: Vec<Strange>,
}

/// A link to nothing, or what is called like an image but is no file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Strange {
    pub(super) name: OsString,
    is: &'static str,
}

impl Strange {
    /// Says what it is, and what may be done.
    pub(super) fn error(&self, folder: &Path, advice: &str) -> Error {
        Error::file(&folder.join(&self.name), format!("is {}, no image; {advice}", self.is))
    }
}

impl Listing {
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let failed = |error| Error::io(folder, error);
        let (mut images, mut folders) = (Vec::new(), Vec::new());
        let (mut hidden, mut strange) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let mut kind = entry.file_type().map_err(failed)?;
            if is_hidden(&name) {
                if !kind.is_file() || is_image(&name) {
                    hidden.push(name);
                }
                continue;
            }
            if kind.is_symlink() {
                kind = match fs::metadata(entry.path()) {
                    Ok(target) => target.file_type(),
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        return Err(Error::io(&entry.path(), error));
                    }
                    // Whatever it is called: it may have led to a class.
                    Err(_) => {
                        strange.push(Strange { name, is: "a link to nothing" });
                        continue;
                    }
                };
            }
            match (kind.is_dir(), is_image(&name)) {
                (true, _) => folders.push(name),
                (false, true) if kind.is_file() => images.push(name),
                (false, true) => strange.push(Strange { name, is: regular::noun(kind) }),
                (false, false) => {}
            }
        }
        for names in [&mut images, &mut folders, &mut hidden] {
            names.sort_unstable();
        }
        strange.sort_unstable();
        Ok(Self { folder: folder.to_path_buf(), images, folders, hidden, strange })
    }

    /// Adds the names that were passed over.
    pub(super) fn count_hidden(&self, hidden: &mut Hidden) {
        hidden.count += self.hidden.len();
        if let (None, Some(first)) = (&hidden.example, self.hidden.first()) {
            hidden.example = Some(self.folder.join(first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_are_hidden_and_those_of_people_are_not() {
        for name in [".", ".git", "._1.jpg", "__macosx", "THUMBS.DB", "lost+found", "@eaDir"] {
            assert!(is_hidden(name.as_ref()), "{name}");
        }
        for name in ["n01440764", "_", "macosx", "thumbs", "a.b", "lost"] {
            assert!(!is_hidden(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn images_go_by_their_extension_in_any_case() {
        for name in ["1.jpg", "1.JPEG", "a.b.Png", "x.WebP", "y.tif", "z.TIFF", "p.ppm", "g.PGM"] {
            assert!(is_image(name.as_ref()), "{name}");
        }
        for name in ["jpg", "1.jpg.txt", "1.gif", "1.npy", "jpeg"] {
            assert!(!is_image(name.as_ref()), "{name}");
        }
    }
}
