//! The halves of a data set.

use strum::{Display, EnumString, VariantNames};

use crate::error::Error;

/// Half of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown)]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images held back.
    Test,
}

fn unknown(name: &str) -> Error {
    Error::Config(format!("unknown split `{name}`; known are {}", Split::VARIANTS.join(", ")))
}
