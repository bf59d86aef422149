//! The softmax along the last axis, in f32 at least.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

use super::norm::has_kernel;
use super::real::wide;

/// `y = exp(x - max x) / sum exp(x - max x)` over each row; `dx = y (gy - sum gy y)`.
///
/// # Shapes: `x: [.., len]`, result as `x`
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    if has_kernel(x) {
        return x.contiguous()?.apply_op1(Softmax);
    }
    candle_nn::ops::softmax(&x.to_dtype(wide(x.dtype()))?, D::Minus1)?.to_dtype(x.dtype())
}

/// A GPU's kernel.
struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("softmax: the CPU has candle's")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::softmax((x, layout))?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        y.apply_op2_no_bwd(&gy.contiguous()?, &SoftmaxGradient).map(Some)
    }
}

/// The kernel of its gradient, of the result and the result's gradient.
struct SoftmaxGradient;

impl CustomOp2 for SoftmaxGradient {
    fn name(&self) -> &'static str {
        "softmax_gradient"
    }

    fn cpu_fwd(
        &self,
        _y: &CpuStorage,
        _ly: &Layout,
        _gy: &CpuStorage,
        _lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("softmax: the CPU has candle's")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &candle_core::CudaStorage,
        ly: &Layout,
        gy: &candle_core::CudaStorage,
        lg: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::softmax_gradient((y, ly), (gy, lg))?, ly.shape().clone()))
    }
}
