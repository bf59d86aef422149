//! Folders of images, as ImageNet and CelebA come: listed when opened, decoded when read.
//!
//! | module | idea |
//! |---|---|
//! | `index` | which images there are, and their classes |
//! | `listing` | what lies in one folder; which names are passed over |
//! | `picture` | a file as RGB pixels |
//! | `resample` | crops, and Pillow's box filter |
//!
//! Decoded images are kept until the room for them is full, and then no more are. Every epoch reads
//! each image once, so to drop one for another would gain nothing.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use self::index::Index;
use self::picture::{DecodedImage, MAX_SIDE};
use self::resample::Region;
use super::checksum::Hasher;
use super::{ImageSet, Images, Split, regular};
use crate::error::{Error, Result};

pub use self::listing::{Hidden, is_hidden};

mod index;
mod listing;
mod picture;
mod resample;

/// Largest image file in bytes.
const MAX_FILE: u64 = 1 << 28;

/// Options for the images of a folder: size, crop, errors, cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOptions {
    /// Rows and columns to which images are resized, as Pillow's box filter does it, bit for bit;
    /// without it all must have the size of the first.
    pub image_size: Option<usize>,
    /// The part of an image that is taken, before resizing.
    pub crop: Crop,
    /// True to replace a file that cannot be decoded by the next good one of its class, and to pass
    /// over what is called like an image but is no file.
    pub skip_bad: bool,
    /// Bytes of decoded images that are kept in memory.
    pub cache_bytes: u64,
}

impl Default for FolderOptions {
    /// Options for whole images of their own size, none of them bad, 4 GiB of them kept.
    fn default() -> Self {
        Self { image_size: None, crop: Crop::Whole, skip_bad: false, cache_bytes: 4 << 30 }
    }
}

/// The part of an image that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// All of it; resizing distorts what is not square, as in downsampled ImageNet (Chrabaszcz,
    /// Loshchilov and Hutter, 2017).
    Whole,
    /// The largest square in the middle, as torchvision's `CenterCrop` finds it.
    Square,
}

/// The RGB images of a folder.
#[derive(Debug)]
pub struct Folder {
    index: Index,
    options: FolderOptions,
    /// Rows and columns of every image.
    size: [usize; 2],
    /// Decoded images, as many as there was room for; empty where there is room for none.
    cache: Vec<OnceLock<Box<[u8]>>>,
    /// Bytes left for more of them.
    room: AtomicU64,
    /// The bad files that were passed over.
    skipped: Mutex<BTreeSet<usize>>,
}

impl Folder {
    /// Lists the images of one half of a set.
    ///
    /// That half lies in `dir/train`, or in `dir/val` or `dir/test`; where there is none of these,
    /// `dir` itself is the half that is asked for, whichever it is. Each folder there is a class, as
    /// for torchvision's `ImageFolder`; if there are only images, they have no classes.
    ///
    /// Files are looked at when they are read, but the first, which sets the size. Names of systems
    /// and programs ([`is_hidden`]) are neither classes nor images.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a folder cannot be listed, [`Error::File`] when it or a class holds no
    /// images, or a link to nothing or what is called like an image but is no file (unless such are
    /// skipped), or the other half only, or the first image cannot be decoded, [`Error::Config`] for
    /// an image size of 0 or more than 16384.
    pub fn open(dir: &Path, split: Split, options: &FolderOptions) -> Result<Self> {
        if let Some(size) = options.image_size.filter(|size| !(1..=MAX_SIDE).contains(size)) {
            return Err(Error::Config(format!("image size {size}: 1 to {MAX_SIDE} is possible")));
        }
        let mut folder = Self {
            index: Index::of(&half(dir, split)?, options.skip_bad)?,
            options: options.clone(),
            size: [options.image_size.unwrap_or(0); 2],
            cache: Vec::new(),
            room: AtomicU64::new(options.cache_bytes),
            skipped: Mutex::default(),
        };
        if options.image_size.is_none() {
            let (_, picture) = folder.good(0)?;
            let region = folder.region(&picture);
            folder.size = [region.height(), region.width()];
        }
        if options.cache_bytes >= folder.bytes() as u64 {
            folder.cache.resize_with(folder.len(), OnceLock::new);
        }
        Ok(folder)
    }

    /// The path of image `i`.
    ///
    /// # Panics
    ///
    /// When there is no image `i`, as for a slice.
    pub fn path(&self, i: usize) -> PathBuf {
        self.index.path(i)
    }

    /// Bytes of an image.
    fn bytes(&self) -> usize {
        3 * self.size[0] * self.size[1]
    }

    fn region(&self, picture: &DecodedImage) -> Region {
        match self.options.crop {
            Crop::Whole => Region::whole(picture),
            Crop::Square => Region::square(picture),
        }
    }

    /// Image `i` and its number, or, if it is bad and such are skipped, the next good one of its
    /// class, whose first follows its last.
    fn good(&self, i: usize) -> Result<(usize, DecodedImage)> {
        let peers = self.index.peers(i);
        for at in (i..peers.end).chain(peers.start..i) {
            match decode(&self.path(at)) {
                // What the system refuses to read may be good tomorrow, so it is not passed over.
                Err(Error::File { .. }) if self.options.skip_bad => {
                    self.skipped.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
                }
                Err(Error::File { path, reason }) => {
                    let reason = format!("{reason}; `fmq train --skip-bad` passes over such files");
                    return Err(Error::File { path, reason });
                }
                picture => return Ok((at, picture?)),
            }
        }
        let reason =
            format!("neither it nor another of its class's {} can be decoded", peers.len());
        Err(Error::file(&self.path(i), reason))
    }

    /// Decodes image `i`, or what takes its place.
    fn decode(&self, i: usize, pixels: &mut [u8]) -> Result<()> {
        let (at, picture) = self.good(i)?;
        let region = self.region(&picture);
        let found = [region.height(), region.width()];
        if self.options.image_size.is_some() {
            resample::resize(&picture, &region, self.size[0], pixels);
        } else if found == self.size {
            resample::copy(&picture, &region, pixels);
        } else {
            let ([height, width], [h, w]) = (self.size, found);
            let reason = format!(
                "{h} x {w} pixels, but the first image has {height} x {width}; --image-size brings \
                 all to one size"
            );
            return Err(Error::file(&self.path(at), reason));
        }
        Ok(())
    }

    /// Keeps the pixels of image `i` if there is room.
    fn keep(&self, i: usize, pixels: &[u8]) {
        let Some(slot) = self.cache.get(i) else { return };
        let bytes = pixels.len() as u64;
        let taken =
            self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |r| r.checked_sub(bytes));
        if taken.is_ok() && slot.set(pixels.into()).is_err() {
            // Another thread was faster.
            self.room.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl ImageSet for Folder {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn shape(&self) -> [usize; 3] {
        [3, self.size[0], self.size[1]]
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.index.label(i)
    }

    fn classes(&self) -> usize {
        self.index.classes()
    }

    /// # Errors
    ///
    /// [`Error::Io`] for a file that cannot be read; [`Error::File`] for one that cannot be decoded,
    /// unless such are skipped and its class has a good one, or whose image has not the size of the
    /// first where none is set.
    fn read(&self, i: usize, pixels: &mut [u8]) -> Result<()> {
        if let Some(kept) = self.cache.get(i).and_then(OnceLock::get) {
            pixels.copy_from_slice(kept);
            return Ok(());
        }
        self.decode(i, pixels)?;
        self.keep(i, pixels);
        Ok(())
    }

    /// Hashes the file, which is not decoded.
    fn digest(&self, i: usize, hasher: &mut Hasher) -> Result<()> {
        let path = self.path(i);
        let copied = io::copy(&mut regular::open(&path)?, hasher);
        copied.map(drop).map_err(|error| Error::io(&path, error))
    }

    fn preparation(&self) -> String {
        let FolderOptions { image_size, crop, skip_bad, .. } = &self.options;
        format!("{image_size:?} {crop:?} {skip_bad}")
    }

    fn hidden(&self) -> Hidden {
        self.index.hidden().clone()
    }

    fn skipped(&self) -> Vec<PathBuf> {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        let decoded = skipped.iter().map(|&i| self.path(i));
        self.index.skipped().iter().cloned().chain(decoded).collect()
    }
}

/// The folder of the images of one half.
fn half(dir: &Path, split: Split) -> Result<PathBuf> {
    let (names, others): (&[_], &[_]) = match split {
        Split::Train => (&["train"], &["val", "test"]),
        Split::Test => (&["val", "test"], &["train"]),
    };
    let first = |names: &[&str]| names.iter().map(|name| dir.join(name)).find(|at| at.is_dir());
    match (first(names), first(others)) {
        (Some(half), _) => Ok(half),
        (None, None) => Ok(dir.to_path_buf()),
        (None, Some(other)) => {
            let reason = format!("holds `{}`, but no `{}`", other.display(), names.join("` or `"));
            Err(Error::file(dir, reason))
        }
    }
}

/// The images that lie in `dir` itself, by name; folders in it are left aside, as pytorch-fid and
/// torch-fidelity do. With them comes what was passed over for its name.
///
/// # Errors
///
/// [`Error::Io`] when the folder cannot be listed; [`Error::File`] when it holds no images, or
/// something that is called like an image but is no file.
pub fn list(dir: &Path) -> Result<(Vec<PathBuf>, Hidden)> {
    index::flat(dir)
}

/// Returns true if `head`, the first 18 bytes of a file, is that of an image format that is read.
pub fn is_image(head: &[u8]) -> bool {
    picture::is_picture(head)
}

/// The RGB image in a file, JPEG, PNG, WebP, BMP, PNM or TIFF, of whatever size.
///
/// # Errors
///
/// [`Error::Io`] for a file that cannot be read, [`Error::File`] for one that cannot be decoded.
pub fn read(path: &Path) -> Result<Images> {
    let picture = decode(path)?;
    let (channels, height, width) = (3, picture.height, picture.width);
    let mut pixels = vec![0; channels * height * width];
    resample::copy(&picture, &Region::whole(&picture), &mut pixels);
    Ok(Images { n: 1, channels, height, width, pixels, labels: Vec::new() })
}

fn decode(path: &Path) -> Result<DecodedImage> {
    let mut bytes = Vec::new();
    let file = regular::open(path)?;
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path, error))?;
    if bytes.is_empty() {
        return Err(Error::file(path, "is empty"));
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::file(path, format!("has more than {MAX_FILE} bytes")));
    }
    DecodedImage::decode(&bytes).map_err(|reason| Error::file(path, reason))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, RgbImage};

    use super::*;

    /// Options without a cache.
    fn plain() -> FolderOptions {
        FolderOptions { cache_bytes: 0, ..FolderOptions::default() }
    }

    /// Saves an image of one colour, in the format of its name.
    fn save(path: &Path, [width, height]: [u32; 2], color: [u8; 3]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, height, Rgb(color)).save(path).unwrap();
    }

    /// Two classes: `a` of three images, red 1 to 3, and `b` of one, red 4; 4 x 4.
    fn classes(dir: &Path) {
        for (name, red) in [("a/1.png", 1), ("a/2.webp", 2), ("a/3.PNG", 3), ("b/1.png", 4)] {
            save(&dir.join(name), [4, 4], [red, 50, 200]);
        }
    }

    fn red(folder: &Folder, i: usize) -> u8 {
        let mut pixels = vec![0; folder.bytes()];
        folder.read(i, &mut pixels).unwrap();
        pixels[0]
    }

    #[test]
    fn images_come_as_planes_with_their_classes() {
        let dir = tempfile::tempdir().unwrap();
        classes(dir.path());
        let folder = Folder::open(dir.path(), Split::Train, &plain()).unwrap();
        assert_eq!((folder.len(), folder.shape(), folder.classes()), (4, [3, 4, 4], 2));
        let images = Images::gather(&folder, usize::MAX).unwrap();
        assert_eq!(images.labels, [0, 0, 0, 1]);
        let image = |red| [[red; 16], [50; 16], [200; 16]].concat();
        assert_eq!(images.pixels, [1, 2, 3, 4].map(image).concat());
        let fewer = Images::gather(&folder, 3).unwrap();
        assert_eq!((fewer.n, fewer.labels.len(), fewer.pixels.len()), (3, 3, 3 * 48));
    }

    #[test]
    fn flat_folders_have_no_classes() {
        let dir = tempfile::tempdir().unwrap();
        save(&dir.path().join("1.jpg"), [8, 8], [100, 100, 100]);
        let folder = Folder::open(dir.path(), Split::Test, &plain()).unwrap();
        assert_eq!((folder.label(0), folder.classes()), (None, 0));
        assert!(Images::gather(&folder, 1).unwrap().labels.is_empty());
    }

    #[test]
    fn lists_are_flat_and_images_of_any_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(list(dir.path()).unwrap_err().to_string().contains("holds no images"));
        for (name, size) in [("b.png", [2, 3]), ("a.webp", [5, 1]), ("in/c.png", [1, 1])] {
            save(&dir.path().join(name), size, [1, 2, 3]);
        }
        fs::write(dir.path().join("notes.txt"), "no image").unwrap();
        let (paths, hidden) = list(dir.path()).unwrap();
        assert_eq!(hidden, Hidden::default());
        assert_eq!(paths, ["a.webp", "b.png"].map(|name| dir.path().join(name)));
        let image = read(&paths[1]).unwrap();
        assert_eq!((image.n, image.channels, image.height, image.width), (1, 3, 3, 2));
        assert_eq!(image.pixels, [[1; 6], [2; 6], [3; 6]].concat());
        fs::write(&paths[0], b"BM").unwrap();
        assert!(
            read(&paths[0])
                .unwrap_err()
                .to_string()
                .contains("neither JPEG, PNG, WebP, BMP, PNM nor TIFF")
        );
    }

    #[test]
    fn halves_lie_in_their_folders_or_are_the_folder_itself() {
        let dir = tempfile::tempdir().unwrap();
        let reds = |split| {
            let folder = Folder::open(dir.path(), split, &plain())?;
            Ok::<_, Error>((0..folder.len()).map(|i| red(&folder, i)).collect::<Vec<_>>())
        };
        save(&dir.path().join("train/a/1.png"), [1, 1], [1, 0, 0]);
        assert_eq!(reds(Split::Train).unwrap(), [1]);
        let error = reds(Split::Test).unwrap_err().to_string();
        assert!(error.contains("train`, but no `val` or `test`"), "{error}");
        save(&dir.path().join("test/a/1.png"), [1, 1], [2, 0, 0]);
        assert_eq!(reds(Split::Test).unwrap(), [2]);
        save(&dir.path().join("val/a/1.png"), [1, 1], [3, 0, 0]);
        assert_eq!(reds(Split::Test).unwrap(), [3]);
        let train = Folder::open(&dir.path().join("train"), Split::Train, &plain()).unwrap();
        assert_eq!(red(&train, 0), 1);
    }

    #[test]
    fn images_are_cropped_and_resized() {
        let dir = tempfile::tempdir().unwrap();
        // Ten columns: black, three white ones in the middle and more, black.
        let image =
            RgbImage::from_fn(10, 4, |x, _| Rgb([if (3..7).contains(&x) { 255 } else { 0 }; 3]));
        image.save(dir.path().join("1.png")).unwrap();
        save(&dir.path().join("2.png"), [3, 5], [9, 9, 9]);
        let read = |crop, image_size| {
            let options = FolderOptions { image_size, crop, ..plain() };
            Images::gather(&Folder::open(dir.path(), Split::Train, &options)?, 2)
        };
        assert_eq!(read(Crop::Square, Some(2)).unwrap().pixels[..12], [255; 12]);
        assert_eq!(read(Crop::Whole, Some(2)).unwrap().pixels[..4], [102; 4]);
        assert_eq!(read(Crop::Whole, Some(5)).unwrap().image(1), [9; 75]);
        let error = read(Crop::Whole, None).unwrap_err().to_string();
        assert!(error.contains("2.png`: 5 x 3 pixels, but the first image has 4 x 10"), "{error}");
        for size in [0, MAX_SIDE + 1] {
            assert!(read(Crop::Whole, Some(size)).unwrap_err().to_string().contains("image size"));
        }
    }

    #[test]
    fn bad_files_are_named_or_replaced_within_their_class() {
        let dir = tempfile::tempdir().unwrap();
        classes(dir.path());
        for bad in ["a/1.png", "a/3.PNG"] {
            fs::write(dir.path().join(bad), b"no image").unwrap();
        }
        let open = |skip_bad, image_size| {
            let options = FolderOptions { image_size, skip_bad, ..plain() };
            Folder::open(dir.path(), Split::Train, &options)
        };
        let error = open(false, None).unwrap_err().to_string();
        assert!(
            error.contains(
                "1.png`: is neither JPEG, PNG, WebP, BMP, PNM nor TIFF; `fmq train --skip-bad`"
            ),
            "{error}"
        );
        assert!(Images::gather(&open(false, Some(4)).unwrap(), 4).is_err());

        let folder = open(true, None).unwrap();
        assert_eq!([0, 1, 2, 3].map(|i| red(&folder, i)), [2, 2, 2, 4]);
        assert_eq!(folder.skipped(), ["a/1.png", "a/3.PNG"].map(|name| dir.path().join(name)));
        fs::write(dir.path().join("b/1.png"), b"").unwrap();
        assert!(read(&dir.path().join("b/1.png")).unwrap_err().to_string().ends_with("is empty"));
        let error = folder.read(3, &mut [0; 48]).unwrap_err().to_string();
        assert!(error.contains("class's 1 can be decoded"), "{error}");
        // A file that is not there is no bad image.
        fs::remove_file(dir.path().join("b/1.png")).unwrap();
        assert!(matches!(folder.read(3, &mut [0; 48]), Err(Error::Io { .. })));
    }

    #[test]
    fn the_cache_keeps_what_it_has_room_for() {
        let dir = tempfile::tempdir().unwrap();
        classes(dir.path());
        let options = FolderOptions { cache_bytes: 2 * 48 + 47, ..plain() };
        let folder = Folder::open(dir.path(), Split::Train, &options).unwrap();
        let first = Images::gather(&folder, 2).unwrap();
        for name in ["a/1.png", "a/2.webp", "a/3.PNG"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(Images::gather(&folder, 2).unwrap(), first);
        assert!(folder.read(2, &mut [0; 48]).is_err());
    }
}
