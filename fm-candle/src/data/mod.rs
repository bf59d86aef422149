//! Image sets, in memory or decoded when they are read, and the data sets they come from.
//!
//! | module | idea |
//! |---|---|
//! | [`mnist`] | the IDX files of MNIST and FashionMNIST |
//! | [`cifar`] | the batches of CIFAR-10 |
//! | [`folder`] | folders of images: ImageNet, CelebA |
//! | [`regular`] `gzip` | regular files alone are opened; what is gzipped is inflated |
//! | [`catalog`] [`fetch`] [`checksum`] [`verify`] | where the sets come from, and that they are whole |

use core::fmt;
use core::ops::Range;
use core::str::FromStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::checksum::Hasher;
use self::folder::{Crop, Folder, FolderOptions, Hidden};
use crate::error::{Error, Result};

pub mod catalog;
pub mod checksum;
pub mod cifar;
pub mod fetch;
pub mod folder;
mod gzip;
pub mod mnist;
pub mod regular;
pub mod verify;

/// 8-bit images of one size, by number, wherever they lie.
pub trait ImageSet: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, rows and columns of an image.
    fn shape(&self) -> [usize; 3];

    /// Class of image `i`; none where classes are not known.
    fn label(&self, i: usize) -> Option<u32>;

    /// Number of classes; labels lie below it. 0 where classes are not known.
    fn classes(&self) -> usize;

    /// Writes the pixels of image `i`, in `[0, 255]`, `[channels, rows, columns]`, to `pixels`, which
    /// has that size.
    ///
    /// # Errors
    /// A file that cannot be read or is no such image, by its name.
    fn read(&self, i: usize, pixels: &mut [u8]) -> Result<()>;

    /// Gives `hasher` what the pixels of image `i` are made of: of sets with equal shapes and
    /// [preparations](Self::preparation), equal bytes make equal pixels.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for a file that is no image.
    fn digest(&self, i: usize, hasher: &mut Hasher) -> Result<()> {
        let mut pixels = vec![0; self.shape().iter().product()];
        self.read(i, &mut pixels)?;
        hasher.update(&pixels);
        Ok(())
    }

    /// What is done with the bytes of [`digest`](Self::digest) to make pixels of them, in words; nothing
    /// where they are the pixels.
    fn preparation(&self) -> String {
        String::new()
    }

    /// The folders and images that were passed over for their names when the set was opened.
    fn hidden(&self) -> Hidden {
        Hidden::default()
    }

    /// The files that were found to be bad so far and passed over, in order.
    fn skipped(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Labelled 8-bit images of one size in memory, in the order of their file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub n: usize,
    /// Channels of an image: 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Pixels in `[0, 255]`, `[n, channels, height, width]`.
    pub pixels: Vec<u8>,
    /// Class of each image, `[n]`, or empty where it is not known.
    pub labels: Vec<u32>,
}

impl Images {
    /// As many images as there are labels, of shape `[channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a side of the shape is 0 or `pixels` is not `[n, channels, height,
    /// width]`.
    pub fn new(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self> {
        let [channels, height, width] = shape;
        let n = labels.len();
        let size = shape.iter().try_fold(n, |size, &side| size.checked_mul(side));
        if shape.contains(&0) || size != Some(pixels.len()) {
            return Err(Error::Config(format!(
                "{} pixels are not {n} images of {channels} x {height} x {width}",
                pixels.len()
            )));
        }
        Ok(Self { n, channels, height, width, pixels, labels })
    }

    /// The first `n` images of a set, or all where there are no more, read on all threads.
    ///
    /// # Errors
    ///
    /// Those of [`Images::read`].
    pub fn gather(set: &dyn ImageSet, n: usize) -> Result<Self> {
        Self::read(set, 0..n.min(set.len()))
    }

    /// The images of a set with these numbers, read on all threads.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for numbers that the set does not have, or when they are more bytes than
    /// memory can count; else that of an image that cannot be read.
    pub fn read(set: &dyn ImageSet, range: Range<usize>) -> Result<Self> {
        let n = range.len();
        if range.end > set.len() {
            let (end, len) = (range.end, set.len());
            return Err(Error::Config(format!("{end} images are wanted of a set of {len}")));
        }
        let [channels, height, width] = set.shape();
        let len = channels * height * width;
        let size = n.checked_mul(len).filter(|&size| isize::try_from(size).is_ok());
        let Some(size) = size else {
            return Err(Error::Config(format!("{n} images of {len} bytes do not fit memory")));
        };
        let mut pixels = vec![0; size];
        pixels
            .par_chunks_exact_mut(len)
            .zip(range.clone())
            .try_for_each(|(pixels, i)| set.read(i, pixels))?;
        let labels = range.filter_map(|i| set.label(i)).collect();
        Ok(Self { n, channels, height, width, pixels, labels })
    }

    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Pixels of image `i`, `[channels, height, width]`.
    ///
    /// # Panics
    ///
    /// As a slice does, when `i` is not below `n`.
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.image_len();
        &self.pixels[i * len..][..len]
    }

    /// Keeps the first `n` images, or all where there are no more.
    pub fn truncate(&mut self, n: usize) {
        self.n = self.n.min(n);
        self.pixels.truncate(self.n * self.image_len());
        self.labels.truncate(self.n);
    }

    /// One channel of images whose channels are all equal, as grey images saved as RGB are; none
    /// where a pixel has a colour.
    pub fn grey(&self) -> Option<Self> {
        let area = self.height * self.width;
        let mut pixels = Vec::with_capacity(self.n * area);
        for image in (0..self.n).map(|i| self.image(i)) {
            let (first, others) = image.split_at(area);
            if others.chunks_exact(area).any(|channel| channel != first) {
                return None;
            }
            pixels.extend(first);
        }
        Some(Self { channels: 1, pixels, labels: self.labels.clone(), ..*self })
    }

    /// The images at `indices`, in that order.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when an index is not below `n`.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        if let Some(i) = indices.iter().find(|&&i| i >= self.n) {
            return Err(Error::Config(format!("there is no image {i} among {}", self.n)));
        }
        Ok(Self {
            n: indices.len(),
            pixels: indices.iter().flat_map(|&i| self.image(i)).copied().collect(),
            labels: indices.iter().filter_map(|&i| self.labels.get(i)).copied().collect(),
            ..*self
        })
    }
}

impl ImageSet for Images {
    fn len(&self) -> usize {
        self.n
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied()
    }

    fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |&label| label as usize + 1)
    }

    fn read(&self, i: usize, pixels: &mut [u8]) -> Result<()> {
        pixels.copy_from_slice(self.image(i));
        Ok(())
    }
}

/// A data set that `fmq` knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// Handwritten digits, 28 x 28, grey (`LeCun`, Cortes and Burges).
    Mnist,
    /// Articles of clothing, 28 x 28, grey (Xiao, Rasul and Vollgraf, 2017).
    FashionMnist,
    /// Small photographs of ten kinds of things, 32 x 32, RGB (Krizhevsky, 2009).
    Cifar10,
    /// Photographs of a thousand kinds of things, RGB (Deng et al., 2009), in a folder for each, or
    /// any folder of images that is laid out so.
    ImageNet,
    /// Faces, RGB (Liu, Luo, Wang and Tang, 2015), or any folder of images without classes.
    CelebA,
}

impl Dataset {
    /// Every data set, in the order in which they are listed to users.
    pub const ALL: [Self; 5] =
        [Self::Mnist, Self::FashionMnist, Self::Cifar10, Self::ImageNet, Self::CelebA];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashionmnist",
            Self::Cifar10 => "cifar10",
            Self::ImageNet => "imagenet",
            Self::CelebA => "celeba",
        }
    }

    /// Number of classes; labels lie below it. 0 where there are none.
    pub fn classes(self) -> usize {
        match self {
            Self::Mnist | Self::FashionMnist | Self::Cifar10 => 10,
            Self::ImageNet => 1000,
            Self::CelebA => 0,
        }
    }

    /// How the set's images are prepared where they lie in a folder: those of ImageNet whole, those
    /// of CelebA cropped to the square in the middle.
    pub fn folder_options(self) -> FolderOptions {
        let crop = if self == Self::CelebA { Crop::Square } else { Crop::Whole };
        FolderOptions { crop, ..FolderOptions::default() }
    }

    /// Opens one half of the set in `dir`: a folder as torchvision lays it out, one that holds the
    /// set's files themselves, or, of ImageNet and CelebA, a folder of images ([`Folder::open`]),
    /// which are read by `options` when they are asked for. The other sets are read into memory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::File`], naming the file that is missing, unreadable or malformed.
    pub fn open(
        self,
        dir: &Path,
        split: Split,
        options: &FolderOptions,
    ) -> Result<Box<dyn ImageSet>> {
        Ok(match self {
            Self::Mnist | Self::FashionMnist | Self::Cifar10 => Box::new(self.load(dir, split)?),
            Self::ImageNet | Self::CelebA => Box::new(Folder::open(dir, split, options)?),
        })
    }

    /// Reads one half of the set into memory, whole; images in folders must be of one size.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::open`] and of [`ImageSet::read`].
    pub fn load(self, dir: &Path, split: Split) -> Result<Images> {
        match self {
            Self::Mnist => mnist::load(dir, "MNIST", split, self.classes()),
            Self::FashionMnist => mnist::load(dir, "FashionMNIST", split, self.classes()),
            Self::Cifar10 => cifar::load(dir, split),
            Self::ImageNet | Self::CelebA => {
                let options = FolderOptions { cache_bytes: 0, ..self.folder_options() };
                Images::gather(&Folder::open(dir, split, &options)?, usize::MAX)
            }
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dataset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Config(format!("unknown data set `{name}`; known are {known}"))
        })
    }
}

/// Half of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images held back.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            _ => Err(Error::Config(format!("unknown split `{name}`; known are train, test"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_open_as_they_load() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new([3, 32, 32], vec![7; 3 * 3072], vec![1, 2, 3]).unwrap();
        let row = |i: usize| [&[i as u8 + 1], images.image(i)].concat();
        let batch: Vec<_> = (0..3).flat_map(row).collect();
        std::fs::write(dir.path().join("test_batch.bin"), batch).unwrap();
        let options = FolderOptions::default();
        let set = Dataset::Cifar10.open(dir.path(), Split::Test, &options).unwrap();
        assert_eq!(Images::gather(&*set, 9).unwrap(), images);
        assert_eq!(Dataset::Cifar10.load(dir.path(), Split::Test).unwrap(), images);

        // The same folder as images: wide ones, of which CelebA takes the middle.
        let wide = image::RgbImage::from_fn(4, 2, |x, _| image::Rgb([x as u8; 3]));
        wide.save(dir.path().join("1.png")).unwrap();
        assert_eq!(Dataset::CelebA.load(dir.path(), Split::Test).unwrap().pixels[..2], [1, 2]);
        let set = Dataset::ImageNet.open(dir.path(), Split::Test, &options).unwrap();
        assert_eq!(set.shape(), [3, 2, 4]);
    }

    #[test]
    fn images_and_subsets_keep_pixels_with_labels() {
        let images = Images::new([1, 1, 2], vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9]).unwrap();
        assert_eq!((images.n, images.image_len()), (3, 2));
        assert_eq!(images.image(1), [3, 4]);
        let subset = images.subset(&[2, 0, 2]).unwrap();
        assert_eq!(subset, Images::new([1, 1, 2], vec![5, 6, 1, 2, 5, 6], vec![9, 7, 9]).unwrap());
        assert_eq!(images.subset(&[]).unwrap().n, 0);
        assert!(images.subset(&[3]).unwrap_err().to_string().contains("no image 3"));
    }

    #[test]
    fn truncating_drops_pixels_with_labels() {
        let all = Images::new([1, 1, 2], vec![1, 2, 3, 4], vec![7, 8]).unwrap();
        let mut images = all.clone();
        images.truncate(3);
        assert_eq!(images, all);
        images.truncate(1);
        assert_eq!(images, Images::new([1, 1, 2], vec![1, 2], vec![7]).unwrap());
    }

    #[test]
    fn equal_channels_are_one_grey_channel() {
        let rgb = Images::new([3, 1, 2], vec![1, 2, 1, 2, 1, 2], vec![7]).unwrap();
        let grey = Images::new([1, 1, 2], vec![1, 2], vec![7]).unwrap();
        assert_eq!(rgb.grey().as_ref(), Some(&grey));
        assert_eq!(grey.grey().as_ref(), Some(&grey));
        let red = Images::new([3, 1, 2], vec![1, 2, 1, 2, 1, 3], vec![7]).unwrap();
        assert_eq!(red.grey(), None);
    }

    #[test]
    fn rejects_pixels_that_do_not_fill_the_shape() {
        for (shape, pixels) in [([1, 2, 2], 7), ([0, 2, 2], 0), ([usize::MAX, 2, 2], 8)] {
            assert!(Images::new(shape, vec![0; pixels], vec![0; 2]).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn names_round_trip() {
        for set in Dataset::ALL {
            assert_eq!(set.to_string().parse::<Dataset>().unwrap(), set);
        }
        for split in [Split::Train, Split::Test] {
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
        }
        let error = "emnist".parse::<Dataset>().unwrap_err().to_string();
        let known = "mnist, fashionmnist, cifar10, imagenet, celeba";
        assert_eq!(error, format!("unknown data set `emnist`; known are {known}"));
        assert!("valid".parse::<Split>().is_err());
    }
}
