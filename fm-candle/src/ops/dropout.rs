//! Dropout whose mask is a function of a seed, so that a run can be repeated and resumed.

use candle_core::{Result, Tensor};

/// Sets each element to zero with probability `p` and divides the others by `1 - p`.
///
/// `mask` holds uniform numbers in `[0, 1)`, one per element: an element survives where its
/// number is at least `p`.
///
/// # Errors
/// A mask of another shape than `x`.
pub fn dropout(x: &Tensor, mask: &Tensor, p: f64) -> Result<Tensor> {
    let kept = mask.ge(p)?.to_dtype(x.dtype())?;
    x.mul(&(kept * (1.0 / (1.0 - p)))?)
}
