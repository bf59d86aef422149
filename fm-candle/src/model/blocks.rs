//! The building blocks of the U-Net: convolution, linear layer, norm, residual block.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use quant_core::net::{GROUPS, Resample, UNetConfig};

use super::masks::Mode;
use super::weight_loader::{Init, InputObserver, Weight, WeightLoader};
use crate::error::{Error, Result};
use crate::ops::{
    Activation, ConvArithmetic, InferenceConv2d, QuantizedWeight, add, conv2d, downsample2,
    dropout, modulated_group_norm, upsample2,
};

/// A convolution that keeps the image size at stride 1.
pub(super) struct Convolution {
    kernel: ConvWeight,
    stride: usize,
    padding: usize,
    observer: Option<Arc<dyn InputObserver>>,
}

/// The parameters of a convolution: in training, or constant on the CPU or packed on a device.
enum ConvWeight {
    Tensors { weight: Tensor, bias: Tensor },
    Inference(InferenceConv2d),
    Quantized { weight: QuantizedWeight, bias: Tensor },
}

impl Convolution {
    /// # Shapes: `weight: [o, c, size, size]`, `bias: [o]`
    pub(super) fn new(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        o: usize,
        size: usize,
    ) -> Result<Self> {
        let fan = Init::Uniform { fan_in: c * size * size };
        Self::with_init(weights, prefix, &[o, c, size, size], fan)
    }

    /// The type of the weight.
    pub(super) fn dtype(&self) -> DType {
        match &self.kernel {
            ConvWeight::Tensors { weight, .. } => weight.dtype(),
            ConvWeight::Inference(_) => DType::F32,
            ConvWeight::Quantized { weight, .. } => weight.dtype(),
        }
    }

    /// A convolution that starts at zero (upstream's `zero_module`).
    pub(super) fn zero(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        o: usize,
        size: usize,
    ) -> Result<Self> {
        Self::with_init(weights, prefix, &[o, c, size, size], Init::Zeros)
    }

    /// A convolution of one pixel, whose stored weight may be that of a linear layer, `[o, c]`, or
    /// of a 1-D convolution, `[o, c, 1]`; square otherwise.
    pub(super) fn with_init(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<Self> {
        let size = shape.get(3).copied().unwrap_or(1);
        let (full, padding) = ([shape[0], shape[1], size, size], size / 2);
        let weight = weights.take_weight(&format!("{prefix}.weight"), shape, init)?;
        let bias = weights.take(&format!("{prefix}.bias"), &shape[..1], init)?;
        let (weight, observer) = match weight {
            Weight::Observed(weight, observer) => (*weight, Some(observer)),
            weight => (weight, None),
        };
        let kernel = match weight {
            Weight::Tensor(mut weight) => {
                // Not reshaped, which would copy a weight that is only a shape.
                while weight.rank() < full.len() {
                    weight = weight.unsqueeze(weight.rank())?;
                }
                ConvWeight::Tensors { weight, bias }
            }
            Weight::Source(rows, arithmetic) => {
                // Linear layers and the layers at the images are small and wide of effect.
                let inner = shape.len() > 2 && shape[0].min(shape[1]) >= GROUPS;
                let arithmetic = if inner { arithmetic } else { ConvArithmetic::Float };
                let bias = bias.to_vec1()?;
                ConvWeight::Inference(InferenceConv2d::new(rows, full, bias, padding, arithmetic)?)
            }
            Weight::Quantized(weight) => {
                ConvWeight::Quantized { weight: weight.reshape(&full)?, bias }
            }
            Weight::Observed(..) => {
                return Err(Error::tensor(prefix, "has two observers; one is the most"));
            }
        };
        Ok(Self { kernel, stride: 1, padding, observer })
    }

    /// The convolution on every `stride`-th pixel.
    pub(super) fn with_stride(self, stride: usize) -> Self {
        let kernel = match self.kernel {
            ConvWeight::Inference(conv) => ConvWeight::Inference(conv.with_stride(stride)),
            other => other,
        };
        Self { kernel, stride, ..self }
    }

    /// # Shapes: `x: [n, h, w, c]`, result `[n, h', w', o]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.show(x)?;
        Ok(match &self.kernel {
            ConvWeight::Tensors { weight, bias } => {
                conv2d(x, weight, bias, self.stride, self.padding)?
            }
            ConvWeight::Inference(conv) => conv.forward(x, None)?,
            ConvWeight::Quantized { weight, bias } => {
                conv2d(x, &weight.dense()?, bias, self.stride, self.padding)?
            }
        })
    }

    /// The convolution of `x`, plus `residual`.
    pub(super) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.kernel {
            ConvWeight::Inference(conv) => {
                self.show(x)?;
                Ok(conv.forward(x, Some(residual))?)
            }
            _ => Ok(add(residual, &self.forward(x)?)?),
        }
    }

    /// Shows the observer an input, where there is one.
    fn show(&self, x: &Tensor) -> Result<()> {
        self.observer
            .as_ref()
            .map_or(Ok(()), |observer| observer.observe(x, self.stride, self.padding))
    }
}

/// `y = x W^T + b`, a convolution of one pixel.
pub(super) struct Linear(Convolution);

impl Linear {
    /// # Shapes: `weight: [o, c]`, `bias: [o]`
    pub(super) fn new(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        c: usize,
        o: usize,
    ) -> Result<Self> {
        Ok(Self(Convolution::with_init(weights, prefix, &[o, c], Init::Uniform { fan_in: c })?))
    }

    /// # Shapes: `x: [n, c]`, result `[n, o]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c) = x.dims2()?;
        Ok(self.0.forward(&x.reshape((n, 1, 1, c))?)?.flatten_from(1)?)
    }
}

/// GroupNorm(32), eps 1e-5, with optional scale and shift per image, and an activation.
pub(super) struct GroupNormAct {
    weight: Tensor,
    bias: Tensor,
}

impl GroupNormAct {
    /// # Shapes: `weight, bias: [c]`
    pub(super) fn new(weights: &mut dyn WeightLoader, prefix: &str, c: usize) -> Result<Self> {
        Ok(Self {
            weight: weights.take(&format!("{prefix}.weight"), &[c], Init::Ones)?,
            bias: weights.take(&format!("{prefix}.bias"), &[c], Init::Zeros)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let weights = (&self.weight, &self.bias);
        Ok(modulated_group_norm(x, weights, None, GROUPS, 1e-5, activation)?)
    }

    /// `silu((gamma x^ + beta) (1 + scale) + shift)`.
    ///
    /// # Shapes: `embedding: [n, 2 c]`, scales, then shifts
    fn scale_shift(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let weights = (&self.weight, &self.bias);
        let (embedding, silu) = (Some(embedding), Activation::Silu);
        Ok(modulated_group_norm(x, weights, embedding, GROUPS, 1e-5, silu)?)
    }
}

/// Changes the resolution, without a parameter.
pub(super) fn resample(x: &Tensor, resample: Resample) -> Result<Tensor> {
    Ok(match resample {
        Resample::Keep => x.clone(),
        Resample::Up => upsample2(x)?,
        Resample::Down => downsample2(x)?,
    })
}

/// Path of the embedding into a block: through a linear layer, or as a constant where there is
/// neither time nor label.
enum Embedding {
    Linear(Linear),
    Constant(Tensor),
}

/// Upstream's `ResBlock`: `skip(x) + conv(act(norm(conv(act(norm(x)))), embedding))`.
pub(super) struct ResBlock {
    in_norm: GroupNormAct,
    in_conv: Convolution,
    embedding: Embedding,
    out_norm: GroupNormAct,
    out_conv: Convolution,
    skip: Option<Convolution>,
    resample: Resample,
    scale_shift: bool,
    dropout: f64,
}

impl ResBlock {
    pub(super) fn new(
        weights: &mut dyn WeightLoader,
        prefix: &str,
        (c, o): (usize, usize),
        resample: Resample,
        config: &UNetConfig,
    ) -> Result<Self> {
        let width = if config.use_scale_shift_norm { 2 * o } else { o };
        let in_norm = GroupNormAct::new(weights, &format!("{prefix}.in_layers.0"), c)?;
        let in_conv = Convolution::new(weights, &format!("{prefix}.in_layers.2"), c, o, 3)?;
        let embedding = if config.embeds_nothing() {
            let name = format!("{prefix}.emb_layers.embedding_table");
            let init = Init::Wide { width: config.embedding() };
            Embedding::Constant(weights.take(&name, &[1, width], init)?)
        } else {
            let name = format!("{prefix}.emb_layers.1");
            Embedding::Linear(Linear::new(weights, &name, config.projected_embedding(), width)?)
        };
        Ok(Self {
            in_norm,
            in_conv,
            embedding,
            out_norm: GroupNormAct::new(weights, &format!("{prefix}.out_layers.0"), o)?,
            out_conv: Convolution::zero(weights, &format!("{prefix}.out_layers.3"), o, o, 3)?,
            skip: if c == o {
                None
            } else {
                Some(Convolution::new(weights, &format!("{prefix}.skip_connection"), c, o, 1)?)
            },
            resample,
            scale_shift: config.use_scale_shift_norm,
            dropout: config.dropout,
        })
    }

    /// # Shapes
    /// `x: [n, h, w, c]`, `embedding: [n, projected_embedding]` after its SiLU, result
    /// `[n, h', w', o]`.
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let h = self.in_norm.forward(x, Activation::Silu)?;
        let h = self.in_conv.forward(&resample(&h, self.resample)?)?;
        let x = resample(x, self.resample)?;
        let embedding = match &self.embedding {
            Embedding::Linear(linear) => linear.forward(embedding)?,
            Embedding::Constant(table) => table.broadcast_as((x.dim(0)?, table.dim(1)?))?,
        };
        let h = if self.scale_shift {
            self.out_norm.scale_shift(&h, &embedding)?
        } else {
            let (n, c) = embedding.dims2()?;
            let h = h.broadcast_add(&embedding.reshape((n, 1, 1, c))?)?;
            self.out_norm.forward(&h, Activation::Silu)?
        };
        let h = match mode {
            Mode::Train(masks) if self.dropout > 0.0 => dropout(&h, &masks.next(), self.dropout)?,
            _ => h,
        };
        let x = match &self.skip {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        self.out_conv.forward_add(&h, &x)
    }
}
