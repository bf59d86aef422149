//! Rows of different size under one codebook: each row has a scale.
//!
//! ```text
//! w[r][i] ≈ s[r] · level[code[r][i]]
//! ```
//!
//! The scales start as the rows' root mean squares. The codebook is fitted to all `w / s`, weighted
//! by `s²` so that the error counts in units of the weights. Then scales (least squares), codes
//! (nearest, where the scheme means that) and the levels of a table (means) are improved in turn.

use super::distortion::distortion;
use super::fitted_group::{FittedGroup, GroupCodebook, measure, merged, round_levels};
use super::plan::{QuantPlan, RowGroups};
use crate::error::{Error, Result};
use crate::fit::{Fit, Fitted, Group, fit};
use crate::num::{f32_of, f64_of, low_u8, sqrt_f64};
use crate::scheme::Scheme;
use alloc::vec::Vec;

/// Rounds of improvement. On 256 rows of 144 normal weights at 4 bits `lloyd-max` has 20.40 dB after
/// none, 20.60 after three and 20.67 after six; on longer rows a tenth of that.
const ROUNDS: usize = 3;

/// Fits a group of rows with scales; positions in errors count from its first weight.
pub(super) fn fit_scaled(weights: &[f32], plan: &QuantPlan) -> Result<FittedGroup> {
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::NonFinite { what: "weight", index });
    }
    let RowGroups { row_len, .. } = plan.groups;
    let rows = weights.chunks(row_len).map(root_mean_square);
    let mut scales: Vec<f32> = rows.map(|scale| plan.row_scale.nearest(scale)).collect();
    let greatest = scales.iter().fold(0.0_f32, |most, scale| most.max(*scale));
    let (mut relative, mut importance) = (Vec::new(), Vec::new());
    for (row, &scale) in weights.chunks(row_len).zip(&scales) {
        let share = if greatest > 0.0 { scale / greatest } else { 1.0 };
        relative.extend(row.iter().map(|w| if scale > 0.0 { w / scale } else { 0.0 }));
        importance.extend(row.iter().map(|_| share * share));
    }
    let group = Group { importance: Some(&importance), ..plan.group(&relative) };
    let Fitted { fit, mut levels, mut codes } = fit(plan.scheme, &group)?;
    let book = match fit {
        Fit::Copied => return Ok(kept(weights)),
        Fit::Affine(affine) if plan.rate.uses_all_codes() => Some(GroupCodebook::Affine(affine)),
        Fit::Logarithmic(range) if plan.rate.uses_all_codes() => {
            Some(GroupCodebook::Logarithmic(range, weights.len().min(plan.rate.levels())))
        }
        Fit::Table | Fit::Affine(_) | Fit::Logarithmic(_) => None,
    };
    let is_nearest = matches!(
        plan.scheme,
        Scheme::LloydMax | Scheme::UniformMse | Scheme::Uniform | Scheme::Logarithmic
    );
    for _ in 0..ROUNDS {
        rescale(weights, plan, &levels, &codes, &mut scales);
        if is_nearest {
            recode(weights, row_len, &mut levels, &scales, &mut codes);
        }
        if book.is_none() {
            recentre(weights, row_len, &scales, &codes, &mut levels);
        }
    }
    let book = match book {
        Some(book) => book,
        None => merged(round_levels(&levels, plan.codebook_dtype), &mut codes),
    };
    let values = book.values(plan.rate.code_bits());
    rescale(weights, plan, &values, &codes, &mut scales);
    let value = |code: u8, i: usize| values[usize::from(code)] * scales[i / row_len];
    // A row too large for its scale leaves levels that f16 cannot hold.
    let overflow = codes.iter().enumerate().position(|(i, &code)| !value(code, i).is_finite());
    if let Some(index) = overflow {
        return Err(Error::F16Overflow { index });
    }
    let distortion = distortion(weights, &codes, value);
    Ok(FittedGroup { book, scales, codes, distortion })
}

/// A group that no scale and codebook describes.
fn kept(weights: &[f32]) -> FittedGroup {
    let book = GroupCodebook::Values(weights.to_vec());
    let distortion = measure(weights, &book, &[]);
    FittedGroup { book, scales: Vec::new(), codes: Vec::new(), distortion }
}

fn root_mean_square(row: &[f32]) -> f64 {
    let sum: f64 = row.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
    sqrt_f64(sum / f64_of(row.len().max(1)))
}

/// Sets each scale to `sum w·l / sum l²` over the levels `l` of its row, where that is above 0.
fn rescale(weights: &[f32], plan: &QuantPlan, levels: &[f32], codes: &[u8], scales: &mut [f32]) {
    let row_len = plan.groups.row_len;
    let rows = weights.chunks(row_len).zip(codes.chunks(row_len));
    for ((row, codes), scale) in rows.zip(scales) {
        let (mut product, mut square) = (0.0, 0.0);
        for (&w, &code) in row.iter().zip(codes) {
            let level = f64::from(levels[usize::from(code)]);
            product += f64::from(w) * level;
            square += level * level;
        }
        if product > 0.0 && square > 0.0 {
            *scale = plan.row_scale.nearest(product / square);
        }
    }
}

/// Gives each weight the code of the nearest level.
fn recode(weights: &[f32], row_len: usize, levels: &mut [f32], scales: &[f32], codes: &mut [u8]) {
    // A level that no weight had may have been overtaken by others that moved.
    levels.sort_unstable_by(f32::total_cmp);
    let between: Vec<f32> = levels.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
    let rows = weights.chunks(row_len).zip(codes.chunks_mut(row_len));
    for ((row, codes), &scale) in rows.zip(scales) {
        if scale > 0.0 {
            for (&w, code) in row.iter().zip(codes) {
                let x = w / scale;
                *code = low_u8(between.partition_point(|&threshold| threshold < x));
            }
        }
    }
}

/// Moves each level to the mean of its weights, `sum s·w / sum s²`.
fn recentre(weights: &[f32], row_len: usize, scales: &[f32], codes: &[u8], levels: &mut [f32]) {
    let mut sums = [(0.0_f64, 0.0_f64); 256];
    let rows = weights.chunks(row_len).zip(codes.chunks(row_len));
    for ((row, codes), &scale) in rows.zip(scales) {
        let scale = f64::from(scale);
        for (&w, &code) in row.iter().zip(codes) {
            let (product, square) = &mut sums[usize::from(code)];
            *product += scale * f64::from(w);
            *square += scale * scale;
        }
    }
    for (level, (product, square)) in levels.iter_mut().zip(sums) {
        if square > 0.0 {
            *level = f32_of(product / square);
        }
    }
}
