//! Convolutions with their batch norms, and the mixed blocks that they make up.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::{Init, WeightLoader};
use crate::ops::{
    ConvArithmetic, DenseWeight, InferenceConv2d, avg_pool3, concat_all, conv2d_padded, max_pool3,
};

/// Added to the variances of the batch norms.
const EPSILON: f64 = 1e-3;

/// A convolution of a block: its name, output channels, kernel, stride and padding.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    name: &'static str,
    o: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: (usize, usize),
}

impl Spec {
    /// This convolution without padding.
    pub(super) const fn inside(self) -> Self {
        Self { padding: (0, 0), ..self }
    }
}

/// At stride 1, of as many pixels as before.
pub(super) const fn same(name: &'static str, o: usize, kh: usize, kw: usize) -> Spec {
    Spec { name, o, kernel: [kh, kw], stride: 1, padding: (kh / 2, kw / 2) }
}

/// 3x3 at stride 2, without padding.
pub(super) const fn strided(name: &'static str, o: usize) -> Spec {
    Spec { name, o, kernel: [3, 3], stride: 2, padding: (0, 0) }
}

/// A convolution with its batch norm, and a relu.
pub(super) enum ConvBnRelu {
    /// On the CPU.
    Inference(InferenceConv2d),
    /// Elsewhere.
    Tensors { weight: Tensor, bias: Tensor, stride: usize, padding: (usize, usize) },
}

impl ConvBnRelu {
    /// The convolution of `c` channels that `spec` describes, below the name `prefix`:
    ///
    /// ```text
    /// s = weight / sqrt(running_var + EPSILON)     y = s conv(x) + bias - s running_mean
    /// ```
    pub(super) fn new(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        spec: &Spec,
    ) -> Result<Self> {
        let &Spec { o, kernel: [kh, kw], stride, padding, .. } = spec;
        let shape = [o, c, kh, kw];
        let uniform = Init::Uniform { fan_in: c * kh * kw };
        let kernel = weights.take(&format!("{prefix}.conv.weight"), &shape, uniform)?;
        let mut norm = |name: &str, init| -> Result<Vec<f64>> {
            let values = weights.take(&format!("{prefix}.bn.{name}"), &[o], init)?;
            Ok(values.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
        };
        let (gain, shift) = (norm("weight", Init::Ones)?, norm("bias", Init::Zeros)?);
        let mean = norm("running_mean", Init::Zeros)?;
        let variance = norm("running_var", Init::Ones)?;
        if let Some(variance) = variance.iter().find(|variance| **variance < 0.0) {
            let name = format!("{prefix}.bn.running_var");
            return Err(Error::tensor(&name, format!("holds a variance of {variance}")));
        }
        let scale = gain.iter().zip(&variance).map(|(gain, v)| gain / (v + EPSILON).sqrt());
        let scale: Vec<f64> = scale.collect();
        #[expect(clippy::cast_possible_truncation, reason = "f32 weights are scaled in f64")]
        let (weight, bias) = {
            let rows: Vec<f32> = kernel.flatten_all()?.to_vec1()?;
            let rows = rows.chunks_exact(c * kh * kw).zip(&scale);
            let scaled =
                rows.flat_map(|(row, s)| row.iter().map(move |w| (f64::from(*w) * s) as f32));
            let bias = shift.iter().zip(&mean).zip(&scale).map(|((b, m), s)| (b - m * s) as f32);
            (scaled.collect::<Vec<_>>(), bias.collect::<Vec<_>>())
        };
        let device = kernel.device();
        if device.is_cpu() {
            let weight = Arc::new(DenseWeight::new(weight, c * kh * kw));
            let conv = InferenceConv2d::new(weight, shape, bias, 0, ConvArithmetic::Float)?;
            return Ok(Self::Inference(conv.with_stride(stride).with_padding(padding).with_relu()));
        }
        let weight = Tensor::from_vec(weight, &shape, device)?;
        Ok(Self::Tensors { weight, bias: Tensor::from_vec(bias, o, device)?, stride, padding })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Inference(conv) => conv.forward(x, None)?,
            Self::Tensors { weight, bias, stride, padding } => {
                conv2d_padded(x, weight, bias, *stride, *padding)?.relu()?
            }
        })
    }
}

/// One convolution after the other.
pub(super) fn chain<'a>(
    convs: impl IntoIterator<Item = &'a ConvBnRelu>,
    x: &Tensor,
) -> Result<Tensor> {
    convs.into_iter().try_fold(x.clone(), |x, conv| conv.forward(&x))
}

/// The mean of each channel: of a line first, which leaves f32 more digits, then of all lines.
///
/// # Shapes: `x: [n, h, w, c]`, result `[n, c]`
pub(super) fn means(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let mean = |x: &Tensor| {
        let (n, k, _) = x.dims3()?;
        Tensor::full(1.0 / k as f32, (n, 1, k), x.device())?.matmul(x)
    };
    let lines = mean(&x.reshape((n * h, w, c))?)?;
    Ok(mean(&lines.reshape((n, h, c))?)?.squeeze(1)?)
}

/// The pooling of a branch, before its convolutions.
#[derive(Clone, Copy)]
pub(super) enum BranchPool {
    /// Nothing.
    None,
    /// Means of 3x3 pixels.
    Mean,
    /// Maxima of 3x3 pixels.
    Max,
    /// Maxima of 3x3 pixels at stride 2, without padding.
    Strided,
}

/// A branch of a block: a pool, convolutions in a chain, and perhaps two that both take what comes
/// out of it.
struct Branch {
    pool: BranchPool,
    convs: Vec<ConvBnRelu>,
    fork: Vec<ConvBnRelu>,
}

impl Branch {
    /// Adds the maps of the branch to `maps`.
    fn forward(&self, x: &Tensor, maps: &mut Vec<Tensor>) -> Result<()> {
        let pooled = match self.pool {
            BranchPool::None => x.clone(),
            BranchPool::Mean => avg_pool3(x)?,
            BranchPool::Max => max_pool3(x, 1, 1)?,
            BranchPool::Strided => max_pool3(x, 2, 0)?,
        };
        let x = chain(&self.convs, &pooled)?;
        if self.fork.is_empty() {
            maps.push(x);
            return Ok(());
        }
        for conv in &self.fork {
            maps.push(conv.forward(&x)?);
        }
        Ok(())
    }
}

/// A mixed block: the channels of its branches, in their order.
pub(super) struct Mixed(Vec<Branch>);

/// A block under construction.
struct Builder<'a> {
    weights: &'a mut dyn WeightLoader,
    prefix: &'a str,
    /// Channels of its input.
    c: usize,
    branches: Vec<Branch>,
}

impl<'a> Builder<'a> {
    fn new(weights: &'a mut dyn WeightLoader, prefix: &'a str, c: usize) -> Self {
        Self { weights, prefix, c, branches: Vec::new() }
    }

    /// A branch of these convolutions.
    fn branch(self, pool: BranchPool, chain: &[Spec]) -> Result<Self> {
        self.forked(pool, chain, &[])
    }

    /// A branch of these convolutions that ends in a fork.
    fn forked(mut self, pool: BranchPool, chain: &[Spec], fork: &[Spec]) -> Result<Self> {
        let mut c = self.c;
        let mut conv = |spec: &Spec, c| {
            ConvBnRelu::new(self.weights, &format!("{}.{}", self.prefix, spec.name), c, spec)
        };
        let mut convs = Vec::new();
        for spec in chain {
            convs.push(conv(spec, c)?);
            c = spec.o;
        }
        let fork = fork.iter().map(|spec| conv(spec, c)).collect::<Result<_>>()?;
        self.branches.push(Branch { pool, convs, fork });
        Ok(self)
    }

    fn finish(self) -> Mixed {
        Mixed(self.branches)
    }
}

impl Mixed {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut maps = Vec::new();
        for branch in &self.0 {
            branch.forward(x, &mut maps)?;
        }
        Ok(concat_all(&maps)?)
    }

    /// 35 x 35, branches of 1x1, 5x5 and two 3x3.
    pub(super) fn a(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        pooled: usize,
    ) -> Result<Self> {
        Ok(Builder::new(weights, prefix, c)
            .branch(BranchPool::None, &[same("branch1x1", 64, 1, 1)])?
            .branch(
                BranchPool::None,
                &[same("branch5x5_1", 48, 1, 1), same("branch5x5_2", 64, 5, 5)],
            )?
            .branch(
                BranchPool::None,
                &[
                    same("branch3x3dbl_1", 64, 1, 1),
                    same("branch3x3dbl_2", 96, 3, 3),
                    same("branch3x3dbl_3", 96, 3, 3),
                ],
            )?
            .branch(BranchPool::Mean, &[same("branch_pool", pooled, 1, 1)])?
            .finish())
    }

    /// 35 x 35 to 17 x 17.
    pub(super) fn b(weights: &mut dyn WeightLoader, prefix: &str, c: usize) -> Result<Self> {
        Ok(Builder::new(weights, prefix, c)
            .branch(BranchPool::None, &[strided("branch3x3", 384)])?
            .branch(
                BranchPool::None,
                &[
                    same("branch3x3dbl_1", 64, 1, 1),
                    same("branch3x3dbl_2", 96, 3, 3),
                    strided("branch3x3dbl_3", 96),
                ],
            )?
            .branch(BranchPool::Strided, &[])?
            .finish())
    }

    /// 17 x 17, branches of 7x7 as 1x7 and 7x1, with `c7` channels between.
    pub(super) fn c(weights: &mut dyn WeightLoader, prefix: &str, c7: usize) -> Result<Self> {
        Ok(Builder::new(weights, prefix, 768)
            .branch(BranchPool::None, &[same("branch1x1", 192, 1, 1)])?
            .branch(
                BranchPool::None,
                &[
                    same("branch7x7_1", c7, 1, 1),
                    same("branch7x7_2", c7, 1, 7),
                    same("branch7x7_3", 192, 7, 1),
                ],
            )?
            .branch(
                BranchPool::None,
                &[
                    same("branch7x7dbl_1", c7, 1, 1),
                    same("branch7x7dbl_2", c7, 7, 1),
                    same("branch7x7dbl_3", c7, 1, 7),
                    same("branch7x7dbl_4", c7, 7, 1),
                    same("branch7x7dbl_5", 192, 1, 7),
                ],
            )?
            .branch(BranchPool::Mean, &[same("branch_pool", 192, 1, 1)])?
            .finish())
    }

    /// 17 x 17 to 8 x 8.
    pub(super) fn d(weights: &mut dyn WeightLoader, prefix: &str, c: usize) -> Result<Self> {
        Ok(Builder::new(weights, prefix, c)
            .branch(
                BranchPool::None,
                &[same("branch3x3_1", 192, 1, 1), strided("branch3x3_2", 320)],
            )?
            .branch(
                BranchPool::None,
                &[
                    same("branch7x7x3_1", 192, 1, 1),
                    same("branch7x7x3_2", 192, 1, 7),
                    same("branch7x7x3_3", 192, 7, 1),
                    strided("branch7x7x3_4", 192),
                ],
            )?
            .branch(BranchPool::Strided, &[])?
            .finish())
    }

    /// 8 x 8, branches that end in a 1x3 beside a 3x1.
    pub(super) fn e(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        pool: BranchPool,
    ) -> Result<Self> {
        Ok(Builder::new(weights, prefix, c)
            .branch(BranchPool::None, &[same("branch1x1", 320, 1, 1)])?
            .forked(
                BranchPool::None,
                &[same("branch3x3_1", 384, 1, 1)],
                &[same("branch3x3_2a", 384, 1, 3), same("branch3x3_2b", 384, 3, 1)],
            )?
            .forked(
                BranchPool::None,
                &[same("branch3x3dbl_1", 448, 1, 1), same("branch3x3dbl_2", 384, 3, 3)],
                &[same("branch3x3dbl_3a", 384, 1, 3), same("branch3x3dbl_3b", 384, 3, 1)],
            )?
            .branch(pool, &[same("branch_pool", 192, 1, 1)])?
            .finish())
    }
}
