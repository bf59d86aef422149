//! The batches of CIFAR-10, binary or pickled, in a folder or in the archive that they come in.
//!
//! ```text
//! binary: (u8 label | u8 [3, 32, 32]) per image
//! pickle: {"data": uint8 [n, 3072], "labels": [n], ...}
//! ```
//!
//! Training images are `data_batch_1` to `data_batch_5`, in that order; the others `test_batch`.
//! A batch holds 10 000 images, but any number is taken. The pickles, which Python 2 wrote, are read
//! by a machine that runs nothing of them (`crate::pickle`); those that a newer Python wrote of the
//! same dictionary are read too.
//!
//! Source: Krizhevsky, cs.toronto.edu/~kriz/cifar.html, "Dataset layout".

use std::io::{BufReader, Read};
use std::path::Path;

use super::gzip::inflated;
use super::{Images, Split, regular};
use crate::error::{Error, Result};
use crate::pickle::Pickle;

/// Channels, rows and columns.
const SHAPE: [usize; 3] = [3, 32, 32];
/// Bytes of an image.
const PIXELS: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
const CLASSES: u8 = 10;

/// Most bytes of a batch, 256 MiB: eight times CIFAR-10's.
const BATCH_LIMIT: u64 = 1 << 28;
/// Most bytes that an archive may inflate to, 1 GiB: five times CIFAR-10's.
const ARCHIVE_LIMIT: u64 = 1 << 30;

/// Reads one half of CIFAR-10.
///
/// Looked for in `dir` are the folders `cifar-10-batches-bin` and `cifar-10-batches-py`, then the
/// batches themselves, then the archives `cifar-10-binary.tar.gz` and `cifar-10-python.tar.gz`,
/// which may end in `.tar` or `.tgz` too. Whether a file is gzipped is told by its contents.
///
/// # Errors
///
/// [`Error::File`] when none of them is there, a batch is missing, unreadable or malformed, or a
/// label is not below 10; [`Error::Io`] when a file cannot be opened.
pub fn load(dir: &Path, split: Split) -> Result<Images> {
    const VERSIONS: [Version; 2] = [Version::Binary, Version::Python];
    let inside = VERSIONS.map(|version| (version, dir.join(version.folder())));
    for (version, folder) in inside.into_iter().chain(VERSIONS.map(|v| (v, dir.to_path_buf()))) {
        if regular::is_there(&folder.join(&version.batches(split)[0])) {
            return from_folder(&folder, version, split);
        }
    }
    for version in VERSIONS {
        let mut archives = version.archives().into_iter().map(|name| dir.join(name));
        if let Some(archive) = archives.find(|path| regular::is_there(path)) {
            return from_archive(&archive, version, split);
        }
    }
    let tried = VERSIONS.map(|v| format!("{}, {}", v.folder(), v.archives().join(", "))).join(", ");
    Err(Error::file(dir, format!("no CIFAR-10 here; tried {tried} and the batches themselves")))
}

/// The two ways in which CIFAR-10 is published.
#[derive(Clone, Copy, Debug)]
enum Version {
    Binary,
    Python,
}

impl Version {
    fn folder(self) -> &'static str {
        match self {
            Self::Binary => "cifar-10-batches-bin",
            Self::Python => "cifar-10-batches-py",
        }
    }

    /// Names of the archive: that of its authors, and those that other programs make of it.
    fn archives(self) -> [&'static str; 3] {
        match self {
            Self::Binary => {
                ["cifar-10-binary.tar.gz", "cifar-10-binary.tar", "cifar-10-binary.tgz"]
            }
            Self::Python => {
                ["cifar-10-python.tar.gz", "cifar-10-python.tar", "cifar-10-python.tgz"]
            }
        }
    }

    /// Names of a half's batches in their order.
    fn batches(self, split: Split) -> Vec<String> {
        let end = match self {
            Self::Binary => ".bin",
            Self::Python => "",
        };
        match split {
            Split::Train => (1..=5).map(|i| format!("data_batch_{i}{end}")).collect(),
            Split::Test => vec![format!("test_batch{end}")],
        }
    }

    fn read(self, source: impl Read) -> Result<CifarBatch, String> {
        let source = inflated(source).map_err(|error| error.to_string())?;
        match self {
            Self::Binary => read_binary(source),
            Self::Python => read_python(BufReader::new(source)),
        }
    }
}

/// Some images and as many labels.
struct CifarBatch {
    /// `[n, 3, 32, 32]`.
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

fn from_folder(folder: &Path, version: Version, split: Split) -> Result<Images> {
    let batches = version.batches(split).into_iter().map(|name| {
        let path = folder.join(name);
        version.read(regular::open(&path)?).map_err(|reason| Error::file(&path, reason))
    });
    joined(batches.collect::<Result<_>>()?)
}

fn from_archive(path: &Path, version: Version, split: Split) -> Result<Images> {
    let names = version.batches(split);
    let mut batches: Vec<Option<CifarBatch>> = names.iter().map(|_| None).collect();
    let damaged = |error| Error::file(path, format!("damaged archive: {error}"));

    let inflated = inflated(regular::open(path)?).map_err(damaged)?;
    let mut archive = tar::Archive::new(inflated.take(ARCHIVE_LIMIT));
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.file_name().map(ToOwned::to_owned);
        let place = names.iter().position(|wanted| name.as_deref() == Some(wanted.as_ref()));
        if let Some(place) = place.filter(|_| entry.header().entry_type().is_file()) {
            let batch = version.read(entry);
            let named = |reason| Error::file(path, format!("`{}`: {reason}", names[place]));
            batches[place] = Some(batch.map_err(named)?);
        }
        if batches.iter().all(Option::is_some) {
            break;
        }
    }
    let missing = |name| Error::file(path, format!("holds no `{name}`"));
    let batches = batches.into_iter().zip(&names).map(|(b, name)| b.ok_or_else(|| missing(name)));
    joined(batches.collect::<Result<_>>()?)
}

/// The batches one after the other.
fn joined(batches: Vec<CifarBatch>) -> Result<Images> {
    let mut all = CifarBatch { pixels: Vec::new(), labels: Vec::new() };
    for batch in batches {
        all.pixels.extend(batch.pixels);
        all.labels.extend(batch.labels);
    }
    Images::new(SHAPE, all.pixels, all.labels)
}

fn read_binary(source: impl Read) -> Result<CifarBatch, String> {
    let mut bytes = Vec::new();
    source.take(BATCH_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BATCH_LIMIT {
        return Err(format!("holds more than {BATCH_LIMIT} bytes"));
    }
    let (rows, rest) = bytes.as_chunks::<{ 1 + PIXELS }>();
    if rows.is_empty() || !rest.is_empty() {
        let (n, row) = (bytes.len(), 1 + PIXELS);
        return Err(format!("holds {n} bytes, but must hold {row} for each image"));
    }
    let labels = rows.iter().enumerate().map(|(i, row)| label(i, row[0].into()));
    Ok(CifarBatch {
        labels: labels.collect::<Result<_, _>>()?,
        pixels: rows.iter().flat_map(|row| &row[1..]).copied().collect(),
    })
}

fn read_python(source: impl Read) -> Result<CifarBatch, String> {
    let pickle = Pickle::load_within(source, BATCH_LIMIT)?;
    let get = |key| pickle.get(pickle.root(), key).ok_or_else(|| format!("holds no `{key}`"));
    let (shape, pixels) =
        pickle.byte_array(get("data")?).map_err(|reason| format!("`data` {reason}"))?;
    let labels = pickle.integers(get("labels")?).map_err(|reason| format!("`labels` {reason}"))?;
    if labels.is_empty() || shape != [labels.len(), PIXELS] {
        let n = labels.len();
        return Err(format!("`data` has the shape {shape:?}, but {n} labels need [{n}, {PIXELS}]"));
    }
    let labels = labels.into_iter().enumerate().map(|(i, number)| label(i, number));
    Ok(CifarBatch { labels: labels.collect::<Result<_, _>>()?, pixels: pixels.to_vec() })
}

/// Label `i` of a batch.
fn label(i: usize, label: i64) -> Result<u32, String> {
    let known = u8::try_from(label).ok().filter(|&label| label < CLASSES);
    known
        .map(u32::from)
        .ok_or_else(|| format!("label {i} is {label}, but there are {CLASSES} classes"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Images whose pixels tell image, channel and place apart.
    fn sample(labels: &[u8]) -> Images {
        let pixel = |i: usize| (i * 7 + i / PIXELS * 31) as u8;
        let pixels = (0..labels.len() * PIXELS).map(pixel).collect();
        Images::new(SHAPE, pixels, labels.iter().copied().map(u32::from).collect()).unwrap()
    }

    fn binary(images: &Images) -> Vec<u8> {
        let row = |i: usize| [&[images.labels[i] as u8], images.image(i)].concat();
        (0..images.n).flat_map(row).collect()
    }

    /// A batch as Python 2 pickled it, opcode by opcode.
    fn python(images: &Images) -> Vec<u8> {
        let labels = images.labels.iter().flat_map(|&label| [b'K', label as u8]);
        let labels: Vec<u8> = b"]q\x05(".iter().copied().chain(labels).chain(*b"e").collect();
        python_with(images, &labels)
    }

    /// A batch as Python 2 pickled it, with these opcodes of labels.
    fn python_with(images: &Images, labels: &[u8]) -> Vec<u8> {
        let short = |x: usize| [b"M", &u16::try_from(x).unwrap().to_le_bytes()[..]].concat();
        let mut pickle = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03\
            U\x06labelsq\x04"
            .to_vec();
        pickle.extend(labels);
        pickle.extend(
            b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\0\
              \x85U\x01b\x87Rq\x09(K\x01",
        );
        pickle.extend([short(images.n), short(PIXELS), b"\x86".to_vec()].concat());
        pickle.extend(
            b"cnumpy\ndtype\nq\x0aU\x02u1K\0K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff\
              J\xff\xff\xff\xffK\0tb\x89T",
        );
        pickle.extend(u32::try_from(images.pixels.len()).unwrap().to_le_bytes());
        pickle.extend(&images.pixels);
        pickle.extend(b"tbU\x09filenamesq\x0c]q\x0dU\x05a.pngau.");
        pickle
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn archive(path: &Path, entries: &[(&str, Vec<u8>)]) {
        fs::write(path, gzip(&tar(entries))).unwrap();
    }

    /// The five training batches, two images each, and all of them together.
    fn batches() -> (Vec<Images>, Images) {
        let all = sample(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]);
        ((0..5).map(|i| all.subset(&[2 * i, 2 * i + 1]).unwrap()).collect(), all)
    }

    #[test]
    fn both_versions_read_from_folders() {
        let (train, all) = batches();
        let dir = tempfile::tempdir().unwrap();
        let error = load(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("cifar-10-batches-py, cifar-10-python.tar.gz, "), "{error}");

        // The batches themselves, pickled; then a folder of binary ones, which comes first.
        for (i, batch) in train.iter().enumerate() {
            fs::write(dir.path().join(format!("data_batch_{}", i + 1)), python(batch)).unwrap();
        }
        assert_eq!(load(dir.path(), Split::Train).unwrap(), all);
        let folder = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("test_batch.bin"), binary(&train[3])).unwrap();
        assert_eq!(load(dir.path(), Split::Test).unwrap(), train[3]);
        assert_eq!(load(&folder, Split::Test).unwrap(), train[3]);
        for (i, batch) in train.iter().rev().enumerate() {
            fs::write(folder.join(format!("data_batch_{}.bin", i + 1)), binary(batch)).unwrap();
        }
        let reversed = all.subset(&[8, 9, 6, 7, 4, 5, 2, 3, 0, 1]).unwrap();
        assert_eq!(load(dir.path(), Split::Train).unwrap(), reversed);
    }

    #[test]
    fn both_versions_read_from_archives_in_any_order() {
        let (train, all) = batches();
        let order = [4, 0, 2, 1, 3];
        let dir = tempfile::tempdir().unwrap();
        let name = |i: usize, end| format!("cifar/data_batch_{}{end}", i + 1);
        let named = |encode: fn(&Images) -> Vec<u8>, end| {
            let mut entries = vec![("cifar/readme.html".to_string(), b"no batch".to_vec())];
            entries.extend(order.map(|i| (name(i, end), encode(&train[i]))));
            entries
        };
        for (file, encode, end) in [
            ("cifar-10-python.tar.gz", python as fn(&Images) -> Vec<u8>, ""),
            ("cifar-10-binary.tar.gz", binary, ".bin"),
        ] {
            let entries = named(encode, end);
            let entries: Vec<_> = entries.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
            archive(&dir.path().join(file), &entries);
            assert_eq!(load(dir.path(), Split::Train).unwrap(), all);
        }
        let error = load(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("binary.tar.gz`: holds no `test_batch.bin`"), "{error}");
    }

    #[test]
    fn contents_tell_what_is_gzipped() {
        let batch = sample(&[1, 2]);
        let archive = tar(&[("x/test_batch.bin", binary(&batch))]);
        for (name, bytes) in [
            ("cifar-10-binary.tar.gz", archive.clone()),
            ("cifar-10-binary.tar", gzip(&archive)),
            ("cifar-10-binary.tgz", gzip(&archive)),
            ("test_batch.bin", gzip(&binary(&batch))),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), bytes).unwrap();
            assert_eq!(load(dir.path(), Split::Test).unwrap(), batch, "{name}");
        }
    }

    /// The error for the first `keep` bytes of an archive that holds this binary test batch.
    fn complaint(batch: Vec<u8>, keep: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cifar-10-binary.tar.gz");
        archive(&path, &[("x/test_batch.bin", batch)]);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..keep.min(bytes.len())]).unwrap();
        load(dir.path(), Split::Test).unwrap_err().to_string()
    }

    #[test]
    fn rejects_damaged_batches_by_archive_and_name() {
        let mut batch = binary(&sample(&[1, 2]));
        batch[1 + PIXELS] = 10;
        let wrong = complaint(batch.clone(), usize::MAX);
        assert!(wrong.contains("binary.tar.gz`: `test_batch.bin`: label 1 is 10"), "{wrong}");
        batch.pop();
        let short = complaint(batch.clone(), usize::MAX);
        assert!(short.contains("6145 bytes, but must hold 3073"), "{short}");
        assert!(complaint(Vec::new(), usize::MAX).contains("0 bytes"));
        // Cut off within the header, and within the batch.
        let cut = complaint(batch.clone(), 20);
        assert!(cut.contains("damaged archive"), "{cut}");
        batch.extend((0..100_000_u32).map(|i| (i.wrapping_mul(i ^ 0x9e37_79b1) >> 24) as u8));
        let cut = complaint(batch, 20_000);
        assert!(cut.contains("`test_batch.bin`"), "{cut}");
    }

    #[test]
    fn pickles_of_newer_pythons_read_as_well() {
        // tests/data/cifar/make.py
        for pickle in [
            &include_bytes!("../../testdata/cifar/protocol2.pkl")[..],
            include_bytes!("../../testdata/cifar/protocol3.pkl"),
            include_bytes!("../../testdata/cifar/protocol4.pkl"),
            include_bytes!("../../testdata/cifar/protocol5.pkl"),
        ] {
            let batch = read_python(pickle).unwrap();
            assert_eq!(batch.labels, [8]);
            assert_eq!(batch.pixels, sample(&[8]).pixels);
        }
    }

    #[test]
    fn labels_may_be_an_array() {
        let images = sample(&[3, 9]);
        let labels =
            b"cnumpy.core.multiarray\n_reconstruct\nq\x14cnumpy\nndarray\nq\x15K\0\x85U\x01b\
            \x87Rq\x16(K\x01K\x02\x85cnumpy\ndtype\nq\x17U\x02i8K\0K\x01\x87Rq\x18(K\x03U\x01<NNN\
            J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89U\x10\x03\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0tb";
        let batch = read_python(&python_with(&images, labels)[..]).unwrap();
        assert_eq!((batch.labels, batch.pixels), (images.labels, images.pixels));
    }

    #[test]
    fn rejects_pickles_that_are_no_batch() {
        let complaint = |pickle: &[u8]| read_python(pickle).err().unwrap();
        let whole = python(&sample(&[1, 2]));
        assert!(complaint(b"}.").contains("no `data`"));
        assert!(complaint(b"cos\nsystem\n(U\x04truetR.").contains("os.system"));
        assert!(complaint(&whole[..whole.len() - 2000]).contains("ends early"));
        let change = |from: &[u8], to: &[u8]| {
            let at = whole.windows(from.len()).position(|bytes| bytes == from).unwrap();
            complaint(&[&whole[..at], to, &whole[at + from.len()..]].concat())
        };
        assert!(change(b"K\x01K\x02e", b"K\x01K\x0ae").contains("label 1 is 10"));
        assert!(change(b"K\x01K\x02e", b"K\x01J\xff\xff\xff\xffe").contains("label 1 is -1"));
        assert!(change(b"K\x01K\x02e", b"K\x01Ne").contains("`labels` has no integer at 1"));
        assert!(change(b"K\x01K\x02e", b"K\x01e").contains("1 labels need [1, 3072]"));
        assert!(
            change(b"U\x02u1", b"U\x02f4")
                .contains("`data` holds 6144 bytes for the shape [2, 3072] of f4")
        );
        assert!(change(b"M\x02\0", b"M\x03\0").contains("6144 bytes for the shape [3, 3072]"));
    }
}
