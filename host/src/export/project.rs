//! A folder with everything that a program for a board is built from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use quant_core::infer::STACK_BYTES;

use crate::error::Usage;
use crate::export::board::{self, Board};
use crate::export::facts::Facts;
use crate::export::source_code;
use crate::output::new_folder;

/// The language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    C,
}

/// A template: the file's name in the project, and its text with names in double braces.
type Template = (&'static str, &'static str);

macro_rules! template {
    ($name:literal, $path:literal) => {
        ($name, include_str!(concat!("../../assets/firmware/", $path)))
    };
}

const RUST: &[Template] = &[
    template!("Cargo.toml", "rust/firmware.toml"),
    template!(".cargo/config.toml", "rust/config.toml"),
    template!("build.rs", "rust/build.rs"),
    template!("memory.x", "rust/memory.x"),
    template!("src/main.rs", "rust/main.rs"),
    template!("src/board.rs", "rust/board.rs"),
    template!("src/model.rs", "rust/model.rs"),
    template!("src/picture.rs", "rust/picture.rs"),
    ("Cargo.lock", LOCK),
];

const C: &[Template] = &[
    template!("Makefile", "c/Makefile"),
    template!("memory.ld", "c/memory.ld"),
    template!("link.ld", "c/link.ld"),
    template!("startup.c", "c/startup.c"),
    template!("console.c", "c/console.c"),
    template!("console.h", "c/console.h"),
    template!("picture.h", "c/picture.h"),
    template!("main.c", "c/main.c"),
    template!("model.S", "c/model.S"),
    template!("fmq/Cargo.toml", "c/fmq.toml"),
    template!("fmq/lib.rs", "c/lib.rs"),
    ("fmq/Cargo.lock", LOCK),
    ("fmq.h", quant_core::C_HEADER),
];

/// The versions that the tests of the firmware are built with; cargo drops what a project does not use.
const LOCK: &str = include_str!("../../assets/firmware/firmware.lock");

/// The source of quant-core in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineSource {
    Folder(PathBuf),
    Git(String),
    Version(String),
}

impl EngineSource {
    /// Source that an argument names, or the folder that this program was built from.
    pub(crate) fn of(given: Option<&str>) -> Result<Self> {
        let built_from = concat!(env!("CARGO_MANIFEST_DIR"), "/../quant-core");
        let text = given.unwrap_or(built_from);
        if text.contains("://") || text.starts_with("git@") {
            return Ok(Self::Git(text.to_string()));
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) && !Path::new(text).exists() {
            return Ok(Self::Version(text.to_string()));
        }
        if !Path::new(text).join("Cargo.toml").is_file() {
            let usage = match given {
                Some(text) => format!("--quant-core {text}: must be quant-core's folder, a git address, or a version"),
                None => "the folder that fmq was built from is gone: say by --quant-core where quant-core is".into(),
            };
            return Err(Usage(usage).into());
        }
        let folder = fs::canonicalize(text).with_context(|| format!("`{text}`"))?;
        Ok(Self::Folder(folder))
    }

    /// The entry of a dependency in a `Cargo.toml`.
    fn entry(&self) -> Result<String> {
        // A string of JSON is one of TOML.
        let (key, value) = match self {
            Self::Folder(path) => ("path", serde_json::to_string(path)?),
            Self::Git(url) => ("git", serde_json::to_string(url)?),
            Self::Version(version) => ("version", serde_json::to_string(version)?),
        };
        Ok(format!("{key} = {value}"))
    }
}

/// A project to write.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) language: Language,
    pub(crate) board: Board,
    pub(crate) engine: EngineSource,
}

impl Project {
    /// Writes the project for a packed file that was [checked](Self::check) into the folder `dir`, which
    /// was [checked](new_folder::check), too.
    pub(crate) fn write(&self, dir: &Path, facts: &Facts, file: &[u8]) -> Result<()> {
        new_folder::write(dir, |made| {
            for (name, contents) in self.files(facts)? {
                write(&made.join(name), contents.as_bytes())?;
            }
            write(&made.join("model.fmq"), file)
        })
    }

    /// Refuses a file of `bytes` bytes that does not draw, or that the board has no room for.
    pub(crate) fn check(&self, facts: &Facts, bytes: usize) -> Result<()> {
        let Some(drawing) = &facts.drawing else {
            bail!("holds no net with an image size, which a program that draws needs");
        };
        let board = self.board.name();
        for (what, needed, there) in [
            ("bytes of flash for the model", bytes, board::MODEL.1),
            ("bytes of RAM", drawing.ram_bytes(), board::RAM.1),
        ] {
            if needed > there {
                bail!("takes {needed} {what}: {board} has {there}");
            }
        }
        Ok(())
    }

    /// Names and contents of the source files.
    fn files(&self, facts: &Facts) -> Result<Vec<(&'static str, String)>> {
        let number = |number: usize| format!("{number:#x}");
        let integer = facts.drawing.is_some_and(|drawing| drawing.is_integer());
        let arithmetic = if integer { "integer" } else { "float" };
        let values = [
            ("BOARD", self.board.name().to_string()),
            ("TARGET", self.board.target().to_string()),
            ("CPU", self.board.cpu().to_string()),
            ("QUANT_CORE", self.engine.entry()?),
            // A program links what its file takes: one arithmetic, and `log` codebooks if it has some.
            ("FEATURES", if facts.log { ", features = [\"log\"]" } else { "" }.to_string()),
            (
                "CAPI_FEATURES",
                format!("\"capi-{arithmetic}\"{}", if facts.log { ", \"log\"" } else { "" }),
            ),
            ("FLASH_AT", number(board::FLASH.0)),
            ("FLASH_LEN", number(board::FLASH.1)),
            ("MODEL_AT", number(board::MODEL.0)),
            ("MODEL_LEN", number(board::MODEL.1)),
            ("RAM_AT", number(board::RAM.0)),
            ("RAM_LEN", number(board::RAM.1)),
            ("STACK_BYTES", number(STACK_BYTES)),
        ];
        let fill = |text: &str| {
            values.iter().fold(text.to_string(), |text, (name, value)| {
                text.replace(&format!("{{{{{name}}}}}"), value)
            })
        };
        let (templates, plan) = match self.language {
            Language::Rust => {
                let text =
                    source_code::rust_comment(facts) + "\n" + &facts.rust() + &facts.rust_method();
                (RUST, ("src/plan.rs", text))
            }
            Language::C => {
                let text = source_code::c_comment(facts) + "\n" + &facts.c("PLAN");
                (C, ("plan.h", text))
            }
        };
        let files = templates.iter().map(|&(name, text)| (name, fill(text)));
        Ok(files.chain([plan]).collect())
    }
}

/// Writes a file, and the folder that it lies in.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let named = || format!("`{}`", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(named)?;
    }
    fs::write(path, bytes).with_context(named)
}

#[cfg(test)]
mod tests {
    use quant_core::method::Method;

    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let source = |text| EngineSource::of(Some(text)).unwrap().entry().unwrap();
        assert_eq!(source("https://example.org/fmq.git"), r#"git = "https://example.org/fmq.git""#);
        assert_eq!(source("0.1"), r#"version = "0.1""#);
        assert!(
            source(concat!(env!("CARGO_MANIFEST_DIR"), "/../quant-core")).starts_with("path = \"/")
        );
        assert!(EngineSource::of(None).is_ok());
        assert!(EngineSource::of(Some("no/such/folder")).unwrap_err().is::<Usage>());
    }

    #[test]
    fn templates_leave_no_name_open() {
        let facts = Facts::of(Path::new("a.fmq"), &[], &empty(), (Method::Euler, 16));
        for language in [Language::Rust, Language::C] {
            for board in [Board::Mps2An386, Board::Mps2An500] {
                let engine = EngineSource::Version("0.1".into());
                let files = Project { language, board, engine }.files(&facts).unwrap();
                for (name, text) in files {
                    assert!(!text.contains("{{") || name == "src/board.rs", "{name}:\n{text}");
                }
            }
        }
    }

    fn empty() -> quant_core::format::Model<'static> {
        let writer =
            quant_core::format::Writer::new(Vec::new(), &quant_core::format::Head::default());
        let file = writer.unwrap().into_file().unwrap();
        quant_core::format::Model::parse(file.leak()).unwrap()
    }
}
