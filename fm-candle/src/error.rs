//! The crate's error: every variant prints as one line that names what was at fault.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed inside candle.
    #[error("{}", without_backtrace(.0))]
    Candle(candle_core::Error),
    /// The quantizer or the packed format refused its input.
    #[error(transparent)]
    Quant(#[from] quant_core::Error),
    /// The operating system could not read or write a file.
    #[error("`{}`: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error; part of the message, so not its source as well.
        cause: std::io::Error,
    },
    /// A file was read, but its contents are not what they must be.
    #[error("`{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault, and what would be right.
        reason: String,
    },
    /// A tensor is missing, misshapen or holds values that cannot be used.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Name in the state dict.
        name: String,
        /// The fault, and what would be right.
        reason: String,
    },
    /// A setting, or a combination of settings, that makes no sense.
    #[error("{0}")]
    Config(String),
}

/// candle's message alone: its own display adds frames where `RUST_BACKTRACE` is set.
fn without_backtrace(error: &candle_core::Error) -> &dyn core::fmt::Display {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        other => other,
    }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

// Not `#[from]`, which would make it the source too and print it twice.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl From<quant_core::net::UnknownNet> for Error {
    fn from(error: quant_core::net::UnknownNet) -> Self {
        Self::Config(error.to_string())
    }
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), cause }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.into() }
    }

    /// An [`Error::Tensor`] for the tensor `name`.
    pub fn tensor(name: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_string(), reason: reason.into() }
    }
}
