//! A folder of numbered pictures that a later run may write again.
//!
//! ```text
//! DIR/000000.png, 000001.png, ...    one per image
//! DIR/frames/0000.png, ...           the way there, where asked for
//! DIR/frames/trajectory.png          the same as an animation
//! ```
//! Only pictures that say they are ours are replaced or removed: data sets number theirs likewise.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::folder::is_hidden;
use fm_candle::data::regular;

use crate::report::picture;

/// Folder in a folder for the frames of an animation.
const FRAMES: &str = "frames";

/// Name of image `i`.
pub(crate) fn image(i: usize) -> PathBuf {
    format!("{i:06}.png").into()
}

/// Name of frame `i`.
pub(crate) fn frame(i: usize) -> PathBuf {
    Path::new(FRAMES).join(format!("{i:04}.png"))
}

/// Name of the animation.
pub(crate) fn animation() -> PathBuf {
    Path::new(FRAMES).join("trajectory.png")
}

/// Refuses, before any work, a path for a folder at which something else is.
pub(crate) fn check_place(dir: &Path) -> Result<()> {
    // Without a slash at its end, as what a file's name with one leads to is not there.
    let path: PathBuf = dir.components().collect();
    if path.exists() && !path.is_dir() {
        bail!("`{}`: is a file, and the output is a folder", dir.display());
    }
    Ok(())
}

/// Refuses a folder that holds anything but what an earlier run wrote; one yet to be made is good.
///
/// Hidden files are left alone: file managers put theirs into any folder.
pub(crate) fn check(dir: &Path) -> Result<()> {
    check_place(dir)?;
    if !dir.exists() {
        return Ok(atomic::check_target(dir)?);
    }
    match scan(dir)?.foreign {
        None => Ok(()),
        Some(path) => bail!(
            "`{}`: not written by an earlier run; give a new or empty folder, or such a run's",
            path.display()
        ),
    }
}

/// Writes `files`, names and contents, into the folder `dir`, made where it is not there; then
/// removes what earlier runs left beside them.
pub(crate) fn write(
    dir: &Path,
    files: impl Iterator<Item = Result<(PathBuf, Vec<u8>)>>,
) -> Result<()> {
    let written = add(dir, files)?;
    remove_others(dir, &written)
}

/// Writes `files` into the folder `dir`, made where it is not there; their names.
pub(crate) fn add(
    dir: &Path,
    files: impl Iterator<Item = Result<(PathBuf, Vec<u8>)>>,
) -> Result<BTreeSet<PathBuf>> {
    let make = |dir: &Path| {
        fs::create_dir_all(dir).with_context(|| format!("creating `{}`", dir.display()))
    };
    make(dir)?;
    let mut written = BTreeSet::new();
    for file in files {
        let (name, bytes) = file?;
        let path = dir.join(&name);
        if let Some(parent) = path.parent().filter(|parent| parent != &dir) {
            make(parent)?;
        }
        atomic::write(&path, &bytes)?;
        written.insert(name);
    }
    Ok(written)
}

/// Removes what earlier runs left in the folder `dir` beside the files of these names.
pub(crate) fn remove_others(dir: &Path, names: &BTreeSet<PathBuf>) -> Result<()> {
    for path in scan(dir)?.ours {
        if !path.strip_prefix(dir).is_ok_and(|name| names.contains(name)) {
            fs::remove_file(&path).with_context(|| format!("removing `{}`", path.display()))?;
        }
    }
    // Fails where frames are left in it, and then it shall stay.
    let _ = fs::remove_dir(dir.join(FRAMES));
    Ok(())
}

/// The contents of a folder of pictures.
#[derive(Default)]
struct FolderContents {
    /// Pictures of earlier runs.
    ours: Vec<PathBuf>,
    /// Something that is no such picture.
    foreign: Option<PathBuf>,
}

/// Looks at the folder and its frames.
fn scan(dir: &Path) -> Result<FolderContents> {
    let mut found = FolderContents::default();
    look(dir, |name| name.len() >= 6 && is_number(name), &mut found)?;
    let frames = dir.join(FRAMES);
    if frames.is_dir() {
        let is_frame = |name: &str| name == "trajectory" || (name.len() >= 4 && is_number(name));
        look(&frames, is_frame, &mut found)?;
    }
    Ok(found)
}

/// Sorts the entries of `dir` into ours, those called `NAME.png` with a name of ours, and others.
fn look(dir: &Path, is_our_name: impl Fn(&str) -> bool, found: &mut FolderContents) -> Result<()> {
    let reading = || format!("reading `{}`", dir.display());
    for entry in fs::read_dir(dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let (path, name) = (entry.path(), entry.file_name());
        if is_hidden(&name) || (name == FRAMES && path.is_dir()) {
            continue;
        }
        let name = name.to_str().unwrap_or_default();
        if name.strip_suffix(".png").is_some_and(&is_our_name)
            && regular::open(&path).is_ok_and(|file| picture::is_ours(BufReader::new(file)))
        {
            found.ours.push(path);
        } else {
            found.foreign = Some(path);
        }
    }
    Ok(())
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}
