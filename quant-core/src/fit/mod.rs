//! Weights → levels and codes, for one group of weights that share a codebook.
//!
//! | scheme | file | levels |
//! |---|---|---|
//! | `ot` | `equal_mass` | means of chunks of equal size; codes by rank |
//! | `uniform` | `uniform` | equal steps from least to greatest |
//! | `pwl` | `piecewise` | midpoints between quantiles; codes by interval |
//! | `log` | `logarithmic` | geometric, for each sign; nearest level |
//! | `uniform-mse` | `uniform_mse` | equal steps of least mean squared error |
//! | `lloyd-max` | `lloyd_max` | the optimum of one-dimensional k-means |
//! | `ecq` | `entropy` | least error plus multiplier times entropy of the codes |
//!
//! A group is one channel in the paper ("Low-Bit, High-Fidelity: Optimal Transport Quantization for
//! Flow Matching", arXiv 2511.11418); here it may be any slice of weights. K is the number of levels of the rate and `n` is the
//! number of weights in the group. Some groups are *copied*, that is kept exactly instead of
//! coded: see [`Fit::Copied`]. Weights 0.0 and -0.0 count as equal.
//!
//! The first four are the paper's: they look at the weights alone, and small tensors are copied as
//! the paper's helpers do. The last three minimize an error in which each weight counts by its
//! importance; they share sorted points with prefix sums.

mod bins;
mod entropy;
mod equal_mass;
mod fitted;
mod group;
mod lloyd_max;
mod logarithmic;
mod monotone_dp;
mod partition;
mod piecewise;
mod points;
mod rank;
mod uniform;
mod uniform_mse;

pub use fitted::{Fit, Fitted};
pub use group::{Group, default_lambda};

use crate::error::Result;
use crate::scheme::Scheme;
use points::FitPoints;

/// Fits one group of weights.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) for a weight
/// or an importance that is NaN or infinite, [`Error::Negative`](crate::Error::Negative) for an
/// importance below 0, [`Error::Length`](crate::Error::Length) for one that is not that of each
/// weight; [`Error::Real`](crate::Error::Real) where no weight has importance, or for a wrong
/// `lambda`; [`Error::Range`](crate::Error::Range) for more than 2^32 - 1 weights, or for a group
/// larger than its tensor.
pub fn fit(scheme: Scheme, group: &Group<'_>) -> Result<Fitted> {
    group.check()?;
    let &Group { weights, importance, rate, numel, lambda } = group;
    let k = rate.levels();
    let copies_small =
        matches!(scheme, Scheme::EqualMass | Scheme::Piecewise | Scheme::Logarithmic);
    if weights.is_empty() || (copies_small && numel < k) {
        return Ok(Fitted::copied());
    }
    let points = || FitPoints::new(weights, importance);
    Ok(match scheme {
        Scheme::EqualMass => equal_mass::fit(weights, k),
        Scheme::Uniform => uniform::fit(weights, k),
        Scheme::Piecewise => piecewise::fit(weights, k),
        Scheme::Logarithmic => logarithmic::fit(weights, k),
        Scheme::UniformMse => uniform_mse::fit(weights, importance, k),
        Scheme::LloydMax => lloyd_max::fit(&points(), k),
        Scheme::Ecq => entropy::fit(&points(), lambda, k),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::Bits;
    use crate::bits::tests::{any_width, width};
    use crate::error::Error;
    use crate::num;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn deq(scheme: Scheme, bits: Bits, weights: &[f32], numel: usize) -> Vec<f32> {
        let fitted = fit(scheme, &Group { numel, ..Group::new(weights, bits) }).unwrap();
        fitted.dequantized(weights).collect()
    }

    #[test]
    fn names_the_weight_that_is_not_finite() {
        for scheme in Scheme::ALL {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let weights = [1.0, 2.0, bad, 4.0];
                let group = Group::new(&weights, width(2));
                let refused = fit(scheme, &group).map(|fitted| fitted.fit);
                assert_eq!(refused, Err(Error::NonFinite { what: "weight", index: 2 }));
            }
        }
    }

    #[test]
    fn names_the_importance_that_is_wrong() {
        let weights = [1.0, 2.0, 3.0];
        let refused = |importance: &[f32]| {
            let errors = Scheme::ALL.map(|scheme| {
                let group =
                    Group { importance: Some(importance), ..Group::new(&weights, width(2)) };
                fit(scheme, &group).map(|fitted| fitted.fit).unwrap_err()
            });
            assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
            errors[0]
        };
        let what = "importance";
        assert_eq!(refused(&[1.0, f32::NAN, 1.0]), Error::NonFinite { what, index: 1 });
        assert_eq!(refused(&[1.0, 1.0, f32::INFINITY]), Error::NonFinite { what, index: 2 });
        assert_eq!(refused(&[1.0, 0.0, -1.0]), Error::Negative { what, index: 2 });
        assert_eq!(refused(&[1.0, 0.0]), Error::Length { what, expected: 3, found: 2 });
        assert!(matches!(refused(&[0.0, 0.0, -0.0]), Error::Real { .. }));
    }

    #[test]
    fn refuses_a_wrong_lambda() {
        for lambda in [-1e-9, f64::NAN, f64::INFINITY] {
            let group = Group { lambda, ..Group::new(&[1.0, 2.0], width(1)) };
            let refused = fit(Scheme::Ecq, &group).map(|fitted| fitted.fit);
            assert!(matches!(refused, Err(Error::Real { what: "lambda", .. })), "{lambda}");
        }
    }

    /// Importance too small to change the sums, and too large for f32.
    #[test]
    fn importance_of_any_size_gives_codes_with_levels() {
        let weights: Vec<f32> =
            (0..200).map(|i| num::f32_of(f64::from(i * i % 211) - 100.0)).collect();
        let sizes = [0.0, 1e-45, 1e-30, 1.0, 1e30, f32::MAX];
        let importance: Vec<f32> = (0..200).map(|i| sizes[(i * 7 + 4) % sizes.len()]).collect();
        for scheme in Scheme::ALL {
            for bits in Bits::ALL {
                let group = Group { importance: Some(&importance), ..Group::new(&weights, bits) };
                let fitted = fit(scheme, &group).unwrap();
                assert!(fitted.dequantized(&weights).all(f32::is_finite), "{scheme} {bits}");
            }
        }
    }

    #[test]
    fn rejects_a_group_larger_than_its_tensor() {
        let group = Group { numel: 1, ..Group::new(&[1.0, 2.0], width(1)) };
        assert!(matches!(fit(Scheme::Uniform, &group), Err(Error::Range { .. })));
    }

    #[test]
    fn empty_groups_and_small_tensors_are_copied() {
        for scheme in Scheme::ALL {
            let empty = fit(scheme, &Group::new(&[], width(4))).unwrap();
            assert_eq!(empty.fit, Fit::Copied);
            let weights = [3.0, 1.0, 2.0];
            let small = fit(scheme, &Group::new(&weights, width(2)));
            let copies =
                matches!(scheme, Scheme::EqualMass | Scheme::Piecewise | Scheme::Logarithmic);
            assert_eq!(small.unwrap().fit == Fit::Copied, copies, "{scheme}");
            let part = fit(scheme, &Group { numel: 4, ..Group::new(&weights, width(2)) });
            assert_ne!(part.unwrap().fit, Fit::Copied, "{scheme}");
        }
    }

    #[test]
    fn constant_groups_are_kept() {
        for scheme in Scheme::ALL {
            for value in [0.0, -0.0, 1.5, -3.0e-42, f32::MAX, f32::MIN] {
                assert_eq!(deq(scheme, width(2), &[value; 7], 7), [value; 7], "{scheme} {value:e}");
            }
        }
    }

    #[test]
    fn the_whole_range_of_f32_stays_finite() {
        let weights = [f32::MAX, f32::MIN, 0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-45, -1e-45, 3.0];
        for scheme in Scheme::ALL {
            for bits in Bits::ALL {
                let values = deq(scheme, bits, &weights, 1000);
                assert!(values.iter().all(|v| v.is_finite()), "{scheme} {bits}: {values:?}");
            }
        }
    }

    proptest! {
        /// Every value lies within the range of the weights, so no scheme can blow up a net.
        #[test]
        fn values_stay_within_the_weights(
            bits in any_width(),
            weights in proptest::collection::vec(-4.0_f32..4.0, 1..120),
        ) {
            let least = weights.iter().copied().fold(f32::INFINITY, f32::min);
            let greatest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for scheme in Scheme::ALL {
                for value in deq(scheme, bits, &weights, 256) {
                    prop_assert!(value >= least - 1e-5 && value <= greatest + 1e-5, "{scheme}");
                }
            }
        }

        /// Codes stay below the number of levels, for all finite bit patterns.
        #[test]
        fn codes_have_levels(
            bits in any_width(),
            raw in proptest::collection::vec(any::<u32>(), 1..80),
        ) {
            let weights: Vec<f32> =
                raw.iter().map(|&b| f32::from_bits(b)).filter(|w| w.is_finite()).collect();
            for scheme in Scheme::ALL {
                let group = Group { numel: 256, ..Group::new(&weights, bits) };
                let fitted = fit(scheme, &group).unwrap();
                prop_assert!(fitted.dequantized(&weights).all(f32::is_finite));
                if fitted.fit != Fit::Copied {
                    let most = fitted.codes.iter().copied().max().map_or(0, usize::from);
                    prop_assert!(most < fitted.levels.len(), "{scheme}");
                }
            }
        }
    }
}
