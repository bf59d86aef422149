//! The command line: what all commands share, and one line per command.

use std::env;
use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use fm_candle::device::Device;
use fm_candle::train::Rank;

use crate::cmd;
use crate::progress::Progress;

/// Train, quantize, judge and ship flow-matching image models.
#[derive(Parser)]
#[command(name = "fmq", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Where to compute: cpu, cuda or cuda:N [default: cuda if built in and present, else cpu]
    #[arg(long, global = true, value_name = "DEVICE", value_parser = device_name)]
    device: Option<String>,
    /// CPU threads [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Seed of everything random
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Print errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// No progress bars (automatic when stderr is no terminal)
    #[arg(long, alias = "no_progress", global = true)]
    no_progress: bool,
}

impl Common {
    /// The device asked for.
    pub(crate) fn device(&self) -> Result<Device> {
        Ok(fm_candle::device::open(self.device.as_deref())?)
    }

    /// The same for the `local`-th of several processes on this machine.
    pub(crate) fn device_for(&self, local: usize) -> Result<Device> {
        Ok(fm_candle::device::open_for(self.device.as_deref(), local)?)
    }

    /// The device's name as it was given, else what upstream's training calls a CPU.
    pub(crate) fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or("cpu")
    }

    /// The reporter of progress.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.quiet, self.no_progress)
    }

    /// The same for one of several processes, of which the first alone reports.
    pub(crate) fn progress_of(&self, rank: Rank) -> Progress {
        Progress::new(self.quiet || rank.index > 0, self.no_progress)
    }
}

/// `cpu`, `cuda` or `cuda:N`.
fn device_name(text: &str) -> Result<String, &'static str> {
    let numbered = |text: &str| text.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
    if ["cpu", "cuda"].contains(&text) || numbered(text) {
        Ok(text.to_string())
    } else {
        Err("expected cpu, cuda or cuda:N")
    }
}

#[derive(Subcommand)]
enum Command {
    Demo(cmd::demo::Args),
    Train(Box<cmd::train::Args>),
    Quantize(cmd::quantize::Args),
    Calibrate(cmd::calibrate::Args),
    Unpack(cmd::unpack::Args),
    Inspect(cmd::inspect::Args),
    Velocity(cmd::velocity::Args),
    Sample(cmd::sample::Args),
    Encode(cmd::encode::Args),
    Fid(Box<cmd::fid::Args>),
    Sweep(Box<cmd::sweep::Args>),
    Latent(cmd::latent::Args),
    Export(cmd::export::Args),
    TrainLenet(cmd::train_lenet::Args),
    Data(cmd::data::Args),
    Completions(cmd::shell::Completions),
    Man(cmd::shell::Manual),
}

/// Arguments that do not go together; the program exits with 2, as for those that are wrong alone.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl core::fmt::Display for Usage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Usage {}

/// The command line as its user wrote it, the program by its bare name.
pub(crate) fn command_line() -> Vec<String> {
    let given = env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned());
    core::iter::once("fmq".to_string()).chain(given).collect()
}

/// An error as one line, whatever its causes hold.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// Parses the arguments (wrong usage exits with 2) and runs the command.
pub(crate) fn run() -> Result<()> {
    let cli = Cli::parse();
    if let Some(threads) = cli.common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("starting the threads")?;
    }
    let mut out = io::stdout().lock();
    match &cli.command {
        Command::Demo(args) => cmd::demo::run(args, &cli.common, &mut out),
        Command::Train(args) => cmd::train::run(args, &cli.common),
        Command::Quantize(args) => cmd::quantize::run(args, &cli.common, &mut out),
        Command::Calibrate(args) => cmd::calibrate::run(args, &cli.common, &mut out),
        Command::Unpack(args) => cmd::unpack::run(args),
        Command::Inspect(args) => cmd::inspect::run(args, &mut out),
        Command::Velocity(args) => cmd::velocity::run(args, &cli.common),
        Command::Sample(args) => cmd::sample::run(args, &cli.common),
        Command::Encode(args) => cmd::encode::run(args, &cli.common, &mut out),
        Command::Fid(args) => cmd::fid::run(args, &cli.common, &mut out),
        Command::Sweep(args) => cmd::sweep::run(args, &cli.common, &mut out),
        Command::Latent(args) => cmd::latent::run(args, &cli.common, &mut out),
        Command::Export(args) => cmd::export::run(args, &mut out),
        Command::TrainLenet(args) => cmd::train_lenet::run(args, &cli.common),
        Command::Data(args) => cmd::data::run(args, &cli.common, &mut out),
        Command::Completions(args) => cmd::shell::completions(args, Cli::command(), &mut out),
        Command::Man(args) => cmd::shell::manual(args, Cli::command()),
    }?;
    out.flush().context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
