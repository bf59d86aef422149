//! Whether words lie within a slice.

/// Whether so many lines, one at least and `step` words apart, each begin with so many words.
#[inline]
pub(super) fn reach(words: &[i32], step: usize, lines: usize, len: usize) -> bool {
    let last = lines.checked_sub(1).and_then(|last| last.checked_mul(step)?.checked_add(len));
    last.is_some_and(|end| end <= words.len())
}
