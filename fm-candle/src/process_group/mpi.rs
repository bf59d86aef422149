//! Processes that MPI connects, started by `mpirun` or `srun`.

use std::thread;

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use super::{ProcessGroup, Rank};
use crate::error::{Error, Result};

/// The processes of MPI's world. MPI is left when this is dropped.
///
/// Only the thread that makes it may call what needs the others, and drop it (`MPI_THREAD_FUNNELED`).
pub struct Mpi {
    universe: Universe,
    rank: Rank,
}

impl Mpi {
    /// Starts MPI, once in the life of a process.
    ///
    /// # Errors
    /// MPI that has been started already, or that knows no threads; where it cannot start at all, its
    /// library says why and ends the process.
    pub fn start() -> Result<Self> {
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled)
        else {
            return Err(Error::Config("MPI has been started already".into()));
        };
        if threading < Threading::Funneled {
            let reason = "this MPI library allows no threads beside its own; build it with them";
            return Err(Error::Config(reason.into()));
        }
        let world = universe.world();
        let count = |n: i32| usize::try_from(n).unwrap_or_default();
        let rank = Rank { index: count(world.rank()), size: count(world.size()) };
        Ok(Self { universe, rank })
    }
}

impl ProcessGroup for Mpi {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let mut sums = vec![0.0; values.len()];
        self.universe.world().all_reduce_into(values, &mut sums, SystemOperation::sum());
        values.copy_from_slice(&sums);
        Ok(())
    }

    fn broadcast(&self, from: usize, values: &mut [f64]) -> Result<()> {
        let none = |_| Error::Config(format!("there is no process of number {from}"));
        let from = i32::try_from(from).map_err(none)?;
        self.universe.world().process_at_rank(from).broadcast_into(values);
        Ok(())
    }

    fn abort(&self) {
        self.universe.world().abort(1)
    }
}

impl Drop for Mpi {
    /// A process that panics must not wait for the others, which know nothing of it.
    fn drop(&mut self) {
        if thread::panicking() {
            self.abort();
        }
    }
}
