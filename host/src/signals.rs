//! The signals that end a run early: SIGTERM (SLURM's requeue), SIGUSR1 (which mpirun passes on at
//! once) and Ctrl-C.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// The flags that the signals set.
pub(crate) struct Signals {
    asked: Arc<AtomicBool>,
    /// Set while nothing is lost by stopping at once.
    idle: Arc<AtomicBool>,
}

impl Signals {
    /// From now on SIGTERM, SIGUSR1 and Ctrl-C set a flag; a second one stops at once.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals = Self { asked: Arc::default(), idle: Arc::default() };
        for signal in [SIGTERM, SIGUSR1, SIGINT] {
            flag::register_conditional_shutdown(signal, 0, Arc::clone(&signals.idle))?;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.asked))?;
            flag::register(signal, Arc::clone(&signals.asked))?;
        }
        Ok(signals)
    }

    /// Returns true if a signal has come.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Does work that may be cut anywhere, as its run is saved: a signal then ends the program at
    /// once, as a success.
    pub(crate) fn cut_anywhere<T>(&self, work: impl FnOnce() -> T) -> T {
        self.idle.store(true, Ordering::SeqCst);
        let result = work();
        self.idle.store(false, Ordering::SeqCst);
        result
    }
}
