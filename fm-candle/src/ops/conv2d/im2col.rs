//! The pixels that each pixel of a result is made of, as rows of a matrix.

use super::geometry::{Band, ConvGeometry};

/// Writes `col[p, (ky, kx, c)]` for the pixels `p` of a band, rows `stride` apart.
///
/// Outside of an image lies `border(image)`; what a row has beyond its values keeps its value.
pub(super) fn im2col<T: Copy>(
    x: &[T],
    border: impl Fn(usize) -> T,
    band: &Band,
    g: &ConvGeometry,
    stride: usize,
    col: &mut [T],
) {
    let mut rows = col.chunks_exact_mut(stride);
    for image in band.images.clone() {
        for line in band.lines.clone() {
            for (column, row) in (0..g.ow()).zip(&mut rows) {
                for (tap, pixel) in row[..g.depth()].chunks_exact_mut(g.c).enumerate() {
                    let y = (line * g.stride + tap / g.kw).wrapping_sub(g.pad.0);
                    let x_ = (column * g.stride + tap % g.kw).wrapping_sub(g.pad.1);
                    if y < g.h && x_ < g.w {
                        pixel.copy_from_slice(&x[((image * g.h + y) * g.w + x_) * g.c..][..g.c]);
                    } else {
                        pixel.fill(border(image));
                    }
                }
            }
        }
    }
}
