//! Weights of a convolution by output channel, and the epilogue of its sums.

use core::ops::Range;

/// The weight of a convolution, `[o, c, kh, kw]`, output channel by output channel.
pub trait WeightSource: Send + Sync {
    /// The weights of these output channels, `[channels, c, kh, kw]`: where they lie in memory, or
    /// written to `buffer`, which has that size.
    fn rows<'a>(&'a self, channels: Range<usize>, buffer: &'a mut [f32]) -> &'a [f32];
}

/// A weight in memory, borrowed or owned.
pub struct DenseWeight<W> {
    weight: W,
    depth: usize,
}

impl<W: AsRef<[f32]>> DenseWeight<W> {
    /// The weight of output channels of `depth = c kh kw` weights each.
    pub fn new(weight: W, depth: usize) -> Self {
        Self { weight, depth }
    }
}

impl<W: AsRef<[f32]> + Send + Sync> WeightSource for DenseWeight<W> {
    fn rows<'a>(&'a self, channels: Range<usize>, _buffer: &'a mut [f32]) -> &'a [f32] {
        &self.weight.as_ref()[channels.start * self.depth..channels.end * self.depth]
    }
}

/// Epilogue of the sums of a convolution: `bias` and `residual` are added, then comes the relu.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    /// A value for each output channel.
    pub bias: &'a [f32],
    /// A value for each element of the result.
    pub residual: Option<&'a [f32]>,
    /// Results below 0 become 0.
    pub relu: bool,
}

impl Epilogue<'_> {
    /// Applies the relu, if there is one.
    pub(super) fn rectify(self, y: &mut [f32]) {
        if self.relu {
            for y in y {
                *y = y.max(0.0);
            }
        }
    }
}
