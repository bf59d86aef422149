//! The data sets by their names.

use std::path::Path;

use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use super::folder::{Crop, Folder, FolderOptions};
use super::{ImageSet, Images, Split, cifar, mnist};
use crate::error::{Error, Result};

/// A data set that `fmq` knows by name, in the order in which they are listed to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown)]
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
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Number of classes; labels lie below it. 0 where there are none.
    pub fn classes(self) -> usize {
        match self {
            Self::Mnist | Self::FashionMnist | Self::Cifar10 => 10,
            Self::ImageNet => 1000,
            Self::CelebA => 0,
        }
    }

    /// The options for the set's images in a folder: those of ImageNet whole, those of CelebA
    /// cropped to the square in the middle.
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

fn unknown(name: &str) -> Error {
    Error::Config(format!("unknown data set `{name}`; known are {}", Dataset::VARIANTS.join(", ")))
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
    fn names_round_trip() {
        for name in Dataset::VARIANTS {
            assert_eq!(name.parse::<Dataset>().unwrap().to_string(), *name);
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
