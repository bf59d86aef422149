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
//! | `ecq` | `entropy` | least error plus price times entropy of the codes |
//!
//! A group is one channel in the paper ("Low-Bit, High-Fidelity: Optimal Transport Quantization for
//! Flow Matching", arXiv 2511.11418); here it may be any slice of weights. `K = 2^bits` and `n` is
//! the number of weights in the group. Some groups are *copied*, that is kept exactly instead of
//! coded: see [`Fit::Copied`]. Weights 0.0 and -0.0 count as equal.
//!
//! The first four are the paper's: they look at the weights alone, and small tensors are copied as
//! the paper's helpers do. The last three minimize an error in which each weight counts by its
//! importance; they share sorted points with prefix sums, which [`Prepared`] keeps for all `K`.
//!
//! [`fit`] uses no heap; `Fitter` (feature `alloc`) brings the buffers along.

mod bins;
mod entropy;
mod equal_mass;
#[cfg(feature = "alloc")]
mod fitter;
mod links;
mod lloyd_max;
mod logarithmic;
mod partition;
mod piecewise;
mod points;
mod prepared;
mod rank;
mod room;
mod uniform;
mod uniform_mse;

#[cfg(feature = "alloc")]
pub use fitter::{Fitted, Fitter, PreparedFitter};
pub use prepared::Prepared;

use crate::bits::code_count;
use crate::error::{Error, Result, check_length};
use crate::log_range::LogRange;
use crate::num::exp2;
use crate::scheme::Scheme;
use bins::Bins;
use core::f64::consts::LN_2;
use room::Room;

/// What to fit.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The weights that share the codebook.
    pub weights: &'a [f32],
    /// How much the squared error of each weight counts; `None`: all the same. Finite, not negative,
    /// of positive sum; 0 is fine. `ot`, `uniform`, `pwl` and `log` ignore it.
    pub importance: Option<&'a [f32]>,
    /// Width of a code in bits, 1 to 8.
    pub bits: u8,
    /// Elements of the whole tensor that the group belongs to: three schemes copy a small tensor.
    pub numel: usize,
    /// Under `ecq` the price of a bit per weight, as a part of the variance of the weights; finite,
    /// at least 0. The other schemes ignore it.
    pub lambda: f64,
}

impl<'a> Group<'a> {
    /// A whole tensor of weights of equal importance, with the [`default_lambda`].
    pub fn new(weights: &'a [f32], bits: u8) -> Self {
        let numel = weights.len();
        Self { weights, importance: None, bits, numel, lambda: default_lambda(bits) }
    }
}

/// The price at which Shannon's bound for a Gaussian has `bits` bits: `D/σ² = 4^-bits` falls by
/// `2 ln 2 · 4^-bits` per bit.
pub fn default_lambda(bits: u8) -> f64 {
    2.0 * LN_2 * exp2(-2.0 * f64::from(bits))
}

/// How a group came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Keep the weights as they are; levels and codes mean nothing. This happens
    /// - to every empty group;
    /// - under `ot`, `pwl` and `log` in a tensor of fewer than K elements;
    /// - under `log` in a group of one weight;
    /// - under `uniform` and `uniform-mse` in a constant group, and where f32 cannot represent the
    ///   steps (the step underflows to zero, the last level overflows, or the last code exceeds
    ///   K - 1).
    Copied,
    /// Weight `i` becomes `levels[codes[i]]`; the levels from `levels` on are unused.
    Table {
        /// Number of levels, 1 to K.
        levels: usize,
    },
    /// As `Table` with all K levels, and `levels[code] = code · step + min`, in f32.
    Affine {
        /// The level of code 0.
        min: f32,
        /// The difference between neighbouring levels.
        step: f32,
    },
    /// As `Table`, and `levels[code]` is [`LogRange::level`] `code` of `min(K, n)`.
    Logarithmic(LogRange),
}

impl Fit {
    /// The number of levels used, of at most `K`, for a group of `n` weights; 0 if copied.
    pub fn level_count(&self, k: usize, n: usize) -> usize {
        match self {
            Self::Copied => 0,
            Self::Table { levels } => *levels,
            Self::Affine { .. } => k,
            Self::Logarithmic(range) => range.level_count(k.min(n)),
        }
    }
}

/// Memory to work in, of at least the lengths that [`ScratchLen::of`] tells.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// Sort keys.
    pub keys: &'a mut [u64],
    /// Intermediate numbers.
    pub reals: &'a mut [f64],
    /// Positions of cuts between clusters.
    pub cuts: &'a mut [u32],
}

/// The lengths of the slices of a [`Scratch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchLen {
    /// Length of [`Scratch::keys`].
    pub keys: usize,
    /// Length of [`Scratch::reals`].
    pub reals: usize,
    /// Length of [`Scratch::cuts`].
    pub cuts: usize,
}

impl ScratchLen {
    /// What a group of `n` weights needs under `scheme`.
    ///
    /// # Errors
    /// [`Error::Bits`] outside 1..=8; [`Error::Range`] for more than 2^32 - 1 weights, or for
    /// lengths beyond the address space.
    pub fn of(scheme: Scheme, n: usize, bits: u8) -> Result<Self> {
        let k = code_count(bits)?;
        let found = u64::try_from(n).unwrap_or(u64::MAX);
        let too_many =
            Error::Range { what: "number of weights", found, min: 0, max: u64::from(u32::MAX) };
        if found > u64::from(u32::MAX) {
            return Err(too_many);
        }
        match scheme {
            Scheme::EqualMass => {
                let cuts = equal_mass::bins(n, k).checked_add(k).ok_or(too_many)?;
                Ok(Self { keys: n, reals: k, cuts })
            }
            Scheme::Uniform => Ok(Self::default()),
            Scheme::Piecewise => Ok(Self { keys: n, reals: k + 1, cuts: Bins::number(n) }),
            Scheme::Logarithmic => Ok(Self { reals: k, ..Self::default() }),
            Scheme::UniformMse | Scheme::LloydMax | Scheme::Ecq => {
                Room::scratch_len(n, k).ok_or(too_many)
            }
        }
    }
}

/// Fits one group of weights.
///
/// # Shapes
/// `levels`: `[2^bits]`, of which [`Fit`] says how many are used; `codes`: `[n]`, one per weight.
///
/// # Errors
/// [`Error::Bits`]; [`Error::Length`] if a slice has another length, or a scratch slice less than
/// [`ScratchLen::of`]; [`Error::NonFinite`] for a weight or an importance that is NaN or infinite,
/// [`Error::Negative`] for an importance below 0; [`Error::Real`] where no weight has importance,
/// or for a wrong `lambda`; [`Error::Range`] for more than 2^32 - 1 weights, or for a group larger
/// than its tensor.
pub fn fit(
    scheme: Scheme,
    group: &Group<'_>,
    scratch: &mut Scratch<'_>,
    levels: &mut [f32],
    codes: &mut [u8],
) -> Result<Fit> {
    let &Group { weights, importance, bits, numel, lambda } = group;
    let n = weights.len();
    let k = code_count(bits)?;
    let need = ScratchLen::of(scheme, n, bits)?;
    check_length("levels", k, levels.len())?;
    check_length("codes", n, codes.len())?;
    let Scratch { keys, reals, cuts } = scratch.reborrow().take(need)?;
    check_weights(weights, importance)?;
    if !(lambda >= 0.0 && lambda.is_finite()) {
        return Err(Error::Real { what: "lambda", range: "finite and at least 0" });
    }
    if numel < n {
        let [found, min] = [numel, n].map(|x| u64::try_from(x).unwrap_or(u64::MAX));
        return Err(Error::Range { what: "elements of the tensor", found, min, max: u64::MAX });
    }
    let copies_small =
        matches!(scheme, Scheme::EqualMass | Scheme::Piecewise | Scheme::Logarithmic);
    if n == 0 || (copies_small && numel < k) {
        return Ok(Fit::Copied);
    }
    Ok(match scheme {
        Scheme::EqualMass => {
            let (starts, counts) = cuts.split_at_mut(k);
            equal_mass::fit(weights, keys, reals, counts, starts, levels, codes)
        }
        Scheme::Uniform => uniform::fit(weights, levels, codes),
        Scheme::Piecewise => piecewise::fit(weights, keys, reals, cuts, levels, codes),
        Scheme::Logarithmic => logarithmic::fit(weights, reals, levels, codes),
        Scheme::UniformMse | Scheme::LloydMax | Scheme::Ecq => {
            let scratch = Scratch { keys, reals, cuts };
            let mut room = Room::new(weights, importance, scratch, k);
            match scheme {
                Scheme::UniformMse => {
                    uniform_mse::fit(weights, importance, &room.points, levels, codes)
                }
                Scheme::Ecq => entropy::fit(&mut room, lambda, levels, codes),
                _ => lloyd_max::fit(&mut room, levels, codes),
            }
        }
    })
}

/// Fails unless weights and importance are what a fit takes.
fn check_weights(weights: &[f32], importance: Option<&[f32]>) -> Result<()> {
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::NonFinite { what: "weight", index });
    }
    let Some(importance) = importance else { return Ok(()) };
    check_length("importance", weights.len(), importance.len())?;
    if let Some(index) = importance.iter().position(|h| !h.is_finite()) {
        return Err(Error::NonFinite { what: "importance", index });
    }
    if let Some(index) = importance.iter().position(|&h| h < 0.0) {
        return Err(Error::Negative { what: "importance", index });
    }
    if !importance.is_empty() && importance.iter().all(|&h| h == 0.0) {
        return Err(Error::Real { what: "sum of importance", range: "greater than 0" });
    }
    Ok(())
}

impl Scratch<'_> {
    /// So much of each slice.
    fn take(self, need: ScratchLen) -> Result<Self> {
        Ok(Self {
            keys: lend("scratch keys", self.keys, need.keys)?,
            reals: lend("scratch reals", self.reals, need.reals)?,
            cuts: lend("scratch cuts", self.cuts, need.cuts)?,
        })
    }

    /// The same memory for a while.
    const fn reborrow(&mut self) -> Scratch<'_> {
        Scratch { keys: self.keys, reals: self.reals, cuts: self.cuts }
    }
}

/// The first `len` elements of a scratch slice.
fn lend<'a, T>(what: &'static str, slice: &'a mut [T], len: usize) -> Result<&'a mut [T]> {
    let found = slice.len();
    slice.get_mut(..len).ok_or(Error::Length { what, expected: len, found })
}

#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::num;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn deq(scheme: Scheme, bits: u8, weights: &[f32], numel: usize) -> Vec<f32> {
        let mut fitter = Fitter::new();
        let fitted = fitter.fit(scheme, &Group { numel, ..Group::new(weights, bits) }).unwrap();
        fitted.dequantized(weights).collect()
    }

    #[test]
    fn names_the_weight_that_is_not_finite() {
        for scheme in Scheme::ALL {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let weights = [1.0, 2.0, bad, 4.0];
                let group = Group::new(&weights, 2);
                let refused = Fitter::new().fit(scheme, &group).map(|fitted| fitted.fit);
                assert_eq!(refused, Err(Error::NonFinite { what: "weight", index: 2 }));
            }
        }
    }

    #[test]
    fn names_the_importance_that_is_wrong() {
        let weights = [1.0, 2.0, 3.0];
        let refused = |importance: &[f32]| {
            let errors = Scheme::ALL.map(|scheme| {
                let group = Group { importance: Some(importance), ..Group::new(&weights, 2) };
                Fitter::new().fit(scheme, &group).map(|fitted| fitted.fit).unwrap_err()
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
            let group = Group { lambda, ..Group::new(&[1.0, 2.0], 1) };
            let refused = Fitter::new().fit(Scheme::Ecq, &group).map(|fitted| fitted.fit);
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
            for bits in 1..=8 {
                let group = Group { importance: Some(&importance), ..Group::new(&weights, bits) };
                let mut fitter = Fitter::new();
                let fitted = fitter.fit(scheme, &group).unwrap();
                assert!(fitted.dequantized(&weights).all(f32::is_finite), "{scheme} {bits}");
            }
        }
    }

    #[test]
    fn rejects_wrong_slices() {
        let group = Group::new(&[1.0, 2.0], 1);
        let mut none = Scratch { keys: &mut [], reals: &mut [], cuts: &mut [] };
        let uniform = Scheme::Uniform;
        let short = Err(Error::Length { what: "levels", expected: 2, found: 1 });
        assert_eq!(fit(uniform, &group, &mut none, &mut [0.0], &mut [0; 2]), short);
        let short = Err(Error::Length { what: "codes", expected: 2, found: 3 });
        assert_eq!(fit(uniform, &group, &mut none, &mut [0.0; 2], &mut [0; 3]), short);
        let short = Err(Error::Length { what: "scratch keys", expected: 2, found: 0 });
        let ot = Scheme::EqualMass;
        assert_eq!(fit(ot, &group, &mut none, &mut [0.0; 2], &mut [0; 2]), short);
        let group = Group { numel: 1, ..group };
        let refused = fit(uniform, &group, &mut none, &mut [0.0; 2], &mut [0; 2]);
        assert!(matches!(refused, Err(Error::Range { .. })));
    }

    #[test]
    fn empty_groups_and_small_tensors_are_copied() {
        for scheme in Scheme::ALL {
            let mut fitter = Fitter::new();
            let empty = fitter.fit(scheme, &Group::new(&[], 4)).unwrap();
            assert_eq!(empty.fit, Fit::Copied);
            let weights = [3.0, 1.0, 2.0];
            let small = fitter.fit(scheme, &Group::new(&weights, 2));
            let copies =
                matches!(scheme, Scheme::EqualMass | Scheme::Piecewise | Scheme::Logarithmic);
            assert_eq!(small.unwrap().fit == Fit::Copied, copies, "{scheme}");
            let part = fitter.fit(scheme, &Group { numel: 4, ..Group::new(&weights, 2) });
            assert_ne!(part.unwrap().fit, Fit::Copied, "{scheme}");
        }
    }

    #[test]
    fn constant_groups_are_kept() {
        for scheme in Scheme::ALL {
            for value in [0.0, -0.0, 1.5, -3.0e-42, f32::MAX, f32::MIN] {
                assert_eq!(deq(scheme, 2, &[value; 7], 7), [value; 7], "{scheme} {value:e}");
            }
        }
    }

    #[test]
    fn the_whole_range_of_f32_stays_finite() {
        let weights = [f32::MAX, f32::MIN, 0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-45, -1e-45, 3.0];
        for scheme in Scheme::ALL {
            for bits in 1..=8 {
                let values = deq(scheme, bits, &weights, 1000);
                assert!(values.iter().all(|v| v.is_finite()), "{scheme} {bits}: {values:?}");
            }
        }
    }

    proptest! {
        /// Every value lies within the range of the weights, so no scheme can blow up a net.
        #[test]
        fn values_stay_within_the_weights(
            bits in 1_u8..=8,
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
            bits in 1_u8..=8,
            raw in proptest::collection::vec(any::<u32>(), 1..80),
        ) {
            let weights: Vec<f32> =
                raw.iter().map(|&b| f32::from_bits(b)).filter(|w| w.is_finite()).collect();
            let mut fitter = Fitter::new();
            for scheme in Scheme::ALL {
                let group = Group { numel: 256, ..Group::new(&weights, bits) };
                let fitted = fitter.fit(scheme, &group).unwrap();
                prop_assert!(fitted.dequantized(&weights).all(f32::is_finite));
                if fitted.fit != Fit::Copied {
                    let most = fitted.codes.iter().copied().max().map_or(0, usize::from);
                    prop_assert!(most < fitted.levels.len(), "{scheme}");
                }
            }
        }
    }
}
