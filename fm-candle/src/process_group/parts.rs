//! A set of images cut into parts, which processes share out.

use core::ops::Range;

/// Most parts of a set of at most `PARTS * LARGEST` images.
const PARTS: usize = 64;

/// Consecutive parts of a set of images, all of one size but the last. Each begins at a multiple of a given
/// number: an adaptive solver chooses its steps for so many images together, which must be the same ones in any
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageParts {
    n: usize,
    step: usize,
}

impl ImageParts {
    /// Images of a part, at most, before rounding up.
    pub const LARGEST: usize = 256;

    /// `n` images in at most 64 parts, or in parts of 256 where that makes more: `ceil(n / 64)`, at most 256,
    /// rounded up to a multiple of `together`.
    pub fn of(n: usize, together: usize) -> Self {
        Self::of_size(n, n.div_ceil(PARTS).min(Self::LARGEST), together)
    }

    /// `n` images in parts of `size`, rounded up to a multiple of `together`.
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
            let parts = ImageParts::of(n, together);
            let end = parts.ranges().fold(0, |end, range| {
                assert!(range.start == end && range.start.is_multiple_of(together));
                assert!(!range.is_empty() && range.len() <= ImageParts::LARGEST);
                range.end
            });
            assert_eq!(end, n);
            assert!(parts.range(parts.count()).is_empty());
        }
        assert_eq!(ImageParts::of(64, 8).count(), 8);
        assert_eq!(ImageParts::of(50_000, 8).count(), 196);
        assert_eq!(ImageParts::of_size(300, 256, 20).range(0), 0..260);
    }
}
