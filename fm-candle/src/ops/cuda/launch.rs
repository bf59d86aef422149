//! The launches: what a kernel reads and writes is asserted here, then it is started.

#![expect(unsafe_code, reason = "every launch of a kernel and every uncleared buffer is unsafe")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaStorage, DType, Layout, Result, bail};

use super::kernel;
use crate::ops::conv2d::ConvGeometry;
use crate::ops::decode::Decode;
use crate::ops::mask::Mask;

/// Most threads of a block, as the kernels of the norm have room for.
pub(super) const THREADS: usize = 256;

/// Most blocks of a launch whose threads take several elements each.
pub(super) const BLOCKS: usize = 4096;

/// Threads for `n` elements, each of which may fall to any.
pub(super) fn spread(n: usize) -> Result<LaunchConfig> {
    Ok(LaunchConfig {
        grid_dim: (small(n.div_ceil(THREADS).clamp(1, BLOCKS))?, 1, 1),
        block_dim: (small(THREADS)?, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A block for each of `rows` rows, or groups, of `len` values.
pub(super) fn grid(rows: usize, len: usize) -> Result<LaunchConfig> {
    let threads = len.next_multiple_of(32).clamp(32, THREADS);
    Ok(LaunchConfig {
        grid_dim: (small(rows)?, 1, 1),
        block_dim: (small(threads)?, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A count as the kernels take it. All sizes of one kind fit a signed 32-bit number, so sums of
/// two do not wrap around, and neither does the number of blocks exceed what CUDA allows.
pub(super) fn small(count: usize) -> Result<u32> {
    match i32::try_from(count) {
        Ok(count) => Ok(count.unsigned_abs()),
        Err(_) => bail!("CUDA kernels: {count} values of one kind are more than 2^31 - 1"),
    }
}

/// A contiguous argument of a kernel, of so many values.
pub(super) fn argument<'a, T: CudaDType + DeviceRepr>(
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
/// result `[rows, row_len]` in the type of `sizes`.
pub(in crate::ops) fn decode(
    (codes, lc): (&CudaStorage, &Layout),
    (levels, ll): (&CudaStorage, &Layout),
    (scales, ls): (&CudaStorage, &Layout),
    sizes: &Decode,
) -> Result<CudaStorage> {
    /// By the type of the result's elements.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        codes: (&CudaStorage, &Layout),
        levels: (&CudaStorage, &Layout),
        scales: (&CudaStorage, &Layout),
        k: &Decode,
    ) -> Result<CudaStorage> {
        let device = codes.0.device();
        let counts = [
            k.rows * k.row_bytes(),
            k.rows.div_ceil(k.rows_per_codebook) * k.bits.code_count(),
            k.rows,
        ];
        let codes = argument::<u8>(codes, counts[0])?;
        let levels = argument::<f32>(levels, counts[1])?;
        let scales = argument::<f32>(scales, counts[2])?;
        let sizes = [usize::from(k.bits.get()), k.rows_per_codebook, k.row_bytes(), k.row_len];
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
    match sizes.dtype {
        DType::F32 => with::<f32>("decode_f32", codes, levels, scales, sizes),
        DType::F16 => with::<half::f16>("decode_f16", codes, levels, scales, sizes),
        DType::BF16 => with::<half::bf16>("decode_bf16", codes, levels, scales, sizes),
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
    g: &ConvGeometry,
) -> Result<CudaStorage> {
    /// By the type of the elements, which are only moved.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        x: &CudaStorage,
        layout: &Layout,
        g: &ConvGeometry,
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

/// Dropout; see [`Mask`].
///
/// # Shapes: `x: [images, ..]`, contiguous; result as `x`
pub(in crate::ops) fn dropout(
    x: &CudaStorage,
    layout: &Layout,
    mask: &Mask,
    p: f64,
) -> Result<CudaStorage> {
    /// By the type of the elements.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        x: &CudaStorage,
        layout: &Layout,
        mask: &Mask,
        p: f64,
    ) -> Result<CudaStorage> {
        let device = x.device();
        let count = layout.shape().elem_count();
        let x = argument::<T>((x, layout), count)?;
        let images = layout.dims().first().copied().unwrap_or(1);
        let len = count / images.max(1);
        let blocks = len.div_ceil(4 * THREADS);
        let (sizes, [key_low, key_high]) = ([len, blocks].map(small), mask.stream.key());
        let ([len, blocks], domain) = (sizes, mask.stream.domain());
        let (len, blocks) = (len?, blocks?);
        let (first, step) = (mask.images.0 as u64, mask.images.1 as u64);
        #[expect(clippy::cast_possible_truncation, reason = "the kernel computes in f32")]
        let (least, scale) = (p as f32, (1.0 / (1.0 - p)) as f32);
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut y = unsafe { device.alloc::<T>(count)? };
        launch.arg(&mut y).arg(&x).arg(&len).arg(&blocks).arg(&key_low).arg(&key_high);
        launch.arg(&domain).arg(&mask.base).arg(&first).arg(&step).arg(&least).arg(&scale);
        let config = LaunchConfig {
            grid_dim: (small(images * blocks as usize)?, 1, 1),
            block_dim: (small(THREADS)?, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type. Blocks
        // `k blocks` to `(k + 1) blocks` have 4 THREADS elements each of image `k < images`, and
        // read and write of x and y the first `len` of them alone, which both have.
        unsafe { launch.launch(config) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
    }
    match x.dtype() {
        DType::F32 => with::<f32>("dropout_f32", x, layout, mask, p),
        DType::F16 => with::<half::f16>("dropout_f16", x, layout, mask, p),
        DType::BF16 => with::<half::bf16>("dropout_bf16", x, layout, mask, p),
        other => bail!("dropout: no kernel for {}", other.as_str()),
    }
}
