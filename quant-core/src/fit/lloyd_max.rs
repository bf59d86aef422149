//! `lloyd-max`: the levels of least mean squared error.
//!
//! One-dimensional k-means, solved exactly. In one dimension the clusters of an optimum are runs of
//! the sorted weights, and [`super::partition`] finds the best such runs:
//!
//! ```text
//! minimize  Σ_i h_i (w_i - level[code_i])²     h: importance, 1 where none is given
//! ```
//!
//! The level is the mean of the cluster by importance, the code its position. Of all tables of K
//! levels none has a smaller mean squared error, and none a smaller 2-Wasserstein distance to the
//! weights. With at most K distinct weights nothing is lost. A weight of importance 0 takes the code
//! of the nearest weight that has some.
//!
//! Sources: S. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28, 1982;
//! importance by the Fisher information: `SqueezeLLM`, arXiv 2306.07629.

use super::fitted::{Fit, Fitted};
use super::partition::partition;
use super::points::FitPoints;

/// At most `k` levels for the points of a group.
pub(super) fn fit(points: &FitPoints<'_>, k: usize) -> Fitted {
    let ends = partition(points, k.min(points.len()));
    Fitted { fit: Fit::Table, levels: points.means(&ends), codes: points.codes(&ends) }
}

#[cfg(test)]
mod tests {
    use super::super::{Group, fit};
    use crate::bits::Bits;
    use crate::bits::tests::width;
    use crate::scheme::Scheme;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn squared_error(weights: &[f32], importance: Option<&[f32]>, bits: Bits) -> f64 {
        let group = Group { importance, ..Group::new(weights, bits) };
        let fitted = fit(Scheme::LloydMax, &group).unwrap();
        let pairs = weights.iter().zip(fitted.dequantized(weights));
        let errors = pairs.map(|(&w, v)| (f64::from(w) - f64::from(v)).powi(2));
        match importance {
            None => errors.sum(),
            Some(all) => errors.zip(all).map(|(error, &h)| f64::from(h) * error).sum(),
        }
    }

    /// The recurrence of dynamic programming as written, over all cuts.
    fn by_definition(weights: &[f32], importance: &[f32], k: usize) -> f64 {
        let mut x: Vec<(f64, f64)> =
            weights.iter().zip(importance).map(|(&w, &h)| (f64::from(w), f64::from(h))).collect();
        x.sort_by(|a, b| a.0.total_cmp(&b.0));
        let error = |run: &[(f64, f64)]| {
            let mass: f64 = run.iter().map(|(_, h)| h).sum();
            let mean = run.iter().map(|(x, h)| h * x).sum::<f64>() / mass.max(1e-300);
            run.iter().map(|(x, h)| h * (x - mean).powi(2)).sum::<f64>()
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
        let fitted = fit(Scheme::LloydMax, &Group::new(&weights, width(2))).unwrap();
        assert_eq!(fitted.levels, [0.0, 10.5, 20.0, 30.0]);
        assert_eq!(fitted.codes, [1, 0, 0, 1, 0, 2, 3]);
    }

    #[test]
    fn importance_moves_levels_and_none_follows_the_nearest() {
        let weights = [0.0, 1.0, 4.0, 8.0, 9.0, 3.0];
        let importance = [1.0, 3.0, 0.0, 1.0, 0.0, 0.0];
        let group = Group { importance: Some(&importance), ..Group::new(&weights, width(1)) };
        let fitted = fit(Scheme::LloydMax, &group).unwrap();
        assert_eq!(fitted.levels, [0.75, 8.0]);
        assert_eq!(fitted.codes, [0, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn few_distinct_weights_lose_nothing() {
        let weights = [0.5, 0.1, 0.5, 0.1, -7.0, -7.0, 0.3, 0.3, 0.3];
        assert_eq!(squared_error(&weights, None, width(2)).to_bits(), 0);
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            bits in prop::sample::select(&Bits::ALL[..5]),
            raw in proptest::collection::vec((-1.0_f32..1.0, 0.0_f32..1.0), 1..60),
            grid in prop_oneof![Just(8.0_f32), Just(1e6)],
            equal in any::<bool>(),
        ) {
            // A coarse grid makes ties.
            let weights: Vec<f32> =
                raw.iter().map(|(w, _)| (w * w * w * grid).round() / grid).collect();
            let importance: Vec<f32> =
                raw.iter().map(|&(_, h)| if equal { 1.0 } else { (h - 0.2).max(0.0) }).collect();
            prop_assume!(importance.iter().any(|&h| h > 0.0));
            let found = squared_error(&weights, (!equal).then_some(&importance), bits);
            let least = by_definition(&weights, &importance, bits.code_count());
            prop_assert!((found - least).abs() <= 1e-9 * least + 1e-13, "{found} {least}");
        }
    }
}
