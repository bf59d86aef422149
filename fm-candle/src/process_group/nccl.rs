//! Processes whose gradients NCCL averages on their GPUs; MPI connects them for all else.

use core::ffi::c_char;
use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, Device, Layout, Shape, Tensor, bail,
};
use fragile::Fragile;

use super::{Mpi, ProcessGroup, Rank};
use crate::error::{Error, Result};

/// The processes of MPI's world, each with a GPU of its own. Tensors elsewhere go through MPI.
///
/// As [`Mpi`], it belongs to the thread that makes it, and panics in another.
pub struct Nccl {
    /// Of the device of the first tensor; left before MPI is.
    comm: OnceLock<Fragile<Comm>>,
    mpi: Mpi,
}

impl Nccl {
    /// Starts MPI, once in the life of a process; NCCL follows with the first tensor on a GPU.
    ///
    /// # Errors
    /// Those of [`Mpi::start`].
    pub fn start() -> Result<Self> {
        Ok(Self { comm: OnceLock::new(), mpi: Mpi::start()? })
    }

    /// The NCCL communicator of the GPUs: the first process creates its id, and MPI sends it to the
    /// others.
    fn comm(&self, device: &CudaDevice) -> Result<&Comm> {
        if let Some(comm) = self.comm.get() {
            return Ok(comm.get());
        }
        let Rank { index, size } = self.rank();
        let mut name = [0.0; 128];
        if index == 0 {
            name = Id::new().map_err(fault)?.internal().map(f64::from);
        }
        self.broadcast(0, &mut name)?;
        #[expect(clippy::cast_possible_truncation, reason = "bytes, which were sent as they are")]
        let id = Id::uninit(name.map(|byte| byte as c_char));
        let stream = device.cuda_stream();
        // NCCL takes the GPU that is current in the thread.
        stream.context().bind_to_thread().w()?;
        let comm = Comm::from_rank(stream, index, size, id).map_err(fault)?;
        Ok(self.comm.get_or_init(|| Fragile::new(comm)).get())
    }
}

impl ProcessGroup for Nccl {
    fn rank(&self) -> Rank {
        self.mpi.rank()
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.mpi.sum(values)
    }

    fn broadcast(&self, from: usize, values: &mut [f64]) -> Result<()> {
        self.mpi.broadcast(from, values)
    }

    fn mean(&self, values: &Tensor) -> Result<Tensor> {
        let Device::Cuda(device) = values.device() else { return self.mpi.mean(values) };
        Ok(values.apply_op1_no_bwd(&Mean(self.comm(device)?))?)
    }

    fn abort(&self) {
        self.mpi.abort();
    }
}

/// A tensor's mean over all processes.
struct Mean<'a>(&'a Comm);

impl CustomOp1 for Mean<'_> {
    fn name(&self) -> &'static str {
        "nccl_mean"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        bail!("NCCL averages on GPUs only")
    }

    fn cuda_fwd(
        &self,
        values: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("NCCL: contiguous values are needed, not {layout:?}")
        };
        let device = values.device();
        let values = values.as_cuda_slice::<f32>()?.slice(start..end);
        let mut means = device.alloc_zeros::<f32>(end - start)?;
        let sent = self.0.all_reduce(&values, &mut means, &ReduceOp::Avg);
        sent.map_err(|error| candle_core::Error::msg(fault(error)))?;
        Ok((CudaStorage::wrap_cuda_slice(means, device.clone()), layout.shape().clone()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn fault(error: NcclError) -> Error {
    Error::Config(format!(
        "NCCL: {:?}; each process needs a GPU of its own, and NCCL_DEBUG=WARN says more",
        error.0
    ))
}
