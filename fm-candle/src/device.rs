//! The device to compute on.

use std::panic;

pub use candle_core::Device;

use crate::error::{Error, Result};

/// Opens `cpu`, `cuda` or `cuda:N`; with no name, a GPU where one is built in and present.
///
/// # Errors
/// An unknown name, or a GPU that is not there.
pub fn open(name: Option<&str>) -> Result<Device> {
    match name {
        Some("cpu") => Ok(Device::Cpu),
        None => {
            Ok(if cfg!(feature = "cuda") { cuda(0).unwrap_or(Device::Cpu) } else { Device::Cpu })
        }
        Some("cuda") => cuda(0),
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
