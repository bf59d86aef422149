//! 2-D convolution of channels-last maps, forward and all backwards.
//!
//! ```text
//! y[n, p, o] = b[o] + sum over taps t and c of w[o, c, t] x[n, p + t, c]
//! dw = sum over n, p of gy x        db = sum of gy        dx = conv(gy, w flipped and transposed)
//! ```
//! In f32, 3x3 kernels between whole panels of channels go by [`winograd`], all others by
//! [`general`]; f64 goes by [`reference`]; constant weights may go by [`integer`]. Sums run in an
//! order that does not depend on the number of threads. All that is not f32 or f64 on the CPU goes
//! by [`columns`].

pub(super) mod columns;
mod dot;
mod general;
mod geometry;
mod im2col;
mod inference;
mod integer;
mod product;
mod reference;
mod weight_source;
mod winograd;
mod winograd_transforms;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::real::{Real, elements, is_ours, slice};
use weight_source::Epilogue;

pub(super) use geometry::ConvGeometry;

pub use inference::{ConvArithmetic, InferenceConv2d};
pub use weight_source::{DenseWeight, WeightSource};

/// Convolution with bias and zero padding on all sides.
///
/// # Shapes
/// `x: [n, h, w, c]`, `weight: [o, c, kh, kw]`, `bias: [o]`, result
/// `[n, (h + 2 padding - kh) / stride + 1, (w + 2 padding - kw) / stride + 1, o]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    conv2d_padded(x, weight, bias, stride, (padding, padding))
}

/// Convolution with bias and zero padding: `padding.0` rows above and below, `padding.1` columns to
/// the left and right.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_padded(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: (usize, usize),
) -> Result<Tensor> {
    if is_ours(x) {
        return x.contiguous()?.apply_op3(
            &weight.contiguous()?,
            &bias.contiguous()?,
            Conv2d { stride, padding },
        );
    }
    columns::conv2d(x, weight, bias, stride, padding)
}

/// The op itself; see the module.
struct Conv2d {
    stride: usize,
    padding: (usize, usize),
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = ConvGeometry::new(lx.dims(), lw.dims(), self.stride, self.padding)?;
        if lb.dims() != [g.o] {
            bail!("conv2d: bias has shape {:?}, the weight asks for [{}]", lb.dims(), g.o);
        }
        let y = match x {
            CpuStorage::F32(_) => {
                let weight = DenseWeight::new(slice(w, lw)?, g.depth());
                let add = Epilogue { bias: slice(b, lb)?, residual: None, relu: false };
                CpuStorage::F32(forward(slice(x, lx)?, &weight, add, &g))
            }
            _ => {
                CpuStorage::F64(reference::forward(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?, &g))
            }
        };
        Ok((y, Shape::from((g.n, g.oh(), g.ow(), g.o))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = ConvGeometry::new(x.dims(), w.dims(), self.stride, self.padding)?;
        let (dx, dw, db) = match x.dtype() {
            DType::F32 => gradients::<f32>(x, w, gy, &g)?,
            _ => gradients::<f64>(x, w, gy, &g)?,
        };
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

/// Gradients of input, weight and bias.
fn gradients<T: Convolve>(
    x: &Tensor,
    w: &Tensor,
    gy: &Tensor,
    g: &ConvGeometry,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (x, w, gy) = (x.contiguous()?, w.contiguous()?, gy.contiguous()?);
    let (sx, sw, sg) = (x.storage_and_layout(), w.storage_and_layout(), gy.storage_and_layout());
    let gy = elements::<T>(&sg)?;
    let dx = T::input_gradient(elements(&sw)?, gy, g);
    let dw = T::weight_gradient(elements(&sx)?, gy, g);
    let db = channel_sums(gy, g.o);
    let device = x.device();
    Ok((
        Tensor::from_vec(dx, x.shape(), device)?,
        Tensor::from_vec(dw, w.shape(), device)?,
        Tensor::from_vec(db, g.o, device)?,
    ))
}

/// The way that a float type goes.
trait Convolve: Real {
    /// `dx`, `[n, h, w, c]`.
    fn input_gradient(w: &[Self], gy: &[Self], g: &ConvGeometry) -> Vec<Self>;
    /// `dw`, `[o, c, kh, kw]`.
    fn weight_gradient(x: &[Self], gy: &[Self], g: &ConvGeometry) -> Vec<Self>;
}

impl Convolve for f64 {
    fn input_gradient(w: &[f64], gy: &[f64], g: &ConvGeometry) -> Vec<f64> {
        reference::forward(&spread(gy, g), &flip(w, g), &vec![0.0; g.c], &g.adjoint())
    }

    fn weight_gradient(x: &[f64], gy: &[f64], g: &ConvGeometry) -> Vec<f64> {
        reference::weight_gradient(x, gy, g)
    }
}

impl Convolve for f32 {
    fn input_gradient(w: &[f32], gy: &[f32], g: &ConvGeometry) -> Vec<f32> {
        let (flipped, adjoint) = (flip(w, g), g.adjoint());
        let weight = DenseWeight::new(&flipped, adjoint.depth());
        let add = Epilogue { bias: &vec![0.0; g.c], residual: None, relu: false };
        if g.stride == 1 {
            return forward(gy, &weight, add, &adjoint);
        }
        forward(&spread(gy, g), &weight, add, &adjoint)
    }

    fn weight_gradient(x: &[f32], gy: &[f32], g: &ConvGeometry) -> Vec<f32> {
        if winograd::fits(g) {
            winograd::weight_gradient(x, gy, g)
        } else {
            general::weight_gradient(x, gy, g)
        }
    }
}

/// `y` in f32.
fn forward(x: &[f32], weight: &dyn WeightSource, add: Epilogue<'_>, g: &ConvGeometry) -> Vec<f32> {
    if winograd::fits(g) {
        winograd::forward(x, weight, add, g)
    } else {
        general::forward(x, weight, add, g)
    }
}

/// The weight of the adjoint: `[o, c, kh, kw]` to `[c, o, kh, kw]`, each kernel reversed.
fn flip<T: Real>(w: &[T], g: &ConvGeometry) -> Vec<T> {
    let taps = g.kh * g.kw;
    let mut flipped = vec![T::zero(); w.len()];
    flipped.par_chunks_mut((g.o * taps).max(1)).enumerate().for_each(|(c, row)| {
        for (o, kernel) in row.chunks_exact_mut(taps).enumerate() {
            let taps = w[(o * g.c + c) * taps..][..taps].iter().rev();
            kernel.iter_mut().zip(taps).for_each(|(k, &w)| *k = w);
        }
    });
    flipped
}

/// The gradient of a result at stride 1: zeros at the pixels that the stride leaves out.
fn spread<T: Real>(gy: &[T], g: &ConvGeometry) -> Vec<T> {
    let full = ConvGeometry { stride: 1, ..*g };
    let (lines, columns) = (full.oh(), full.ow());
    let mut spread = vec![T::zero(); g.n * full.image_out()];
    for (pixel, gy) in gy.chunks_exact(g.o.max(1)).enumerate() {
        let (image, line, column) =
            (pixel / (g.oh() * g.ow()), pixel / g.ow() % g.oh(), pixel % g.ow());
        let at = ((image * lines + line * g.stride) * columns + column * g.stride) * g.o;
        spread[at..at + g.o].copy_from_slice(gy);
    }
    spread
}

/// The sum over pixels for each channel, in partial sums of as many pixels.
fn channel_sums<T: Real>(gy: &[T], channels: usize) -> Vec<T> {
    const PIXELS: usize = 1024;
    let partial: Vec<Vec<T>> = gy
        .par_chunks((PIXELS * channels).max(1))
        .map(|gy| {
            let mut sums = vec![T::zero(); channels];
            for pixel in gy.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &gy)| *sum += gy);
            }
            sums
        })
        .collect();
    let mut sums = vec![T::zero(); channels];
    for part in partial {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}
