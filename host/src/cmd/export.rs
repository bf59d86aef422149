//! `fmq export`: a packed file for a microcontroller, as source, as bytes, or in a project of its own; a
//! net as a folder for a model hub.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgGroup;
use fm_candle::atomic;
use quant_core::format::Model;
use quant_core::method::Method;

use crate::args::common::Common;
use crate::args::packed;
use crate::export::board::Board;
use crate::export::facts::Facts;
use crate::export::hub::{self, HubArgs};
use crate::export::project::{self, EngineSource, Language};
use crate::export::source_code;
use crate::output::new_folder;

/// Turn a packed file into what a microcontroller's program is built with, or a net into a folder for a
/// model hub
#[derive(clap::Args)]
#[command(group = ArgGroup::new("what").required(true).args(["output", "firmware", "hub"]))]
pub(crate) struct Args {
    /// Packed file; with --hub any checkpoint
    #[arg(value_name = "IN.fmq")]
    input: PathBuf,
    /// Output: .h (C), .rs (Rust), .bin (the bytes for a flash address), or .py (a reader of packed files in
    /// Python with numpy)
    #[arg(short, long, value_name = "OUT", value_parser = output)]
    output: Option<ExportJson>,
    /// Write a project that draws an image, ready to build, into this new or empty folder
    #[arg(long, value_name = "DIR")]
    firmware: Option<PathBuf>,
    /// Write a folder as model hubs lay it out into this new or empty folder: model.safetensors,
    /// config.json, packed files, a model card (README.md) and samples
    #[arg(long, value_name = "DIR")]
    hub: Option<PathBuf>,
    /// Language of the project
    #[arg(long, value_enum, default_value_t = Language::Rust, conflicts_with_all = ["output", "hub"])]
    lang: Language,
    /// Board of the project, as QEMU emulates it: Cortex-M4 or M7
    #[arg(long, value_enum, default_value_t = Board::Mps2An386, conflicts_with_all = ["output", "hub"])]
    board: Board,
    /// Solver of the project's program, whose arena the output tells
    #[arg(long, value_parser = on_device, default_value = "euler", conflicts_with = "hub")]
    ode_method: Method,
    /// Steps of the solver
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1 << 24),
        default_value_t = 16,
        conflicts_with = "hub"
    )]
    steps: u32,
    /// Where the project has quant-core from: a folder, a git address, or a version
    /// [default: the folder that fmq was built from]
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["output", "hub"])]
    quant_core: Option<String>,
    #[command(flatten)]
    of_hub: HubArgs,
}

/// An output file and what it becomes.
#[derive(Clone, Debug)]
struct ExportJson {
    path: PathBuf,
    kind: ExportKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExportKind {
    C,
    Rust,
    Bytes,
    Python,
}

/// A reader of packed files, written from their specification.
const READER: &str = include_str!("../../assets/read_fmq.py");

/// The output of this name: what it ends in decides.
fn output(name: &str) -> Result<ExportJson, &'static str> {
    let path = PathBuf::from(name);
    let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
    let kind = match end.as_deref() {
        Some("h") => ExportKind::C,
        Some("rs") => ExportKind::Rust,
        Some("bin") => ExportKind::Bytes,
        Some("py") => ExportKind::Python,
        _ => return Err("the output must end in .h, .rs, .bin or .py"),
    };
    Ok(ExportJson { path, kind })
}

/// A method that a device has.
fn on_device(name: &str) -> Result<Method> {
    let method: Method = name.parse()?;
    if !method.is_on_device() {
        bail!(quant_core::Error::NotOnDevice(method.name()));
    }
    Ok(method)
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    if let Some(dir) = &args.hub {
        let lines = hub::export(dir, &args.input, &args.of_hub, common)?;
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        return Ok(());
    }
    if let Some(output) = &args.output {
        atomic::check_target(&output.path)?;
    }
    if let Some(dir) = &args.firmware {
        new_folder::check(dir)?;
    }
    let named = || format!("`{}`", args.input.display());
    let file = packed::read(&args.input)?;
    let model = Model::parse(&file).with_context(named)?;
    let solver = (args.ode_method, args.steps);
    let facts = Facts::of(&args.input, &file, &model, solver);
    if let Some(dir) = &args.firmware {
        let engine = EngineSource::of(args.quant_core.as_deref())?;
        let project = project::Project { language: args.lang, board: args.board, engine };
        project.check(&facts, file.len()).with_context(named)?;
        project.write(dir, &facts, &file)?;
    }
    if let Some(ExportJson { path, kind }) = &args.output {
        let written = match kind {
            ExportKind::C => source_code::c(&facts, &name(path), &file),
            ExportKind::Rust => source_code::rust(&facts, &file),
            ExportKind::Bytes => file,
            ExportKind::Python => READER.into(),
        };
        atomic::write(path, &written)?;
    }
    facts.lines().iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(())
}

/// The name that a file's contents have in C: its own in small letters, `_` for all that C does not
/// allow, and `_model`, so that it is no keyword.
fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mut name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name + "_model"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_go_by_their_names() {
        assert_eq!(output("a/b.H").unwrap().kind, ExportKind::C);
        assert_eq!(output("b.rs").unwrap().kind, ExportKind::Rust);
        assert_eq!(output("b.v2.bin").unwrap().kind, ExportKind::Bytes);
        assert_eq!(output("read_fmq.py").unwrap().kind, ExportKind::Python);
        for wrong in ["b", "b.c", "b.fmq", ".h", ""] {
            assert!(output(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_names_in_c() {
        for (file, expected) in [
            ("micro-4bit.h", "micro_4bit_model"),
            ("dir/4bit.h", "_4bit_model"),
            ("int.h", "int_model"),
            ("Größe.h", "gr__e_model"),
        ] {
            assert_eq!(name(Path::new(file)), expected);
        }
    }
}
