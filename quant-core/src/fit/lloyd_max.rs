//! `lloyd-max`: the levels of least mean squared error.
//!
//! One-dimensional k-means, solved exactly. In one dimension the clusters of an optimum are runs of
//! the sorted weights, so dynamic programming finds it. With `x` the distinct weights in ascending
//! order, `c(i, j)` the squared error of `x[i..j]` about its mean, and `D(k, j)` the least error of
//! the first `j` of them in `k` clusters,
//!
//! ```text
//! D(k, j) = min over i of  D(k-1, i) + c(i, j)
//! ```
//!
//! The level is the mean of the cluster, the code its position. Of all tables of K levels none has
//! a smaller mean squared error, and none a smaller 2-Wasserstein distance to the weights. With at
//! most K distinct weights nothing is lost.
//!
//! # Exactness
//! `c` comes from prefix sums in f64 about the mean weight: costs carry an error of about 1e-16 of
//! the total squared deviation, and two partitions closer than that may be taken for each other.
//!
//! # Speed
//! Let `i(k, j)` be the best `i`. Since `c` satisfies the quadrangle inequality,
//! `i(k-1, j) ≤ i(k, j) ≤ i(k, j+1)` (F. F. Yao, "Efficient dynamic programming using quadrangle
//! inequalities", STOC 1980). The first bound is sharp for many clusters, where a layer may be swept
//! from the right in about `2n` steps; for few clusters a layer is first solved at a coarse stride
//! and then halfway between neighbours, each time within their bounds. Both are the same loop with
//! another first stride. There is no recursion.

use super::{Fit, ScratchLen, rank};
use crate::num::{f32_of, f64_of, index, low_u8, u32_of};

/// Sums over the first weights: their number, their sum, the sum of their squares.
type Moments = [f64; 3];

/// What [`fit`] needs for `n` weights and `k` levels; `None` beyond the address space.
pub(super) fn scratch_len(n: usize, k: usize) -> Option<ScratchLen> {
    let points = n.checked_add(1)?;
    let cuts = if n > k { (n - k + 1).checked_mul(k)?.checked_add(k)? } else { n };
    // Three moments per prefix and two layers of costs.
    Some(ScratchLen { keys: n, reals: points.checked_mul(5)?, cuts })
}

/// Fits a group that is not empty; `levels`: `[K]`, `codes`: `[n]`, the rest by [`scratch_len`].
pub(super) fn fit(
    weights: &[f32],
    keys: &mut [u64],
    reals: &mut [f64],
    cuts: &mut [u32],
    levels: &mut [f32],
    codes: &mut [u8],
) -> Fit {
    rank::sort(weights, keys);
    let distinct = keys.chunk_by(|&a, &b| rank::same_weight(a, b)).count();
    let count = levels.len().min(distinct);
    let (ends, cuts) = cuts.split_at_mut(count);
    if count == distinct {
        for (c, end) in ends.iter_mut().enumerate() {
            *end = u32_of(c + 1);
        }
    } else {
        let (moments, costs) = reals.split_at_mut(3 * (distinct + 1));
        let moments = moments.as_chunks_mut().0;
        sum_up(keys, moments);
        partition(moments, costs, cuts, ends);
    }
    assign(keys, ends, levels, codes);
    Fit::Table { levels: count }
}

/// Fills `moments` (`[distinct + 1]`) with the prefix sums of the sorted weights less their mean.
fn sum_up(keys: &[u64], moments: &mut [Moments]) {
    let total: f64 = keys.iter().map(|&key| f64::from(rank::weight(key))).sum();
    let mean = total / f64_of(keys.len());
    let mut sums = [0.0; 3];
    moments[0] = sums;
    let runs = keys.chunk_by(|&a, &b| rank::same_weight(a, b));
    for (moment, run) in moments.iter_mut().skip(1).zip(runs) {
        let x = f64::from(rank::weight(run[0])) - mean;
        let times = f64_of(run.len());
        sums = [sums[0] + times, sums[1] + times * x, sums[2] + times * x * x];
        *moment = sums;
    }
}

/// The squared error of the weights between two prefixes about their mean.
fn cost(from: Moments, to: Moments) -> f64 {
    let [count, sum, square] = [to[0] - from[0], to[1] - from[1], to[2] - from[2]];
    square - sum * sum / count
}

/// Fills `ends` (`[k]`) with the ends of the best `k` clusters of the weights that `moments` sums.
///
/// Layer `l` (from 0) holds `D(l+1, l+1+d)` for `d` in `0..width`: with fewer weights a cluster
/// would be empty, with more there would be too few left for the clusters to come. Its cut `e ≤ d`
/// says that the last cluster starts at `l + e`.
fn partition(moments: &[Moments], costs: &mut [f64], cuts: &mut [u32], ends: &mut [u32]) {
    let width = moments.len() - ends.len();
    let (mut before, rest) = costs.split_at_mut(width);
    let mut after = &mut rest[..width];
    for (d, best) in before.iter_mut().enumerate() {
        *best = cost(moments[0], moments[d + 1]);
    }
    cuts[..width].fill(0);
    for l in 1..ends.len() {
        let (above, below) = cuts.split_at_mut(l * width);
        let layer = Layer { starts: &moments[l..], before, above: &above[(l - 1) * width..] };
        let only_last = l + 1 == ends.len();
        layer.solve(first_stride(width, l), only_last, &mut below[..width], after);
        core::mem::swap(&mut before, &mut after);
    }
    let mut d = width - 1;
    for (l, end) in ends.iter_mut().enumerate().rev() {
        *end = u32_of(l + 1 + d);
        d = index(cuts[l * width + d]);
    }
}

/// The stride at which the sweep from the right costs about `2 · width` steps: the bound from the
/// layer above leaves some `width / l²` candidates.
fn first_stride(width: usize, l: usize) -> usize {
    (width / (l * l)).next_power_of_two()
}

/// One more cluster: everything that the cells of a layer depend on.
struct Layer<'a> {
    /// `starts[e]` sums the weights before a cluster that starts at `l + e`.
    starts: &'a [Moments],
    /// Costs of the layer above.
    before: &'a [f64],
    /// Cuts of the layer above.
    above: &'a [u32],
}

impl Layer<'_> {
    /// Solves the cells at multiples of `stride` from the right end, then those halfway between
    /// neighbours, down to a stride of one; `only_last` stops after the rightmost cell.
    fn solve(&self, mut stride: usize, only_last: bool, cuts: &mut [u32], costs: &mut [f64]) {
        let last = costs.len() - 1;
        let (mut back, mut step) = (0, stride);
        loop {
            while back <= last {
                let d = last - back;
                let high = if back >= stride { index(cuts[d + stride]) } else { d };
                // The cell above has a cluster less: its cut counts from one weight earlier.
                let mut low = index(self.above[(d + 1).min(last)]).saturating_sub(1);
                if step > stride && d >= stride {
                    low = low.max(index(cuts[d - stride]));
                }
                (cuts[d], costs[d]) = self.best(low, high.min(d), d);
                if only_last {
                    return;
                }
                back += step;
            }
            if stride == 1 {
                return;
            }
            step = stride;
            stride /= 2;
            back = stride;
        }
    }

    /// The best cut of cell `d` between `low` and `high`, the first on ties, and its cost.
    fn best(&self, low: usize, high: usize, d: usize) -> (u32, f64) {
        let low = low.min(high); // rounding may cross the bounds
        let end = self.starts[d + 1];
        let (mut cut, mut least) = (low, f64::INFINITY);
        let candidates = self.before[low..=high].iter().zip(&self.starts[low..=high]);
        for (e, (&before, &start)) in candidates.enumerate() {
            let total = before + cost(start, end);
            if total < least {
                (cut, least) = (low + e, total);
            }
        }
        (u32_of(cut), least)
    }
}

/// Writes the mean of each cluster to `levels` and its position to the codes of its weights.
/// `ends` counts distinct weights.
fn assign(keys: &[u64], ends: &[u32], levels: &mut [f32], codes: &mut [u8]) {
    let mut runs = keys.chunk_by(|&a, &b| rank::same_weight(a, b));
    let mut start = 0;
    for (c, (&end, level)) in ends.iter().zip(levels).enumerate() {
        let (mut sum, mut count) = (0.0, 0);
        for run in runs.by_ref().take(index(end - start)) {
            sum += f64::from(rank::weight(run[0])) * f64_of(run.len());
            count += run.len();
            for &key in run {
                codes[rank::position(key)] = low_u8(c);
            }
        }
        *level = f32_of(sum / f64_of(count));
        start = end;
    }
}

#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests {
    use super::super::{Fitter, Group};
    use super::*;
    use crate::scheme::Scheme;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn squared_error(weights: &[f32], bits: u8) -> f64 {
        let mut fitter = Fitter::new();
        let group = Group { weights, bits, numel: weights.len() };
        let fitted = fitter.fit(Scheme::LloydMax, &group).unwrap();
        let pairs = weights.iter().zip(fitted.dequantized(weights));
        pairs.map(|(&w, v)| (f64::from(w) - f64::from(v)).powi(2)).sum()
    }

    /// The recurrence as written, over all cuts.
    fn by_definition(weights: &[f32], k: usize) -> f64 {
        let mut x: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        x.sort_by(f64::total_cmp);
        let error = |run: &[f64]| {
            let mean = run.iter().sum::<f64>() / f64_of(run.len().max(1));
            run.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let mut best: Vec<f64> = (0..=x.len()).map(|j| error(&x[..j])).collect();
        for _ in 1..k {
            best = (0..=x.len())
                .map(|j| (0..=j).map(|i| best[i] + error(&x[i..j])).fold(f64::INFINITY, f64::min))
                .collect();
        }
        best[x.len()]
    }

    #[test]
    fn finds_the_obvious_clusters() {
        let weights = [10.0, 0.0, 1.0, 11.0, -1.0, 20.0, 30.0];
        let need = scratch_len(7, 4).unwrap();
        let (mut keys, mut reals) = (vec![0; need.keys], vec![0.0; need.reals]);
        let (mut cuts, mut levels, mut codes) = (vec![0; need.cuts], [0.0; 4], [9; 7]);
        fit(&weights, &mut keys, &mut reals, &mut cuts, &mut levels, &mut codes);
        assert_eq!(levels, [0.0, 10.5, 20.0, 30.0]);
        assert_eq!(codes, [1, 0, 0, 1, 0, 2, 3]);
    }

    #[test]
    fn few_distinct_weights_lose_nothing() {
        let weights = [0.5, 0.1, 0.5, 0.1, -7.0, -7.0, 0.3, 0.3, 0.3];
        assert_eq!(squared_error(&weights, 2).to_bits(), 0);
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            bits in 1_u8..=4,
            raw in proptest::collection::vec(-1.0_f32..1.0, 1..60),
            grid in prop_oneof![Just(8.0_f32), Just(1e6)],
        ) {
            // A coarse grid makes ties.
            let weights: Vec<f32> = raw.iter().map(|w| (w * w * w * grid).round() / grid).collect();
            let found = squared_error(&weights, bits);
            let least = by_definition(&weights, 1 << bits);
            prop_assert!((found - least).abs() <= 1e-9 * least + 1e-13, "{found} {least}");
        }
    }
}
