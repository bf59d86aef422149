//! Short names of contents: what was computed from them is used again only for the same contents.
//!
//! Statistics in a cache and the rows of a study go by the fingerprints of all that they were computed
//! from. Contents alone count. Names, sizes and times stay as they are where a file is replaced by one
//! of the same size (`cp -p`, `rsync`), and change where nothing else does.
//!
//! | of | what is hashed |
//! |---|---|
//! | weights | name, shape and values in f32 of each floating tensor, in the order of their names |
//! | images | shape and preparation of the set; of each image, in order, its label and the bytes of its file, or its pixels where it lies in memory |
//!
//! Images in folders are read, not decoded, on all threads. That takes a CPU with SHA instructions 0.8 s
//! per GB and 10 µs per file, on one core and from memory: half a second for 50 000 images of 5 kB, and
//! for ImageNet as long as its disk takes. Features of the same images take far longer.

use std::path::Path;

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::checkpoint;
use crate::data::ImageSet;
use crate::data::checksum::{Algorithm, Checksum, Hasher};
use crate::error::Result;

/// Images hashed on all threads before their checksums are joined.
const BLOCK: usize = 1 << 12;

/// Fingerprint of the weights in a file, the same for every format. Counters of batch norms do not
/// count.
///
/// # Errors
///
/// Those of [`checkpoint::load`].
pub fn of_file(path: &Path) -> Result<String> {
    of_weights(&checkpoint::load(path, true)?.tensors)
}

/// Fingerprint of named weights, in whatever order.
///
/// # Errors
///
/// candle's, where a tensor cannot be read.
pub fn of_weights(tensors: &[(String, Tensor)]) -> Result<String> {
    let mut tensors: Vec<_> =
        tensors.iter().filter(|(_, tensor)| tensor.dtype().is_float()).collect();
    tensors.sort_by_key(|(name, _)| name);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for (name, tensor) in tensors {
        hasher.update(format!("{name} {:?} ", tensor.dims()).as_bytes());
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    Ok(short(&hasher.finish()))
}

/// Fingerprint of the first `n` images of a set, or of all where there are no more; `done` hears of
/// every few thousand. A set that passes over bad files may put any of its images in their place, so all
/// of them must be asked for.
///
/// # Errors
///
/// Those of [`ImageSet::digest`].
pub fn of_images(set: &dyn ImageSet, n: usize, mut done: impl FnMut(usize)) -> Result<String> {
    let n = n.min(set.len());
    let digest = |i: usize| -> Result<Checksum> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(format!("{:?} ", set.label(i)).as_bytes());
        set.digest(i, &mut hasher)?;
        Ok(hasher.finish())
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(format!("{n} {:?} {} ", set.shape(), set.preparation()).as_bytes());
    for first in (0..n).step_by(BLOCK) {
        let block = first..n.min(first + BLOCK);
        let sums: Vec<Checksum> = block.into_par_iter().map(digest).collect::<Result<_>>()?;
        for sum in &sums {
            hasher.update(sum.hex().as_bytes());
        }
        done(sums.len());
    }
    Ok(short(&hasher.finish()))
}

/// The first 48 bits, in hexadecimal.
fn short(sum: &Checksum) -> String {
    sum.hex()[..12].to_string()
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::fs;
    use std::time::SystemTime;

    use candle_core::Device;

    use super::*;
    use crate::data::folder::{Crop, Folder, FolderOptions};
    use crate::data::{Images, Split};

    fn of(set: &dyn ImageSet) -> String {
        of_images(set, usize::MAX, |_| {}).unwrap()
    }

    #[test]
    fn weights_have_one_fingerprint_in_any_order_and_format() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let named = |name: &str, tensor| (name.to_string(), tensor);
        let (a, b) = (named("a", tensor(&[1.0, 2.0])), named("b", tensor(&[3.0])));
        let counter = named("steps", Tensor::new(7_i64, &Device::Cpu).unwrap());
        let half = named("b", b.1.to_dtype(DType::F16).unwrap());
        let first = of_weights(&[a.clone(), b.clone()]).unwrap();
        // SHA-256 of `a [2] `, 1.0, 2.0, `b [1] ` and 3.0, in little-endian f32.
        assert_eq!(first, "09c822d3bd11");
        assert_eq!(of_weights(&[half, counter, a.clone()]).unwrap(), first);
        for other in [tensor(&[3.5]), tensor(&[3.0]).reshape((1, 1)).unwrap()] {
            assert_ne!(of_weights(&[a.clone(), named("b", other)]).unwrap(), first);
        }
    }

    #[test]
    fn images_in_memory_go_by_shape_pixels_labels_and_number() {
        let images = |shape, salt: u8, label| {
            Images::new(shape, (0..8).map(|i| i * salt).collect(), vec![1, label]).unwrap()
        };
        let first = of(&images([1, 2, 2], 1, 2));
        assert_eq!(of(&images([1, 2, 2], 1, 2)), first);
        for other in [images([1, 2, 2], 2, 2), images([1, 1, 4], 1, 2), images([1, 2, 2], 1, 3)] {
            assert_ne!(of(&other), first);
        }
        assert_ne!(of_images(&images([1, 2, 2], 1, 2), 1, |_| {}).unwrap(), first);
    }

    #[test]
    fn files_go_by_their_contents_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.png");
        let save = |grey: u8| {
            image::GrayImage::from_pixel(2, 2, image::Luma([grey])).save(&path).unwrap();
            fs::read(&path).unwrap().len()
        };
        let open = |crop, image_size| {
            let options = FolderOptions { image_size, crop, ..FolderOptions::default() };
            of(&Folder::open(dir.path(), Split::Train, &options).unwrap())
        };
        let plain = || open(Crop::Whole, Some(2));
        let bytes = save(7);
        let first = plain();
        let aged = SystemTime::now() - Duration::from_hours(1);
        let set_aged = || fs::File::options().append(true).open(&path).unwrap().set_modified(aged);
        set_aged().unwrap();
        assert_eq!(plain(), first, "another time alone");
        for other in [open(Crop::Square, Some(2)), open(Crop::Whole, Some(1))] {
            assert_ne!(other, first, "another preparation");
        }
        // Another image of the same name, size and time.
        assert_eq!(save(9), bytes);
        set_aged().unwrap();
        assert_ne!(plain(), first);
    }
}
