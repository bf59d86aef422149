//! The images of a folder, and their classes.
//!
//! The rules are those of torchvision's `ImageFolder`: each folder inside is a class, by name; its
//! files, those of folders deeper down included, are ordered by folder, then by name; a file counts
//! by its extension; links are followed. A folder of images alone has no classes.
//!
//! Unlike there, names that systems and programs put into any folder are neither classes nor images
//! ([`super::is_hidden`]), and what is no file is not taken for an image.
//!
//! Names are ordered by their bytes. Source: `torchvision/datasets/folder.py`: `find_classes`,
//! `make_dataset`, `IMG_EXTENSIONS`.

use core::ops::Range;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::listing::{EXTENSIONS, Hidden, Listing, is_image};
use crate::error::{Error, Result};

/// Deepest folder below a class; a link to a folder above itself has no end.
const MAX_DEPTH: usize = 16;

/// The images of a folder, by number.
#[derive(Debug)]
pub(super) struct Index {
    folders: Vec<PathBuf>,
    /// Each file's folder, and its name there.
    files: Vec<(usize, Box<OsStr>)>,
    /// The number of each class's first image, and after all the number of images; without classes
    /// one range of all.
    starts: Vec<usize>,
    labelled: bool,
    hidden: Hidden,
    /// Paths that were passed over as they are no files.
    skipped: Vec<PathBuf>,
}

impl Index {
    /// Lists `dir`; what is called like an image but is no file, and a link to nothing, is an error
    /// or passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a folder cannot be listed; [`Error::File`] when there is no image in it
    /// or in one of its classes, when images lie beside class folders, folders nest without end, or
    /// for what is no file.
    pub(super) fn of(dir: &Path, skip_bad: bool) -> Result<Self> {
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
        let mut index = Self {
            folders: Vec::new(),
            files: Vec::new(),
            starts: Vec::new(),
            labelled,
            hidden: Hidden::default(),
            skipped: Vec::new(),
        };
        if labelled {
            let listings = top.folders.par_iter().map(|name| below(&dir.join(name)));
            let classes: Vec<Vec<Listing>> = listings.collect::<Result<_>>()?;
            index.pass_over(&top, skip_bad)?;
            classes.into_iter().try_for_each(|class| index.add(class, skip_bad))?;
        } else {
            index.add(vec![top], skip_bad)?;
        }
        index.starts.push(index.files.len());
        Ok(index)
    }

    /// Adds a class, or all images where there are no classes.
    fn add(&mut self, class: Vec<Listing>, skip_bad: bool) -> Result<()> {
        class.iter().try_for_each(|listing| self.pass_over(listing, skip_bad))?;
        if class.iter().all(|listing| listing.images.is_empty()) {
            return Err(none(&class[0].folder, self.labelled));
        }
        self.starts.push(self.files.len());
        for listing in class {
            let folder = self.folders.len();
            self.files.extend(listing.images.into_iter().map(|name| (folder, name.into())));
            self.folders.push(listing.folder);
        }
        Ok(())
    }

    /// Notes what a folder holds beside images.
    fn pass_over(&mut self, listing: &Listing, skip_bad: bool) -> Result<()> {
        if let (false, Some(first)) = (skip_bad, listing.strange.first()) {
            let advice = "remove it, or pass over all such with `fmq train --skip-bad`";
            return Err(first.error(&listing.folder, advice));
        }
        let strange = listing.strange.iter().map(|strange| listing.folder.join(&strange.name));
        self.skipped.extend(strange);
        listing.count_hidden(&mut self.hidden);
        Ok(())
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

    /// The path of image `i`.
    pub(super) fn path(&self, i: usize) -> PathBuf {
        let (folder, name) = &self.files[i];
        self.folders[*folder].join(Path::new(name))
    }

    /// The folders and images that were passed over for their names.
    pub(super) fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// The paths that were passed over as they are no files.
    pub(super) fn skipped(&self) -> &[PathBuf] {
        &self.skipped
    }

    fn class(&self, i: usize) -> usize {
        self.starts.partition_point(|&start| start <= i) - 1
    }
}

/// The images that lie in `dir` itself, by name, whatever folders are beside them, and what was
/// passed over.
///
/// # Errors
///
/// [`Error::Io`] when it cannot be listed; [`Error::File`] when there are none, or something is
/// called like an image but is no file.
pub(super) fn flat(dir: &Path) -> Result<(Vec<PathBuf>, Hidden)> {
    let listing = Listing::of(dir)?;
    if let Some(strange) = listing.strange.iter().find(|strange| is_image(&strange.name)) {
        return Err(strange.error(dir, "remove it"));
    }
    if let (true, Some(folder)) = (listing.images.is_empty(), listing.folders.first()) {
        let folder = Path::new(folder).display();
        return Err(Error::file(dir, format!("holds folders, such as `{folder}`, but no images")));
    }
    if listing.images.is_empty() {
        return Err(none(dir, false));
    }
    let mut hidden = Hidden::default();
    listing.count_hidden(&mut hidden);
    Ok((listing.images.iter().map(|name| dir.join(name)).collect(), hidden))
}

/// The error of a folder without images.
fn none(folder: &Path, class: bool) -> Error {
    let known = EXTENSIONS.map(|end| &end[1..]).join(", ");
    let of = if class { "is a class, but " } else { "" };
    Error::file(folder, format!("{of}holds no images; their names end in {known}"))
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
    use std::fs;

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
        let index = Index::of(dir, false).unwrap();
        let name = |path: PathBuf| path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        (0..index.len()).map(|i| (name(index.path(i)).replace('\\', "/"), index.label(i))).collect()
    }

    fn complaint(files: &[&str]) -> String {
        Index::of(tree(files).path(), false).unwrap_err().to_string()
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
            "cat/notes.txt",
            "cat/.DS_Store",
            "cat/jpg",
            "ant/x.tiff",
            "Zoo/q.bmp",
        ]);
        let expected = [
            ("Zoo/q.bmp", 0),
            ("ant/x.tiff", 1),
            ("cat/10.jpg", 2),
            ("cat/9.jpg", 2),
            ("cat/B.PNG", 2),
            ("cat/b.jpg", 2),
            ("cat/a/z.webp", 2),
            ("cat/a-b/y.JPEG", 2),
            ("cat/a/k/x.webp", 2),
        ];
        assert_eq!(listed(dir.path()), expected.map(|(name, class)| (name.into(), Some(class))));
        let index = Index::of(dir.path(), false).unwrap();
        assert_eq!((index.classes(), index.peers(0), index.peers(5)), (3, 0..1, 2..9));
        assert_eq!(index.hidden(), &Hidden::default());
    }

    #[test]
    fn a_folder_of_images_has_no_classes() {
        let dir = tree(&["2.jpg", "1.jpg", "readme.txt"]);
        assert_eq!(listed(dir.path()), [("1.jpg".into(), None), ("2.jpg".into(), None)]);
        let index = Index::of(dir.path(), false).unwrap();
        assert_eq!((index.classes(), index.peers(1)), (0, 0..2));
    }

    #[test]
    fn hidden_names_are_neither_classes_nor_images() {
        let dir = tree(&[
            ".ipynb_checkpoints/1-checkpoint.jpg",
            "__MACOSX/cat/._1.jpg",
            "cat/1.jpg",
            "cat/._1.jpg",
            "cat/.thumbnails/1.jpg",
            "cat/Thumbs.db",
            "cat/.DS_Store",
            "dog/@eaDir/1.jpg",
            "dog/2.jpg",
            "desktop.ini",
            ".2.jpg",
        ]);
        fs::create_dir(dir.path().join(".empty")).unwrap();
        let expected = [("cat/1.jpg".into(), Some(0)), ("dog/2.jpg".into(), Some(1))];
        assert_eq!(listed(dir.path()), expected);
        let hidden = Index::of(dir.path(), false).unwrap().hidden().clone();
        let example = Some(dir.path().join(".2.jpg"));
        assert_eq!(hidden, Hidden { count: 7, example });

        // A flat folder stays one.
        let flat_set = tree(&["1.jpg", "._1.jpg", ".ipynb_checkpoints/1.jpg"]);
        assert_eq!(listed(flat_set.path()), [("1.jpg".into(), None)]);
        let (paths, hidden) = flat(flat_set.path()).unwrap();
        assert_eq!((paths, hidden.count), (vec![flat_set.path().join("1.jpg")], 2));
    }

    #[test]
    fn names_the_folder_at_fault() {
        assert!(
            complaint(&["readme.txt"]).contains("holds no images; their names end in jpg, jpeg")
        );
        let empty = complaint(&["cat/1.jpg", "dog/readme.txt"]);
        assert!(empty.contains("dog`: is a class, but holds no images"), "{empty}");
        let classes = flat(tree(&["cat/1.jpg"]).path()).unwrap_err().to_string();
        assert!(classes.contains("holds folders, such as `cat`, but no images"), "{classes}");
        let both = complaint(&["cat/1.jpg", "2.jpg"]);
        assert!(both.contains("an image (`2.jpg`) beside a folder (`cat`)"), "{both}");
        let missing = Index::of(Path::new("no such folder"), false).unwrap_err().to_string();
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
        let endless = Index::of(&at("set"), true).unwrap_err().to_string();
        assert!(endless.contains("a link may lead back"), "{endless}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_named_or_passed_over() {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;
        let dir = tree(&["cat/1.jpg", "dog/2.jpg"]);
        let at = |path: &str| dir.path().join(path);
        let complaint = || Index::of(dir.path(), false).unwrap_err().to_string();
        let _socket = UnixListener::bind(at("dog/0.png")).unwrap();
        assert!(complaint().contains("dog/0.png`: is a socket, no image; remove it, or pass over"));
        assert!(flat(&at("dog")).unwrap_err().to_string().contains("a socket, no image"));
        symlink(at("gone"), at("cat/0.jpg")).unwrap();
        assert!(complaint().contains("cat/0.jpg`: is a link to nothing"), "{}", complaint());
        symlink("loop.jpg", at("cat/loop.jpg")).unwrap();
        // One that may have led to a class counts, whatever it is called, but not beside images alone.
        symlink(at("gone"), at("cow")).unwrap();
        symlink(at("gone"), at("dog/readme")).unwrap();
        assert!(complaint().contains("cow`: is a link to nothing"), "{}", complaint());

        let index = Index::of(dir.path(), true).unwrap();
        let skipped = ["cow", "cat/0.jpg", "cat/loop.jpg", "dog/0.png", "dog/readme"].map(at);
        assert_eq!((index.len(), index.classes(), index.skipped()), (2, 2, &skipped[..]));
        fs::remove_file(at("dog/0.png")).unwrap();
        assert_eq!(flat(&at("dog")).unwrap().0, [at("dog/2.jpg")]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_need_not_be_text() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree(&["1.jpg"]);
        let name = OsStr::from_bytes(b"\xff.jpg");
        fs::write(dir.path().join(name), b"").unwrap();
        let index = Index::of(dir.path(), false).unwrap();
        assert_eq!(index.path(1), dir.path().join(name));
    }
}
