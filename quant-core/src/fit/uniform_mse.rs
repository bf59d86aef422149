//! `uniform-mse`: equal steps of least mean squared error.
//!
//! As `uniform`, but the first and the last level need not be the least and the greatest weight:
//! what lies beyond them is clipped, and the steps between are finer for it.
//!
//! ```text
//! minimize over min and scale  Σ_i h_i (w_i - value_i)²,   value_i the level nearest to w_i
//! levels: code · scale + min, code = 0..K, within the range of the weights
//! ```
//!
//! `h` is the importance. The error of a grid is computed from prefix sums of the sorted points: a
//! binary search for each boundary between levels, `O(K log n)` in all. The search is
//!
//! 1. coarse: first and last level at quantiles that halve from 1/2 down to a single weight, each
//!    with each, so that one-sided and heavy-tailed weights start well too;
//! 2. a pattern search over both ends, of steps that halve;
//! 3. in turns, the line of least squares through weights over codes, and new codes, until the
//!    error falls no more.
//!
//! The error has many local minima, so this finds a good grid, not certainly the best; but none
//! worse than that of `uniform`, which wins ties. What `uniform` copies is copied here.

use super::fitted::{Fit, Fitted};
use super::points::FitPoints;
use super::uniform;
use crate::codebook::Affine;
use crate::num::{f32_of, f64_of, index, low_u8, u32_of, u32_of_real};
use alloc::vec::Vec;
use core::mem::replace;

/// The smallest step of the pattern search, as a part of the scale.
const FINEST: f64 = 1.0 / 256.0;

/// Directions in which the pattern search moves both ends.
const DIRECTIONS: [(f64, f64); 8] = [
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (-1.0, 1.0),
    (1.0, -1.0),
    (-1.0, -1.0),
    (1.0, 1.0),
];

/// Rounds of least squares at most.
const TURNS: usize = 32;

/// `k` levels for a group that is not empty.
pub(super) fn fit(weights: &[f32], importance: Option<&[f32]>, k: usize) -> Fitted {
    let uniform = uniform::fit(weights, k);
    if uniform.fit == Fit::Copied {
        return uniform;
    }
    let error = |fitted: &Fitted| -> f64 {
        let errors = weights.iter().zip(fitted.dequantized(weights));
        let errors = errors.map(|(&w, value)| f64::from(w) - f64::from(value));
        match importance {
            None => errors.map(|e| e * e).sum(),
            Some(all) => errors.zip(all).map(|(e, &h)| f64::from(h) * e * e).sum(),
        }
    };
    let points = FitPoints::new(weights, importance);
    let clipped = nearest(best(&points, k).rounded(&points), weights, k);
    // Judged by the weights themselves, prefix sums being less exact.
    let finite = clipped.levels.iter().all(|level| level.is_finite());
    if finite && error(&clipped) < error(&uniform) { clipped } else { uniform }
}

/// The levels of a grid, and for each weight the code of the nearest.
fn nearest(affine: Affine, weights: &[f32], k: usize) -> Fitted {
    let Affine { min, scale } = affine;
    let last = f64_of(k - 1);
    let code = |w: f32| {
        let at = (f64::from(w) - f64::from(min)) / f64::from(scale) + 0.5;
        low_u8(index(u32_of_real(at.clamp(0.0, last + 0.5))))
    };
    Fitted {
        fit: Fit::Affine(affine),
        levels: affine.levels(k),
        codes: weights.iter().map(|&w| code(w)).collect(),
    }
}

/// A grid in f64, less the mean weight: the first level and the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    first: f64,
    last: f64,
    levels: usize,
    error: f64,
}

impl Grid {
    /// The grid between the least and the greatest weight, and its error.
    fn whole(points: &FitPoints<'_>, levels: usize) -> Self {
        let (first, last) = points.range();
        let grid = Self { first, last, levels, error: 0.0 };
        Self { error: grid.cells(points).map(|cell| cell.error).sum(), ..grid }
    }

    /// The grid of as many levels between two, which may be given in any order; its error counts as
    /// infinite once it exceeds that of this grid.
    fn rival(&self, points: &FitPoints<'_>, a: f64, b: f64) -> Self {
        let (least, greatest) = points.range();
        let (first, last) = (a.min(b).max(least), a.max(b).min(greatest));
        let mut grid = Self { first, last, error: 0.0, ..*self };
        for cell in grid.cells(points) {
            grid.error += cell.error;
            if grid.error > self.error {
                grid.error = f64::INFINITY;
                break;
            }
        }
        grid
    }

    fn scale(&self) -> f64 {
        (self.last - self.first) / f64_of(self.levels - 1)
    }

    /// Takes the place of this grid if its error is less.
    fn improve(&mut self, rival: Self) -> bool {
        let better = rival.error < self.error;
        if better {
            *self = rival;
        }
        better
    }

    /// The points that each level takes.
    fn cells(self, points: &FitPoints<'_>) -> impl Iterator<Item = Cell> {
        let scale = self.scale();
        let mut start = 0;
        (0..self.levels).map(move |code| {
            let value = self.first + f64_of(code) * scale;
            let end = if code + 1 < self.levels {
                points.below(start, value + 0.5 * scale)
            } else {
                points.len()
            };
            let [mass, sum, square] = points.moments(start, end);
            let error = square - (2.0 * sum - mass * value) * value;
            Cell { start: replace(&mut start, end), end, code: f64_of(code), mass, sum, error }
        })
    }

    /// The line of least squares through the weights over their codes; `None` if all have one code.
    fn line(self, points: &FitPoints<'_>) -> Option<Self> {
        let [mut mass, mut codes, mut squares, mut sum, mut products] = [0.0; 5];
        for cell in self.cells(points) {
            mass += cell.mass;
            codes += cell.mass * cell.code;
            squares += cell.mass * cell.code * cell.code;
            sum += cell.sum;
            products += cell.sum * cell.code;
        }
        let deviation = squares - codes * codes / mass;
        let scale = (products - codes * sum / mass) / deviation;
        let first = (sum - scale * codes) / mass;
        let last = first + scale * f64_of(self.levels - 1);
        (deviation > 0.0 && scale > 0.0).then(|| self.rival(points, first, last))
    }

    /// The ends of the runs of points that levels take, less those that take none.
    pub(super) fn ends(self, points: &FitPoints<'_>) -> Vec<u32> {
        let taken = self.cells(points).filter(|cell| cell.start < cell.end);
        taken.map(|cell| u32_of(cell.end)).collect()
    }

    fn rounded(self, points: &FitPoints<'_>) -> Affine {
        Affine { min: f32_of(self.first + points.mean()), scale: f32_of(self.scale()) }
    }
}

/// The points of a level.
struct Cell {
    /// The first point and the one after the last.
    start: usize,
    end: usize,
    code: f64,
    mass: f64,
    sum: f64,
    /// The squared error.
    error: f64,
}

/// A grid of little error.
pub(super) fn best(points: &FitPoints<'_>, levels: usize) -> Grid {
    let mut best = Grid::whole(points, levels);
    let rarest = 1.0 / f64_of(points.len());
    let tails = || {
        core::iter::successors(Some(0.5), |tail| Some(0.5 * tail)).take_while(|&tail| tail > rarest)
    };
    for below in tails() {
        for above in tails() {
            let (first, last) = (points.quantile(below), points.quantile(1.0 - above));
            best.improve(best.rival(points, first, last));
        }
    }
    let mut move_by = (best.last - best.first) / 16.0;
    while move_by > FINEST * best.scale() {
        let Grid { first, last, .. } = best;
        let mut better = false;
        for (a, b) in DIRECTIONS {
            better |= best.improve(best.rival(points, first + a * move_by, last + b * move_by));
        }
        if !better {
            move_by *= 0.5;
        }
    }
    for _ in 0..TURNS {
        if !best.line(points).is_some_and(|line| best.improve(line)) {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::{Group, fit};
    use super::{Affine, Vec, nearest};
    use crate::bits::tests::{any_width, width};
    use crate::noise::Stream;
    use crate::num::{abs, log2};
    use crate::scheme::Scheme;
    use proptest::prelude::*;
    use std::vec;

    fn error_of(scheme: Scheme, group: &Group<'_>) -> f64 {
        let fitted = fit(scheme, group).unwrap();
        let values = fitted.dequantized(group.weights);
        let errors = group.weights.iter().zip(values).map(|(&w, v)| f64::from(w) - f64::from(v));
        match group.importance {
            None => errors.map(|e| e * e).sum(),
            Some(all) => errors.zip(all).map(|(e, &h)| f64::from(h) * e * e).sum(),
        }
    }

    fn normals(n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        Stream::new(8, 3).fill_normal(0, 0, &mut values);
        values
    }

    #[test]
    fn reaches_the_best_step_for_gaussians() {
        // Signal over noise in dB of the best uniform quantizer of a Gaussian (J. Max, 1960).
        let table = [(2, 9.25), (3, 14.27), (4, 19.38), (5, 24.57), (6, 29.83), (8, 40.57)];
        let weights = normals(20_000);
        let signal: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        for (bits, expected) in table {
            let error = error_of(Scheme::UniformMse, &Group::new(&weights, width(bits)));
            let found = 10.0 * log2(signal / error) / log2(10.0);
            // The tail of a sample decides at 8 bits: 0.4 dB is its standard deviation.
            let tolerance = if bits == 8 { 0.4 } else { 0.1 };
            assert!(abs(found - expected) < tolerance, "{bits}: {found}, not {expected}");
        }
    }

    #[test]
    fn clips_outliers_on_either_side() {
        for sign in [1.0, -1.0] {
            let mut weights = normals(2000);
            weights.push(40.0 * sign);
            let group = Group::new(&weights, width(4));
            let [own, uniform] = [Scheme::UniformMse, Scheme::Uniform].map(|s| error_of(s, &group));
            // Under `uniform` the outlier alone widens the steps to 2.7 standard deviations.
            assert!(own < 0.7 * uniform, "{own} {uniform}");
        }
    }

    #[test]
    fn finds_a_skew_range() {
        let weights: Vec<f32> = normals(2000).iter().map(|w| w * w).collect();
        let group = Group::new(&weights, width(4));
        let mut least = f64::INFINITY;
        for first in 0..20_u8 {
            for last in 20..120_u8 {
                let [min, last] = [first, last].map(|x| f32::from(x) / 10.0);
                let grid = nearest(Affine { min, scale: (last - min) / 15.0 }, &weights, 16);
                let values = weights.iter().zip(grid.dequantized(&weights));
                let errors = values.map(|(&w, v)| f64::from(w - v).powi(2));
                least = least.min(errors.sum());
            }
        }
        let found = error_of(Scheme::UniformMse, &group);
        assert!(found <= least, "{found} {least}");
    }

    proptest! {
        #[test]
        fn is_never_worse_than_uniform(
            bits in any_width(),
            raw in proptest::collection::vec((-1.0_f32..1.0, 0_u8..4), 1..150),
            grid in prop_oneof![Just(4.0_f32), Just(1e6)],
            equal in any::<bool>(),
        ) {
            let weights: Vec<f32> =
                raw.iter().map(|(w, _)| (w * w * w * grid).round() / grid).collect();
            let mut importance: Vec<f32> = raw.iter().map(|&(_, h)| f32::from(h)).collect();
            importance[0] = 1.0;
            let importance = (!equal).then_some(&importance[..]);
            let group = Group { importance, ..Group::new(&weights, bits) };
            let [own, uniform] = [Scheme::UniformMse, Scheme::Uniform].map(|s| error_of(s, &group));
            prop_assert!(own <= uniform, "{own} {uniform}");
        }
    }
}
