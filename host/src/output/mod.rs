//! Outputs of commands, by their names.

pub(crate) mod folder;
pub(crate) mod net;
pub(crate) mod new_folder;
pub(crate) mod samples;

use std::path::{Path, PathBuf};

/// The extension of a path in small letters; empty where there is none.
fn extension(path: &Path) -> String {
    path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// A path of a file that ends in `.safetensors`.
pub(crate) fn safetensors(path: PathBuf) -> Result<PathBuf, &'static str> {
    let fits = extension(&path) == "safetensors";
    if fits { Ok(path) } else { Err("the output must end in .safetensors") }
}

/// A path of a file that ends in `.npz`.
pub(crate) fn npz(path: PathBuf) -> Result<PathBuf, &'static str> {
    let fits = extension(&path) == "npz";
    if fits { Ok(path) } else { Err("the output must end in .npz") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_numbers_go_by_their_extension() {
        assert!(safetensors("x.safetensors".into()).is_ok() && npz("x.NPZ".into()).is_ok());
        assert!(safetensors("safetensors".into()).is_err() && npz("x.png".into()).is_err());
    }
}
