//! The best partition of points into `k` clusters, exactly, in linear memory.
//!
//! Add a Lagrange multiplier `λ` for each cluster to the error and take the best partition into any number of
//! clusters, which [`super::monotone_dp`] finds. The least error `D(k)` of `k` clusters is convex, so a
//! greater multiplier means fewer clusters, and a search for `λ` ends at `k`:
//!
//! ```text
//! D(k) - D(k+1) ≤ λ ≤ D(k-1) - D(k)
//! ```
//!
//! (A. Aggarwal, B. Schieber, T. Tokuyama, "Finding a minimum-weight k-link path in graphs with the
//! concave Monge property and applications", Discrete Comput. Geom. 12, 1994; A. Grønlund et al.,
//! "Fast exact k-means, k-medians and Bregman divergence clustering in 1D", arXiv 1701.07204, 2017).
//! For a smooth density `λ ∝ k⁻³`: the search interpolates between logarithms and is mostly done
//! after three to five multipliers. Where `D` has a straight piece, as it has where weights lie on a
//! grid, no multiplier yields the `k` inside it; [`splice`] makes one of the partitions at its two ends.
//!
//! # Exactness
//! Prefix sums are f64 about the mean weight, so partitions whose errors differ by less than about
//! 1e-16 of the total squared deviation may be taken for each other. Whatever rounding does, the
//! search ends and the result is a partition into `k` clusters.

use super::monotone_dp::{LagrangianPoint, MonotoneDp};
use super::points::FitPoints;
use crate::num::{exp2, f64_of, log2, u32_of};
use alloc::vec;
use alloc::vec::Vec;

/// Multipliers tried at most; by then a bracket has halved some thirty times.
const ROUNDS: usize = 64;

/// Multipliers tried before every other one is the slope of a chord of `D`.
const PATIENCE: usize = 8;

/// Counts so close that the chord is the best guess: between two that differ by 2 it is sure.
const NEAR: usize = 4;

/// The largest ratio of multipliers where nothing bounds it, in powers of two.
const WIDEST: f64 = 10.0;

/// The ends of the best `k` clusters, `k` from 1 to the number of points.
pub(super) fn partition(points: &FitPoints<'_>, k: usize) -> Vec<u32> {
    let n = u32_of(points.len());
    if k == 1 {
        return vec![n];
    }
    if k == points.len() {
        return (1..=n).collect();
    }
    let mut dp = MonotoneDp::new(points.rows());
    match search(points, &mut dp, k) {
        Search::Found => dp.ends(),
        Search::Jump { coarse, fine } => {
            let [coarse, fine] = [coarse, fine].map(|point| {
                dp.repeat(point);
                dp.ends()
            });
            splice(&coarse, &fine, k)
        }
    }
}

/// End of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Search {
    /// At a multiplier that yields `k` clusters, which are those of the dynamic programming.
    Found,
    /// Between two multipliers that yield fewer clusters and more.
    Jump { coarse: LagrangianPoint, fine: LagrangianPoint },
}

/// Looks for a multiplier that yields `k` clusters, more than one and fewer than there are points.
fn search(points: &FitPoints<'_>, dp: &mut MonotoneDp<'_>, k: usize) -> Search {
    let n = points.len();
    let deviation = points.squared_deviation();
    // The ends of all multipliers.
    let mut coarse = LagrangianPoint { lambda: f64::INFINITY, count: 1, error: deviation };
    let mut fine = LagrangianPoint { lambda: 0.0, count: n, error: 0.0 };
    let mut lambda = deviation * gaussian_multiplier(k, n);
    let (mut on_chord, mut reach, mut fewer) = (false, 1.0, k > n);
    for round in 0..ROUNDS {
        let inside = |lambda: f64| lambda > fine.lambda && lambda < coarse.lambda;
        if !inside(lambda) {
            // Rounding: the errors say too little, or the multipliers are all tried.
            (on_chord, lambda) = (false, mean_multiplier(coarse, fine));
            if !inside(lambda) {
                break;
            }
        }
        let point = dp.solve(lambda);
        if point.count == k {
            return Search::Found;
        }
        if on_chord && (point.count == coarse.count || point.count == fine.count) {
            break; // both ends are best at this multiplier: D is straight between them
        }
        let same_side = round > 0 && fewer == (point.count < k);
        reach = if same_side { 1.5 * reach } else { 1.0 };
        fewer = point.count < k;
        if fewer {
            coarse = point;
        } else {
            fine = point;
        }

        let bracketed = coarse.lambda.is_finite() && fine.lambda > 0.0;
        let near = bracketed && fine.count - coarse.count <= NEAR;
        on_chord = near || (round > PATIENCE && round % 2 == 0);
        lambda = if on_chord {
            (coarse.error - fine.error) / f64_of(fine.count - coarse.count)
        } else if bracketed {
            multiplier_between(coarse, fine, k, n)
        } else {
            multiplier_beside(point, k, n, reach)
        };
    }
    Search::Jump { coarse, fine }
}

/// The multiplier for `k` clusters of `n` Gaussian points as a part of their squared deviation. By Panter and Dite
/// many clusters of many points each leave `2.72 / k²`, and `λ = -dD/dk`; the corrections for few
/// clusters and for few points per cluster are measured.
fn gaussian_multiplier(k: usize, n: usize) -> f64 {
    let crowding = (f64_of(k) + 0.8) * (1.0 + 1.7 * f64_of(k) / f64_of(n));
    5.44 / (crowding * crowding * crowding)
}

/// The multiplier for `k` clusters if multipliers go as for a Gaussian, but `reach` times as far.
fn multiplier_beside(point: LagrangianPoint, k: usize, n: usize, reach: f64) -> f64 {
    let step = log2(gaussian_multiplier(k, n) / gaussian_multiplier(point.count, n));
    point.lambda * exp2((step * reach).clamp(-WIDEST, WIDEST))
}

/// The multiplier for `k` clusters if `log λ` is a straight line in `log k`, at least a usual step away
/// from either end.
fn multiplier_between(coarse: LagrangianPoint, fine: LagrangianPoint, k: usize, n: usize) -> f64 {
    let (least, most) = (multiplier_beside(fine, k, n, 1.0), multiplier_beside(coarse, k, n, 1.0));
    if least < most {
        let above = |point: LagrangianPoint| log2(f64_of(point.count) / f64_of(k));
        let part = above(coarse) / (above(coarse) - above(fine));
        (coarse.lambda * exp2(part * log2(fine.lambda / coarse.lambda))).clamp(least, most)
    } else {
        mean_multiplier(coarse, fine)
    }
}

/// A multiplier amid two.
fn mean_multiplier(coarse: LagrangianPoint, fine: LagrangianPoint) -> f64 {
    if coarse.lambda.is_infinite() {
        fine.lambda * exp2(WIDEST)
    } else if fine.lambda > 0.0 {
        exp2(f64::midpoint(log2(coarse.lambda), log2(fine.lambda)))
    } else {
        coarse.lambda * exp2(-WIDEST)
    }
}

/// Makes a partition into `k` clusters of `coarse`, one into fewer, and `fine`, one into more.
///
/// With `d = k - coarse.len()` there is a position `s` at which cluster `s` of the coarse partition
/// contains cluster `s + d` of the fine one. Going along the fine one up to the start of its
/// cluster, then to the end of the coarse cluster, and on along the coarse one takes `k` clusters;
/// the two other halves take as many as are left over. By the quadrangle inequality the two new
/// partitions together cost no more than the old ones: if these are best at one multiplier, so are those.
fn splice(coarse: &[u32], fine: &[u32], k: usize) -> Vec<u32> {
    let d = k - coarse.len();
    let contains = |(coarse_end, fine_end): (&u32, &u32)| fine_end <= coarse_end;
    // At the last position at the latest: there the coarse end is that of all points.
    let s = coarse.iter().zip(&fine[d..]).position(contains).unwrap_or(coarse.len() - 1);
    [&fine[..s + d], &coarse[s..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::{f32_of, index};
    use proptest::prelude::*;

    fn error_of(points: &FitPoints<'_>, ends: &[u32]) -> f64 {
        let mut start = 0;
        let errors = ends.iter().map(|&end| {
            let [mass, sum, square] = points.moments(start, index(end));
            start = index(end);
            square - sum * sum / mass
        });
        errors.sum()
    }

    /// The error of `k` clusters.
    fn error(points: &FitPoints<'_>, k: usize) -> f64 {
        let ends = partition(points, k);
        assert!(ends.is_sorted_by(|a, b| a < b) && ends[0] > 0, "{ends:?}");
        assert_eq!((ends.len(), index(ends[k - 1])), (k, points.len()));
        error_of(points, &ends)
    }

    #[test]
    fn splices_where_no_multiplier_yields_k() {
        // Pairs of equal gaps: D falls by the same amount for each pair that is cut.
        let weights: Vec<f32> = (0..12_u8).map(|i| f32::from(10 * (i / 2) + i % 2)).collect();
        let points = FitPoints::new(&weights, None);
        for k in 7..12 {
            let found = search(&points, &mut MonotoneDp::new(points.rows()), k);
            assert!(matches!(found, Search::Jump { .. }), "{k}: {found:?}");
        }
        for k in 6..=12_u8 {
            let least = 0.5 * f64::from(12 - k);
            let found = error(&points, usize::from(k));
            assert!((found - least).abs() < 1e-9, "{k}: {found}");
        }
    }

    #[test]
    fn splice_joins_a_coarse_and_a_fine_partition() {
        let spliced = splice(&[4, 12], &[1, 3, 5, 7, 9, 12], 4);
        assert_eq!(spliced, [1, 3, 5, 12]); // 5..7 lies in 4..12
        assert_eq!(splice(&[12], &[2, 4, 6, 8, 12], 3), [2, 4, 12]);
    }

    #[test]
    fn every_k_is_served_by_one_sort() {
        let weights: Vec<f32> = (0..600).map(|i| f32_of(f64::from(i * i % 607))).collect();
        let points = FitPoints::new(&weights, None);
        let mut before = f64::INFINITY;
        for k in 1..=points.len().min(256) {
            let found = error(&points, k);
            assert!(found < before, "{k}");
            before = found;
        }
    }

    proptest! {
        /// All partitions of few points, by bits that say after which points to cut.
        #[test]
        fn beats_every_partition(
            raw in proptest::collection::vec((-1.0_f32..1.0, 0_u8..4), 1..12),
            grid in prop_oneof![Just(3.0_f32), Just(16.0), Just(1e6)],
            equal in any::<bool>(),
        ) {
            let weights: Vec<f32> = raw.iter().map(|(w, _)| (w * grid).round() / grid).collect();
            let mut importance: Vec<f32> = raw.iter().map(|&(_, h)| f32::from(h)).collect();
            importance[0] = 1.0;
            let points = FitPoints::new(&weights, (!equal).then_some(&importance[..]));
            let n = points.len();
            let mut least = vec![f64::INFINITY; n + 1];
            for cuts in 0..1_u32 << (n - 1) {
                let mut ends: Vec<u32> =
                    (1..n).map(u32_of).filter(|i| cuts >> (i - 1) & 1 == 1).collect();
                ends.push(u32_of(n));
                let least = &mut least[ends.len()];
                *least = least.min(error_of(&points, &ends));
            }
            for (k, least) in least.into_iter().enumerate().skip(1) {
                let found = error(&points, k);
                prop_assert!(found <= least + 1e-13, "{k}: {found} {least}");
            }
        }
    }
}
