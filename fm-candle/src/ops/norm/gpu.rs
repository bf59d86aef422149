//! The group norm on a GPU, in two steps: the factors and summands of each image, then the map.

use candle_core::Storage::Cuda;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};

use crate::ops::cuda;

/// The group norm of these sizes, with a row of `a`, then of `b`, for each image.
///
/// # Shapes: `x: [n, .., c]`, `ab: [n, 2 c]`, result as `x`
pub(super) fn norm(x: &Tensor, ab: &Tensor, sizes: cuda::Norm) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&ab.contiguous()?, NormKernels(sizes))
}

/// `a = (1 + s) w`, `b = (1 + s) beta + t`, with `s` and `t` from an embedding or 0.
///
/// # Shapes: `embedding: [n, 2 c]`, `w, beta: [c]`, result `[n, 2 c]`
pub(super) fn modulate(
    n: usize,
    embedding: Option<&Tensor>,
    w: &Tensor,
    beta: &Tensor,
) -> Result<Tensor> {
    let embedding = match embedding {
        Some(embedding) => embedding.contiguous()?,
        None => Tensor::zeros((n, 2 * w.elem_count()), w.dtype(), w.device())?,
    };
    embedding.apply_op3(&w.contiguous()?, &beta.contiguous()?, Modulate)
}

/// The map's kernels.
struct NormKernels(cuda::Norm);

/// The kernels of the factors and summands.
struct Modulate;

fn tensor(storage: CudaStorage, shape: &Shape) -> Tensor {
    Tensor::from_storage(Cuda(storage), shape, BackpropOp::none(), false)
}

impl CustomOp2 for NormKernels {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _lx: &Layout,
        _ab: &CpuStorage,
        _lab: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("group norm: tensors on two devices")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        ab: &CudaStorage,
        lab: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::norm((x, lx), (ab, lab), &self.0)?, lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        ab: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gy = gy.contiguous()?;
        let [dx, dab] = {
            let [x, ab, gy] = [x, ab, &gy].map(Tensor::storage_and_layout);
            let (Cuda(sx), Cuda(sab), Cuda(sg)) = (&*x.0, &*ab.0, &*gy.0) else {
                bail!("group norm: tensors on two devices")
            };
            cuda::norm_gradient((sx, x.1), (sab, ab.1), (sg, gy.1), &self.0)?
        };
        Ok((Some(tensor(dx, x.shape())), Some(tensor(dab, ab.shape()))))
    }
}

impl CustomOp3 for Modulate {
    fn name(&self) -> &'static str {
        "modulate"
    }

    fn cpu_fwd(
        &self,
        _st: &CpuStorage,
        _ls: &Layout,
        _w: &CpuStorage,
        _lw: &Layout,
        _beta: &CpuStorage,
        _lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("group norm: tensors on two devices")
    }

    fn cuda_fwd(
        &self,
        st: &CudaStorage,
        ls: &Layout,
        w: &CudaStorage,
        lw: &Layout,
        beta: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::modulate((st, ls), (w, lw), (beta, lb))?, ls.shape().clone()))
    }

    fn bwd(
        &self,
        st: &Tensor,
        w: &Tensor,
        beta: &Tensor,
        _ab: &Tensor,
        dab: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dab = dab.contiguous()?;
        let [dst, dw, dbeta] = {
            let [st, w, beta, dab] = [st, w, beta, &dab].map(Tensor::storage_and_layout);
            let (Cuda(ss), Cuda(sw), Cuda(sb), Cuda(sd)) = (&*st.0, &*w.0, &*beta.0, &*dab.0)
            else {
                bail!("group norm: tensors on two devices")
            };
            cuda::modulate_gradient((ss, st.1), (sw, w.1), (sb, beta.1), (sd, dab.1))?
        };
        let dst = st.track_op().then(|| tensor(dst, st.shape()));
        Ok((dst, Some(tensor(dw, w.shape())), Some(tensor(dbeta, beta.shape()))))
    }
}
