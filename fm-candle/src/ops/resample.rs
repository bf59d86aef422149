//! Nearest-neighbour doubling and 2x2 averaging, from operations whose gradients are right.

use candle_core::{Result, Tensor};

/// Doubles height and width, each pixel becoming a 2x2 block.
///
/// # Shapes: `[n, c, h, w]` to `[n, c, 2h, 2w]`
///
/// # Errors
/// An input that is not 4-dimensional.
pub fn upsample2(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    x.reshape((n * c, h, 1, w, 1))?.broadcast_as((n * c, h, 2, w, 2))?.contiguous()?.reshape((
        n,
        c,
        2 * h,
        2 * w,
    ))
}

/// Averages 2x2 blocks; an odd last row or column is left out, as in torch's `avg_pool2d(2)`.
///
/// # Shapes: `[n, c, h, w]` to `[n, c, h / 2, w / 2]`
///
/// # Errors
/// An input that is not 4-dimensional, or smaller than a block.
pub fn downsample2(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let even = x.narrow(2, 0, h / 2 * 2)?.narrow(3, 0, w / 2 * 2)?.contiguous()?;
    let blocks = even.reshape((n * c, h / 2, 2, w / 2, 2))?;
    (blocks.sum(4)?.sum(2)? * 0.25)?.reshape((n, c, h / 2, w / 2))
}
