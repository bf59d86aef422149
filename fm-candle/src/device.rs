//! The device to compute on.

use std::panic;

pub use candle_core::Device;

use crate::error::{Error, Result};

/// Opens `cpu`, `cuda` or `cuda:N`; with no name, a GPU where one is built in and present.
///
/// # Errors
/// An unknown name, or a GPU that is not there.
pub fn open(name: Option<&str>) -> Result<Device> {
    open_for(name, 0)
}

/// The same for one of several processes on a machine, the `local`-th: it takes the GPU of that
/// number where the name has none.
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

/// The GPU with this number; a machine without CUDA's libraries makes the binding panic.
fn cuda(ordinal: usize) -> Result<Device> {
    if !cfg!(feature = "cuda") {
        let hint = "--device cuda: this binary was built without the feature `cuda`; use cpu";
        return Err(Error::Config(hint.into()));
    }
    match panic::catch_unwind(|| Device::new_cuda(ordinal)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(Error::Config(format!("--device cuda:{ordinal}: {error}"))),
        Err(_) => Err(Error::Config(format!("--device cuda:{ordinal}: no CUDA library found"))),
    }
}
