//! A GPU as fmq uses it: one stream for all threads, and memory that is kept.

#![expect(unsafe_code, reason = "event tracking and the memory pool have no safe interface")]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::{CudaDevice, Device, Result};

/// Opens the GPU of this number.
///
/// candle's own device has a stream for each thread, whose orders do not wait for each other's; ours
/// has one, so that work may move between threads.
pub(super) fn new_cuda(ordinal: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: events order the uses of memory on different streams. This device was just opened with a stream
    // of its own, its clones share it, and nothing here asks its context for another: all kernels, copies and
    // frees of its tensors are put on that one stream, which runs them in the order of the calls.
    unsafe { device.disable_event_tracking() };
    keep_memory(&device)?;
    Ok(Device::Cuda(device))
}

/// Memory that is freed stays with the process for the next tensor; by default the driver gives it
/// back whenever someone waits for the device, and mapping it again costs more than most kernels.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut most = u64::MAX;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: `cu_device` is the device of a context that `stream` keeps open, and `pool` is that device's own,
    // which lives as long as the driver. The release threshold is a `cuuint64_t`: `most` is one, it lives until
    // the end of this function, and the driver reads it during the call only.
    unsafe {
        let pool = device::get_default_mem_pool(context.cu_device()).w()?;
        mem_pool::set_attribute(pool, attribute, (&raw mut most).cast()).w()
    }
}
