//! The sources of the images of A or B, read some at a time.

use core::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use fm_candle::Tensor;
use fm_candle::checkpoint;
use fm_candle::data::{ImageSet, Images};
use fm_candle::device::Device;

use crate::drawing::Drawing;
use crate::images;

/// Images, by number.
pub(super) enum ImageSource {
    Set(Box<dyn ImageSet>),
    /// Files of images of any sizes.
    Files(Vec<PathBuf>),
    /// Samples in a file of tensors.
    Tensor(Box<SampleSource>),
    /// Samples that are yet to be drawn, this many.
    Net(Box<Drawing>, usize),
}

impl ImageSource {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Set(set) => set.len(),
            Self::Files(paths) => paths.len(),
            Self::Tensor(samples) => samples.shape[0],
            Self::Net(_, n) => *n,
        }
    }

    /// Some images, in groups of one size.
    pub(super) fn read(&self, range: Range<usize>) -> Result<Vec<Images>> {
        match self {
            Self::Set(set) => Ok(vec![Images::read(&**set, range)?]),
            Self::Files(paths) => images::files(&paths[range]),
            Self::Tensor(samples) => Ok(vec![samples.images(range)?]),
            Self::Net(drawing, _) => Ok(vec![drawing.images(range)?]),
        }
    }
}

/// A tensor `samples`, `[n, c, h, w]` in `[-1, 1]`, which stays in its file.
pub(super) struct SampleSource {
    file: checkpoint::Source,
    index: usize,
    shape: [usize; 4],
}

impl SampleSource {
    /// The samples at `index` of the tensors of a file.
    pub(super) fn new(file: checkpoint::Source, index: usize) -> Result<Self> {
        let of = &file.tensors()[index];
        let shape = <[usize; 4]>::try_from(&of.shape[..]);
        let Some(shape) = shape.ok().filter(|_| of.dtype.is_float()) else {
            bail!("samples is {:?} {:?}, needed is F32 [n, c, h, w]", of.dtype, of.shape)
        };
        ensure!(!shape[1..].contains(&0), "samples of shape {shape:?} hold no pixels");
        Ok(Self { file, index, shape })
    }

    fn images(&self, range: Range<usize>) -> Result<Images> {
        let [_, c, h, w] = self.shape;
        let (n, len) = (range.len(), c * h * w);
        let mut values = vec![0.0; n * len];
        let elements = self.file.elements(self.index)?;
        elements.fill_f32(range.start * len..range.end * len, &mut values);
        images::of_samples(&Tensor::from_vec(values, (n, c, h, w), &Device::Cpu)?)
    }
}
