//! The launches: what a kernel reads and writes is asserted here, then it is started.

#![expect(unsafe_code, reason = "every launch of a kernel and every uncleared buffer is unsafe")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaStorage, DType, Layout, Result, bail};

use super::kernel;
use crate::ops::coded::Coding;
use crate::ops::conv2d::Geometry;

/// Most threads of a block, as the kernels of the norm have room for.
const THREADS: usize = 256;

/// A block for each of `rows` rows, or groups, of `len` values.
fn grid(rows: usize, len: usize) -> Result<LaunchConfig> {
    let threads = len.next_multiple_of(32).clamp(32, THREADS);
    Ok(LaunchConfig {
        grid_dim: (small(rows)?, 1, 1),
        block_dim: (small(threads)?, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A count as the kernels take it. All sizes of one kind fit a signed 32-bit number, so sums of
/// two do not wrap around, and neither does the number of blocks exceed what CUDA allows.
fn small(count: usize) -> Result<u32> {
    match i32::try_from(count) {
        Ok(count) => Ok(count.unsigned_abs()),
        Err(_) => bail!("CUDA kernels: {count} values of one kind are more than 2^31 - 1"),
    }
}

/// A contiguous argument of a kernel, of so many values.
fn argument<'a, T: CudaDType + DeviceRepr>(
    (storage, layout): (&'a CudaStorage, &Layout),
    count: usize,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end - start == count => {
            Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
        }
        _ => bail!("CUDA kernels: {count} contiguous values are needed, not {layout:?}"),
    }
}

/// The dense weight of rows of codes.
///
/// # Shapes
/// `codes: [rows, row_bytes]` of u8, `levels: [codebooks, 2^bits]` and `scales: [rows]` of f32;
/// result `[rows, row_len]` in the coding's type.
pub(in crate::ops) fn decode(
    (codes, lc): (&CudaStorage, &Layout),
    (levels, ll): (&CudaStorage, &Layout),
    (scales, ls): (&CudaStorage, &Layout),
    coding: &Coding,
) -> Result<CudaStorage> {
    /// By the type of the result's elements.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        codes: (&CudaStorage, &Layout),
        levels: (&CudaStorage, &Layout),
        scales: (&CudaStorage, &Layout),
        k: &Coding,
    ) -> Result<CudaStorage> {
        let device = codes.0.device();
        let counts =
            [k.rows * k.row_bytes(), k.rows.div_ceil(k.rows_per_codebook) << k.bits, k.rows];
        let codes = argument::<u8>(codes, counts[0])?;
        let levels = argument::<f32>(levels, counts[1])?;
        let scales = argument::<f32>(scales, counts[2])?;
        let sizes = [usize::from(k.bits), k.rows_per_codebook, k.row_bytes(), k.row_len];
        let [bits, rows_per_codebook, row_bytes, row_len] = sizes.map(small);
        let (bits, rows_per_codebook) = (bits?, rows_per_codebook?);
        let (row_bytes, row_len) = (row_bytes?, row_len?);
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut out = unsafe { device.alloc::<T>(k.rows * k.row_len)? };
        launch.arg(&mut out).arg(&codes).arg(&levels).arg(&scales);
        launch.arg(&bits).arg(&rows_per_codebook).arg(&row_bytes).arg(&row_len);
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type. Block
        // `row` of `rows` writes `out[row * row_len..][..row_len]`; it reads `scales[row]`, the
        // 2^bits levels of codebook `row / rows_per_codebook`, and of the `row_bytes` bytes of its
        // codes those up to bit `row_len * bits`, which the spans above have. A code is below
        // 2^bits <= 256, the length of the block's table.
        unsafe { launch.launch(grid(k.rows, k.row_len)?) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
    let (codes, levels, scales) = ((codes, lc), (levels, ll), (scales, ls));
    match coding.dtype {
        DType::F32 => with::<f32>("decode_f32", codes, levels, scales, coding),
        DType::F16 => with::<half::f16>("decode_f16", codes, levels, scales, coding),
        DType::BF16 => with::<half::bf16>("decode_bf16", codes, levels, scales, coding),
        other => bail!("packed weights cannot be decoded to {}", other.as_str()),
    }
}

/// The columns of a convolution.
///
/// # Shapes
/// `x: [n, h, w, c]`, contiguous; result `[n oh ow, kh kw c]`.
pub(in crate::ops) fn columns(
    x: &CudaStorage,
    layout: &Layout,
    g: &Geometry,
) -> Result<CudaStorage> {
    /// By the type of the elements, which are only moved.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        x: &CudaStorage,
        layout: &Layout,
        g: &Geometry,
    ) -> Result<CudaStorage> {
        let device = x.device();
        let x = argument::<T>((x, layout), g.n * g.h * g.w * g.c)?;
        let (rows, depth) = (g.n * g.oh() * g.ow(), g.depth());
        // What the kernel adds up: the last line and column that it looks at.
        small((g.oh() * g.stride + g.kh).max(g.ow() * g.stride + g.kw))?;
        small(depth)?;
        let sizes = [g.h, g.w, g.c, g.kh, g.kw, g.oh(), g.ow(), g.stride, g.pad.0, g.pad.1];
        let sizes = sizes.into_iter().map(small).collect::<Result<Vec<_>>>()?;
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut out = unsafe { device.alloc::<T>(rows * depth)? };
        launch.arg(&mut out).arg(&x);
        for size in &sizes {
            launch.arg(size);
        }
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type. Block
        // `pixel` of `n oh ow` writes `out[pixel * depth..][..depth]`; it reads elements of image
        // `pixel / (oh ow) < n` at lines below h and columns below w, which the span above has.
        unsafe { launch.launch(grid(rows, depth)?) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
    match x.dtype() {
        DType::F16 => with::<half::f16>("columns_2", x, layout, g),
        DType::BF16 => with::<half::bf16>("columns_2", x, layout, g),
        DType::F32 => with::<f32>("columns_4", x, layout, g),
        DType::F64 => with::<f64>("columns_8", x, layout, g),
        other => bail!("conv2d: {} are no floats", other.as_str()),
    }
}

/// Sizes and settings of a group norm of maps `[n, pixels, c]`.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Norm {
    pub n: usize,
    pub pixels: usize,
    pub c: usize,
    /// A divisor of `c`.
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
}

impl Norm {
    fn grid(&self) -> Result<LaunchConfig> {
        grid(self.n * self.groups, self.pixels * (self.c / self.groups))
    }

    /// The kernels' last arguments but eps.
    fn sizes(&self) -> Result<[u32; 4]> {
        let [pixels, c, groups] = [self.pixels, self.c, self.groups].map(small);
        Ok([pixels?, c?, groups?, self.silu.into()])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
    fn eps(&self) -> f32 {
        self.eps as f32
    }
}

/// The group norm.
///
/// # Shapes
/// `x: [n, pixels, c]`, `a, b: [n, c]`, contiguous and of one type; result as `x`.
pub(in crate::ops) fn norm(
    x: (&CudaStorage, &Layout),
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    k: &Norm,
) -> Result<CudaStorage> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [x, a, b]: [(&CudaStorage, &Layout); 3],
        k: &Norm,
    ) -> Result<CudaStorage> {
        let device = x.0.device();
        let (map, affine) = (k.n * k.pixels * k.c, k.n * k.c);
        let (x, a, b) =
            (argument::<T>(x, map)?, argument::<T>(a, affine)?, argument::<T>(b, affine)?);
        let (sizes, eps) = (k.sizes()?, k.eps());
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut y = unsafe { device.alloc::<T>(map)? };
        launch.arg(&mut y).arg(&x).arg(&a).arg(&b);
        launch.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&eps).arg(&sizes[3]);
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type. Block
        // `i` of `n groups` reads and writes the pixels and channels of group `i % groups` of
        // image `i / groups` alone, which x, y, a and b have; its threads are not more than the
        // room for their sums.
        unsafe { launch.launch(k.grid()?) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
    }
    match x.0.dtype() {
        DType::F32 => with::<f32>("norm_f32", [x, a, b], k),
        DType::F16 => with::<half::f16>("norm_f16", [x, a, b], k),
        DType::BF16 => with::<half::bf16>("norm_bf16", [x, a, b], k),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}

/// The gradients of `x`, `a` and `b`.
///
/// # Shapes
/// As [`norm`]; `gy` as `x`.
pub(in crate::ops) fn norm_gradient(
    x: (&CudaStorage, &Layout),
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    gy: (&CudaStorage, &Layout),
    k: &Norm,
) -> Result<[CudaStorage; 3]> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [x, a, b, gy]: [(&CudaStorage, &Layout); 4],
        k: &Norm,
    ) -> Result<[CudaStorage; 3]> {
        let device = x.0.device();
        let (map, affine) = (k.n * k.pixels * k.c, k.n * k.c);
        let (x, a, b) =
            (argument::<T>(x, map)?, argument::<T>(a, affine)?, argument::<T>(b, affine)?);
        let gy = argument::<T>(gy, map)?;
        let (sizes, eps) = (k.sizes()?, k.eps());
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut dx = unsafe { device.alloc::<T>(map)? };
        // SAFETY: as above.
        let mut da = unsafe { device.alloc::<T>(affine)? };
        // SAFETY: as above.
        let mut db = unsafe { device.alloc::<T>(affine)? };
        launch.arg(&mut dx).arg(&mut da).arg(&mut db).arg(&x).arg(&a).arg(&b).arg(&gy);
        launch.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&eps).arg(&sizes[3]);
        // SAFETY: as for `norm`, with gy and dx as x, and da and db as a.
        unsafe { launch.launch(k.grid()?) }.w()?;
        Ok([
            CudaStorage::wrap_cuda_slice(dx, device.clone()),
            CudaStorage::wrap_cuda_slice(da, device.clone()),
            CudaStorage::wrap_cuda_slice(db, device.clone()),
        ])
    }
    match x.0.dtype() {
        DType::F32 => with::<f32>("norm_gradient_f32", [x, a, b, gy], k),
        DType::F16 => with::<half::f16>("norm_gradient_f16", [x, a, b, gy], k),
        DType::BF16 => with::<half::bf16>("norm_gradient_bf16", [x, a, b, gy], k),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}
