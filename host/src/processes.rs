//! The processes that `mpirun` or `srun` has started to work together; those of other launchers, which
//! would each do it alone, and all into the same files.

use std::env;
use std::sync::Arc;

use anyhow::{Result, bail};
use fm_candle::process_group::{ProcessGroup, SingleProcess};

use crate::error::one_line;

/// Runs this process's part of a command; where it cannot go on, all end.
pub(crate) fn together(run: impl FnOnce(&Arc<dyn ProcessGroup>) -> Result<()>) -> Result<()> {
    let group = join()?;
    let result = run(&group);
    if let Err(error) = &result
        && group.rank().size > 1
    {
        let line = one_line(error);
        eprintln!("error: process {} of {}: {line}", group.rank().index, group.rank().size);
        group.abort();
    }
    result
}

/// This process among those that were started with it; MPI runs only where there are several, so
/// that a process alone needs no MPI at work.
fn join() -> Result<Arc<dyn ProcessGroup>> {
    match started(number) {
        0 | 1 => match strangers(number) {
            None => Ok(Arc::new(SingleProcess)),
            Some(launcher) => bail!(
                "this is one of several processes of {launcher}, and each would work alone: fmq's \
                 work together where mpirun or srun --mpi=pmix starts them and it is built with \
                 --features mpi; else start one"
            ),
        },
        #[cfg(feature = "nccl")]
        _ => Ok(Arc::new(fm_candle::process_group::Nccl::start()?)),
        #[cfg(all(feature = "mpi", not(feature = "nccl")))]
        _ => Ok(Arc::new(fm_candle::process_group::Mpi::start()?)),
        #[cfg(not(feature = "mpi"))]
        size => bail!(
            "this is one of {size} processes that were started to work together, which needs fmq \
             built with --features mpi; start one"
        ),
    }
}

/// This process's number among those on its machine, from 0.
pub(crate) fn local() -> usize {
    let names = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
    let several = started(number) > 1;
    names.into_iter().find_map(number).filter(|_| several).unwrap_or(0)
}

/// The number of processes that the launcher says it has started: Open MPI's mpirun, one that
/// speaks PMI (MPICH's, srun), or srun with PMIx, which tells each its number only.
fn started(number: impl Fn(&str) -> Option<usize>) -> usize {
    let slurm = number("PMIX_RANK").and_then(|_| number("SLURM_STEP_NUM_TASKS"));
    number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE")).or(slurm).unwrap_or(1)
}

/// The launcher that has started several processes without MPI, if one has: torchrun and whoever sets
/// its variables, or srun with `--mpi=none`. Of srun's the first cannot be told from a batch script.
fn strangers(number: impl Fn(&str) -> Option<usize>) -> Option<&'static str> {
    let torchrun = number("RANK").and_then(|_| number("WORLD_SIZE")).is_some_and(|n| n > 1);
    let srun = number("SLURM_PROCID").is_some_and(|process| process > 0);
    match (torchrun, srun) {
        (true, _) => Some("torchrun (RANK, WORLD_SIZE)"),
        (_, true) => Some("srun without --mpi (SLURM_PROCID)"),
        _ => None,
    }
}

/// The environment's value of this name, where it is a number.
fn number(name: &str) -> Option<usize> {
    env::var(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_would_work_alone_are_found() {
        let of = |set: &[(&str, usize)]| {
            strangers(|name| set.iter().find(|(key, _)| *key == name).map(|(_, n)| *n))
        };
        let torchrun = |rank, size| of(&[("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", 0)]);
        assert_eq!(torchrun(0, 1), None);
        assert!(torchrun(0, 2).unwrap().starts_with("torchrun"));
        assert!(torchrun(1, 2).is_some());
        assert_eq!(of(&[("WORLD_SIZE", 2)]), None, "as upstream sees it");
        assert_eq!(of(&[("SLURM_PROCID", 0), ("SLURM_NTASKS", 8)]), None, "a batch script");
        assert!(of(&[("SLURM_PROCID", 3), ("SLURM_NTASKS", 8)]).unwrap().starts_with("srun"));
    }

    #[test]
    fn a_job_without_a_launcher_is_one_process() {
        let of = |set: &[(&str, usize)]| {
            started(|name| set.iter().find(|(key, _)| *key == name).map(|(_, n)| *n))
        };
        assert_eq!(of(&[]), 1);
        assert_eq!(of(&[("SLURM_NTASKS", 8), ("SLURM_STEP_NUM_TASKS", 8)]), 1, "a batch script");
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", 8), ("PMIX_RANK", 3)]), 8);
        assert_eq!(of(&[("PMI_SIZE", 4)]), 4);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", 2), ("PMIX_RANK", 0)]), 2);
    }
}
