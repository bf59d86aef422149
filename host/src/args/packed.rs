//! The IN.fmq argument.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fm_candle::checkpoint::FileKind;
use fm_candle::data::regular;

/// The bytes of a packed file.
///
/// # Errors
/// A file that cannot be read, or of another kind.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let named = || format!("`{}`", path.display());
    regular::open(path)?.read_to_end(&mut bytes).with_context(named)?;
    if FileKind::of(&bytes) != Some(FileKind::Packed) {
        bail!("{}: is no packed .fmq file", named());
    }
    Ok(bytes)
}
