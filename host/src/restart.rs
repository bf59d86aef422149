//! The environment that the libraries read when the program starts.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts the program again with settings that its libraries read when they start, unless the user
/// has made them.
///
/// candle's own thread pool spins while it waits and takes the cores from our kernels. The
/// allocator would give memory back to the system between two maps of a net, and have it cleared
/// again. Without both, training and sampling are faster (`docs/results/cpu.md`). A running process
/// cannot set its variables safely. Where the restart fails, the program goes on as it is.
pub(crate) fn with_settings() {
    const SETTINGS: [(&str, &str); 2] =
        [("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1")];
    let open = SETTINGS.into_iter().filter(|(name, _)| env::var_os(name).is_none());
    let open: Vec<_> = open.collect();
    if !open.is_empty()
        && let Ok(program) = env::current_exe()
    {
        let _ = Command::new(program).args(env::args_os().skip(1)).envs(open).exec();
    }
}
