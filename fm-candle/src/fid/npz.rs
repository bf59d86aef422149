//! `.npz`, numpy's archives: statistics as pytorch-fid keeps them, and image sets.
//!
//! The file is a zip archive with one `NAME.npy` for each array:
//!
//! ```text
//! "\x93NUMPY" | major, minor | u16 (major 1) or u32 (2, 3) length | header | elements
//! header: {'descr': '<f8', 'fortran_order': False, 'shape': (84, 84), }
//! ```
//!
//! Numbers are little-endian, elements in C order. Source: numpy, `numpy/lib/format.py`.
//!
//! | file | arrays |
//! |---|---|
//! | statistics | `mu` f8 `[d]`, `sigma` f8 `[d, d]`; ours also `n` i8 `[]`, the number of images |
//! | images | `arr_0` u1 `[n, h, w, c]` |
//!
//! An array is taken only if it holds exactly what its header claims. Reading stops one byte past
//! the claim, so that memory grows with what a file holds, never with what it says.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::Statistics;
use crate::atomic;
use crate::data::Images;
use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Most bytes that an array may claim, 4 GiB: 21 000 images of 256 x 256 in colour.
const LIMIT: u64 = 1 << 32;

/// Longest header in bytes; numpy's own reader refuses more than 10 000 by default.
const MAX_HEADER: u64 = 1 << 16;

/// Most dimensions of an array; numpy's own limit.
const MAX_DIMS: usize = 64;

/// The elements of an array, by their dtype.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `|u1`.
    U8(Vec<u8>),
    /// `<i8`.
    I64(Vec<i64>),
    /// `<f4`.
    F32(Vec<f32>),
    /// `<f8`.
    F64(Vec<f64>),
}

/// An array: its shape, and its elements in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the shape multiplies to.
    pub values: Values,
}

/// Whether the file at `path` is a zip archive that holds `.npy` arrays (torch's checkpoints are
/// zip archives too).
pub fn is_npz(path: &Path) -> bool {
    Npz::open(path).is_ok_and(|npz| npz.archive.file_names_raw().any(|n| n.ends_with(b".npy")))
}

/// Reads the statistics in the file at `path`; pytorch-fid's have no `n`.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`], naming the file and the array at fault.
pub fn read_statistics(path: &Path) -> Result<Statistics> {
    Npz::open(path)?.statistics()
}

/// Reads statistics from a file in memory.
///
/// # Errors
///
/// As [`read_statistics`], with the file called `name`.
pub fn decode_statistics(name: &str, bytes: &[u8]) -> Result<Statistics> {
    Npz::new(Path::new(name), Cursor::new(bytes))?.statistics()
}

/// Writes `mu`, `sigma` and, where it is known, `n`, whole or not at all; pytorch-fid reads the
/// file.
///
/// # Errors
///
/// [`Error::Tensor`] when the covariance is not `d x d`; those of [`atomic::write_with`].
pub fn write_statistics(path: &Path, statistics: &Statistics) -> Result<()> {
    let d = statistics.mean.len();
    let mut arrays = vec![
        ("mu", Array { shape: vec![d], values: Values::F64(statistics.mean.clone()) }),
        ("sigma", Array { shape: vec![d, d], values: Values::F64(statistics.covariance.clone()) }),
    ];
    if let Some(n) = statistics.n.and_then(|n| i64::try_from(n).ok()) {
        arrays.push(("n", Array { shape: Vec::new(), values: Values::I64(vec![n]) }));
    }
    write(path, &arrays)
}

/// Whether the file holds statistics (`mu`) or images, as [`read`] finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `mu` and `sigma`.
    Statistics(Statistics),
    /// `arr_0`; without labels.
    Images(Images),
}

/// Reads whatever the file at `path` holds, statistics or images.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`], naming the file and the array at fault, or both kinds of
/// array where there is neither.
pub fn read(path: &Path) -> Result<Content> {
    let mut npz = Npz::open(path)?;
    if npz.has("mu") {
        return npz.statistics().map(Content::Statistics);
    }
    if npz.has("arr_0") {
        return npz.images().map(Content::Images);
    }
    Err(npz.fault("holds neither statistics (`mu` and `sigma`) nor images (`arr_0`)"))
}

/// Writes `pixels` as `arr_0`, whole or not at all.
///
/// # Shapes
///
/// `pixels`: `[n, h, w, c]` of `shape`.
///
/// # Errors
///
/// [`Error::Tensor`] when `pixels` does not have that shape; those of [`atomic::write_with`].
pub fn write_images(path: &Path, pixels: &[u8], shape: [usize; 4]) -> Result<()> {
    let array = Array { shape: shape.to_vec(), values: Values::U8(pixels.to_vec()) };
    write(path, &[("arr_0", array)])
}

/// Writes named arrays, uncompressed as `numpy.savez` does, whole or not at all.
///
/// The same arrays give the same bytes.
///
/// # Errors
///
/// [`Error::Tensor`] when an array does not have as many elements as its shape says; those of
/// [`atomic::write_with`].
pub fn write(path: &Path, arrays: &[(&str, Array)]) -> Result<()> {
    for (name, array) in arrays {
        let (found, shape) = (array.values.len(), &array.shape);
        if elements(shape) != Some(found as u64) {
            return Err(Error::tensor(name, format!("{found} values do not fill {shape:?}")));
        }
    }
    atomic::write_with(path, |out| {
        let mut zip = ZipWriter::new(out);
        for (name, array) in arrays {
            let bytes = array.values.bytes();
            // Room for the header beside the elements.
            let large = bytes.len() as u64 + MAX_HEADER > u64::from(u32::MAX);
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .large_file(large);
            zip.start_file(format!("{name}.npy"), options)?;
            zip.write_all(&header(array.values.descr(), &array.shape))?;
            zip.write_all(&bytes)?;
        }
        zip.finish()?;
        Ok(())
    })
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    fn descr(&self) -> &'static str {
        match self {
            Self::U8(_) => "|u1",
            Self::I64(_) => "<i8",
            Self::F32(_) => "<f4",
            Self::F64(_) => "<f8",
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::I64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The values in `bytes`, or `None` for a dtype that is not ours.
    fn parse(descr: &str, bytes: Vec<u8>) -> Option<Self> {
        Some(match descr {
            "|u1" | "<u1" | "u1" => Self::U8(bytes),
            "<i8" => {
                Self::I64(bytes.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect())
            }
            "<f4" => {
                Self::F32(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
            }
            "<f8" => {
                Self::F64(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect())
            }
            _ => return None,
        })
    }

    /// The values as f64, whatever floating type they have.
    fn into_f64(self) -> Option<Vec<f64>> {
        match self {
            Self::F32(values) => Some(values.into_iter().map(f64::from).collect()),
            Self::F64(values) => Some(values),
            Self::U8(_) | Self::I64(_) => None,
        }
    }
}

/// Bytes of one element, or `None` for a dtype that is not ours.
fn size_of(descr: &str) -> Option<u64> {
    match descr {
        "|u1" | "<u1" | "u1" => Some(1),
        "<f4" => Some(4),
        "<i8" | "<f8" => Some(8),
        _ => None,
    }
}

/// Elements of an array of this shape, unless they overflow.
fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(u64::try_from(side).ok()?))
}

/// Magic, version 1.0 and header, padded so that the elements begin at a multiple of 64.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let sides = format!("({}{comma})", sides.join(", "));
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {sides}, }}");
    // Magic, version and length take 10 bytes, the closing newline one.
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let padding = total - 10 - text.len() - 1;
    let length = u16::try_from(total - 10).unwrap_or(u16::MAX);
    let mut bytes = [&MAGIC[..], &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat();
    bytes.resize(bytes.len() + padding, b' ');
    bytes.push(b'\n');
    bytes
}

/// An opened archive and the name it goes by in errors.
struct Npz<R> {
    path: PathBuf,
    archive: ZipArchive<R>,
}

impl Npz<BufReader<File>> {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        Self::new(path, BufReader::new(file))
    }
}

impl<R: Read + Seek> Npz<R> {
    fn new(path: &Path, source: R) -> Result<Self> {
        let archive = ZipArchive::new(source)
            .map_err(|error| Error::file(path, format!("is no .npz archive: {error}")))?;
        Ok(Self { path: path.to_path_buf(), archive })
    }

    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::file(&self.path, reason)
    }

    fn has(&self, name: &str) -> bool {
        let file = format!("{name}.npy");
        self.archive.file_names_raw().any(|found| found == file.as_bytes())
    }

    /// The array `name`.
    fn array(&mut self, name: &str) -> Result<Array> {
        let path = &self.path;
        let fault = |reason: String| Error::file(path, format!("array `{name}`: {reason}"));
        let entry = self
            .archive
            .by_name(&format!("{name}.npy"))
            .map_err(|error| fault(error.to_string()))?;
        parse(entry).map_err(fault)
    }

    fn statistics(&mut self) -> Result<Statistics> {
        let (mu, sigma) = (self.array("mu")?, self.array("sigma")?);
        let n = if self.has("n") { Some(self.count()?) } else { None };
        let &[d] = &mu.shape[..] else {
            return Err(self.fault(format!("array `mu`: shape {:?} is not [d]", mu.shape)));
        };
        if sigma.shape != [d, d] {
            let shape = sigma.shape;
            return Err(self.fault(format!("array `sigma`: shape {shape:?} is not [{d}, {d}]")));
        }
        let floats = |name: &str, array: Array| {
            let values = array.values.into_f64();
            values.ok_or_else(|| Error::file(&self.path, format!("array `{name}`: no floats")))
        };
        let (mean, covariance) = (floats("mu", mu)?, floats("sigma", sigma)?);
        Ok(Statistics { n, mean, covariance })
    }

    /// The number of images.
    fn count(&mut self) -> Result<u64> {
        let array = self.array("n")?;
        let n = match array.values {
            Values::I64(values) if values.len() == 1 => u64::try_from(values[0]).ok(),
            _ => None,
        };
        n.ok_or_else(|| self.fault("array `n`: must be one integer (i8) of at least 0"))
    }

    fn images(&mut self) -> Result<Images> {
        let Array { shape, values } = self.array("arr_0")?;
        let Values::U8(values) = values else {
            return Err(self.fault(format!(
                "array `arr_0`: images must be u1 in [0, 255], not {}",
                values.descr()
            )));
        };
        let &[n, height, width, channels] = &shape[..] else {
            return Err(self.fault(format!("array `arr_0`: shape {shape:?} is not [n, h, w, c]")));
        };
        if [height, width, channels].contains(&0) {
            return Err(self.fault(format!("array `arr_0`: shape {shape:?} holds no pixels")));
        }
        let pixels = super::planar(&values, channels, height * width);
        Ok(Images { n, channels, height, width, pixels, labels: Vec::new() })
    }
}

/// One `.npy` file.
fn parse(mut source: impl Read) -> Result<Array, String> {
    let lost = |what: &'static str| move |error: io::Error| format!("reading the {what}: {error}");
    let mut head = [0; 8];
    source.read_exact(&mut head).map_err(lost("magic"))?;
    if !head.starts_with(MAGIC) {
        return Err("does not begin as .npy files do".into());
    }
    let length = match head[6] {
        1 => {
            let mut length = [0; 2];
            source.read_exact(&mut length).map_err(lost("header's length"))?;
            u64::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            source.read_exact(&mut length).map_err(lost("header's length"))?;
            u64::from(u32::from_le_bytes(length))
        }
        major => return Err(format!("version {major}.{}, but known are 1 to 3", head[7])),
    };
    if length > MAX_HEADER {
        return Err(format!("claims a header of {length} bytes, more than {MAX_HEADER}"));
    }
    let mut text = Vec::new();
    source.by_ref().take(length).read_to_end(&mut text).map_err(lost("header"))?;
    if text.len() as u64 != length {
        return Err(format!("claims a header of {length} bytes, but {} follow", text.len()));
    }
    let text = String::from_utf8(text).map_err(|_| "the header is no text".to_string())?;
    let Header { descr, fortran_order, shape } =
        Header::parse(&text).ok_or_else(|| format!("cannot read the header {}", text.trim()))?;

    let Some(size) = size_of(&descr) else {
        return Err(format!("dtype `{descr}`, but read are |u1, <i8, <f4 and <f8"));
    };
    if fortran_order && shape.len() > 1 {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let claim = elements(&shape)
        .and_then(|n| n.checked_mul(size))
        .filter(|&claim| claim <= LIMIT)
        .ok_or_else(|| format!("shape {shape:?} of `{descr}` exceeds {LIMIT} bytes"))?;
    let mut bytes = Vec::new();
    source.take(claim + 1).read_to_end(&mut bytes).map_err(lost("elements"))?;
    if bytes.len() as u64 != claim {
        let more = if bytes.len() as u64 > claim { "at least " } else { "" };
        return Err(format!(
            "the header claims {claim} bytes for {shape:?}, but {more}{} follow",
            bytes.len()
        ));
    }
    let values = Values::parse(&descr, bytes).ok_or("dtype is not known")?;
    Ok(Array { shape, values })
}

/// What the header of an array says.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the Python dict of exactly these three keys, in any order.
    fn parse(text: &str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" if descr.is_none() => {
                    let (value, after) = quoted(rest)?;
                    descr = Some(value.to_string());
                    rest = after;
                }
                "fortran_order" if fortran_order.is_none() => {
                    let (value, after) = match rest.strip_prefix("True") {
                        Some(after) => (true, after),
                        None => (false, rest.strip_prefix("False")?),
                    };
                    fortran_order = Some(value);
                    rest = after;
                }
                "shape" if shape.is_none() => {
                    let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
                    shape = Some(sides(inside)?);
                    rest = after;
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// A string in quotes at the start of `text`, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// The inside of a tuple: `84, 84`, `84,` or nothing; Python 2 wrote `84L`.
fn sides(inside: &str) -> Option<Vec<usize>> {
    let inside = inside.trim();
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let side = |side: &str| {
        let side = side.trim();
        side.strip_suffix('L').unwrap_or(side).parse().ok()
    };
    let sides: Vec<usize> = inside.split(',').map(side).collect::<Option<_>>()?;
    (sides.len() <= MAX_DIMS).then_some(sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics() -> Statistics {
        Statistics { n: Some(7), mean: vec![0.5, -1.0], covariance: vec![2.0, 0.25, 0.25, 3.0] }
    }

    /// An archive of these raw `.npy` files, in memory.
    fn zipped(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// A `.npy` of version 1 with this header and these elements.
    fn npy(header: &str, elements: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [&MAGIC[..], &[1, 0], &length, header.as_bytes(), elements].concat()
    }

    fn complaint(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err()
    }

    #[test]
    fn statistics_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.npz");
        let without_n = Statistics { n: None, ..statistics() };
        for statistics in [statistics(), without_n] {
            write_statistics(&path, &statistics).unwrap();
            assert!(is_npz(&path));
            assert_eq!(read_statistics(&path).unwrap(), statistics);
            assert_eq!(read(&path).unwrap(), Content::Statistics(statistics.clone()));
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(decode_statistics("it", &bytes).unwrap(), statistics);
        }
    }

    #[test]
    fn images_round_trip_to_planes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npz");
        write_images(&path, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [2, 1, 2, 3]).unwrap();
        let Content::Images(images) = read(&path).unwrap() else { panic!("no images") };
        assert_eq!((images.n, images.channels, images.height, images.width), (2, 3, 1, 2));
        assert_eq!(images.pixels, [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
        assert!(write_images(&path, &[0; 3], [1, 2, 2, 1]).is_err());
    }

    #[test]
    fn layout_is_that_of_numpy() {
        // numpy.save(f, numpy.float64([1.5])) of numpy 2.4.
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }");
        expected.resize(127, b' ');
        expected.push(b'\n');
        assert_eq!(header("<f8", &[1]), expected);
        for shape in [&[][..], &[3], &[2, 3], &[1; 40]] {
            let bytes = header("|u1", shape);
            assert!(bytes.len().is_multiple_of(64));
            let n = shape.iter().product();
            let array = parse(&[bytes, vec![7; n]].concat()[..]).unwrap();
            assert_eq!(array, Array { shape: shape.to_vec(), values: Values::U8(vec![7; n]) });
        }
    }

    #[test]
    fn reads_what_other_writers_write() {
        let floats = 1.5_f32.to_le_bytes();
        let text = r#" {"shape": ( 1L, ), 'fortran_order':False , "descr":'<f4'} "#;
        let expected = Array { shape: vec![1], values: Values::F32(vec![1.5]) };
        assert_eq!(parse(&npy(text, &floats)[..]).unwrap(), expected);

        // Version 2 has a wider length; one axis is in both orders at once.
        let text = b"{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}";
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        let second = [&MAGIC[..], &[2, 0], &length, text, &floats].concat();
        assert_eq!(parse(&second[..]).unwrap(), expected);

        // numpy.savez_compressed, with f4 statistics as some tools keep them.
        let mu = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", &floats);
        let sigma = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", &floats);
        let files = [("mu.npy", &mu[..]), ("sigma.npy", &sigma[..])];
        let bytes = zipped(&files, CompressionMethod::Deflated);
        let expected = Statistics { n: None, mean: vec![1.5], covariance: vec![1.5] };
        assert_eq!(decode_statistics("it", &bytes).unwrap(), expected);
    }

    #[test]
    fn rejects_malformed_arrays() {
        let of = |shape: &str, descr: &str, bytes: usize| {
            let text =
                format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
            complaint(&npy(&text, &vec![0; bytes]))
        };
        assert!(of("(2,)", "<f8", 15).contains("claims 16 bytes for [2], but 15 follow"));
        assert!(of("(2,)", "<f8", 99).contains("at least 17 follow"));
        assert!(of("(99999999999,)", "<f8", 8).contains("exceeds"));
        assert!(of("(4294967296, 4294967296)", "|u1", 8).contains("exceeds"));
        assert!(of("(99999999999999999999999,)", "|u1", 8).contains("cannot read the header"));
        assert!(of("(-1,)", "|u1", 8).contains("cannot read the header"));
        assert!(of("2", "|u1", 8).contains("cannot read the header"));
        assert!(of("(1,)", ">f8", 8).contains("dtype `>f8`"));
        assert!(of("(1,)", "|O", 8).contains("dtype `|O`"));
        let fortran = "{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1), }";
        assert!(complaint(&npy(fortran, &[0; 8])).contains("Fortran order"));
        for text in ["", "{", "{'descr'", "{'descr': '<f8'}", "{'é': 1}", "{}", "[]"] {
            assert!(complaint(&npy(text, &[])).contains("cannot read the header"), "{text}");
        }
        let twice = "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': ()}";
        assert!(complaint(&npy(twice, &[0; 8])).contains("cannot read the header"));
    }

    #[test]
    fn rejects_truncation_anywhere() {
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
        let whole = npy(text, &[0; 8]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.npz");
        write_statistics(&path, &statistics()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            let error = decode_statistics("cut", &whole[..length]).unwrap_err().to_string();
            assert!(error.starts_with("`cut`: "), "{error}");
        }
    }

    #[test]
    fn survives_any_flipped_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped.npz");
        write_statistics(&path, &statistics()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                // An error or statistics, never a panic.
                let _ = decode_statistics("flipped", &bytes);
            }
        }
    }

    #[test]
    fn rejects_lies_about_header_and_version() {
        let mut long = [&MAGIC[..], &[2, 0]].concat();
        long.extend(u32::MAX.to_le_bytes());
        assert!(complaint(&long).contains("claims a header of 4294967295 bytes"));
        assert!(complaint(&[&MAGIC[..], &[9, 1]].concat()).contains("version 9.1"));
        assert!(complaint(b"notNUMPY").contains("does not begin"));
    }

    #[test]
    fn names_file_and_array_at_fault() {
        let text =
            |shape: &str| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
        let (mu, sigma) = (npy(&text("(2,)"), &[0; 16]), npy(&text("(1, 2)"), &[0; 16]));
        let files = [("mu.npy", &mu[..]), ("sigma.npy", &sigma[..])];
        let bytes = zipped(&files, CompressionMethod::Stored);
        let error = decode_statistics("s.npz", &bytes).unwrap_err().to_string();
        assert_eq!(error, "`s.npz`: array `sigma`: shape [1, 2] is not [2, 2]");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.npz");
        std::fs::write(&path, zipped(&[("w.npy", &mu)], CompressionMethod::Stored)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("other.npz`: holds neither statistics"), "{error}");
        std::fs::write(&path, zipped(&[("arr_0.npy", &mu)], CompressionMethod::Stored)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("must be u1"));
        assert!(read(&folder.path().join("absent.npz")).is_err());
        std::fs::write(&path, zipped(&[("data.pkl", b"x")], CompressionMethod::Stored)).unwrap();
        assert!(!is_npz(&path));
    }
}
