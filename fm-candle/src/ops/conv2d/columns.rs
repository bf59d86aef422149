//! Convolutions of every float type on every device, in candle's operations: the pixels under a
//! kernel as the rows of a matrix (im2col), and one matrix product.
//!
//! ```text
//! col[p, (ky, kx, c)]        what lies under pixel p of the result
//! y  = col W^T + b           W[o, (ky, kx, c)]
//! dW = gy^T col              db = 1^T gy
//! dx = conv(gy, w flipped and transposed), at a stride after zeros between the pixels of gy
//! ```
//! Images are taken in groups whose columns stay below [`BUDGET`] bytes; sums over groups are in
//! f32 at least, and so are those inside of a product on a GPU. With the feature `cudnn` all three go
//! by cuDNN on a GPU, which needs no columns.

use core::ops::Range;
use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::op::Add;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor,
    WithDType, bail,
};

use super::geometry::{Band, ConvGeometry};
use super::im2col::im2col;
#[cfg(feature = "cudnn")]
use crate::ops::cuda;
use crate::ops::real::{slice, wide};

/// Most bytes of columns at a time, unless those of one image are more; the tests see many groups.
const BUDGET: usize = if cfg!(test) { 8 << 10 } else { 256 << 20 };

/// [`conv2d`](super::conv2d) by candle's operations.
pub(in crate::ops) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: (usize, usize),
) -> Result<Tensor> {
    let g = ConvGeometry::new(x.dims(), weight.dims(), stride, padding)?;
    if bias.dims() != [g.o] {
        bail!("conv2d: bias has shape {:?}, the weight asks for [{}]", bias.dims(), g.o);
    }
    let x = x.contiguous()?;
    let product = Mutex::new(Some(product(&x.detach(), &weight.detach(), &g)?));
    x.apply_op3(weight, &bias.contiguous()?, Biased { product, g })
}

/// The convolution without its bias, and without a gradient.
fn product(x: &Tensor, w: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if by_cudnn(x, g) {
        return cuda::convolve(x, &channels_last(w)?, g);
    }
    let matrix = w.permute((0, 2, 3, 1))?.reshape((g.o, g.depth()))?.t()?;
    let parts = groups(g, x.dtype())
        .map(|images| columns(x, images, g)?.matmul(&matrix))
        .collect::<Result<Vec<_>>>()?;
    let y = match &parts[..] {
        [] => Tensor::zeros((0, g.o), x.dtype(), x.device())?,
        [y] => y.clone(),
        parts => Tensor::cat(parts, 0)?,
    };
    y.reshape((g.n, g.oh(), g.ow(), g.o))
}

/// Returns true where cuDNN is faster than [`columns`]: not for kernels of one pixel, which need no
/// columns.
#[cfg(feature = "cudnn")]
fn by_cudnn(x: &Tensor, g: &ConvGeometry) -> bool {
    (g.kh, g.kw, g.stride) != (1, 1, 1) && cuda::takes(x, g)
}

/// # Shapes: `[o, c, kh, kw]` to `[o, kh, kw, c]`
#[cfg(feature = "cudnn")]
fn channels_last(w: &Tensor) -> Result<Tensor> {
    w.permute((0, 2, 3, 1))?.contiguous()
}

/// # Shapes: `gy: [n, oh, ow, o]`, result `[n, h, w, c]`
fn input_gradient(w: &Tensor, gy: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if by_cudnn(gy, g) {
        return cuda::convolve_input_gradient(gy, &channels_last(w)?, g);
    }
    let taps = u32::try_from(g.kh * g.kw).map_err(candle_core::Error::wrap)?;
    let backwards = Tensor::from_iter((0..taps).rev(), w.device())?;
    let flipped = w.reshape((g.o, g.c, ()))?.index_select(&backwards, 2)?;
    let flipped = flipped.reshape(w.shape())?.transpose(0, 1)?.contiguous()?;
    product(&spread(gy, g)?, &flipped, &g.adjoint())
}

/// The gradient of a result at stride 1: zeros at the pixels that the stride leaves out.
fn spread(gy: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    if g.stride == 1 {
        return Ok(gy.clone());
    }
    let (full, (oh, ow), between) = (g.adjoint(), (g.oh(), g.ow()), g.stride - 1);
    let pixels = gy.reshape((g.n * oh, 1, ow, 1, g.o))?;
    let blocks = pixels.pad_with_zeros(1, 0, between)?.pad_with_zeros(3, 0, between)?;
    let spread = blocks.reshape((g.n, oh * g.stride, ow * g.stride, g.o))?;
    // Behind the last pixel there may be zeros too many, or too few.
    let fit = |x: Tensor, axis: usize, side: usize| {
        let found = x.dim(axis)?;
        x.narrow(axis, 0, side.min(found))?.pad_with_zeros(axis, 0, side.saturating_sub(found))
    };
    fit(fit(spread, 1, full.h)?, 2, full.w)?.contiguous()
}

/// # Shapes: `gy: [n, oh, ow, o]`, result `[o, c, kh, kw]`
fn weight_gradient(x: &Tensor, gy: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if by_cudnn(x, g) {
        let dw = cuda::convolve_weight_gradient(x, gy, g)?;
        return dw.permute((0, 3, 1, 2))?.contiguous();
    }
    let mut sum = Tensor::zeros((g.o, g.depth()), wide(x.dtype()), x.device())?;
    for images in groups(g, x.dtype()) {
        let gy = gy.narrow(0, images.start, images.len())?.reshape(((), g.o))?;
        let part = gy.t()?.matmul(&columns(x, images, g)?)?;
        sum = (sum + part.to_dtype(wide(x.dtype()))?)?;
    }
    let dw = sum.to_dtype(x.dtype())?.reshape((g.o, g.kh, g.kw, g.c))?;
    dw.permute((0, 3, 1, 2))?.contiguous()
}

/// # Shapes: `gy: [n, oh, ow, o]`, result `[o]`
fn bias_gradient(gy: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    let pixels = g.n * g.oh() * g.ow();
    let ones = Tensor::ones((1, pixels), gy.dtype(), gy.device())?;
    ones.matmul(&gy.reshape((pixels, g.o))?)?.reshape(g.o)
}

/// All images, in groups.
fn groups(g: &ConvGeometry, dtype: DType) -> impl Iterator<Item = Range<usize>> {
    let image = g.oh() * g.ow() * g.depth() * dtype.size_in_bytes();
    let (n, size) = (g.n, (BUDGET / image.max(1)).max(1));
    (0..n).step_by(size).map(move |first| first..(first + size).min(n))
}

/// # Shapes: `x: [n, h, w, c]`, contiguous; result `[images oh ow, kh kw c]`
fn columns(x: &Tensor, images: Range<usize>, g: &ConvGeometry) -> Result<Tensor> {
    let x = x.narrow(0, images.start, images.len())?;
    if (g.kh, g.kw, g.stride) == (1, 1, 1) {
        return x.reshape(((), g.c));
    }
    x.apply_op1_no_bwd(&Columns(ConvGeometry { n: images.len(), ..*g }))
}

/// The columns of all images.
struct Columns(ConvGeometry);

impl Columns {
    fn shape(&self) -> Shape {
        let g = &self.0;
        (g.n * g.oh() * g.ow(), g.depth()).into()
    }

    fn of<T: WithDType>(&self, x: &CpuStorage, layout: &Layout) -> Result<Vec<T>> {
        let g = &self.0;
        let mut columns = vec![T::zero(); self.shape().elem_count()];
        let band = Band { images: 0..g.n, lines: 0..g.oh() };
        im2col(slice(x, layout)?, |_| T::zero(), &band, g, g.depth(), &mut columns);
        Ok(columns)
    }
}

impl CustomOp1 for Columns {
    fn name(&self) -> &'static str {
        "columns"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let columns = match x.dtype() {
            DType::F16 => CpuStorage::F16(self.of(x, layout)?),
            DType::BF16 => CpuStorage::BF16(self.of(x, layout)?),
            DType::F32 => CpuStorage::F32(self.of(x, layout)?),
            DType::F64 => CpuStorage::F64(self.of(x, layout)?),
            other => bail!("conv2d: {} are no floats", other.as_str()),
        };
        Ok((columns, self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((crate::ops::cuda::columns(x, layout, &self.0)?, self.shape()))
    }
}

/// Adds the bias to the product, and knows the gradients of the whole convolution.
struct Biased {
    /// Until it is added; the graph must not keep it.
    product: Mutex<Option<Tensor>>,
    g: ConvGeometry,
}

impl Biased {
    fn take(&self) -> Result<Tensor> {
        let product = self.product.lock().ok().and_then(|mut product| product.take());
        product.ok_or_else(|| candle_core::Error::msg("conv2d: its product was taken before"))
    }
}

/// `product + bias`.
fn add<S: BackendStorage>(product: &S, layout: &Layout, bias: &S, lb: &Layout) -> Result<S> {
    product.binary_impl::<Add>(bias, layout, &lb.broadcast_as(layout.shape())?)
}

impl CustomOp3 for Biased {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _lx: &Layout,
        _w: &CpuStorage,
        _lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let product = self.take()?;
        let (storage, layout) = product.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("conv2d: tensors on two devices") };
        Ok((add(storage, layout, b, lb)?, layout.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _x: &CudaStorage,
        _lx: &Layout,
        _w: &CudaStorage,
        _lw: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let product = self.take()?;
        let (storage, layout) = product.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("conv2d: tensors on two devices") };
        #[cfg(feature = "cuda")]
        if storage.dtype() != DType::F64 {
            let sum = crate::ops::cuda::add_bias((storage, layout), (b, lb))?;
            return Ok((sum, layout.shape().clone()));
        }
        Ok((add(storage, layout, b, lb)?, layout.shape().clone()))
    }

    /// Only what a tracked argument asks for is computed.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (g, gy) = (&self.g, gy.contiguous()?);
        let dx = x.track_op().then(|| input_gradient(&w.detach(), &gy, g)).transpose()?;
        let dw = w.track_op().then(|| weight_gradient(&x.detach(), &gy, g)).transpose()?;
        let db = b.track_op().then(|| bias_gradient(&gy, g)).transpose()?;
        Ok((dx, dw, db))
    }
}
