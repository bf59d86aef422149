//! The IDX files of MNIST and its relatives, plain or gzipped.
//!
//! ```text
//! images: u32 0x0803 | u32 n | u32 rows | u32 columns | u8 [n, rows, columns]
//! labels: u32 0x0801 | u32 n                          | u8 [n]
//! ```
//!
//! Integers are big-endian. The magic's last two bytes say "unsigned bytes" (8) and the number of
//! dimensions. Source: yann.lecun.com/exdb/mnist, "File formats for the MNIST database".
//!
//! A file is taken only if it holds exactly what its header claims. Reading stops one byte past the
//! claim, so that a small gzip file cannot inflate without bound.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::checksum::{Algorithm, Checksum, Hasher};
use super::gzip::inflated;
use super::{Images, Split, regular};
use crate::error::{Error, Result};

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

/// Most bytes that a header may claim, 2 GiB: forty times MNIST.
const LIMIT: u64 = 1 << 31;

/// Reads the images and labels of one split.
///
/// The files, named as by their authors with or without `.gz`, or as unpackers name them
/// (`train-images.idx3-ubyte`), are looked for in `dir/<folder>/raw`, where torchvision puts them,
/// then in `dir` itself.
///
/// # Errors
///
/// [`Error::File`] when a file is in neither place (the message lists those tried) or is not what
/// it must be: magic, size, labels below `classes`, as many labels as images. [`Error::Io`] when it
/// cannot be read.
pub fn load(dir: &Path, folder: &str, split: Split, classes: usize) -> Result<Images> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let images = find(dir, folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels = find(dir, folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    read((&images, regular::open(&images)?), (&labels, regular::open(&labels)?), classes)
}

/// Reads images and labels from IDX files in memory, plain or gzipped.
///
/// # Errors
///
/// As [`load`], with the files called `images` and `labels`.
pub fn decode(images: &[u8], labels: &[u8], classes: usize) -> Result<Images> {
    read((Path::new("images"), images), (Path::new("labels"), labels), classes)
}

/// The two plain IDX files, images and labels, that [`decode`] turns back into `images`.
///
/// # Errors
///
/// [`Error::Config`] when the images are not grey, a count does not fit 32 bits or a label a byte.
pub fn encode(images: &Images) -> Result<[Vec<u8>; 2]> {
    let number =
        |x: usize| u32::try_from(x).map_err(|_| Error::Config(format!("IDX cannot count to {x}")));
    let labels =
        images.labels.iter().map(|&label| u8::try_from(label)).collect::<Result<Vec<_>, _>>();
    let Ok(labels) = labels else {
        return Err(Error::Config("IDX labels are bytes".into()));
    };
    if images.channels != 1 {
        return Err(Error::Config(format!(
            "IDX holds grey images, not {} channels",
            images.channels
        )));
    }
    let (n, rows, columns) = (number(images.n)?, number(images.height)?, number(images.width)?);
    let file = |header: &[u32], body: &[u8]| {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(body);
        bytes
    };
    Ok([file(&[IMAGES, n, rows, columns], &images.pixels), file(&[LABELS, n], &labels)])
}

/// MD5 of the plain IDX file of these images, as [`super::catalog`] has those that are published.
///
/// # Errors
///
/// [`Error::Config`] when the images are not grey, a count does not fit 32 bits or a label a byte.
pub fn md5(images: &Images) -> Result<Checksum> {
    let [images, _] = encode(images)?;
    let mut hasher = Hasher::new(Algorithm::Md5);
    hasher.update(&images);
    Ok(hasher.finish())
}

/// The paths below the data folder of an IDX file called `name` by its authors, in the order in
/// which they are tried, each with true if it is gzipped by its name.
pub(super) fn places(folder: &str, name: &str) -> impl Iterator<Item = (String, bool)> {
    let names = [name.to_string(), name.replace("-idx", ".idx")];
    let below = [format!("{folder}/raw/"), String::new()].into_iter();
    below.flat_map(move |below| {
        let both = |name: &String| {
            [(format!("{below}{name}"), false), (format!("{below}{name}.gz"), true)]
        };
        names.each_ref().map(both).concat()
    })
}

/// The path of the file called `name`.
fn find(dir: &Path, folder: &str, name: &str) -> Result<PathBuf> {
    let mut paths = places(folder, name).map(|(place, _)| dir.join(place));
    paths.find(|path| regular::is_there(path)).ok_or_else(|| {
        let tried = places(folder, name).map(|(place, _)| place).collect::<Vec<_>>().join(", ");
        Error::file(dir, format!("no `{name}` here; tried {tried}"))
    })
}

/// Reads a pair of named files and holds them against each other.
fn read(
    (images_path, images): (&Path, impl Read),
    (labels_path, labels): (&Path, impl Read),
    classes: usize,
) -> Result<Images> {
    let ([n, rows, columns], pixels) = read_idx(images_path, images, IMAGES)?;
    let ([n_labels], labels) = read_idx(labels_path, labels, LABELS)?;
    if n != n_labels {
        return Err(Error::file(
            labels_path,
            format!("{n_labels} labels, but `{}` holds {n} images", images_path.display()),
        ));
    }
    if let Some(at) = labels.iter().position(|&label| usize::from(label) >= classes) {
        let label = labels[at];
        return Err(Error::file(
            labels_path,
            format!("label {at} is {label}, but there are {classes} classes"),
        ));
    }
    let labels = labels.into_iter().map(u32::from).collect();
    Images::new([1, rows, columns], pixels, labels)
        .map_err(|error| Error::file(images_path, error.to_string()))
}

/// One IDX file: its dimensions, and exactly as many bytes as they multiply to.
fn read_idx<const DIMS: usize>(
    path: &Path,
    source: impl Read,
    magic: u32,
) -> Result<([usize; DIMS], Vec<u8>)> {
    let mut bytes = inflated(source).map_err(|error| Error::io(path, error))?;
    let mut word = |what| {
        let mut word = [0; 4];
        match bytes.read_exact(&mut word) {
            Ok(()) => Ok(u32::from_be_bytes(word)),
            Err(error) => Err(Error::file(path, format!("reading the {what}: {error}"))),
        }
    };

    let found = word("magic number")?;
    if found != magic {
        return Err(Error::file(
            path,
            format!("magic number 0x{found:08x}, but this IDX file must begin 0x{magic:08x}"),
        ));
    }
    let mut dims = [0; DIMS];
    for dim in &mut dims {
        *dim = word("dimensions")?;
    }

    let claim = dims.map(|dim| dim.to_string()).join(" x ");
    let size = dims
        .iter()
        .try_fold(1, |size: u64, &dim| size.checked_mul(dim.into()))
        .filter(|&size| size <= LIMIT)
        .ok_or_else(|| Error::file(path, format!("the header claims {claim} bytes, too many")))?;
    let mut body = Vec::new();
    bytes.take(size + 1).read_to_end(&mut body).map_err(|error| Error::io(path, error))?;
    if body.len() as u64 != size {
        let more = if body.len() as u64 > size { "at least " } else { "" };
        return Err(Error::file(
            path,
            format!("the header claims {claim} bytes, but {more}{} follow", body.len()),
        ));
    }
    Ok((dims.map(|dim| dim as usize), body))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn sample() -> Images {
        Images::new([1, 2, 3], (0..24).collect(), vec![3, 1, 4, 1]).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The error for the sample's files after `spoil` has changed them.
    fn complaint(spoil: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> String {
        let [mut images, mut labels] = encode(&sample()).unwrap();
        spoil(&mut images, &mut labels);
        decode(&images, &labels, 10).unwrap_err().to_string()
    }

    #[test]
    fn layout_is_that_of_idx() {
        let [images, labels] = encode(&sample()).unwrap();
        assert_eq!(images[..16], [0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(labels, [0, 0, 8, 1, 0, 0, 0, 4, 3, 1, 4, 1]);
        let rgb = Images::new([3, 1, 1], vec![0; 3], vec![0]).unwrap();
        assert!(encode(&rgb).is_err());
        // md5sum of the file of images.
        assert_eq!(md5(&sample()).unwrap(), Checksum::md5("6dfecc578aa8f0badbb68b039c1758a8"));
    }

    #[test]
    fn plain_and_gzipped_files_read_alike() {
        let [images, labels] = encode(&sample()).unwrap();
        assert_eq!(decode(&images, &labels, 5).unwrap(), sample());
        assert_eq!(decode(&gzip(&images), &gzip(&labels), 5).unwrap(), sample());
    }

    #[test]
    fn finds_either_layout_and_trusts_bytes_over_names() {
        let dir = tempfile::tempdir().unwrap();
        let [images, labels] = encode(&sample()).unwrap();
        fs::write(dir.path().join("train-images-idx3-ubyte"), gzip(&images)).unwrap();
        fs::write(dir.path().join("train-labels-idx1-ubyte.gz"), &labels).unwrap();
        assert_eq!(load(dir.path(), "MNIST", Split::Train, 10).unwrap(), sample());

        // The set's own folder comes first.
        let other = sample().subset(&[2]).unwrap();
        let raw = dir.path().join("FashionMNIST/raw");
        fs::create_dir_all(&raw).unwrap();
        let [images, labels] = encode(&other).unwrap();
        fs::write(raw.join("train-images-idx3-ubyte"), images).unwrap();
        fs::write(raw.join("train-labels-idx1-ubyte"), labels).unwrap();
        assert_eq!(load(dir.path(), "FashionMNIST", Split::Train, 10).unwrap(), other);
        assert_eq!(load(dir.path(), "MNIST", Split::Train, 10).unwrap(), sample());

        let error = load(dir.path(), "MNIST", Split::Test, 10).unwrap_err().to_string();
        assert!(error.contains(", MNIST/raw/t10k-images-idx3-ubyte.gz, "), "{error}");
        assert!(error.ends_with(", t10k-images.idx3-ubyte, t10k-images.idx3-ubyte.gz"), "{error}");

        // As unpackers name them, beside a folder of the name that is looked for.
        let [images, labels] = encode(&other).unwrap();
        fs::create_dir(dir.path().join("t10k-images-idx3-ubyte")).unwrap();
        fs::write(dir.path().join("t10k-images.idx3-ubyte"), images).unwrap();
        fs::write(dir.path().join("t10k-labels.idx1-ubyte.gz"), gzip(&labels)).unwrap();
        assert_eq!(load(dir.path(), "MNIST", Split::Test, 10).unwrap(), other);
    }

    #[test]
    fn rejects_a_wrong_magic_number() {
        assert!(complaint(|images, _| images[3] = 1).contains("0x00000801"));
        assert!(complaint(|images, labels| images.clone_from(labels)).contains("`images`"));
        assert!(complaint(|_, labels| labels[2] = 9).contains("`labels`"));
    }

    #[test]
    fn rejects_truncated_and_trailing_bytes() {
        assert!(complaint(|images, _| images.truncate(3)).contains("magic number"));
        assert!(complaint(|images, _| images.truncate(9)).contains("dimensions"));
        let short = complaint(|images, _| images.truncate(39));
        assert!(short.contains("claims 4 x 2 x 3 bytes, but 23 follow"), "{short}");
        let long = complaint(|_, labels| labels.extend([0; 9]));
        assert!(long.contains("claims 4 bytes, but at least 5 follow"), "{long}");
    }

    #[test]
    fn rejects_claims_beyond_reason_without_reading_on() {
        let vast = complaint(|images, _| images[4..16].fill(0xff));
        assert!(vast.contains("too many"), "{vast}");
        let bomb = complaint(|images, _| {
            images.resize(1 << 24, 0);
            *images = gzip(images);
        });
        assert!(bomb.contains("at least 25 follow"), "{bomb}");
    }

    #[test]
    fn rejects_damaged_gzip() {
        let damaged = complaint(|images, _| {
            *images = gzip(images);
            images.truncate(20);
        });
        assert!(damaged.starts_with("`images`"), "{damaged}");
    }

    #[test]
    fn rejects_labels_that_do_not_fit() {
        assert!(complaint(|_, labels| labels[9] = 10).contains("label 1 is 10"));
        let fewer = complaint(|_, labels| {
            labels[7] = 3;
            labels.pop();
        });
        assert!(fewer.contains("3 labels, but `images` holds 4 images"), "{fewer}");
        let flat = complaint(|images, _| {
            images[11] = 0;
            images.truncate(16);
        });
        assert!(flat.contains("1 x 0 x 3"), "{flat}");
    }
}
