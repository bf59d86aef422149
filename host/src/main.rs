//! `fmq`: train, quantize, judge and ship flow-matching image models.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help texts")]
#![allow(clippy::cast_precision_loss, reason = "byte counts and times become floats for people")]

mod cli;
mod cmd;
mod embedded;
mod progress;
mod report;
mod study;

use std::process::ExitCode;

/// Tensors come and go by the megabyte; the system's allocator returns their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the causes hold.
            let line = format!("{error:#}").replace('\n', " ");
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}
