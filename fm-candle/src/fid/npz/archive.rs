//! An opened archive of arrays.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::super::given;
use super::super::statistics::Statistics;
use super::npy::{Array, parse};
use crate::data::regular;
use crate::error::{Error, Result};
use crate::zipped;

/// Arrays that an error names, at most.
const SHOWN: usize = 6;

/// An opened archive and the name it goes by in errors.
pub(super) struct Npz<R> {
    pub(super) path: PathBuf,
    pub(super) archive: ZipArchive<R>,
}

impl Npz<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = regular::open(path)?;
        Self::new(path, BufReader::new(file))
    }
}

impl<R: Read + Seek> Npz<R> {
    pub(super) fn new(path: &Path, source: R) -> Result<Self> {
        let archive =
            ZipArchive::new(source).map_err(|error| Error::file(path, zipped::fault(&error)))?;
        Ok(Self { path: path.to_path_buf(), archive })
    }

    pub(super) fn fault(&self, reason: impl Into<String>) -> Error {
        Error::file(&self.path, reason)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let file = format!("{name}.npy");
        self.archive.file_names_raw().any(|found| found == file.as_bytes())
    }

    /// The names of its arrays, for an error.
    pub(super) fn names(&self) -> String {
        let names = self.archive.file_names_raw().map(String::from_utf8_lossy);
        let names: Vec<_> =
            names.filter_map(|n| n.strip_suffix(".npy").map(|n| format!("`{n}`"))).collect();
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        match names.len() {
            0 => "no array".into(),
            n => names[..n.min(SHOWN)].join(", ") + more,
        }
    }

    /// The array `name`.
    pub(super) fn array(&mut self, name: &str) -> Result<Array> {
        if !self.has(name) {
            return Err(self.fault(format!("holds no array `{name}`, but {}", self.names())));
        }
        let path = &self.path;
        let fault = |reason: String| Error::file(path, format!("array `{name}`: {reason}"));
        let entry = self
            .archive
            .by_name(&format!("{name}.npy"))
            .map_err(|error| fault(error.to_string()))?;
        parse(entry).map_err(fault)
    }

    pub(super) fn statistics(&mut self) -> Result<Statistics> {
        let (mu, sigma) = (self.array("mu")?, self.array("sigma")?);
        let n = if self.has("n") { Some(self.count()?) } else { None };
        given::statistics(mu, sigma, n).map_err(|reason| self.fault(reason))
    }

    /// The number of images.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of at least 0, far below 2^53"
    )]
    fn count(&mut self) -> Result<u64> {
        match self.array("n")?.values.into_f64()[..] {
            [n] if n >= 0.0 && n.fract() == 0.0 => Ok(n as u64),
            _ => Err(self.fault("array `n`: must be one whole number of at least 0")),
        }
    }
}
