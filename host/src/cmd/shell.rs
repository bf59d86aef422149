//! `fmq completions` and `fmq man`: the command line, for shells and for `man`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use fm_candle::atomic;

use crate::output::folder::check_place;

/// Print the completions of a shell
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual's pages, one for each command
#[derive(clap::Args)]
pub(crate) struct Manual {
    /// Folder for the pages
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completions of `command`.
pub(crate) fn completions(
    args: &Completions,
    mut command: Command,
    out: &mut dyn Write,
) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fmq", &mut script);
    Ok(out.write_all(&script)?)
}

/// Writes the pages of `command` and of its subcommands.
pub(crate) fn manual(args: &Manual, mut command: Command) -> Result<()> {
    let folder = &args.dir;
    check_place(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("creating `{}`", folder.display()))?;
    // Passes the common options on to the subcommands.
    command.build();
    let pages = command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned();
    for page in pages.chain([command.clone()]) {
        let name = match page.get_name() {
            "fmq" => "fmq".to_string(),
            sub => format!("fmq-{sub}"),
        };
        let page = Man::new(page.display_name(&name));
        atomic::write_with(&folder.join(format!("{name}.1")), |out| {
            page.render(out).map_err(io::Error::other)
        })?;
    }
    Ok(())
}
