//! One group of rows: fitted, its levels rounded to what will be stored.

use super::form::Layout;
use super::scaled::fit_scaled;
use super::{Distortion, Levels, Options};
use crate::bits::Bits;
use crate::codebook::Affine;
use crate::error::{Error, Result};
use crate::fit::{Fit, Fitted, Group, fit};
use crate::log_range::LogRange;
use crate::num::{f64_of, log2, low_u8, round_even};
use crate::scheme::Scheme;
use alloc::vec::Vec;
use half::f16;

/// How the groups of a tensor are described.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) scheme: Scheme,
    pub(super) bits: Bits,
    pub(super) lambda: Option<f64>,
    pub(super) levels: Levels,
    pub(super) layout: Layout,
    /// Whether each row has an f16 scale in front of the group's codebook.
    pub(super) row_scales: bool,
}

impl Plan {
    pub(super) const fn new(options: &Options, layout: Layout) -> Self {
        let &Options { scheme, bits, levels, lambda, .. } = options;
        Self { scheme, bits, lambda, levels, layout, row_scales: false }
    }

    /// What to fit to weights of the tensor.
    pub(super) fn group<'a>(&self, weights: &'a [f32]) -> Group<'a> {
        let group = Group::new(weights, self.bits);
        let numel = self.layout.rows * self.layout.row_len;
        Group { numel, lambda: self.lambda.unwrap_or(group.lambda), ..group }
    }
}

/// The codebook of a group.
#[derive(Clone, Debug)]
pub(super) enum GroupBook {
    /// Ascending levels without repetition; `unit` is that of integer entries.
    Table {
        levels: Vec<f32>,
        unit: f32,
    },
    Affine(Affine),
    /// With the `k` that its levels are of.
    Logarithmic(LogRange, usize),
    /// None: the values themselves.
    Values(Vec<f32>),
}

/// A group after fitting.
#[derive(Clone, Debug)]
pub(super) struct FittedGroup {
    pub(super) book: GroupBook,
    /// One per row, or none.
    pub(super) scales: Vec<f16>,
    /// One per weight; none with [`GroupBook::Values`].
    pub(super) codes: Vec<u8>,
    pub(super) distortion: Distortion,
}

/// Fits the weights of one group; positions in errors count from its first weight.
pub(super) fn fit_group(weights: &[f32], plan: &Plan) -> Result<FittedGroup> {
    if plan.row_scales {
        return fit_scaled(weights, plan);
    }
    let Fitted { fit, levels, mut codes } = fit(plan.scheme, &plan.group(weights))?;
    let book = match fit {
        Fit::Copied => {
            let book;
            (book, codes) = copied(weights, plan.scheme);
            book
        }
        Fit::Affine { min, step } => GroupBook::Affine(Affine { min, step }),
        Fit::Logarithmic(range) => {
            GroupBook::Logarithmic(range, weights.len().min(plan.bits.code_count()))
        }
        Fit::Table => {
            let levels = round_levels(&levels, plan.levels);
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
fn copied(weights: &[f32], scheme: Scheme) -> (GroupBook, Vec<u8>) {
    let mut distinct = weights.to_vec();
    distinct.sort_unstable_by(f32::total_cmp);
    distinct.dedup_by_key(|value| value.to_bits());
    if distinct.len() > 256 {
        return (GroupBook::Values(weights.to_vec()), Vec::new());
    }
    let code = |w: &f32| low_u8(distinct.partition_point(|level| level.total_cmp(w).is_lt()));
    let codes = weights.iter().map(code).collect();
    let stepped = matches!(scheme, Scheme::Uniform | Scheme::UniformMse);
    match distinct[..] {
        // 0 · step is zero of the sign of `min`, and -0.0 + -0.0 = -0.0.
        [min] if stepped => (GroupBook::Affine(Affine { min, step: 0.0_f32.copysign(min) }), codes),
        _ => (GroupBook::Table { levels: distinct, unit: 0.0 }, codes),
    }
}

/// The levels as the entries of a table hold them, and the unit of integer entries.
pub(super) fn round_levels(levels: &[f32], to: Levels) -> (Vec<f32>, f32) {
    let integers = |most: i16| {
        let greatest = levels.iter().fold(0.0_f32, |most, level| most.max(level.abs()));
        let unit = greatest / f32::from(most);
        let round = |level: &f32| {
            let entry = round_even(level / unit).clamp(-f32::from(most), f32::from(most));
            if unit > 0.0 { entry * unit } else { 0.0 }
        };
        (levels.iter().map(round).collect(), unit)
    };
    match to {
        Levels::F32 => (levels.to_vec(), 0.0),
        Levels::F16 => (levels.iter().map(|&level| f16::from_f32(level).to_f32()).collect(), 0.0),
        Levels::I16 => integers(i16::MAX),
        Levels::I8 => integers(i8::MAX.into()),
    }
}

/// A table without repeated levels, and the codes that belong to it.
pub(super) fn merged((levels, unit): (Vec<f32>, f32), codes: &mut [u8]) -> GroupBook {
    let mut distinct = levels.clone();
    distinct.dedup_by_key(|level| level.to_bits());
    if distinct.len() < levels.len() {
        let mut to = [0; 256];
        let mut last = 0;
        for (i, pair) in levels.windows(2).enumerate() {
            last += usize::from(pair[0].to_bits() != pair[1].to_bits());
            to[i + 1] = low_u8(last);
        }
        for code in codes {
            *code = to[usize::from(*code)];
        }
    }
    GroupBook::Table { levels: distinct, unit }
}

impl GroupBook {
    /// The value of each code, none for [`GroupBook::Values`].
    pub(super) fn values(&self, bits: Bits) -> Vec<f32> {
        match self {
            Self::Table { levels, .. } => levels.clone(),
            Self::Affine(affine) => affine.levels(bits.code_count()),
            Self::Logarithmic(range, k) => {
                (0..=u8::MAX).map_while(|code| range.level(code, *k)).collect()
            }
            Self::Values(_) => Vec::new(),
        }
    }
}

/// The error of a group without row scales.
pub(super) fn measure(weights: &[f32], book: &GroupBook, codes: &[u8]) -> Distortion {
    match book {
        GroupBook::Values(_) => {
            let signal = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
            let count = weights.len();
            Distortion { count, signal, noise: 0.0, entropy: 32.0 * f64_of(count) }
        }
        book => {
            let mut table = [0.0; 256];
            table.iter_mut().zip(book.values(Bits::MAX)).for_each(|(entry, value)| *entry = value);
            distortion(weights, codes, |code, _| table[usize::from(code)])
        }
    }
}

/// The error of codes whose values `value` tells from code and position.
pub(super) fn distortion(
    weights: &[f32],
    codes: &[u8],
    value: impl Fn(u8, usize) -> f32,
) -> Distortion {
    let mut counts = [0_usize; 256];
    let (mut signal, mut noise) = (0.0, 0.0);
    for (i, (&w, &code)) in weights.iter().zip(codes).enumerate() {
        let w = f64::from(w);
        let error = w - f64::from(value(code, i));
        signal += w * w;
        noise += error * error;
        counts[usize::from(code)] += 1;
    }
    let n = f64_of(weights.len());
    let used = counts.iter().filter(|&&count| count > 0).map(|&count| f64_of(count));
    let entropy = used.map(|count| count * log2(n / count)).sum();
    Distortion { count: weights.len(), signal, noise, entropy }
}
