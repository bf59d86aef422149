//! The number types that our CPU kernels run on, and their way into a tensor's memory.

use core::ops::Deref;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};

/// A float type of our kernels.
pub(crate) trait Real: WithDType + core::iter::Sum {}

impl Real for f32 {}
impl Real for f64 {}

/// Returns true if our CPU kernels serve a tensor: f32 or f64 in the memory of the CPU.
pub(crate) fn is_ours(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// The type in which sums over many values are taken: f32, or f64 for its own.
pub(crate) fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

/// The elements of a contiguous storage.
pub(crate) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The elements of a tensor, given the guard of [`Tensor::storage_and_layout`].
pub(crate) fn elements<'a, T: Real>(
    guard: &'a (impl Deref<Target = Storage>, &Layout),
) -> Result<&'a [T]> {
    match &*guard.0 {
        Storage::Cpu(storage) => slice(storage, guard.1),
        _ => bail!("a CPU tensor is needed"),
    }
}
