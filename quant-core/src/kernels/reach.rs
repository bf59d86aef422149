//! The bounds check of kernels that read lines of words at a stride.

/// True if each of `lines` lines, at least one and `step` words apart, has `len` words in the
/// slice.
#[inline]
pub(super) fn reach(words: &[i32], step: usize, lines: usize, len: usize) -> bool {
    let last = lines.checked_sub(1).and_then(|last| last.checked_mul(step)?.checked_add(len));
    last.is_some_and(|end| end <= words.len())
}
