//! Which images a folder holds, and of which class.
//!
//! As torchvision's `ImageFolder` has it: each folder inside is a class, by name; its files, those
//! of folders deeper down included, are ordered by folder, then by name; a file counts by its
//! extension; links are followed. A folder of images alone has no classes.
//!
//! Names are ordered by their bytes. Source: `torchvision/datasets/folder.py`: `find_classes`,
//! `make_dataset`, `IMG_EXTENSIONS`.

use core::ops::Range;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Extensions of torchvision's images, in lower case.
const EXTENSIONS: [&[u8]; 9] =
    [b".jpg", b".jpeg", b".png", b".ppm", b".bmp", b".pgm", b".tif", b".tiff", b".webp"];

/// Deepest folder below a class; a link to a folder above itself has no end.
const MAX_DEPTH: usize = 16;

/// The images of a folder, by number.
#[derive(Debug)]
pub(super) struct Index {
    folders: Vec<PathBuf>,
    /// Each file's folder, and its name there.
    files: Vec<(usize, Box<OsStr>)>,
    /// The number of each class's first image, and behind all that of the images; without classes
    /// one range of all.
    starts: Vec<usize>,
    labelled: bool,
}

impl Index {
    /// Lists `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a folder cannot be listed; [`Error::File`] when there is no image in it
    /// or in one of its classes, when images lie beside class folders, or folders nest without end.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let top = Listing::of(dir)?;
        let labelled = !top.folders.is_empty();
        if let (true, Some(image)) = (labelled, top.images.first()) {
            let (image, folder) =
                (Path::new(image).display(), Path::new(&top.folders[0]).display());
            let reason = format!(
                "holds an image (`{image}`) beside a folder (`{folder}`); give a folder of classes or \
                 one of images"
            );
            return Err(Error::file(dir, reason));
        }
        let classes: Vec<Vec<Listing>> = if labelled {
            let listings = top.folders.par_iter().map(|name| below(&dir.join(name)));
            listings.collect::<Result<_>>()?
        } else {
            vec![vec![top]]
        };

        let mut index =
            Self { folders: Vec::new(), files: Vec::new(), starts: Vec::new(), labelled };
        for class in classes {
            if class.iter().all(|listing| listing.images.is_empty()) {
                return Err(none(&class[0].folder));
            }
            index.starts.push(index.files.len());
            for listing in class {
                let folder = index.folders.len();
                index.files.extend(listing.images.into_iter().map(|name| (folder, name.into())));
                index.folders.push(listing.folder);
            }
        }
        index.starts.push(index.files.len());
        Ok(index)
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Number of classes, 0 without.
    pub(super) fn classes(&self) -> usize {
        if self.labelled { self.starts.len() - 1 } else { 0 }
    }

    /// Class of image `i`, if there are classes.
    pub(super) fn label(&self, i: usize) -> Option<u32> {
        self.labelled.then(|| u32::try_from(self.class(i)).ok()).flatten()
    }

    /// The images of the class that image `i` is of; all without classes.
    pub(super) fn peers(&self, i: usize) -> Range<usize> {
        let class = self.class(i);
        self.starts[class]..self.starts[class + 1]
    }

    /// Where image `i` lies.
    pub(super) fn path(&self, i: usize) -> PathBuf {
        let (folder, name) = &self.files[i];
        self.folders[*folder].join(Path::new(name))
    }

    fn class(&self, i: usize) -> usize {
        self.starts.partition_point(|&start| start <= i) - 1
    }
}

/// The images that lie in `dir` itself, by name, whatever folders are beside them.
///
/// # Errors
///
/// [`Error::Io`] when it cannot be listed; [`Error::File`] when there are none.
pub(super) fn flat(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = Listing::of(dir)?;
    if listing.images.is_empty() {
        return Err(none(dir));
    }
    Ok(listing.images.iter().map(|name| dir.join(name)).collect())
}

/// The error of a folder without images.
fn none(folder: &Path) -> Error {
    let known = EXTENSIONS.map(|end| String::from_utf8_lossy(&end[1..])).join(", ");
    Error::file(folder, format!("holds no images; their names end in {known}"))
}

/// What lies in one folder, by name.
struct Listing {
    folder: PathBuf,
    images: Vec<OsString>,
    folders: Vec<OsString>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Self> {
        let failed = |error| Error::io(folder, error);
        let (mut images, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            // A link to nothing is left to whoever reads it.
            let is_folder = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
            if is_folder {
                folders.push(name);
            } else if is_image(&name) {
                images.push(name);
            }
        }
        images.sort_unstable();
        folders.sort_unstable();
        Ok(Self { folder: folder.to_path_buf(), images, folders })
    }
}

/// Whether torchvision takes a file of this name for an image.
fn is_image(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    EXTENSIONS.iter().any(|end| {
        name.len().checked_sub(end.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(end))
    })
}

/// A class's folder and all folders below it, in the order of their paths.
fn below(class: &Path) -> Result<Vec<Listing>> {
    let mut found = Vec::new();
    let mut todo = vec![(class.to_path_buf(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        if depth > MAX_DEPTH {
            let reason =
                format!("lies {depth} folders deep; a link may lead back to a folder above");
            return Err(Error::file(&folder, reason));
        }
        let listing = Listing::of(&folder)?;
        todo.extend(listing.folders.iter().map(|name| (folder.join(name), depth + 1)));
        found.push(listing);
    }
    // As whole strings, not name by name: `a-b` comes before `a/k`.
    let bytes = |listing: &Listing| listing.folder.as_os_str().as_encoded_bytes().to_vec();
    found.sort_by_cached_key(bytes);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of empty files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        dir
    }

    fn listed(dir: &Path) -> Vec<(String, Option<u32>)> {
        let index = Index::of(dir).unwrap();
        let name = |path: PathBuf| path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        (0..index.len()).map(|i| (name(index.path(i)).replace('\\', "/"), index.label(i))).collect()
    }

    fn complaint(files: &[&str]) -> String {
        Index::of(tree(files).path()).unwrap_err().to_string()
    }

    #[test]
    fn orders_classes_and_files_as_torchvision_does() {
        // torchvision.datasets.folder.make_dataset gives this very list.
        let dir = tree(&[
            "cat/b.jpg",
            "cat/B.PNG",
            "cat/a/z.webp",
            "cat/a/k/x.webp",
            "cat/a-b/y.JPEG",
            "cat/10.jpg",
            "cat/9.jpg",
            "cat/.jpg",
            "cat/notes.txt",
            "cat/.DS_Store",
            "cat/jpg",
            "ant/x.tiff",
            "Zoo/q.bmp",
        ]);
        let expected = [
            ("Zoo/q.bmp", 0),
            ("ant/x.tiff", 1),
            ("cat/.jpg", 2),
            ("cat/10.jpg", 2),
            ("cat/9.jpg", 2),
            ("cat/B.PNG", 2),
            ("cat/b.jpg", 2),
            ("cat/a/z.webp", 2),
            ("cat/a-b/y.JPEG", 2),
            ("cat/a/k/x.webp", 2),
        ];
        assert_eq!(listed(dir.path()), expected.map(|(name, class)| (name.into(), Some(class))));
        let index = Index::of(dir.path()).unwrap();
        assert_eq!((index.classes(), index.peers(0), index.peers(5)), (3, 0..1, 2..10));
    }

    #[test]
    fn a_folder_of_images_has_no_classes() {
        let dir = tree(&["2.jpg", "1.jpg", "readme.txt"]);
        assert_eq!(listed(dir.path()), [("1.jpg".into(), None), ("2.jpg".into(), None)]);
        let index = Index::of(dir.path()).unwrap();
        assert_eq!((index.classes(), index.peers(1)), (0, 0..2));
    }

    #[test]
    fn names_the_folder_at_fault() {
        assert!(
            complaint(&["readme.txt"]).contains("holds no images; their names end in jpg, jpeg")
        );
        let empty = complaint(&["cat/1.jpg", "dog/readme.txt"]);
        assert!(empty.contains("dog`: holds no images"), "{empty}");
        let both = complaint(&["cat/1.jpg", "2.jpg"]);
        assert!(both.contains("an image (`2.jpg`) beside a folder (`cat`)"), "{both}");
        let missing = Index::of(Path::new("no such folder")).unwrap_err().to_string();
        assert!(missing.starts_with("`no such folder`"), "{missing}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_for_ever() {
        use std::os::unix::fs::symlink;
        let dir = tree(&["set/cat/1.jpg", "far/2.jpg", "3.png"]);
        let at = |path: &str| dir.path().join(path);
        symlink(at("far"), at("set/dog")).unwrap();
        symlink(at("3.png"), at("set/cat/3.png")).unwrap();
        let names: Vec<_> = listed(&at("set")).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cat/1.jpg", "cat/3.png", "dog/2.jpg"]);
        symlink(at("set/cat"), at("set/cat/self")).unwrap();
        let endless = Index::of(&at("set")).unwrap_err().to_string();
        assert!(endless.contains("a link may lead back"), "{endless}");
    }
}
