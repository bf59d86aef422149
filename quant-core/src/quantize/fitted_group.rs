//! A group after fitting: its codes, and its codebook with levels rounded to what will be stored.

use super::distortion::{Distortion, distortion};
use super::options::CodebookDtype;
use crate::bits::Bits;
use crate::codebook::Affine;
use crate::log_range::LogRange;
use crate::num::{f64_of, low_u8, round_even};
use alloc::vec::Vec;
use half::f16;

/// The codebook of a group.
#[derive(Clone, Debug)]
pub(super) enum GroupCodebook {
    /// Ascending levels without repetition; `scale` is that of integer entries.
    Table {
        levels: Vec<f32>,
        scale: f32,
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
    pub(super) book: GroupCodebook,
    /// One scale per row as it is stored, or none.
    pub(super) scales: Vec<f32>,
    /// One code per weight; none with [`GroupCodebook::Values`].
    pub(super) codes: Vec<u8>,
    pub(super) distortion: Distortion,
}

/// The levels as the entries of a table hold them, and the scale of integer entries.
pub(super) fn round_levels(levels: &[f32], dtype: CodebookDtype) -> (Vec<f32>, f32) {
    let integers = |most: i16| {
        let greatest = levels.iter().fold(0.0_f32, |most, level| most.max(level.abs()));
        let scale = greatest / f32::from(most);
        let round = |level: &f32| {
            let entry = round_even(level / scale).clamp(-f32::from(most), f32::from(most));
            if scale > 0.0 { entry * scale } else { 0.0 }
        };
        (levels.iter().map(round).collect(), scale)
    };
    match dtype {
        CodebookDtype::F32 => (levels.to_vec(), 0.0),
        CodebookDtype::F16 => {
            (levels.iter().map(|&level| f16::from_f32(level).to_f32()).collect(), 0.0)
        }
        CodebookDtype::I16 => integers(i16::MAX),
        CodebookDtype::I8 => integers(i8::MAX.into()),
    }
}

/// A table without repeated levels, and the codes that belong to it.
pub(super) fn merged((levels, scale): (Vec<f32>, f32), codes: &mut [u8]) -> GroupCodebook {
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
    GroupCodebook::Table { levels: distinct, scale }
}

impl GroupCodebook {
    /// The value of each code, none for [`GroupCodebook::Values`].
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
pub(super) fn measure(weights: &[f32], book: &GroupCodebook, codes: &[u8]) -> Distortion {
    match book {
        GroupCodebook::Values(_) => {
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
