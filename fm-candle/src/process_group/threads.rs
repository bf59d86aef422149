//! Threads in the place of processes, for tests.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use super::{ProcessGroup, Rank};
use crate::error::Result;

/// The values that the threads exchange.
struct SharedTable {
    values: Mutex<Vec<Vec<f64>>>,
    barrier: Barrier,
}

/// One of the threads.
struct Thread {
    rank: Rank,
    table: Arc<SharedTable>,
}

impl Thread {
    /// The values of all threads, by number.
    fn exchange(&self, own: Vec<f64>) -> Vec<Vec<f64>> {
        self.table.values.lock().unwrap()[self.rank.index] = own;
        self.table.barrier.wait();
        let all = self.table.values.lock().unwrap().clone();
        self.table.barrier.wait();
        all
    }
}

impl ProcessGroup for Thread {
    fn rank(&self) -> Rank {
        self.rank
    }

    #[expect(clippy::cast_possible_truncation, reason = "f32 that were widened")]
    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let all = self.exchange(values.iter().copied().map(f64::from).collect());
        for (at, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|values| values[at] as f32).sum();
        }
        Ok(())
    }

    fn broadcast(&self, from: usize, values: &mut [f64]) -> Result<()> {
        values.copy_from_slice(&self.exchange(values.to_vec())[from]);
        Ok(())
    }

    fn abort(&self) {}
}

/// Does the work in so many threads side by side; its results, by number.
pub(crate) fn run<T: Send>(
    size: usize,
    work: impl Fn(Arc<dyn ProcessGroup>) -> T + Sync,
) -> Vec<T> {
    let table = Arc::new(SharedTable {
        values: vec![Vec::new(); size].into(),
        barrier: Barrier::new(size),
    });
    thread::scope(|scope| {
        let (work, table) = (&work, &table);
        let one = |index| {
            let (rank, table) = (Rank { index, size }, Arc::clone(table));
            scope.spawn(move || work(Arc::new(Thread { rank, table })))
        };
        let threads: Vec<_> = (0..size).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
