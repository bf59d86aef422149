//! Images of one size, in memory or read when they are asked for.

use core::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;

use super::checksum::Hasher;
use super::folder::Hidden;
use crate::error::{Error, Result};

/// 8-bit images of one size, by number, wherever they lie.
pub trait ImageSet: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Returns true if the set has no images.
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
    /// A file that cannot be read, by its name; its contents are not decoded.
    fn digest(&self, i: usize, hasher: &mut Hasher) -> Result<()> {
        let mut pixels = vec![0; self.shape().iter().product()];
        self.read(i, &mut pixels)?;
        hasher.update(&pixels);
        Ok(())
    }

    /// The steps from the bytes of [`digest`](Self::digest) to pixels, in words; empty where they
    /// are the pixels.
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
    /// A set of as many images as there are labels, of shape `[channels, height, width]`.
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
    /// When `i` is not below `n`, as for a slice.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
