//! Limits on the size and depth of a pickle, and the result of reading one.

/// A result whose error says why a pickle, or a value in it, is refused.
pub(super) type Result<T> = core::result::Result<T, String>;

/// Longest pickle of a checkpoint in bytes; upstream's largest needs half of one MiB.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
/// Most values in the arena, on the stack and in the memo; a tensor takes about nine.
pub(super) const MAX_VALUES: usize = 1 << 20;
/// Deepest container around a tensor.
pub(super) const MAX_DEPTH: usize = 64;
/// Most names of foreign classes that are noted down.
pub(super) const MAX_FOREIGN: usize = 64;
/// Longest dotted name of a tensor in bytes.
pub(super) const MAX_NAME: usize = 1024;
