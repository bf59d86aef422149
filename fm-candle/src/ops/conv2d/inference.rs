//! A convolution that is evaluated but not trained, whose weights may lie anywhere.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::geometry::ConvGeometry;
use super::weight_source::{Epilogue, WeightSource};
use super::{Convolve, forward, integer};
use crate::ops::real::{elements, slice};

/// The arithmetic of the products of a convolution that is not trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvArithmetic {
    /// In f32.
    #[default]
    Float,
    /// In 8-bit integers with exact sums: inputs rounded to one of 256 values per image, weights to
    /// one of 255 per output channel.
    Integer,
}

/// A convolution of f32 maps on the CPU with constant weights, which are asked for a few output
/// channels at a time.
#[derive(Clone)]
pub struct InferenceConv2d {
    weight: Arc<dyn WeightSource>,
    shape: [usize; 4],
    bias: Arc<[f32]>,
    stride: usize,
    padding: (usize, usize),
    relu: bool,
    arithmetic: ConvArithmetic,
}

impl InferenceConv2d {
    /// A convolution at stride 1 with zero padding on all sides.
    ///
    /// # Shapes
    /// `weight: shape = [o, c, kh, kw]`, `bias: [o]`.
    ///
    /// # Errors
    /// A bias of another length.
    pub fn new(
        weight: Arc<dyn WeightSource>,
        shape: [usize; 4],
        bias: Vec<f32>,
        padding: usize,
        arithmetic: ConvArithmetic,
    ) -> Result<Self> {
        if bias.len() != shape[0] {
            bail!("conv2d: bias has {} values, the weight asks for {}", bias.len(), shape[0]);
        }
        Ok(Self {
            weight,
            shape,
            bias: bias.into(),
            stride: 1,
            padding: (padding, padding),
            relu: false,
            arithmetic,
        })
    }

    /// This convolution with stride `stride`.
    #[must_use]
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// This convolution with these numbers of zeros above and below, and to the left and right.
    #[must_use]
    pub fn with_padding(self, padding: (usize, usize)) -> Self {
        Self { padding, ..self }
    }

    /// This convolution followed by a `ReLU`; it has no gradient.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }

    /// The convolution of `x`, plus `residual`.
    ///
    /// # Shapes
    /// As [`conv2d`](super::conv2d); `residual` as the result.
    ///
    /// # Errors
    /// Shapes that do not fit together, or tensors that are not f32 on the CPU.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let x = x.contiguous()?;
        match residual {
            Some(residual) => x.apply_op2(&residual.contiguous()?, self.clone()),
            None => x.apply_op1(self.clone()),
        }
    }

    fn compute(
        &self,
        (x, lx): (&CpuStorage, &Layout),
        residual: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let g = ConvGeometry::new(lx.dims(), &self.shape, self.stride, self.padding)?;
        let shape = Shape::from((g.n, g.oh(), g.ow(), g.o));
        let residual = match residual {
            Some((_, layout)) if layout.shape() != &shape => {
                bail!("conv2d: residual {:?} must be as the result, {shape:?}", layout.dims())
            }
            Some((storage, layout)) => Some(slice(storage, layout)?),
            None => None,
        };
        let add = Epilogue { bias: &self.bias, residual, relu: self.relu };
        let forward = match self.arithmetic {
            ConvArithmetic::Float => forward,
            ConvArithmetic::Integer => integer::forward,
        };
        Ok((CpuStorage::F32(forward(slice(x, lx)?, &*self.weight, add, &g)), shape))
    }

    fn gradient(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        if self.relu {
            bail!("conv2d: a frozen convolution with relu has no gradient")
        }
        let g = ConvGeometry::new(x.dims(), &self.shape, self.stride, self.padding)?;
        let gy = gy.contiguous()?;
        let dx = {
            let guard = gy.storage_and_layout();
            let mut buffer = vec![0.0; g.o * g.depth()];
            let weight = self.weight.rows(0..g.o, &mut buffer);
            f32::input_gradient(weight, elements(&guard)?, &g)
        };
        Tensor::from_vec(dx, x.shape(), x.device())
    }
}

impl CustomOp1 for InferenceConv2d {
    fn name(&self) -> &'static str {
        "frozen_conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        self.compute((x, lx), None)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient(x, gy)?))
    }
}

impl CustomOp2 for InferenceConv2d {
    fn name(&self) -> &'static str {
        "frozen_conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        residual: &CpuStorage,
        lr: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.compute((x, lx), Some((residual, lr)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _residual: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(self.gradient(x, gy)?), Some(gy.clone())))
    }
}
