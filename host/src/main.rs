//! `fmq`: train, quantize, judge and ship flow-matching image models.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help texts")]
#![allow(clippy::cast_precision_loss, reason = "byte counts and times become floats for people")]

mod cli;
mod cmd;
mod embedded;
mod progress;
mod report;
mod study;

use std::io;
use std::process::ExitCode;

/// Tensors come and go by the megabyte; the system's allocator returns their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether the reader of stdout has gone.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        // `fmq inspect FILE | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the causes hold.
            let line = format!("{error:#}").replace('\n', " ");
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}
