//! Outputs of commands, by their names.

pub(crate) mod folder;
pub(crate) mod net;
pub(crate) mod samples;

use std::path::{Path, PathBuf};

/// The extension of a path in small letters; empty where there is none.
fn extension(path: &Path) -> String {
    path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// A path of a file that ends in `.safetensors`.
pub(crate) fn safetensors(path: PathBuf) -> Result<PathBuf, &'static str> {
    if extension(&path) != "safetensors" {
        return Err("the output must end in .safetensors");
    }
    if path.is_dir() { Err("the output is a folder") } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tensors_go_by_their_extension() {
        assert!(safetensors("x.safetensors".into()).is_ok());
        let dir = tempfile::Builder::new().suffix(".safetensors").tempdir().unwrap();
        assert!(safetensors(dir.path().into()).is_err());
        assert!(safetensors("safetensors".into()).is_err());
    }
}
