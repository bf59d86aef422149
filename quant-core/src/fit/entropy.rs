//! `ecq`: entropy-constrained quantization.
//!
//! Codes that an entropy coder stores cost their entropy, not their width. So with at most K levels
//!
//! ```text
//! minimize  J = D/σ² + λ H     D = Σ h_i (w_i - level[code_i])² / Σ h_i
//!                              H = -Σ_c p_c log2 p_c,  p_c the part of the weights with code c
//! ```
//!
//! `h` is the importance and `σ²` the variance by importance, so `λ` has no scale; `H` counts every
//! weight once, since every code is stored. `λ = 0` is `lloyd-max`.
//!
//! # Descent
//! Codes are runs of the sorted points, and `J` is a sum over runs, so it never rises as in turns
//!
//! 1. each boundary between two runs goes where the two together cost least, sought in strides that
//!    halve down to a single point; means and parts follow at once, where Lloyd's iteration would
//!    hold them and shift all boundaries by them;
//! 2. where no boundary moves, neighbouring runs are merged for as long as that lowers `J`, the best
//!    pair first.
//!
//! It starts from the runs of `lloyd-max`, and again from equal steps, which are nearly best at high
//! rates (H. Gish, J. Pierce, "Asymptotically efficient quantizing", IEEE Trans. Inf. Theory 14,
//! 1968); the lower `J` is kept. Source: P. Chou, T. Lookabaugh, R. Gray, "Entropy-constrained vector
//! quantization", IEEE Trans. ASSP 37, 1989.

use super::fitted::{Fit, Fitted};
use super::partition::partition;
use super::points::FitPoints;
use super::{lloyd_max, uniform_mse};
use crate::num::{index, log2, u32_of};
use alloc::vec::Vec;
use core::mem::replace;

/// Rounds of descent at most.
const ROUNDS: usize = 500;

/// A boundary moves only if that lowers the cost of its two runs by more than this part of it.
const ENOUGH: f64 = 1e-8;

/// At most `k` levels for the points of a group.
pub(super) fn fit(points: &FitPoints<'_>, lambda: f64, k: usize) -> Fitted {
    let deviation = points.squared_deviation();
    if !(lambda > 0.0 && deviation > 0.0) {
        return lloyd_max::fit(points, k);
    }
    let lagrangian = Lagrangian::new(points, lambda, deviation);
    let mut ends = partition(points, k.min(points.len()));
    let least = lagrangian.descend(points, &mut ends);
    let mut rival = uniform_mse::best(points, k).ends(points);
    if lagrangian.descend(points, &mut rival) < least {
        ends = rival;
    }
    Fitted { fit: Fit::Table, levels: points.means(&ends), codes: points.codes(&ends) }
}

/// Start and end of each run of points, by the ends.
fn runs(ends: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    ends.iter().map(move |&end| (replace(&mut start, index(end)), index(end)))
}

/// The cost `J` of runs of points.
#[derive(Clone, Copy)]
struct Lagrangian {
    lambda: f64,
    /// `σ² Σ h`.
    deviation: f64,
    /// The number of weights.
    weights: f64,
}

impl Lagrangian {
    fn new(points: &FitPoints<'_>, lambda: f64, deviation: f64) -> Self {
        Self { lambda, deviation, weights: f64::from(points.count(0, points.len())) }
    }

    /// The part of `J` that a run brings.
    fn run(self, points: &FitPoints<'_>, (i, j): (usize, usize)) -> f64 {
        let [mass, sum, square] = points.moments(i, j);
        let part = f64::from(points.count(i, j)) / self.weights;
        (square - sum * sum / mass).max(0.0) / self.deviation - self.lambda * part * log2(part)
    }

    /// Moves and removes ends of runs until `J` falls no more; returns `J`.
    fn descend(self, points: &FitPoints<'_>, ends: &mut Vec<u32>) -> f64 {
        for _ in 0..ROUNDS {
            if !self.shift(points, ends) && !self.merge(points, ends) {
                break;
            }
        }
        runs(ends).map(|run| self.run(points, run)).sum()
    }

    /// Moves each end by powers of two while that lowers `J`; `false` if it never does.
    fn shift(self, points: &FitPoints<'_>, ends: &mut [u32]) -> bool {
        let mut moved = false;
        let mut start = 0;
        for c in 1..ends.len() {
            let stop = index(ends[c]);
            let cost = |end| self.run(points, (start, end)) + self.run(points, (end, stop));
            let mut end = index(ends[c - 1]);
            let mut least = cost(end);
            let mut stride = (stop - start).next_power_of_two() / 2;
            while stride > 0 {
                let rivals = [end.saturating_sub(stride), end + stride];
                for rival in rivals.into_iter().filter(|&rival| rival > start && rival < stop) {
                    let total = cost(rival);
                    if total < least * (1.0 - ENOUGH) {
                        (end, least, moved) = (rival, total, true);
                    }
                }
                stride /= 2;
            }
            ends[c - 1] = u32_of(end);
            start = end;
        }
        moved
    }

    /// Merges neighbours while that lowers `J`; `false` if it never does.
    fn merge(self, points: &FitPoints<'_>, ends: &mut Vec<u32>) -> bool {
        let mut costs: Vec<f64> = runs(ends).map(|run| self.run(points, run)).collect();
        let before = ends.len();
        loop {
            let pairs = runs(ends).zip(runs(ends).skip(1)).zip(costs.windows(2)).enumerate();
            let joined = pairs.map(|(c, ((one, two), apart))| {
                let cost = self.run(points, (one.0, two.1));
                (c, cost, cost - apart[0] - apart[1])
            });
            match joined.min_by(|a, b| a.2.total_cmp(&b.2)) {
                Some((c, cost, change)) if change < 0.0 => {
                    ends.remove(c);
                    costs.remove(c);
                    costs[c] = cost;
                }
                _ => return ends.len() < before,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Group, default_lambda, fit};
    use super::{Vec, log2};
    use crate::bits::Bits;
    use crate::bits::tests::{any_width, width};
    use crate::noise::Stream;
    use crate::num::f64_of;
    use crate::scheme::Scheme;
    use proptest::prelude::*;
    use std::vec;

    /// Error as a part of the variance, and entropy of the codes.
    fn judge(scheme: Scheme, group: &Group<'_>) -> (f64, f64) {
        let fitted = fit(scheme, group).unwrap();
        let mut counts = [0_u32; 256];
        for &code in &fitted.codes {
            counts[usize::from(code)] += 1;
        }
        let n = f64_of(group.weights.len());
        let parts = counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) / n);
        let entropy = parts.map(|p| -p * log2(p)).sum();
        let importance = group.importance.map_or(vec![1.0; group.weights.len()], Vec::from);
        let weights: Vec<f64> = group.weights.iter().map(|&w| f64::from(w)).collect();
        let sum = |f: &dyn Fn(usize) -> f64| -> f64 {
            importance.iter().enumerate().map(|(i, &h)| f64::from(h) * f(i)).sum()
        };
        let mean = sum(&|i| weights[i]) / sum(&|_| 1.0);
        let variance = sum(&|i| (weights[i] - mean).powi(2));
        let values: Vec<f32> = fitted.dequantized(group.weights).collect();
        (sum(&|i| (weights[i] - f64::from(values[i])).powi(2)) / variance, entropy)
    }

    fn total(scheme: Scheme, group: &Group<'_>) -> f64 {
        let (error, entropy) = judge(scheme, group);
        error + group.lambda * entropy
    }

    fn normals(n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        Stream::new(8, 3).fill_normal(0, 0, &mut values);
        values
    }

    /// The least `J` of at most `k` runs, over all of them.
    fn by_definition(weights: &[f32], lambda: f64, k: usize) -> f64 {
        let mut x: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        x.sort_by(f64::total_cmp);
        let n = x.len();
        let error = |run: &[f64]| {
            let mean = run.iter().sum::<f64>() / f64_of(run.len());
            run.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let spread = error(&x);
        let cost = |i: usize, j: usize| {
            let part = f64_of(j - i) / f64_of(n);
            error(&x[i..j]) / spread - lambda * part * log2(part)
        };
        let mut best = vec![f64::INFINITY; n + 1];
        best[0] = 0.0;
        let mut least = f64::INFINITY;
        for _ in 0..k {
            let add = |j: usize| (0..j).map(|i| best[i] + cost(i, j)).fold(f64::INFINITY, f64::min);
            best = (0..=n).map(add).collect();
            least = least.min(best[n]);
        }
        least
    }

    #[test]
    fn comes_close_to_the_best_runs() {
        let mut worst = 0.0_f64;
        for seed in 0..4 {
            let mut weights = vec![0.0; 150];
            Stream::new(seed, 3).fill_normal(0, 0, &mut weights);
            for bits in (1..=4).map(width) {
                for scale in [0.3, 1.0, 3.0, 10.0] {
                    let lambda = scale * default_lambda(bits);
                    let group = Group { lambda, ..Group::new(&weights, bits) };
                    let found = total(Scheme::Ecq, &group);
                    let least = by_definition(&weights, lambda, bits.code_count());
                    worst = worst.max(found / least - 1.0);
                }
            }
        }
        assert!(worst < 0.02, "{worst}");
    }

    #[test]
    fn a_dearer_bit_is_not_bought() {
        let weights = normals(5000);
        for bits in [2, 4, 6].map(width) {
            let mut before = f64::from(bits.get());
            for scale in [0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 1e9] {
                let lambda = scale * default_lambda(bits);
                let group = Group { lambda, ..Group::new(&weights, bits) };
                let (_, entropy) = judge(Scheme::Ecq, &group);
                assert!(entropy <= before, "{bits} bits, {scale}: {entropy} after {before}");
                before = entropy;
            }
            assert!(before < 1e-9, "at last a single level");
        }
    }

    #[test]
    fn nears_the_bound_of_entropy_coding() {
        // With levels enough, 1.53 dB above Shannon's bound, or 0.25 bits.
        let weights = normals(20_000);
        for target in [3, 4] {
            let group =
                Group { lambda: default_lambda(width(target)), ..Group::new(&weights, width(8)) };
            let (error, entropy) = judge(Scheme::Ecq, &group);
            let above = entropy + 0.5 * log2(error);
            assert!(above > 0.2 && above < 0.27, "{target}: {above}");
        }
    }

    proptest! {
        #[test]
        fn is_never_worse_than_its_starts(
            bits in prop::sample::select(&Bits::ALL[..6]),
            raw in proptest::collection::vec((-1.0_f32..1.0, 1_u8..4), 2..200),
            scale in 0.01_f64..20.0,
            grid in prop_oneof![Just(4.0_f32), Just(1e6)],
            equal in any::<bool>(),
        ) {
            let weights: Vec<f32> =
                raw.iter().map(|(w, _)| (w * w * w * grid).round() / grid).collect();
            prop_assume!(weights.iter().any(|&w| w != weights[0]));
            let importance: Vec<f32> = raw.iter().map(|&(_, h)| f32::from(h)).collect();
            let importance = (!equal).then_some(&importance[..]);
            let lambda = scale * default_lambda(bits);
            let group = Group { importance, lambda, ..Group::new(&weights, bits) };
            let own = total(Scheme::Ecq, &group);
            for start in [Scheme::LloydMax, Scheme::UniformMse] {
                let rival = total(start, &group);
                prop_assert!(own <= rival * (1.0 + 1e-6) + 1e-9, "{own}, {start} {rival}");
            }
        }

        #[test]
        fn a_free_bit_leaves_lloyd_max(
            bits in any_width(),
            weights in proptest::collection::vec(-1.0_f32..1.0, 1..100),
        ) {
            let group = Group { lambda: 0.0, ..Group::new(&weights, bits) };
            prop_assert_eq!(fit(Scheme::Ecq, &group), fit(Scheme::LloydMax, &group));
        }
    }
}
