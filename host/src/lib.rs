//! `fmq`: train, quantize, judge and ship flow-matching image models.
//!
//! The program is [`main`]; [`run`] is one command line of it, for programs in Rust:
//!
//! ```
//! # fn main() -> anyhow::Result<()> {
//! let mut out = Vec::new();
//! fmq::run(["inspect", "assets/mnist-micro.safetensors", "--json"], &mut out)?;
//! let found: serde_json::Value = serde_json::from_slice(&out)?;
//! assert_eq!(found["parameters"], 289_316);
//! # Ok(())
//! # }
//! ```
//!
//! The map of the crate is `ARCHITECTURE.md`.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help texts")]
#![allow(clippy::cast_precision_loss, reason = "byte counts and times become floats for people")]

mod args;
mod cli;
mod cmd;
mod drawing;
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
mod sample_parts;
mod settings;
mod signals;
mod study;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs one command line, without the program's name, and writes to `out` what the command prints to
/// standard output: with `--json` one object. Progress goes to standard error.
///
/// `--threads` sets the number for the whole process, so it works only before anything was computed.
/// `train` and `tune` watch for signals from then on. Start the process with `CANDLE_NUM_THREADS=1`, as
/// the program does with itself: else threads of candle that wait take the cores from ours.
///
/// # Errors
///
/// Any failure of the command: unreadable or damaged input, values that make no sense, output that cannot
/// be written; `{error:#}` is its message in one line. Wrong usage is a [`clap::Error`].
pub fn run<A>(args: A, out: &mut dyn Write) -> anyhow::Result<()>
where
    A: IntoIterator<Item: Into<OsString>>,
{
    let args = args.into_iter().map(Into::into);
    match cli::parse(core::iter::once("fmq".into()).chain(args).collect()) {
        Ok(cli) => cli::run(&cli, out),
        Err(error) if error.use_stderr() => Err(error.into()),
        Err(help) => Ok(write!(out, "{}", help.render())?),
    }
}

/// Runs the command line that this process was started with: 0 is success, 1 failure, 2 wrong usage.
pub fn main() -> ExitCode {
    #[cfg(unix)]
    restart::with_settings();
    let cli = cli::parse(env::args_os().collect()).unwrap_or_else(|error| error.exit());
    match cli::run(&cli, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // `fmq inspect FILE | head` is no failure.
        Err(error) if error::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error::one_line(&error));
            if error.is::<error::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
