//! Our kernels for NVIDIA GPUs, where candle has none or a slow one.
//!
//! The source, [`KERNELS`], is compiled by NVRTC on the machine that runs it, once a process: no
//! compiler is needed there, only NVRTC's library, which comes with CUDA's other libraries and is
//! opened at the first use. [`launch`], [`norm`] and [`rows`] start those of the nets, [`update`] those
//! of the optimizer.

#[cfg(feature = "cudnn")]
mod cudnn;
mod launch;
mod norm;
mod rows;
mod update;

use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, Ptx, compile_ptx};
use candle_core::{CudaDevice, Error, Result};

use crate::device::catch;

#[cfg(feature = "cudnn")]
pub(super) use cudnn::{convolve, convolve_input_gradient, convolve_weight_gradient, takes};
pub(super) use launch::{columns, decode, dropout};
pub(super) use norm::{Norm, modulate, modulate_gradient, norm, norm_gradient};
pub(super) use rows::{add_bias, softmax, softmax_gradient};
pub(crate) use update::{AdamStep, GpuMoments, adamw, ema_update, sum_of_squares};

const KERNELS: &str = concat!(include_str!("kernels.cu"), include_str!("norm.cu"));

/// The kernels in the driver's assembly language, once they are compiled.
static ASSEMBLY: Mutex<Option<String>> = Mutex::new(None);

/// A kernel on a device.
///
/// # Errors
/// NVRTC's library is missing, or it or the driver refuses the source.
fn kernel(name: &str, device: &CudaDevice) -> Result<CudaFunction> {
    let broken = |_| Error::msg("CUDA kernels: another thread failed to compile them");
    let mut assembly = ASSEMBLY.lock().map_err(broken)?;
    let assembly = match &mut *assembly {
        Some(assembly) => assembly,
        missing => missing.insert(compile()?.to_src()),
    };
    Ok(device.get_or_load_custom_func(name, "fmq", assembly)?.into_cuda_function())
}

/// Compiles the source; the binding panics where it finds no library.
fn compile() -> Result<Ptx> {
    match catch(|| compile_ptx(KERNELS)) {
        Ok(Ok(assembly)) => Ok(assembly),
        Ok(Err(CompileError::CompileError { log, .. })) => {
            Err(Error::msg(format!("CUDA kernels: NVRTC says: {}", log.to_string_lossy())))
        }
        Ok(Err(error)) => Err(Error::msg(format!("CUDA kernels: {error}"))),
        Err(reason) => Err(Error::msg(format!(
            "CUDA kernels: {reason}; libnvrtc is part of the CUDA toolkit, and of the pip package \
             nvidia-cuda-nvrtc"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs NVRTC"]
    fn nvrtc_compiles_the_source() {
        let assembly = compile().unwrap().to_src();
        let types = ["f32", "f16", "bf16"];
        let of_types = [
            "decode",
            "norm",
            "norm_gradient",
            "dropout",
            "add_bias",
            "softmax",
            "softmax_gradient",
            "modulate",
            "modulate_gradient",
        ]
        .map(|what| types.map(|t| (what, t)));
        let of_sizes = ["2", "4", "8"].map(|size| ("columns", size));
        for (what, kind) in of_types.concat().into_iter().chain(of_sizes) {
            assert!(assembly.contains(&format!(".entry {what}_{kind}(")), "{what}_{kind}");
        }
        for what in ["adamw", "ema_update", "squares"] {
            assert!(assembly.contains(&format!(".entry {what}(")), "{what}");
        }
    }
}
