//! Arguments that name a set of images: what they mean, and how the images are read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use fm_candle::Tensor;
use fm_candle::data::folder::{self, FolderOptions, Hidden};
use fm_candle::data::{Dataset, ImageSet, Images, Split};
use fm_candle::fid::planar;
use fm_candle::sample::to_pixels;
use rayon::prelude::*;

pub(crate) use self::kind::PathKind;
use crate::embedded;
use crate::progress::Reporter;

mod kind;

/// An error about the set that `name` names, beginning with that name.
pub(crate) fn named(name: &str, error: Error) -> Error {
    let named = format!("`{name}`");
    // Errors about a file begin with its name already.
    if error.to_string().starts_with(&named) { error } else { error.context(named) }
}

/// A summary of a set and of what was passed over in its folder, for people.
pub(crate) fn summary(set: &dyn ImageSet, name: &str) -> String {
    let classes = match set.classes() {
        0 => "without classes".to_string(),
        1 => "in 1 class".to_string(),
        n => format!("in {n} classes"),
    };
    let warning = warning(&set.hidden()).map_or_else(String::new, |line| format!("\n{line}"));
    format!("{name}: {} images {classes}{warning}", set.len())
}

/// Says how many names of a folder were passed over, if any were.
pub(crate) fn tell_hidden(hidden: &Hidden, progress: Reporter) {
    if let Some(warning) = warning(hidden) {
        progress.line(&warning);
    }
}

fn warning(hidden: &Hidden) -> Option<String> {
    let example = hidden.example.as_ref()?.display();
    let more = if hidden.count > 1 { ", ..." } else { "" };
    Some(format!(
        "warning: passed over {} hidden or system name(s), neither class nor image: `{example}`{more}",
        hidden.count
    ))
}

/// Number of MNIST's test images that are built in.
pub(crate) const BUILT_IN: usize = 512;

/// Half of a data set from the folder `dir`, with the images of folders at `image_size`; without a
/// folder the first images of `mnist:test`, where no more than the `n` built-in ones are asked for,
/// and else none.
pub(crate) fn data_set(
    dataset: Dataset,
    split: Split,
    dir: Option<&Path>,
    n: Option<usize>,
    image_size: Option<usize>,
) -> Result<Option<Box<dyn ImageSet>>> {
    match (dir, dataset, split, n) {
        (Some(dir), ..) => {
            // Each image is read once.
            let options = FolderOptions { image_size, cache_bytes: 0, ..dataset.folder_options() };
            Ok(Some(dataset.open(dir, split, &options)?))
        }
        (None, Dataset::Mnist, Split::Test, Some(n)) if n <= BUILT_IN => {
            Ok(Some(Box::new(embedded::mnist_test_images()?)))
        }
        _ => Ok(None),
    }
}

/// At most the first `n` images of a data set's test half, without a folder the built-in ones, and
/// its summary.
pub(crate) fn test_half(
    dataset: Dataset,
    dir: Option<&Path>,
    n: usize,
) -> Result<(Images, String)> {
    let n = if dir.is_none() { n.min(BUILT_IN) } else { n };
    let set = data_set(dataset, Split::Test, dir, Some(n), None)?;
    let set = set.with_context(|| format!("--data {dataset}: needs --data-path DIR"))?;
    let summary = summary(&*set, &format!("{dataset}:{}", Split::Test));
    Ok((Images::gather(&*set, n)?, summary))
}

/// The images of a folder, by name, or the first `n` of them, all of one size; in RGB.
pub(crate) fn folder(dir: &Path, n: Option<usize>, progress: Reporter) -> Result<Images> {
    let (mut paths, hidden) = folder::list(dir)?;
    tell_hidden(&hidden, progress);
    paths.truncate(n.unwrap_or(usize::MAX));
    let mut groups = files(&paths)?;
    if let [first, second, ..] = &groups[..] {
        let (at, [h, w], [height, width]) =
            (paths[first.n].display(), [second.height, second.width], [first.height, first.width]);
        bail!("`{at}` is {h} x {w}, but `{}` is {height} x {width}", paths[0].display());
    }
    groups.pop().context("no images are asked for")
}

/// Images from files, read on all threads; neighbours of one size come together.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<Images>> {
    let images: Vec<Images> =
        paths.par_iter().map(|path| folder::read(path)).collect::<Result<_, _>>()?;
    let mut groups: Vec<Images> = Vec::new();
    for image in images {
        match groups.last_mut() {
            Some(last) if (last.height, last.width) == (image.height, image.width) => {
                last.n += 1;
                last.pixels.extend(image.pixels);
            }
            _ => groups.push(image),
        }
    }
    Ok(groups)
}

/// The pixels of samples as an image set without labels.
pub(crate) fn of_samples(samples: &Tensor) -> Result<Images> {
    let (n, c, h, w) = samples.dims4()?;
    Ok(Images::new([c, h, w], planar(&to_pixels(samples)?, c, h * w), vec![0; n])?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn quiet() -> Reporter {
        Reporter::new(true, true)
    }

    fn write_png(path: &Path, color: png::ColorType, width: u32, pixels: &[u8]) {
        let mut bytes = Vec::new();
        let per_row = width * u32::try_from(color.samples()).unwrap();
        let height = u32::try_from(pixels.len()).unwrap() / per_row;
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn folders_are_read_by_name_into_planes() {
        let dir = tempfile::tempdir().unwrap();
        write_png(&dir.path().join("b.png"), png::ColorType::Rgb, 2, &[7, 8, 9, 10, 11, 12]);
        write_png(&dir.path().join("a.PNG"), png::ColorType::Grayscale, 2, &[1, 2]);
        fs::write(dir.path().join("notes.txt"), "no image").unwrap();
        let images = folder(dir.path(), None, quiet()).unwrap();
        assert_eq!((images.n, images.channels, images.height, images.width), (2, 3, 1, 2));
        assert_eq!(images.pixels, [1, 2, 1, 2, 1, 2, 7, 10, 8, 11, 9, 12]);
        assert_eq!(folder(dir.path(), Some(1), quiet()).unwrap().n, 1);
    }

    #[test]
    fn neighbours_of_one_size_come_together() {
        let dir = tempfile::tempdir().unwrap();
        for (name, width) in [("1.png", 2), ("2.png", 2), ("3.png", 1), ("4.png", 2)] {
            write_png(&dir.path().join(name), png::ColorType::Grayscale, width, &[0; 2]);
        }
        let groups = files(&folder::list(dir.path()).unwrap().0).unwrap();
        let sizes = groups.iter().map(|group| (group.n, group.height, group.width));
        assert_eq!(sizes.collect::<Vec<_>>(), [(2, 1, 2), (1, 2, 1), (1, 1, 2)]);
        assert!(groups.iter().all(|group| group.pixels.len() == group.n * 6));
    }

    #[test]
    fn folders_name_the_image_at_fault() {
        let dir = tempfile::tempdir().unwrap();
        let complaint = || format!("{:#}", folder(dir.path(), None, quiet()).unwrap_err());
        assert!(complaint().contains("holds no images"));
        write_png(&dir.path().join("0.png"), png::ColorType::Grayscale, 2, &[1, 2, 3, 4]);
        write_png(&dir.path().join("1.png"), png::ColorType::Grayscale, 1, &[1, 2]);
        assert!(complaint().contains("1.png` is 2 x 1, but"), "{}", complaint());
        fs::write(dir.path().join("1.png"), "no image").unwrap();
        assert!(complaint().contains("1.png`"), "{}", complaint());
    }
}
