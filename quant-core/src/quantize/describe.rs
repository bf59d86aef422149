//! All groups of a tensor fitted as planned, and stored.

use super::distortion::Distortion;
use super::fitted_group::FittedGroup;
use super::group::fit_group;
use super::input::{ParallelMap, WeightSlices};
use super::plan::QuantPlan;
use super::scaled::fit_scaled;
use super::storage::{Storage, assemble};
use crate::error::{Error, Result};
use crate::matrix::RowScale;
use alloc::vec::Vec;

/// Fits every group as planned and stores the result.
pub(super) fn describe(
    map: &impl ParallelMap,
    weights: &(impl WeightSlices + ?Sized),
    plan: &QuantPlan,
) -> Result<(Storage, Distortion)> {
    let (count, len) = (weights.count(), plan.groups.group_len());
    let fit = if plan.row_scale == RowScale::None { fit_group } else { fit_scaled };
    let groups = map.map(count.div_ceil(len), |group| {
        let first = group * len;
        let range = first..count.min(first + len);
        let in_tensor = |error| match error {
            Error::NonFinite { what, index } => Error::NonFinite { what, index: first + index },
            Error::F16Overflow { index } => Error::F16Overflow { index: first + index },
            other => other,
        };
        fit(&weights.range(range), plan).map_err(in_tensor)
    });
    // The error of the first group that has one, whichever came first.
    let groups: Vec<FittedGroup> = groups.into_iter().collect::<Result<_>>()?;
    let mut distortion = Distortion::default();
    for group in &groups {
        distortion.add(group.distortion);
    }
    Ok((assemble(groups, plan), distortion))
}
