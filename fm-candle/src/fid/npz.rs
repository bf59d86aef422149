//! `.npz`, numpy's archives: statistics as pytorch-fid keeps them, and image sets.
//!
//! The file is a zip archive with one `NAME.npy` for each array.
//!
//! | file | arrays |
//! |---|---|
//! | statistics | `mu` f8 `[d]`, `sigma` f8 `[d, d]`, or of any other numbers; ours also `n` i8 `[]`, the number of images, and `about` u1 `[any]`, [`Provenance`] as JSON |
//! | images | `arr_0` u1 `[n, h, w, c]` |

use std::borrow::Cow;
use std::io::{self, Cursor};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::statistics::Statistics;
use crate::atomic;
use crate::error::{Error, Result};
use crate::zipped::ZipOutput;

use self::archive::Npz;
pub use self::images::ImageArray;
pub use self::npy::{Array, NpyValues};
use self::npy::{ArrayHead, MAX_HEADER, elements, header};

mod archive;
mod images;
mod npy;
#[cfg(test)]
mod tests;

/// Returns true if the file at `path` is a zip archive that holds `.npy` arrays (torch's
/// checkpoints are zip archives too).
pub fn is_npz(path: &Path) -> bool {
    holds(path, ".npy").unwrap_or(false)
}

/// Returns true if the zip archive at `path` has a file whose name ends in `ending`.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] for what is no whole zip archive.
pub fn holds(path: &Path, ending: &str) -> Result<bool> {
    let ends = |name: &[u8]| name.ends_with(ending.as_bytes());
    Ok(Npz::open(path)?.archive.file_names_raw().any(ends))
}

/// Reads the statistics in the file at `path`; pytorch-fid's have no `n`.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`], naming the file and the array at fault.
pub fn read_statistics(path: &Path) -> Result<Statistics> {
    Npz::open(path)?.statistics()
}

/// Reads what the statistics in the file at `path` are of; nothing is known where the file does not
/// say.
///
/// # Errors
///
/// As [`read_statistics`].
pub fn read_about(path: &Path) -> Result<Provenance> {
    let mut npz = Npz::open(path)?;
    if !npz.has("about") {
        return Ok(Provenance::default());
    }
    let NpyValues::U8(text) = npz.array("about")?.values else {
        return Err(npz.fault("array `about`: must be u1, the bytes of a JSON object"));
    };
    serde_json::from_slice(&text).map_err(|error| npz.fault(format!("array `about`: {error}")))
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
    write_statistics_about(path, statistics, &Provenance::default())
}

/// The origin of statistics, as far as it is known: files of other programs do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The images: a data set with its split, such as `mnist:train`, or where they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
    /// Their [`fingerprint`](crate::fingerprint::of_images), where the statistics are kept to be used
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The net of the features, and which weights it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// The filter that resized the images for the net.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<String>,
    /// The program that computed them, and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

impl Provenance {
    /// Statistics of our own making, of these images under this net.
    pub fn ours(images: String, net: String, resize: Option<&str>) -> Self {
        Self {
            images: Some(images),
            fingerprint: None,
            net: Some(net),
            resize: resize.map(Into::into),
            program: Some(concat!("fmq ", env!("CARGO_PKG_VERSION")).into()),
        }
    }
}

/// Writes statistics as [`write_statistics`] does, and what they are of; other programs read the file
/// all the same.
///
/// # Errors
///
/// As [`write_statistics`].
pub fn write_statistics_about(
    path: &Path,
    statistics: &Statistics,
    about: &Provenance,
) -> Result<()> {
    let d = statistics.mean.len();
    let mut arrays = vec![
        ("mu", Array { shape: vec![d], values: NpyValues::F64(statistics.mean.clone()) }),
        (
            "sigma",
            Array { shape: vec![d, d], values: NpyValues::F64(statistics.covariance.clone()) },
        ),
    ];
    if let Some(n) = statistics.n.and_then(|n| i64::try_from(n).ok()) {
        arrays.push(("n", Array { shape: Vec::new(), values: NpyValues::I64(vec![n]) }));
    }
    if *about != Provenance::default() {
        let text = serde_json::to_vec(about)
            .map_err(|error| Error::file(path, format!("array `about`: {error}")))?;
        arrays.push(("about", Array { shape: vec![text.len()], values: NpyValues::U8(text) }));
    }
    write(path, &arrays)
}

/// The contents of a file as [`read`] finds them: statistics or images.
#[derive(Debug, Clone)]
pub enum Content {
    /// `mu` and `sigma`.
    Statistics(Statistics),
    /// `arr_0`.
    Images(ImageArray),
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
    let names = npz.names();
    Err(npz.fault(format!(
        "holds neither statistics (`mu` and `sigma`) nor images (`arr_0`), but {names}"
    )))
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
    write_image_chunks(path, shape, [Ok(pixels)])
}

/// Writes pixels as [`write_images`] does, which come in chunks.
///
/// # Errors
///
/// [`Error::Tensor`] when the chunks together do not have that shape; those of [`atomic::write_with`],
/// and those of the chunks.
pub fn write_image_chunks<'a, B: Into<Cow<'a, [u8]>>>(
    path: &Path,
    shape: [usize; 4],
    chunks: impl IntoIterator<Item = Result<B>>,
) -> Result<()> {
    let wanted = elements(&shape).unwrap_or(u64::MAX);
    atomic::write_through(path, |out| {
        let io = |error| Error::io(path, error);
        let (mut zip, mut found) = (ZipOutput::new(out), 0);
        let header = Cow::from(header("|u1", &shape));
        let pixels = chunks.into_iter().map(|chunk| {
            let chunk: Cow<'_, [u8]> = chunk.map_err(io::Error::other)?.into();
            found += chunk.len() as u64;
            Ok(chunk)
        });
        let parts = core::iter::once(Ok(header)).chain(pixels);
        zip.record_from("arr_0.npy", stored(wanted), parts).map_err(io)?;
        if found != wanted {
            return Err(Error::tensor("arr_0", format!("{found} values do not fill {shape:?}")));
        }
        zip.finish().map_err(io)
    })
}

/// Writes named arrays, uncompressed as `numpy.savez` does, whole or not at all.
///
/// Equal arrays give equal bytes.
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
        let mut zip = ZipOutput::new(out);
        for (name, array) in arrays {
            let bytes = array.values.bytes();
            let header = header(array.values.descr(), &array.shape);
            zip.record(&format!("{name}.npy"), stored(bytes.len() as u64), &[&header, &bytes])?;
        }
        zip.finish()
    })
}

/// A record that is not compressed, with so many bytes of elements behind its header.
fn stored(bytes: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(bytes.saturating_add(MAX_HEADER) > u64::from(u32::MAX))
}

/// An array of this dtype and shape, from its bytes.
pub(super) fn array_of(
    descr: String,
    shape: Vec<usize>,
    fortran: bool,
    bytes: &[u8],
) -> Result<Array, String> {
    ArrayHead::new(descr, shape, fortran)?.read(bytes)
}
