//! `fmq`: train, quantize, judge and ship flow-matching image models.
//!
//! The program is [`main`]; its map is `ARCHITECTURE.md`.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help texts")]
#![allow(clippy::cast_precision_loss, reason = "byte counts and times become floats for people")]

mod args;
mod cli;
mod cmd;
mod embedded;
mod error;
mod export;
mod features;
mod images;
mod output;
mod processes;
mod progress;
mod quantization;
mod rate;
mod report;
#[cfg(unix)]
mod restart;
mod signals;
mod study;

use std::process::ExitCode;

/// Runs the command line that this process was started with: 0 is success, 1 failure, 2 wrong usage.
pub fn main() -> ExitCode {
    #[cfg(unix)]
    restart::with_settings();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        // `fmq inspect FILE | head` is no failure.
        Err(error) if error::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error::one_line(&error));
            if error.is::<error::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
