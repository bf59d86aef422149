//! One group of rows under a codebook alone.

use super::fitted_group::{FittedGroup, GroupCodebook, measure, merged, round_levels};
use super::plan::QuantPlan;
use crate::codebook::Affine;
use crate::error::{Error, Result};
use crate::fit::{Fit, Fitted, fit};
use crate::num::low_u8;
use crate::scheme::Scheme;
use alloc::vec::Vec;

/// Fits the weights of one group; positions in errors count from its first weight.
pub(super) fn fit_group(weights: &[f32], plan: &QuantPlan) -> Result<FittedGroup> {
    let Fitted { fit, levels, mut codes } = fit(plan.scheme, &plan.group(weights))?;
    let book = match fit {
        Fit::Copied => {
            let book;
            (book, codes) = copied(weights, plan.scheme);
            book
        }
        Fit::Affine(affine) if plan.rate.uses_all_codes() => GroupCodebook::Affine(affine),
        Fit::Logarithmic(range) if plan.rate.uses_all_codes() => {
            GroupCodebook::Logarithmic(range, weights.len().min(plan.rate.levels()))
        }
        Fit::Table | Fit::Affine(_) | Fit::Logarithmic(_) => {
            let levels = round_levels(&levels, plan.codebook_dtype);
            if let Some(bad) = levels.0.iter().position(|level| !level.is_finite()) {
                let index = codes.iter().position(|&code| usize::from(code) == bad).unwrap_or(0);
                return Err(Error::F16Overflow { index });
            }
            merged(levels, &mut codes)
        }
    };
    let distortion = measure(weights, &book, &codes);
    Ok(FittedGroup { book, scales: Vec::new(), codes, distortion })
}

/// A group that is kept exactly: as one level if it is constant, else as a table of its values, or
/// as the values where a table has no room for them.
fn copied(weights: &[f32], scheme: Scheme) -> (GroupCodebook, Vec<u8>) {
    let mut distinct = weights.to_vec();
    distinct.sort_unstable_by(f32::total_cmp);
    distinct.dedup_by_key(|value| value.to_bits());
    if distinct.len() > 256 {
        return (GroupCodebook::Values(weights.to_vec()), Vec::new());
    }
    let code = |w: &f32| low_u8(distinct.partition_point(|level| level.total_cmp(w).is_lt()));
    let codes = weights.iter().map(code).collect();
    let uniform = matches!(scheme, Scheme::Uniform | Scheme::UniformMse);
    match distinct[..] {
        // 0 · scale is zero of the sign of `min`, and -0.0 + -0.0 = -0.0.
        [min] if uniform => {
            (GroupCodebook::Affine(Affine { min, scale: 0.0_f32.copysign(min) }), codes)
        }
        _ => (GroupCodebook::Table { levels: distinct, scale: 0.0 }, codes),
    }
}
