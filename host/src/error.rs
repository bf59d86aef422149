//! Errors of usage, errors as one line, and the one that is no failure.

use std::io;

/// Arguments that do not go together; the program exits with 2, as for those that are wrong alone.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl core::fmt::Display for Usage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Usage {}

/// An error as one line, whatever its causes hold.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// Returns true if the reader of stdout has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
