//! The options that all commands share.

use anyhow::Result;
use clap::Args;
use fm_candle::device::Device;
use fm_candle::process_group::Rank;

use crate::progress::Reporter;

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Where to compute: cpu, cuda or cuda:N [default: cuda if built in and present, else cpu]
    #[arg(long, global = true, value_name = "DEVICE", value_parser = device_name)]
    device: Option<String>,
    /// CPU threads [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
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
    #[arg(long, global = true)]
    no_progress: bool,
    /// The whole command line as its user wrote it, for those who look at its results.
    #[arg(skip)]
    pub(crate) command_line: Vec<String>,
}

impl Common {
    /// The device asked for.
    pub(crate) fn device(&self) -> Result<Device> {
        Ok(fm_candle::device::open(self.device.as_deref())?)
    }

    /// The device of the `local`-th of several processes on this machine.
    pub(crate) fn device_for(&self, local: usize) -> Result<Device> {
        Ok(fm_candle::device::open_for(self.device.as_deref(), local)?)
    }

    /// The device's name as it was given, else what upstream's training calls a CPU.
    pub(crate) fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or("cpu")
    }

    /// The reporter of progress.
    pub(crate) fn progress(&self) -> Reporter {
        Reporter::new(self.quiet, self.no_progress)
    }

    /// A reporter that is silent in all processes but the first.
    pub(crate) fn progress_of(&self, rank: Rank) -> Reporter {
        Reporter::new(self.quiet || rank.index > 0, self.no_progress)
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
