//! The random numbers of dropout.

use candle_core::Shape;
use quant_core::noise::Stream;

/// The uniform numbers in `[0, 1)` of a batch: element `i` of image `k` is that of the stream at index
/// `base | (first + k step)`.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// The generator.
    pub stream: Stream,
    /// The bits that the indices of all images have in common.
    pub base: u64,
    /// First image and step.
    pub images: (usize, usize),
}

impl Mask {
    /// The numbers themselves.
    ///
    /// # Shapes: `shape: [images, ..]`
    pub(super) fn uniforms(&self, shape: &Shape) -> Vec<f32> {
        let mut values = vec![0.0; shape.elem_count()];
        let size = shape.dims().iter().skip(1).product::<usize>().max(1);
        let images = (self.images.0..).step_by(self.images.1);
        for (image, values) in images.zip(values.chunks_exact_mut(size)) {
            self.stream.fill_uniform(self.base | image as u64, 0, values);
        }
        values
    }
}
