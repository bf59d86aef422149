//! Dropout whose mask is a function of a seed, so that a run can be repeated and resumed.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use pulp::Simd;

use super::lanes::{Function, zip};
use super::real::{is_ours, slice};
use super::simd::Lanes;

/// Sets each element to zero with probability `p` and divides the others by `1 - p`.
///
/// `mask` holds uniform numbers in `[0, 1)`, one per element: an element survives where its
/// number is at least `p`. It gets no gradient.
///
/// # Errors
/// A mask of another shape than `x`.
pub fn dropout(x: &Tensor, mask: &Tensor, p: f64) -> Result<Tensor> {
    if is_ours(x) {
        let mask = mask.detach().to_dtype(x.dtype())?.contiguous()?;
        return x.contiguous()?.apply_op2(&mask, Dropout { p });
    }
    composite(x, mask, p)
}

/// The same by candle's operations.
pub(super) fn composite(x: &Tensor, mask: &Tensor, p: f64) -> Result<Tensor> {
    let kept = mask.ge(p)?.to_dtype(x.dtype())?;
    x.mul(&(kept * (1.0 / (1.0 - p)))?)
}

struct Dropout {
    p: f64,
}

impl<T: Lanes> Function<T, 2, 0, 1> for Dropout {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x, mask]: [T::Register<S>; 2],
        []: [T::Register<S>; 0],
    ) -> [T::Register<S>; 1] {
        let p = T::splat(simd, T::from_f64(self.p));
        let scale = T::splat(simd, T::from_f64(1.0 / (1.0 - self.p)));
        [T::where_at_least(simd, mask, p, T::times(simd, x, scale))]
    }
}

impl CustomOp2 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        mask: &CpuStorage,
        lm: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if lx.shape() != lm.shape() {
            bail!("dropout: a mask {:?} for {:?}", lm.shape(), lx.shape())
        }
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(zip(slice(x, lx)?, slice(mask, lm)?, self)),
            _ => CpuStorage::F64(zip(slice(x, lx)?, slice(mask, lm)?, self)),
        };
        Ok((y, lx.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        mask: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dropout(gy, mask, self.p)?), None))
    }
}
