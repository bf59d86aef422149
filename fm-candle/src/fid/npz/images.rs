//! The images of an archive, which stay in their file where it keeps them as they are.

use std::fs::File;
use std::io::{self, BufReader};

use zip::CompressionMethod;

use super::archive::Npz;
use super::npy::{Array, Dtype, NpyValues, head};
use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// Images of one size, without labels, as `arr_0` holds them: `[n, h, w, c]`.
#[derive(Debug, Clone)]
pub struct ImageArray {
    n: usize,
    /// Channels, rows and columns.
    shape: [usize; 3],
    pixels: Pixels,
}

#[derive(Debug, Clone)]
enum Pixels {
    /// Of a compressed file, or one in Fortran order.
    Read(Vec<u8>),
    /// From this place of the file on.
    Mapped(Mapped, usize),
}

impl Npz<BufReader<File>> {
    /// The array `arr_0`; a file that does not compress it, as `numpy.savez` writes it, is read once for its
    /// checksum, and then image by image.
    pub(super) fn images(mut self) -> Result<ImageArray> {
        let path = self.path.clone();
        let fault = |reason: String| Error::file(&path, format!("array `arr_0`: {reason}"));
        let mut entry =
            self.archive.by_name("arr_0.npy").map_err(|error| fault(error.to_string()))?;
        let (head, len) = head(&mut entry).map_err(fault)?;
        let claim = head.claim;
        if head.dtype != Dtype::U8 {
            let descr = &head.descr;
            return Err(fault(format!("images must be u1 in [0, 255], not {descr}")));
        }
        let &[n, height, width, channels] = &head.shape[..] else {
            return Err(fault(format!("shape {:?} is not [n, h, w, c]", head.shape)));
        };
        if [height, width, channels].contains(&0) {
            return Err(fault(format!("shape {:?} holds no pixels", head.shape)));
        }
        let start = match (entry.compression(), entry.data_start()) {
            (CompressionMethod::Stored, Some(start)) if !head.fortran => start.checked_add(len),
            _ => None,
        };
        let Some(start) = start else {
            let Array { values: NpyValues::U8(pixels), .. } = head.read(entry).map_err(fault)?
            else {
                return Err(fault("images must be u1 in [0, 255]".into()));
            };
            let pixels = Pixels::Read(pixels);
            return Ok(ImageArray { n, shape: [channels, height, width], pixels });
        };
        // What is read to its end has the right checksum.
        let there = io::copy(&mut entry, &mut io::sink())
            .map_err(|error| fault(format!("reading the elements: {error}")))?;
        if there != claim {
            let shape = &head.shape;
            return Err(fault(format!(
                "the header claims {claim} bytes for {shape:?}, but {there} follow"
            )));
        }
        drop(entry);
        let file = self.archive.into_inner();
        let map = Mapped::of(file.get_ref()).map_err(|error| Error::io(&path, error))?;
        let end = start.checked_add(claim).and_then(|end| usize::try_from(end).ok());
        let start = usize::try_from(start).ok().filter(|_| end.is_some_and(|end| end <= map.len()));
        let start = start.ok_or_else(|| fault("lies beyond the end of the file".into()))?;
        let pixels = Pixels::Mapped(map, start);
        Ok(ImageArray { n, shape: [channels, height, width], pixels })
    }
}

impl ImageSet for ImageArray {
    fn len(&self) -> usize {
        self.n
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn classes(&self) -> usize {
        0
    }

    fn read(&self, i: usize, pixels: &mut [u8]) -> Result<()> {
        let all = match &self.pixels {
            Pixels::Read(all) => all,
            Pixels::Mapped(file, start) => &file[*start..],
        };
        let len = pixels.len();
        let [channels, height, width] = self.shape;
        let planes = pixels.chunks_exact_mut(height * width);
        for (channel, plane) in planes.enumerate() {
            let own = all[i * len..][..len].iter().skip(channel).step_by(channels);
            plane.iter_mut().zip(own).for_each(|(to, &from)| *to = from);
        }
        Ok(())
    }
}
