//! Checks that the files of a set are there and right.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::catalog::{File, Item, PublishedSet};
use super::checksum::{Checksum, Hasher};
use super::gzip::inflated;
use crate::error::{Error, Result};

/// The result of the check of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its path, also where it is missing.
    pub path: PathBuf,
    /// Its state: right, missing or damaged.
    pub status: Status,
    /// Its size, where it is there.
    pub bytes: Option<u64>,
    /// Its checksum, where it is there and a right one is known.
    pub checksum: Option<Checksum>,
}

/// The state of a file: right, missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Right, as told by this.
    Ok(Basis),
    /// Not there.
    Missing,
    /// There, but not right; what it should be.
    Damaged(String),
}

/// The check that a file has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Basis {
    /// The checksum of the file.
    File,
    /// The checksum of what the file inflates to, as it was compressed anew.
    Contents,
    /// Its size alone, as nobody published a checksum.
    Size,
}

impl Basis {
    /// Name for people and in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Finding {
    /// One sentence on what is wrong; none where nothing is.
    pub fn complaint(&self) -> Option<String> {
        let path = self.path.display();
        match &self.status {
            Status::Ok(_) => None,
            Status::Missing => Some(format!("`{path}` is missing")),
            Status::Damaged(right) => Some(format!("`{path}` is damaged: {right}")),
        }
    }
}

/// Checks the files of `set` below `dir`.
///
/// # Errors
///
/// [`Error::Io`] where a file is there but cannot be read. Missing and damaged files are findings.
pub fn verify(set: &PublishedSet, dir: &Path) -> Result<Vec<Finding>> {
    let findings: Result<Vec<_>> = set.items.iter().map(|item| verify_item(item, dir)).collect();
    Ok(findings?.concat())
}

/// Checks the files of the form that the set's reader would take: the first that is there, even in
/// part. Where none is, the published file is missing.
pub(super) fn verify_item(item: &Item, dir: &Path) -> Result<Vec<Finding>> {
    let is_there = |form: &&Vec<File>| form.iter().any(|file| dir.join(&file.path).is_file());
    match item.forms.iter().find(is_there) {
        Some(form) => form.iter().map(|file| verify_file(file, dir)).collect(),
        None => verify_file(&item.published, dir).map(|finding| vec![finding]),
    }
}

fn verify_file(file: &File, dir: &Path) -> Result<Finding> {
    let path = dir.join(&file.path);
    if !path.is_file() {
        return Ok(Finding { path, status: Status::Missing, bytes: None, checksum: None });
    }
    let io = |error| Error::io(&path, error);
    let open = || fs::File::open(&path);
    let bytes = open().and_then(|file| file.metadata()).map_err(io)?.len();
    let Some(right) = &file.checksum else {
        let status = if bytes == file.bytes {
            Status::Ok(Basis::Size)
        } else {
            Status::Damaged(format!("it holds {bytes} bytes, but {} are right", file.bytes))
        };
        return Ok(Finding { path, status, bytes: Some(bytes), checksum: None });
    };
    let mut hasher = Hasher::new(right.algorithm());
    io::copy(&mut open().map_err(io)?, &mut hasher).map_err(io)?;
    let found = hasher.finish();
    let status = if found == *right {
        Status::Ok(Basis::File)
    } else if let Some(contents) = &file.inflated
        && inflates_to(open().map_err(io)?, contents)
    {
        Status::Ok(Basis::Contents)
    } else {
        Status::Damaged(format!(
            "it holds {bytes} bytes with {found}, but {} with {right} are right",
            file.bytes
        ))
    };
    Ok(Finding { path, status, bytes: Some(bytes), checksum: Some(found) })
}

/// Returns true if the inflated file has this checksum; false if it inflates to more than any set
/// holds, or not at all.
fn inflates_to(file: fs::File, contents: &Checksum) -> bool {
    /// Six times the largest file of MNIST: a small file cannot keep us for long.
    const LIMIT: u64 = 1 << 28;
    let mut hasher = Hasher::new(contents.algorithm());
    let copied = inflated(file).and_then(|bytes| io::copy(&mut bytes.take(LIMIT), &mut hasher));
    copied.is_ok() && hasher.finish() == *contents
}
