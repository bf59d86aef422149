//! The optimizer's kernels: AdamW, the moving average of the weights, the norm of the gradients.

#![expect(unsafe_code, reason = "every launch of a kernel and every uncleared buffer is unsafe")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor, Var, bail};

use super::kernel;
use super::launch::{argument, small, spread};

/// The state of one parameter of `n` elements: means, squares, and an average of `n` or none.
pub(crate) struct GpuMoments {
    device: CudaDevice,
    mean: CudaSlice<f32>,
    square: CudaSlice<f32>,
    average: Option<CudaSlice<f32>>,
}

impl GpuMoments {
    /// From the host's memory; an empty average is none.
    ///
    /// # Errors
    /// A device without room.
    pub(crate) fn new(device: &CudaDevice, [mean, square, average]: [&[f32]; 3]) -> Result<Self> {
        if mean.len() != square.len() || !average.is_empty() && average.len() != mean.len() {
            bail!("adamw: moments of {}, {}, {}", mean.len(), square.len(), average.len());
        }
        let average = (!average.is_empty()).then(|| device.clone_htod(average)).transpose()?;
        let (mean, square) = (device.clone_htod(mean)?, device.clone_htod(square)?);
        Ok(Self { device: device.clone(), mean, square, average })
    }

    /// Into the host's memory, as [`new`](Self::new) took it.
    ///
    /// # Errors
    /// A device that cannot be read.
    pub(crate) fn read(&self) -> Result<[Vec<f32>; 3]> {
        let average = self.average.as_ref().map(|a| self.device.clone_dtoh(a)).transpose()?;
        let [mean, square] = [&self.mean, &self.square].map(|part| self.device.clone_dtoh(part));
        Ok([mean?, square?, average.unwrap_or_default()])
    }
}

/// The factors of an update; see `train::optimizer`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    pub decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub rate: f32,
    pub bias_correction: f32,
    pub eps: f32,
    pub ema_rate: f32,
}

/// One update of a parameter and its state.
///
/// # Errors
/// A gradient of another shape than the parameter's, or a state of another length.
pub(crate) fn adamw(
    (values, lv): (&mut CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
    state: &mut GpuMoments,
    step: &AdamStep,
) -> Result<()> {
    if lv.shape() != grad.1.shape() {
        bail!("adamw: a gradient of shape {:?} for {:?}", grad.1.dims(), lv.dims());
    }
    let n = lv.shape().elem_count();
    let (device, count) = (values.device().clone(), small(n)?);
    let (Some((start, end)), true) = (lv.contiguous_offsets(), n == state.mean.len()) else {
        bail!("adamw: a contiguous parameter of {} values is needed", state.mean.len());
    };
    if n == 0 {
        return Ok(());
    }
    let mut values = values.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
    let grad = argument::<f32>(grad, n)?;
    let (function, stream) = (kernel("adamw", &device)?, device.cuda_stream());
    let (mut launch, none) = (stream.launch_builder(&function), 0_u64);
    launch.arg(&mut values).arg(&grad).arg(&mut state.mean).arg(&mut state.square);
    match &mut state.average {
        Some(average) => launch.arg(average),
        None => launch.arg(&none),
    };
    launch.arg(&count).arg(&step.decay).arg(&step.beta1).arg(&step.beta2).arg(&step.rate);
    launch.arg(&step.bias_correction).arg(&step.eps).arg(&step.ema_rate);
    // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type; it touches
    // the first `n` elements of each, which all have, and no average where its address is 0.
    unsafe { launch.launch(spread(n)?) }.w()?;
    Ok(())
}

/// `average <- average - rate (average - parameter)`, where an average is kept.
///
/// # Errors
/// A parameter of another length than its state's.
pub(crate) fn ema_update(state: &mut GpuMoments, var: &Var, rate: f32) -> Result<()> {
    let Some(average) = &mut state.average else { return Ok(()) };
    let (storage, layout) = var.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("adamw: a parameter on the CPU") };
    let n = average.len();
    let values = argument::<f32>((storage, layout), n)?;
    let (device, count) = (storage.device(), small(n)?);
    if n == 0 {
        return Ok(());
    }
    let (function, stream) = (kernel("ema_update", device)?, device.cuda_stream());
    let mut launch = stream.launch_builder(&function);
    launch.arg(average).arg(&values).arg(&count).arg(&rate);
    // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type; it touches
    // the first `n` elements of both, which both have.
    unsafe { launch.launch(spread(n)?) }.w()?;
    Ok(())
}

/// The sum of the squares of all elements, in one wait for the device.
///
/// # Errors
/// Tensors that are not f32 on one GPU.
pub(crate) fn sum_of_squares(tensors: &[&Tensor]) -> Result<f64> {
    let Some(device) = tensors.first().map(|tensor| tensor.device()) else { return Ok(0.0) };
    let device = device.as_cuda_device()?;
    let stream = device.cuda_stream();
    let grids = tensors.iter().map(|tensor| spread(tensor.elem_count()));
    let grids = grids.collect::<Result<Vec<_>>>()?;
    let all = grids.iter().map(|grid| grid.grid_dim.0 as usize).sum();
    // SAFETY: the kernels write every element before anyone reads it.
    let mut sums = unsafe { device.alloc::<f32>(all)? };
    let mut start = 0;
    for (tensor, grid) in tensors.iter().zip(grids) {
        let (tensor, blocks) = (tensor.contiguous()?, grid.grid_dim.0 as usize);
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("norm: a gradient on the CPU") };
        let n = tensor.elem_count();
        let (values, count) = (argument::<f32>((storage, layout), n)?, small(n)?);
        let mut part = sums.slice_mut(start..start + blocks);
        let function = kernel("squares", device)?;
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut part).arg(&values).arg(&count);
        // SAFETY: the arguments are those of the kernel in `kernels.cu`, in order and type; it reads
        // `n` elements, which the values have, and each of the `blocks` blocks writes one sum.
        unsafe { launch.launch(grid) }.w()?;
        start += blocks;
    }
    Ok(device.clone_dtoh(&sums)?.into_iter().map(f64::from).sum())
}
