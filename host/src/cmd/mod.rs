//! The subcommands: a file each, with its arguments and its run.

pub(crate) mod arch;
pub(crate) mod train;
