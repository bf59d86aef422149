//! Dropout whose mask is a function of a seed, so that a run can be repeated and resumed.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use pulp::Simd;

use super::lanes::{Function, zip};
use super::mask::Mask;
use super::norm::has_kernel;
use super::real::{is_ours, slice};
use super::simd::Lanes;

/// Sets each element to zero with probability `p` and divides the others by `1 - p`: an element
/// survives where its number in the mask is at least `p`.
///
/// # Shapes: `x: [images, ..]`, result as `x`
///
/// # Errors
/// An allocation that fails on the device.
pub fn dropout(x: &Tensor, mask: &Mask, p: f64) -> Result<Tensor> {
    if has_kernel(x) {
        return x.contiguous()?.apply_op1(Seeded { mask: *mask, p });
    }
    dropout_where(x, &Tensor::from_vec(mask.uniforms(x.shape()), x.shape(), x.device())?, p)
}

/// [`dropout`] with the mask's numbers given, one per element; they get no gradient.
pub(super) fn dropout_where(x: &Tensor, uniforms: &Tensor, p: f64) -> Result<Tensor> {
    if is_ours(x) {
        let uniforms = uniforms.detach().to_dtype(x.dtype())?.contiguous()?;
        return x.contiguous()?.apply_op2(&uniforms, Dropout { p });
    }
    composite(x, uniforms, p)
}

/// [`dropout_where`] by candle's operations.
pub(super) fn composite(x: &Tensor, uniforms: &Tensor, p: f64) -> Result<Tensor> {
    let kept = uniforms.ge(p)?.to_dtype(x.dtype())?;
    x.mul(&(kept * (1.0 / (1.0 - p)))?)
}

/// A GPU's kernel, which draws the numbers itself, backwards again.
struct Seeded {
    mask: Mask,
    p: f64,
}

impl CustomOp1 for Seeded {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("dropout: the CPU takes its numbers from memory")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let y = super::cuda::dropout(x, layout, &self.mask, self.p)?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        dropout(gy, &self.mask, self.p).map(Some)
    }
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
        Ok((Some(dropout_where(gy, mask, self.p)?), None))
    }
}
