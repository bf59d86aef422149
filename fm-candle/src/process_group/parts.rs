//! A set of images cut into parts, which processes share out.

use core::ops::Range;

/// Parts of a set that is no larger than so many of the largest: as many processes can take one.
const PARTS: usize = 64;

/// The parts of a set, cut by its size alone, never by the number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    n: usize,
    step: usize,
}

impl Parts {
    /// Most images of a part, but for `together` beyond it.
    pub const LARGEST: usize = 256;

    /// `n` images in about 64 parts or in parts of 256. Each begins at a multiple of `together`: a solver
    /// with steps of its own choice chooses them for as many images together, which must be the same ones
    /// in any process.
    pub fn of(n: usize, together: usize) -> Self {
        Self::of_size(n, n.div_ceil(PARTS).min(Self::LARGEST), together)
    }

    /// `n` images in parts of `size`, or of the next multiple of `together`.
    pub fn of_size(n: usize, size: usize, together: usize) -> Self {
        Self { n, step: size.max(1).next_multiple_of(together.max(1)) }
    }

    /// The number of parts.
    pub fn count(self) -> usize {
        self.n.div_ceil(self.step)
    }

    /// Images of a part; the last may have fewer.
    pub fn size(self) -> usize {
        self.step
    }

    /// The images of a part; empty from the number of parts on.
    pub fn range(self, number: usize) -> Range<usize> {
        let start = number.saturating_mul(self.step).min(self.n);
        start..start.saturating_add(self.step).min(self.n)
    }

    /// The images of all parts, in order.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count()).map(move |number| self.range(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (n, together) in [(0, 8), (1, 8), (64, 8), (50_000, 8), (50_000, 256), (1000, 20)] {
            let parts = Parts::of(n, together);
            let end = parts.ranges().fold(0, |end, range| {
                assert!(range.start == end && range.start.is_multiple_of(together));
                assert!(!range.is_empty() && range.len() <= Parts::LARGEST);
                range.end
            });
            assert_eq!(end, n);
            assert!(parts.range(parts.count()).is_empty());
        }
        assert_eq!(Parts::of(64, 8).count(), 8);
        assert_eq!(Parts::of(50_000, 8).count(), 196);
        assert_eq!(Parts::of_size(300, 256, 20).range(0), 0..260);
    }
}
