//! Convolutions of channels-last maps by cuDNN, forward and both backwards.
//!
//! Sums are in f32. The algorithms are those that run on matrix units, give the same bits each time,
//! and take channels last: the implicit product forward, number 1 backwards.

#![expect(
    unsafe_code,
    reason = "every call of a library's kernel and every uncleared buffer is unsafe"
)]

use core::cell::RefCell;
use core::ffi::c_int;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::safe::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t, cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t,
    cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaStorage, DeviceId, gemm_reduced_precision_f32};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Layout, Result, Shape, Storage, Tensor, bail};
use half::{bf16, f16};

use super::launch::{argument, small};
use crate::ops::conv2d::ConvGeometry;

thread_local! {
    /// This thread's handle, which must not go to another.
    static HANDLE: RefCell<Option<(DeviceId, Arc<Cudnn>)>> = const { RefCell::new(None) };
}

/// Returns true if cuDNN takes a convolution: matrix units want channels by eights.
pub(in crate::ops) fn takes(x: &Tensor, g: &ConvGeometry) -> bool {
    let types = matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16);
    let by_eights = |channels: usize| channels.is_multiple_of(8);
    x.device().is_cuda() && types && x.elem_count() > 0 && by_eights(g.c) && by_eights(g.o)
}

/// The convolution.
///
/// # Shapes: `x: [n, h, w, c]`, `w: [o, kh, kw, c]`, both contiguous; result `[n, oh, ow, o]`
pub(in crate::ops) fn convolve(x: &Tensor, w: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    by_type(Pass::Forward, x, w, g)
}

/// Its gradient with regard to `x`.
///
/// # Shapes: `gy: [n, oh, ow, o]`, `w` as for [`convolve`], both contiguous; result `[n, h, w, c]`
pub(in crate::ops) fn convolve_input_gradient(
    gy: &Tensor,
    w: &Tensor,
    g: &ConvGeometry,
) -> Result<Tensor> {
    by_type(Pass::InputGradient, gy, w, g)
}

/// Its gradient with regard to `w`.
///
/// # Shapes: `x: [n, h, w, c]`, `gy: [n, oh, ow, o]`, both contiguous; result `[o, kh, kw, c]`
pub(in crate::ops) fn convolve_weight_gradient(
    x: &Tensor,
    gy: &Tensor,
    g: &ConvGeometry,
) -> Result<Tensor> {
    by_type(Pass::WeightGradient, x, gy, g)
}

/// The direction of a convolution: which of input, weight and result is computed from the other
/// two.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

fn by_type(pass: Pass, a: &Tensor, b: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    let ((sa, la), (sb, lb)) = (a.storage_and_layout(), b.storage_and_layout());
    let (Storage::Cuda(sa), Storage::Cuda(sb)) = (&*sa, &*sb) else {
        bail!("conv2d: tensors on two devices")
    };
    let (a, b) = ((sa, la), (sb, lb));
    match sa.dtype() {
        DType::F32 => run::<f32>(pass, a, b, g, [1.0, 0.0]),
        DType::F16 => run::<f16>(pass, a, b, g, [f16::ONE, f16::ZERO]),
        DType::BF16 => run::<bf16>(pass, a, b, g, [bf16::ONE, bf16::ZERO]),
        other => bail!("conv2d: cuDNN does not compute in {}", other.as_str()),
    }
}

fn run<T: CudaDType + DeviceRepr + CudnnDataType>(
    pass: Pass,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    g: &ConvGeometry,
    [one, zero]: [T; 2],
) -> Result<Tensor> {
    let device = a.0.device();
    let (x, w, y) = ([g.n, g.h, g.w, g.c], [g.o, g.kh, g.kw, g.c], [g.n, g.oh(), g.ow(), g.o]);
    let (of_a, of_b, of_result) = match pass {
        Pass::Forward => (x, w, y),
        Pass::InputGradient => (y, w, x),
        Pass::WeightGradient => (x, y, w),
    };
    let count = |sizes: [usize; 4]| sizes.iter().product::<usize>();
    let (a, b) = (argument::<T>(a, count(of_a))?, argument::<T>(b, count(of_b))?);
    let d = Descriptors::<T>::new(device, g, x, w, y)?;
    // SAFETY: cuDNN writes every element, as the result's old values count zero times.
    let mut out = unsafe { device.alloc::<T>(count(of_result))? };
    let (x, w, y, conv) = (&d.x, &d.w, &d.y, &d.conv);
    match pass {
        Pass::Forward => {
            let call = ConvForward { conv, x, w, y };
            let way = cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
            let mut room = workspace(device, call.get_workspace_size(way)?)?;
            // SAFETY: the spans have the numbers of elements that the descriptors say, in their
            // type; the workspace has the bytes that cuDNN asked for.
            unsafe { call.launch(way, room.as_mut(), (one, zero), &a, &b, &mut out)? };
        }
        Pass::InputGradient => {
            let call = ConvBackwardData { conv, dx: x, w, dy: y };
            let way = cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
            let mut room = workspace(device, call.get_workspace_size(way)?)?;
            // SAFETY: as above.
            unsafe { call.launch(way, room.as_mut(), (one, zero), &mut out, &b, &a)? };
        }
        Pass::WeightGradient => {
            let call = ConvBackwardFilter { conv, x, dw: w, dy: y };
            let way = cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
            let mut room = workspace(device, call.get_workspace_size(way)?)?;
            // SAFETY: as above.
            unsafe { call.launch(way, room.as_mut(), (one, zero), &a, &mut out, &b)? };
        }
    }
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(out, device.clone()));
    Ok(Tensor::from_storage(storage, Shape::from(of_result.to_vec()), BackpropOp::none(), false))
}

/// cuDNN's descriptors of the convolution and of its input, weight and result.
struct Descriptors<T: CudnnDataType> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: CudnnDataType> Descriptors<T> {
    /// The sizes are in the order of the axes in memory.
    fn new(
        device: &CudaDevice,
        g: &ConvGeometry,
        x: [usize; 4],
        w: [usize; 4],
        y: [usize; 4],
    ) -> Result<Self> {
        const LAST: cudnnTensorFormat_t = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let cudnn = handle(device)?;
        // cuDNN names the channels in second place, wherever they lie.
        let named = |[n, h, w, c]: [usize; 4]| -> Result<[c_int; 4]> {
            Ok([int(n)?, int(c)?, int(h)?, int(w)?])
        };
        let (pad, stride) = ([int(g.pad.0)?, int(g.pad.1)?], int(g.stride)?);
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = cudnn.create_conv2d::<f32>(pad, [stride; 2], [1; 2], mode)?;
        let exact = T::DATA_TYPE == f32::DATA_TYPE && !gemm_reduced_precision_f32();
        conv.set_math_type(if exact {
            cudnnMathType_t::CUDNN_FMA_MATH
        } else {
            cudnnMathType_t::CUDNN_TENSOR_OP_MATH
        })?;
        Ok(Self {
            conv,
            x: cudnn.create_4d_tensor(LAST, named(x)?)?,
            w: cudnn.create_4d_filter(LAST, named(w)?)?,
            y: cudnn.create_4d_tensor(LAST, named(y)?)?,
        })
    }
}

fn int(size: usize) -> Result<c_int> {
    Ok(small(size)?.cast_signed())
}

fn workspace(device: &CudaDevice, bytes: usize) -> Result<Option<CudaSlice<u8>>> {
    // SAFETY: cuDNN reads no byte of it that it has not written.
    (bytes > 0).then(|| unsafe { device.alloc::<u8>(bytes) }).transpose()
}

/// This thread's handle for a device.
fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLE.with_borrow_mut(|held| match held {
        Some((id, cudnn)) if *id == device.id() => Ok(cudnn.clone()),
        _ => {
            let cudnn = Cudnn::new(device.cuda_stream())?;
            *held = Some((device.id(), cudnn.clone()));
            Ok(cudnn)
        }
    })
}
