//! The device to compute on.

#[cfg(feature = "cuda")]
mod gpu;

use core::panic::UnwindSafe;
use std::panic;

pub use candle_core::Device;
#[cfg(feature = "cuda")]
use gpu::new_cuda;

use crate::error::{Error, Result};

/// Opens `cpu`, `cuda` or `cuda:N`; with no name, a GPU where one is built in and present.
///
/// # Errors
/// An unknown name, or a GPU that is not there.
pub fn open(name: Option<&str>) -> Result<Device> {
    open_for(name, 0)
}

/// Opens the device of the `local`-th of several processes on a machine: as [`open`], but the GPU
/// of that number where the name has none.
///
/// # Errors
/// As [`open`]; also with no name, where the machine has GPUs but not this one.
pub fn open_for(name: Option<&str>, local: usize) -> Result<Device> {
    match name {
        name if name == Some("cpu") || name.is_none() && !cfg!(feature = "cuda") => Ok(Device::Cpu),
        None => match cuda(local) {
            Err(error) if local > 0 && cuda(0).is_ok() => Err(error),
            device => Ok(device.unwrap_or(Device::Cpu)),
        },
        Some("cuda") => cuda(local),
        Some(other) => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(ordinal) => cuda(ordinal),
            None => Err(Error::Config(format!("--device {other}: use cpu, cuda or cuda:N"))),
        },
    }
}

/// Lets the matrix units of GPUs read f32 as TF32, with 10 bits of mantissa, in products and
/// convolutions from now on; sums stay f32. The CPU does not change.
pub fn allow_tf32() {
    #[cfg(feature = "cuda")]
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(true);
}

/// The GPU with this number; a machine without CUDA's libraries makes the binding panic.
fn cuda(ordinal: usize) -> Result<Device> {
    #[cfg(not(feature = "cuda"))]
    let new_cuda = Device::new_cuda;
    if !cfg!(feature = "cuda") {
        let hint = "--device cuda: this binary was built without the feature `cuda`; use cpu";
        return Err(Error::Config(hint.into()));
    }
    let fault = |reason: String| Error::Config(format!("--device cuda:{ordinal}: {reason}"));
    match catch(|| new_cuda(ordinal)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(fault(Error::from(error).to_string())),
        Err(reason) => Err(fault(reason)),
    }
}

/// Runs what panics where one of CUDA's libraries is missing; the panic's first sentence is the error.
///
/// Nothing is printed meanwhile, whichever thread panics.
pub(crate) fn catch<T>(f: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(f);
    panic::set_hook(hook);
    result.map_err(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str);
        let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = reason.unwrap_or("CUDA's libraries cannot be used");
        reason.split(" - ").next().unwrap_or(reason).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_sentence() {
        assert_eq!(catch(|| 3), Ok(3));
        let error = catch(|| panic!("no {} - searched: a, b", "library")).map(|()| 0);
        assert_eq!(error, Err("no library".to_string()));
    }

    #[test]
    fn unknown_devices_are_refused() {
        assert!(open(Some("cpu")).unwrap().is_cpu());
        for name in ["gpu", "cuda:", "cuda:x"] {
            let error = open(Some(name)).unwrap_err().to_string();
            assert!(error.contains("use cpu, cuda or cuda:N"), "{error}");
        }
    }
}
