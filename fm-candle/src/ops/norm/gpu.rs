//! The gradients on a GPU.

use candle_core::Storage::Cuda;
use candle_core::op::BackpropOp;
use candle_core::{Result, Shape, Tensor, bail};

use super::{Activation, GroupNorm};
use crate::ops::cuda;

impl GroupNorm {
    /// What the kernels are told.
    pub(super) fn on_gpu(&self, x: &[usize], a: &[usize], b: &[usize]) -> Result<cuda::Norm> {
        let g = self.geometry(x, a, b)?;
        Ok(cuda::Norm {
            n: g.n,
            pixels: g.pixels,
            c: g.c(),
            groups: g.groups,
            eps: self.eps,
            silu: self.activation == Activation::Silu,
        })
    }

    /// As `gradients`, by one kernel.
    pub(super) fn gradients_on_gpu(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (sizes, gy) = (self.on_gpu(x.dims(), a.dims(), b.dims())?, gy.contiguous()?);
        let [dx, da, db] = {
            let [x, a, b, gy] = [x, a, b, &gy].map(Tensor::storage_and_layout);
            let (Cuda(sx), Cuda(sa), Cuda(sb), Cuda(sg)) = (&*x.0, &*a.0, &*b.0, &*gy.0) else {
                bail!("group norm: tensors on two devices")
            };
            cuda::norm_gradient((sx, x.1), (sa, a.1), (sb, b.1), (sg, gy.1), &sizes)?
        };
        let tensor = |storage, shape: &Shape| {
            Tensor::from_storage(Cuda(storage), shape, BackpropOp::none(), false)
        };
        Ok((Some(tensor(dx, x.shape())), Some(tensor(da, a.shape())), Some(tensor(db, b.shape()))))
    }
}
