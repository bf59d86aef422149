//! Where the reference data are: the whole reference, or the selection of it that is committed.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value;

/// A file below `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// The folder of the whole reference: `FMQ_REFERENCE`, which may be empty to do without, else
/// `../shared/reference` beside the repository where that exists.
fn whole() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("FMQ_REFERENCE") {
        let folder = PathBuf::from(folder);
        let none = folder.as_os_str().is_empty();
        assert!(none || folder.is_dir(), "FMQ_REFERENCE is no folder: `{}`", folder.display());
        return (!none).then_some(folder);
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    beside.is_dir().then_some(beside)
}

/// A file of the reference: of the whole one where there is one, else of the selection in
/// `tests/data`, which has the same layout.
///
/// # Panics
/// If `FMQ_REFERENCE` names no folder.
pub fn reference(name: &str) -> PathBuf {
    whole().map_or_else(|| data(name), |folder| folder.join(name))
}

/// A JSON file of the reference.
///
/// # Panics
/// If there is none.
pub fn json(name: &str) -> Value {
    parsed(&reference(name))
}

/// A JSON file of ours, which no reference has.
///
/// # Panics
/// If there is none.
pub fn own(name: &str) -> Value {
    parsed(&data(name))
}

fn parsed(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tensors of a safetensors file of the reference.
///
/// # Panics
/// If there is none.
pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    let path = reference(name);
    candle_core::safetensors::load(&path, &Device::Cpu)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Prints how many cases of the reference a test ran, and of which reference.
///
/// # Panics
/// If these are not `all` of the whole reference, or not `committed` of the selection.
#[expect(clippy::print_stdout, reason = "the harness keeps it for whoever asks")]
pub fn ran(what: &str, cases: usize, all: usize, committed: usize) {
    let (of, expected) = match whole() {
        Some(_) => ("the whole reference", all),
        None => ("the committed selection", committed),
    };
    println!("{what}: {cases} of {all} cases, from {of}");
    assert_eq!(cases, expected, "{what}: cases of {of}");
}
