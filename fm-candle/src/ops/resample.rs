//! Nearest-neighbour doubling, 2x2 averaging and patches, from operations whose gradients are right.

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

/// Makes each patch of `p` x `p` pixels one pixel of `p^2` times the channels (torch's
/// `pixel_unshuffle`): channel `c p^2 + dy p + dx` holds the pixels at (dy, dx) of channel c.
///
/// # Shapes: `[n, c, h, w]` to `[n, c p^2, h / p, w / p]`
///
/// # Errors
/// An input that is not 4-dimensional, or whose sides `p` does not divide.
pub fn unshuffle(x: &Tensor, p: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let patches = x.reshape(&[n, c, h / p, p, w / p, p][..])?.permute(&[0, 1, 3, 5, 2, 4][..])?;
    patches.contiguous()?.reshape((n, c * p * p, h / p, w / p))
}

/// Undoes [`unshuffle`] (torch's `pixel_shuffle`).
///
/// # Shapes: `[n, c p^2, h, w]` to `[n, c, h p, w p]`
///
/// # Errors
/// An input that is not 4-dimensional, or whose channels `p^2` does not divide.
pub fn shuffle(x: &Tensor, p: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let patches = x.reshape(&[n, c / (p * p), p, p, h, w][..])?.permute(&[0, 1, 4, 2, 5, 3][..])?;
    patches.contiguous()?.reshape((n, c / (p * p), h * p, w * p))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn patches_are_those_of_torch() {
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((1, 1, 4, 6)).unwrap();
        let patches = unshuffle(&x, 2).unwrap();
        assert_eq!(patches.dims(), [1, 4, 2, 3]);
        let values = patches.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values[..6], [0.0, 2.0, 4.0, 12.0, 14.0, 16.0]);
        assert_eq!(values[6..12], [1.0, 3.0, 5.0, 13.0, 15.0, 17.0]);
        assert_eq!(values[12..14], [6.0, 8.0]);
        let x = Tensor::cat(&[&x, &(&x * 2.0).unwrap()], 1).unwrap();
        let back = shuffle(&unshuffle(&x, 2).unwrap(), 2).unwrap();
        let off = (back - &x).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(off.to_scalar::<f32>().unwrap(), 0.0);
    }
}
