//! A folder as a checkpoint: the layout of model hubs, which a training run's folder has too.
//!
//! ```text
//! DIR/model.safetensors    the weights
//! DIR/config.json          the net's configuration, where the weights' metadata have none
//! ```

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::json;

/// The file of the weights.
pub const WEIGHTS: &str = "model.safetensors";
/// The file of the net's configuration, JSON with upstream's field names.
pub const CONFIG: &str = "config.json";

/// Returns true for a folder that holds weights.
pub fn is_checkpoint(path: &Path) -> bool {
    path.is_dir() && path.join(WEIGHTS).is_file()
}

/// The file to read for the checkpoint at `path`: that path itself, or a folder's weights.
///
/// # Errors
/// [`Error::File`] for a folder without weights.
pub(super) fn weights(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if !is_checkpoint(path) {
        let reason =
            format!("is a folder without {WEIGHTS}; a checkpoint is a file or a folder with that");
        return Err(Error::file(path, reason));
    }
    Ok(path.join(WEIGHTS))
}

/// The configuration in the folder `path`, JSON; none where there is none, or `path` is no folder.
///
/// # Errors
/// Those of [`json::read`].
pub(super) fn config(path: &Path) -> Result<Option<String>> {
    let file = path.join(CONFIG);
    if file.is_file() { json::read(&file).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use candle_core::{DType, Device, Tensor};

    use super::super::{Source, safetensors};
    use super::*;
    use crate::checkpoint::NET_KEY;

    #[test]
    fn the_net_is_that_of_the_weights_else_that_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let file = dir.join(WEIGHTS);
        let tensors = [("w".to_string(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())];
        safetensors::save(&file, &tensors, &[]).unwrap();
        let net = || Source::open(dir, false).unwrap().net().map(String::from);
        assert_eq!(net(), None);
        fs::write(dir.join(CONFIG), r#"{"num_heads": 2}"#).unwrap();
        assert_eq!(net().unwrap(), r#"{"num_heads": 2}"#);
        assert_eq!(Source::open(&file, false).unwrap().net(), None, "the file alone");
        safetensors::save(&file, &tensors, &[(NET_KEY, "{}")]).unwrap();
        assert_eq!(net().unwrap(), "{}");
        assert_eq!(Source::open(dir, false).unwrap().path(), file);
    }

    #[test]
    fn what_a_folder_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_checkpoint(folder.path()));
        let error = Source::open(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("is a folder without model.safetensors"), "{error}");
    }
}
