//! The choice among descriptions by measured error and size.
//!
//! A bit less per weight is worth `20 log10 2 = 6.02` dB, which is what a bit more buys at any rate.
//! So of several descriptions at the same nominal bits the best is that of the greatest
//!
//! ```text
//! score = SQNR - 6.02 (bits per weight - bits)
//! ```

use super::describe::describe;
use super::distortion::Distortion;
use super::input::{ParallelMap, WeightSlices};
use super::options::{CodebookDtype, QuantizeOptions};
use super::plan::{QuantPlan, RowGroups};
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::matrix::RowScale;
use crate::num::f64_of;
use alloc::vec::Vec;
use half::f16;

/// Decibels that a bit is worth.
const DB_PER_BIT: f64 = 6.020_599_913_279_624;
/// Precision of f32, beyond which more is worth nothing.
const MAX_DB: f64 = 144.0;
/// A shared table is fitted to so many weights: at 8 bits it then costs 1/32 of a bit per weight,
/// and more weights would not change it.
const SHARED: usize = 1 << 17;

/// The description of a tensor with the best score.
pub(super) fn best(
    map: &impl ParallelMap,
    weights: &(impl WeightSlices + ?Sized),
    groups: RowGroups,
    options: &QuantizeOptions,
) -> Result<(Storage, Distortion)> {
    let mut best: Option<(f64, Storage, Distortion)> = None;
    let mut consider = |storage: Storage, distortion: Distortion| {
        let bits = 8.0 * f64_of(storage.bytes()) / f64_of(distortion.count.max(1));
        let sqnr = distortion.sqnr_db().map_or(MAX_DB, |db| db.min(MAX_DB));
        let score = sqnr - DB_PER_BIT * (bits - options.rate.bits());
        if best.as_ref().is_none_or(|(most, ..)| score > *most) {
            best = Some((score, storage, distortion));
        }
    };
    for plan in plans(options, groups) {
        match describe(map, weights, &plan) {
            Ok((storage, distortion)) => consider(storage, distortion),
            // Another description will do.
            Err(Error::F16Overflow { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if let Some((storage, distortion)) = half(weights) {
        consider(storage, distortion);
    }
    match best {
        Some((_, storage, distortion)) => Ok((storage, distortion)),
        None => describe(map, weights, &QuantPlan::new(options, groups)),
    }
}

/// The plans that are tried, besides dense f16.
fn plans(options: &QuantizeOptions, groups: RowGroups) -> Vec<QuantPlan> {
    let plan = |group_rows: usize, codebook_dtype, row_scale| {
        let groups = RowGroups { group_rows, ..groups };
        QuantPlan { codebook_dtype, row_scale, ..QuantPlan::new(options, groups) }
    };
    let mut plans = alloc::vec![plan(1, CodebookDtype::F16, RowScale::None)];
    // Entries of 8 bits cost less than 0.05 dB up to here.
    if options.rate.code_bits().get() <= 5 {
        plans.push(plan(1, CodebookDtype::I8, RowScale::None));
    }
    let shared = (SHARED / groups.row_len.max(1)).clamp(1, groups.rows);
    if shared > 1 {
        let scales = [RowScale::None, RowScale::F16, RowScale::Log];
        plans.extend(scales.map(|scale| plan(shared, CodebookDtype::F16, scale)));
    }
    plans
}

/// The weights as f16, `None` if one is beyond that.
fn half(weights: &(impl WeightSlices + ?Sized)) -> Option<(Storage, Distortion)> {
    let mut values = Vec::with_capacity(weights.count());
    let mut distortion = Distortion { count: weights.count(), ..Distortion::default() };
    for first in (0..weights.count()).step_by(4096) {
        let end = weights.count().min(first + 4096);
        for &w in &*weights.range(first..end) {
            let value = f16::from_f32(w);
            let error = f64::from(w) - f64::from(value.to_f32());
            distortion.signal += f64::from(w) * f64::from(w);
            distortion.noise += error * error;
            values.push(value);
        }
    }
    distortion.entropy = 16.0 * f64_of(distortion.count);
    values.iter().all(|value| value.is_finite()).then_some((Storage::Half(values), distortion))
}
