//! The input of a fit.

use crate::error::{Error, Result, check_length};
use crate::num::{f64_of, u64_of};
use crate::rate::Rate;
use core::f64::consts::LN_2;

/// Weights that share a codebook, and the options of their fit.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The weights that share the codebook.
    pub weights: &'a [f32],
    /// Factor of the squared error of each weight; `None`: 1 for all. Finite, not negative,
    /// of positive sum; 0 is fine. `ot`, `uniform`, `pwl` and `log` ignore it.
    pub importance: Option<&'a [f32]>,
    /// Rate: the greatest number of levels.
    pub rate: Rate,
    /// Elements of the whole tensor that the group belongs to: three schemes copy a small tensor.
    pub numel: usize,
    /// Lagrange multiplier of the entropy under `ecq`: the cost of a bit per weight, as a part of the
    /// variance of the weights; finite, at least 0. The other schemes ignore it.
    pub lambda: f64,
}

impl<'a> Group<'a> {
    /// Group of all weights of a tensor, of equal importance, with the [`default_lambda`].
    pub fn new(weights: &'a [f32], rate: impl Into<Rate>) -> Self {
        let rate = rate.into();
        let numel = weights.len();
        Self { weights, importance: None, rate, numel, lambda: default_lambda(rate) }
    }

    /// Fails unless every field is in its range.
    pub(super) fn check(&self) -> Result<()> {
        let [n, numel] = [self.weights.len(), self.numel].map(u64_of);
        let range = |what, found, min, max| Err(Error::Range { what, found, min, max });
        if n > u32::MAX.into() {
            return range("number of weights", n, 0, u32::MAX.into());
        }
        if numel < n {
            return range("elements of the tensor", numel, n, u64::MAX);
        }
        check_weights(self.weights, self.importance)?;
        if !(self.lambda >= 0.0 && self.lambda.is_finite()) {
            return Err(Error::Real { what: "lambda", range: "finite and at least 0" });
        }
        Ok(())
    }
}

/// Multiplier at which Shannon's bound for a Gaussian has the rate `R = log2 K`: `D/σ² = 4^-R = 1/K²`
/// falls by `2 ln 2 / K²` per bit.
pub fn default_lambda(rate: impl Into<Rate>) -> f64 {
    let levels = f64_of(rate.into().levels());
    2.0 * LN_2 / (levels * levels)
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
