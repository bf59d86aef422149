//! The weights to quantize, and threads to fit them on.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

/// Source of a tensor's weights, row-major.
pub trait WeightSlices: Sync {
    /// Number of weights.
    fn count(&self) -> usize;

    /// Weights at some positions.
    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]>;
}

impl WeightSlices for [f32] {
    fn count(&self) -> usize {
        self.len()
    }

    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        Cow::Borrowed(self.get(range).unwrap_or(&[]))
    }
}

/// Map over independent pieces of work, perhaps on several threads.
pub trait ParallelMap {
    /// Results of the pieces `0..count`, in order.
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T>;
}

/// Map on one thread.
pub(super) struct Sequential;

impl ParallelMap for Sequential {
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        (0..count).map(work).collect()
    }
}
