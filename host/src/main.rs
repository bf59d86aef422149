//! `fmq`: train, quantize, judge and ship flow-matching image models.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help texts")]
#![allow(clippy::cast_precision_loss, reason = "byte counts and times become floats for people")]

mod args;
mod cli;
mod cmd;
mod embedded;
mod error;
mod export;
mod images;
mod output;
mod processes;
mod progress;
mod quantization;
mod rate;
mod report;
mod signals;
mod study;

#[cfg(unix)]
use std::env;
use std::io;
use std::process::ExitCode;

/// Tensors come and go by the megabyte; the system's allocator returns their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns true if the reader of stdout has gone.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Starts the program again with settings that its libraries read when they start, unless the user
/// has made them.
///
/// candle's own thread pool spins while it waits and takes the cores from our kernels. The
/// allocator would give memory back to the system between two maps of a net, and have it cleared
/// again. Without both, training and sampling are faster (`docs/results/cpu.md`). A running process
/// cannot set its variables safely. Where the restart fails, the program goes on as it is.
#[cfg(unix)]
fn restart_with_settings() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

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

fn main() -> ExitCode {
    #[cfg(unix)]
    restart_with_settings();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        // `fmq inspect FILE | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error::one_line(&error));
            if error.is::<error::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
