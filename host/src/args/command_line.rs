//! The command line as text.

use std::env;

/// The command line as its user wrote it, the program by its bare name.
pub(crate) fn command_line() -> Vec<String> {
    let given = env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned());
    core::iter::once("fmq".to_string()).chain(given).collect()
}
