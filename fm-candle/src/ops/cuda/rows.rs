//! The launches of the kernels that run over rows: adding a bias, the softmax and its gradient.

#![expect(unsafe_code, reason = "every launch of a kernel and every uncleared buffer is unsafe")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaStorage, DType, Layout, Result, bail};
use half::{bf16, f16};

use super::kernel;
use super::launch::{argument, grid, small, spread};

/// An operation on rows of `len` values.
#[derive(Clone, Copy)]
enum RowOp {
    /// `y = x + b`, `b: [len]`.
    AddBias,
    /// `y = softmax(x)`.
    Softmax,
    /// `dx = y (gy - sum gy y)` of `y` and `gy`.
    SoftmaxGradient,
}

/// `x + b`.
///
/// # Shapes: `x: [.., len]`, `b: [len]`, contiguous and of one type; result as `x`
pub(in crate::ops) fn add_bias(
    x: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    by_type(RowOp::AddBias, x, Some(b))
}

/// The softmax along the last axis.
///
/// # Shapes: `x: [.., len]`, contiguous; result as `x`
pub(in crate::ops) fn softmax(x: (&CudaStorage, &Layout)) -> Result<CudaStorage> {
    by_type(RowOp::Softmax, x, None)
}

/// The gradient of the softmax's argument.
///
/// # Shapes: `y, gy: [.., len]`, contiguous and of one type; result as `y`
pub(in crate::ops) fn softmax_gradient(
    y: (&CudaStorage, &Layout),
    gy: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    by_type(RowOp::SoftmaxGradient, y, Some(gy))
}

fn by_type(
    pass: RowOp,
    x: (&CudaStorage, &Layout),
    other: Option<(&CudaStorage, &Layout)>,
) -> Result<CudaStorage> {
    match x.0.dtype() {
        DType::F32 => run::<f32>(pass, "f32", x, other),
        DType::F16 => run::<f16>(pass, "f16", x, other),
        DType::BF16 => run::<bf16>(pass, "bf16", x, other),
        other => bail!("rows: no kernel for {}", other.as_str()),
    }
}

fn run<T: CudaDType + DeviceRepr>(
    pass: RowOp,
    dtype: &str,
    x: (&CudaStorage, &Layout),
    other: Option<(&CudaStorage, &Layout)>,
) -> Result<CudaStorage> {
    let (device, count) = (x.0.device(), x.1.shape().elem_count());
    let len = x.1.dims().last().copied().unwrap_or(1);
    let x = argument::<T>(x, count)?;
    let other_len = if matches!(pass, RowOp::AddBias) { len } else { count };
    let other = other.map(|other| argument::<T>(other, other_len)).transpose()?;
    let name = match pass {
        RowOp::AddBias => "add_bias",
        RowOp::Softmax => "softmax",
        RowOp::SoftmaxGradient => "softmax_gradient",
    };
    let function = kernel(&format!("{name}_{dtype}"), device)?;
    let (stream, n, width) = (device.cuda_stream(), small(count)?, small(len)?);
    // SAFETY: the kernels write every element before anyone reads it.
    let mut y = unsafe { device.alloc::<T>(count)? };
    if count > 0 {
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut y).arg(&x);
        if let Some(other) = &other {
            launch.arg(other);
        }
        let grid = match pass {
            RowOp::AddBias => {
                launch.arg(&n);
                spread(count)?
            }
            _ => grid(count / len, len)?,
        };
        launch.arg(&width);
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type. All
        // arrays have `count` elements, `count / len` rows, but for the bias, which has `len`; each
        // block of the softmax takes a row, with no more threads than there is room for sums.
        unsafe { launch.launch(grid) }.w()?;
    }
    Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
}
