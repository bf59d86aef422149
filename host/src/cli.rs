//! The command line: one line per command.

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use crate::args::command_line;
use crate::args::common::Common;
use crate::cmd;
use crate::processes::together;

/// Train, quantize, judge and ship flow-matching image models.
#[derive(Parser)]
#[command(name = "fmq", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(cmd::demo::Args),
    Train(Box<cmd::train::Args>),
    Quantize(cmd::quantize::Args),
    Tune(Box<cmd::tune::Args>),
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

/// Parses a command line, the program's name first; what `--help` and `--version` show is an error too.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let given = command_line::as_text(&args);
    let mut cli = Cli::try_parse_from(command_line::with_dashes(args.into_iter()))?;
    cli.common.command_line = given;
    Ok(cli)
}

/// Runs the command, which prints to `out`.
pub(crate) fn run(cli: &Cli, out: &mut dyn Write) -> Result<()> {
    if let Some(threads) = cli.common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("starting the threads")?;
    }
    let common = &cli.common;
    match &cli.command {
        Command::Demo(args) => cmd::demo::run(args, common, out),
        Command::Train(args) => together(|group| cmd::train::run(args, common, group)),
        Command::Quantize(args) => cmd::quantize::run(args, common, out),
        Command::Tune(args) => together(|group| cmd::tune::run(args, common, group, out)),
        Command::Calibrate(args) => cmd::calibrate::run(args, common, out),
        Command::Unpack(args) => cmd::unpack::run(args),
        Command::Inspect(args) => cmd::inspect::run(args, common, out),
        Command::Velocity(args) => cmd::velocity::run(args, common),
        Command::Sample(args) => together(|group| cmd::sample::run(args, common, &**group)),
        Command::Encode(args) => cmd::encode::run(args, common, out),
        Command::Fid(args) => together(|group| cmd::fid::run(args, common, &**group, out)),
        Command::Sweep(args) => together(|group| cmd::sweep::run(args, common, &**group, out)),
        Command::Latent(args) => cmd::latent::run(args, common, out),
        Command::Export(args) => cmd::export::run(args, common, out),
        Command::TrainLenet(args) => cmd::train_lenet::run(args, common),
        Command::Data(args) => cmd::data::run(args, common, out),
        Command::Completions(args) => cmd::shell::completions(args, Cli::command(), out),
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

    #[test]
    fn every_option_is_known_with_dashes() {
        for command in super::Cli::command().get_subcommands() {
            for option in command.get_arguments() {
                let Some(long) = option.get_long() else { continue };
                let (dashed, others) = (long.replace('_', "-"), option.get_all_aliases());
                let known = long == dashed || others.is_some_and(|all| all.contains(&&*dashed));
                assert!(known, "{} --{long}", command.get_name());
            }
        }
    }
}
