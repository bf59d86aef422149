//! Arguments that name a set of images: what they mean, and how the images are read.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use fm_candle::data::{Dataset, Images, Split};
use fm_candle::fid::{npz, planar};
use rayon::prelude::*;

use crate::embedded;

/// What an argument names, told by its form and by the file's contents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Half of a data set, such as `mnist:test`.
    DataSet(Dataset, Split),
    Folder,
    Npz,
    Safetensors,
    /// A checkpoint, or nothing that we know; who reads it says which.
    Other,
}

impl Kind {
    /// What `name` names.
    pub(crate) fn of(name: &str) -> Result<Self> {
        if let Some((dataset, split)) = name.split_once(':')
            && let (Ok(dataset), Ok(split)) = (dataset.parse(), split.parse())
        {
            return Ok(Self::DataSet(dataset, split));
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Folder);
        }
        let mut head = Vec::new();
        File::open(path)
            .and_then(|file| file.take(9).read_to_end(&mut head))
            .context("neither a readable file or folder nor a data set such as mnist:test")?;
        ensure!(!head.starts_with(b"\x89PNG"), "is one image; give the folder of all of them");
        Ok(if head.starts_with(b"PK") && npz::is_npz(path) {
            Self::Npz
        } else if head.get(8) == Some(&b'{') {
            Self::Safetensors
        } else {
            Self::Other
        })
    }
}

/// An error about the set that `name` names, beginning with that name.
pub(crate) fn named(name: &str, error: Error) -> Error {
    let named = format!("`{name}`");
    // Errors about a file begin with its name already.
    if error.to_string().starts_with(&named) { error } else { error.context(named) }
}

/// How many of MNIST's test images are built in.
pub(crate) const BUILT_IN: usize = 512;

/// Half of a data set from the folder `dir`; without a folder the first images of `mnist:test`,
/// where no more than the `n` built-in ones are asked for, and else none.
pub(crate) fn data_set(
    dataset: Dataset,
    split: Split,
    dir: Option<&Path>,
    n: Option<usize>,
) -> Result<Option<Images>> {
    match (dir, dataset, split, n) {
        (Some(dir), ..) => {
            let set = dataset.open(dir, split, &dataset.folder_options())?;
            Ok(Some(Images::gather(&*set, n.unwrap_or(usize::MAX))?))
        }
        (None, Dataset::Mnist, Split::Test, Some(n)) if n <= BUILT_IN => {
            embedded::mnist_test_images().map(Some)
        }
        _ => Ok(None),
    }
}

/// At most the first `n` images of a data set's test half; without a folder the built-in ones.
pub(crate) fn test_half(dataset: Dataset, dir: Option<&Path>, n: usize) -> Result<Images> {
    let n = if dir.is_none() { n.min(BUILT_IN) } else { n };
    let images = data_set(dataset, Split::Test, dir, Some(n))?;
    let mut images = images.with_context(|| format!("--data {dataset}: needs --data-path DIR"))?;
    images.truncate(n);
    Ok(images)
}

/// The PNG images of a folder, by name, or the first `n` of them.
pub(crate) fn folder(dir: &Path, n: Option<usize>) -> Result<Images> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.truncate(n.unwrap_or(usize::MAX));
    let Some(first) = paths.first() else { bail!("the folder holds no PNG images") };
    let pictures: Vec<Picture> = paths
        .par_iter()
        .map(|path| picture(path).with_context(|| format!("`{}`", path.display())))
        .collect::<Result<_>>()?;
    let [height, width, channels] = pictures[0].shape;
    let mut pixels = Vec::new();
    for (path, picture) in paths.iter().zip(&pictures) {
        let [h, w, c] = picture.shape;
        ensure!(
            [h, w, c] == [height, width, channels],
            "`{}` is {h} x {w} with {c} channel(s), but `{}` is {height} x {width} with {channels}",
            path.display(),
            first.display()
        );
        pixels.extend(planar(&picture.pixels, channels, height * width));
    }
    Ok(Images { n: paths.len(), channels, height, width, pixels, labels: Vec::new() })
}

/// A decoded image.
struct Picture {
    /// Height, width, channels.
    shape: [usize; 3],
    /// `[h, w, c]`.
    pixels: Vec<u8>,
}

/// Reads a grey or RGB image of 8 bits; palettes and fewer bits are expanded.
fn picture(path: &Path) -> Result<Picture> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info()?;
    let channels = match reader.output_color_type() {
        (png::ColorType::Grayscale, png::BitDepth::Eight) => 1,
        (png::ColorType::Rgb, png::BitDepth::Eight) => 3,
        (color, depth) => {
            bail!("is {color:?} with {} bits; grey or RGB with 8 is needed", depth as u8)
        }
    };
    let size = reader.output_buffer_size().context("is too large")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    let shape = [frame.height as usize, frame.width as usize, channels];
    ensure!(
        shape.iter().product::<usize>() == pixels.len(),
        "holds {} bytes for {shape:?}",
        pixels.len()
    );
    Ok(Picture { shape, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let rgb = png::ColorType::Rgb;
        write_png(&dir.path().join("b.png"), rgb, 2, &[7, 8, 9, 10, 11, 12]);
        write_png(&dir.path().join("a.PNG"), rgb, 2, &[1, 2, 3, 4, 5, 6]);
        fs::write(dir.path().join("notes.txt"), "no image").unwrap();
        let images = folder(dir.path(), None).unwrap();
        assert_eq!((images.n, images.channels, images.height, images.width), (2, 3, 1, 2));
        assert_eq!(images.pixels, [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
        assert_eq!(folder(dir.path(), Some(1)).unwrap().n, 1);
    }

    #[test]
    fn folders_name_the_image_at_fault() {
        let dir = tempfile::tempdir().unwrap();
        let complaint = || format!("{:#}", folder(dir.path(), None).unwrap_err());
        assert!(complaint().contains("no PNG images"));
        write_png(&dir.path().join("0.png"), png::ColorType::Grayscale, 2, &[1, 2, 3, 4]);
        write_png(&dir.path().join("1.png"), png::ColorType::Grayscale, 1, &[1, 2]);
        assert!(complaint().contains("1.png` is 2 x 1 with 1 channel(s)"), "{}", complaint());
        write_png(&dir.path().join("1.png"), png::ColorType::Rgba, 1, &[0; 4]);
        assert!(complaint().contains("1.png`: is Rgba with 8 bits"), "{}", complaint());
        fs::write(dir.path().join("1.png"), "no image").unwrap();
        assert!(complaint().contains("1.png`"), "{}", complaint());
    }

    #[test]
    fn data_sets_go_by_their_names() {
        let kind = |name: &str| Kind::of(name).ok();
        assert_eq!(kind("mnist:test"), Some(Kind::DataSet(Dataset::Mnist, Split::Test)));
        assert_eq!(kind("mnist"), None);
        assert_eq!(kind("mnist:half"), None);
        assert_eq!(kind("c:\\images"), None);
    }
}
