//! What a caller brings: weights, and threads to fit them on.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

/// The weights of a tensor, row-major, wherever they are.
pub trait Weights: Sync {
    /// Their number.
    fn count(&self) -> usize;

    /// Some of them.
    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]>;
}

impl Weights for [f32] {
    fn count(&self) -> usize {
        self.len()
    }

    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        Cow::Borrowed(self.get(range).unwrap_or(&[]))
    }
}

/// Runs independent pieces of work, perhaps on several threads.
pub trait ParallelMap {
    /// The results of pieces `0..count`, in order.
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T>;
}

/// One piece after the other.
pub(super) struct Sequential;

impl ParallelMap for Sequential {
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        (0..count).map(work).collect()
    }
}
