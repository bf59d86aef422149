//! A folder that is written once, and appears whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;

/// Refuses, before any work, a folder that is neither new nor empty.
pub(crate) fn check(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(atomic::check_target(dir)?);
    }
    if fs::read_dir(dir).ok().is_none_or(|mut it| it.next().is_some()) {
        bail!("`{}`: must be a new or empty folder", dir.display());
    }
    Ok(())
}

/// Lets `fill` write into a folder that becomes `dir`, which was [checked](check), once all is there.
///
/// # Errors
/// Those of `fill`, which leave no folder; the system's.
pub(crate) fn write(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let named = || format!("`{}`", dir.display());
    let there = dir.exists();
    // In a folder that is there, which may be a shell's own or a mount; else beside its place, so
    // that it appears there whole.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = if there { dir } else { parent.unwrap_or(Path::new(".")) };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fmq-");
    // Readable by whom the umask allows, as any other folder.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let made = builder.tempdir_in(place).with_context(named)?;
    fill(made.path())?;
    if there {
        for entry in fs::read_dir(made.path()).with_context(named)? {
            let entry = entry.with_context(named)?;
            fs::rename(entry.path(), dir.join(entry.file_name())).with_context(named)?;
        }
    } else {
        fs::rename(made.path(), dir).with_context(named)?;
        // It has moved: there is nothing to remove.
        let _ = made.keep();
    }
    Ok(())
}
