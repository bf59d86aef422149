//! Arguments that several commands share: groups of options, parsers of values, and the types that
//! these make.

pub(crate) mod command_line;
pub(crate) mod common;
pub(crate) mod features;
pub(crate) mod golden;
pub(crate) mod label;
pub(crate) mod method;
pub(crate) mod net;
pub(crate) mod numbers;
pub(crate) mod ode;
pub(crate) mod packed;
pub(crate) mod policy;
pub(crate) mod size;
pub(crate) mod weights;
