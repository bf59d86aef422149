//! The ways to store quantized values, and the choice among them.

use super::fitted_group::{FittedGroup, GroupCodebook};
use super::options::CodebookDtype;
use super::plan::{QuantPlan, RowGroups};
use crate::bits::Bits;
use crate::codebook::CodebookFormat;
use crate::matrix::{Parts, QuantLayout};
use crate::num::{i16_of, round_even, u32_of};
use crate::packing::pack;
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// Values of a tensor as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// The values themselves, row-major.
    Dense(Vec<f32>),
    /// The values rounded to f16, row-major.
    Half(Vec<f16>),
    /// Codes with codebooks.
    Quantized {
        /// Format of codes, codebooks and scales.
        layout: QuantLayout,
        /// Bytes of codebooks, scales and packed codes.
        parts: Parts<Vec<u8>>,
    },
}

impl Storage {
    /// The bytes of the data, without padding.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense(values) => 4 * values.len(),
            Self::Half(values) => 2 * values.len(),
            Self::Quantized { parts, .. } => {
                parts.codebooks.len() + parts.scales.len() + parts.codes.len()
            }
        }
    }
}

/// Stores fitted groups in the way that takes the fewest bytes.
pub(super) fn assemble(mut groups: Vec<FittedGroup>, plan: &QuantPlan) -> Storage {
    let RowGroups { rows, row_len, group_rows } = plan.groups;
    if groups.iter().any(|group| matches!(group.book, GroupCodebook::Values(_))) {
        return dense(&groups, plan);
    }
    let all = |test: fn(&GroupCodebook) -> bool| groups.iter().all(|group| test(&group.book));
    let (format, bits) = if all(|book| matches!(book, GroupCodebook::Affine(_))) {
        (CodebookFormat::Affine, plan.rate.code_bits())
    } else if all(|book| matches!(book, GroupCodebook::Logarithmic(..))) {
        (CodebookFormat::Logarithmic, plan.rate.code_bits())
    } else {
        into_tables(&mut groups, plan.rate.code_bits());
        (table_format(&groups, plan.codebook_dtype), table_bits(&groups))
    };
    let layout = QuantLayout {
        bits,
        codebook: format,
        rows_per_codebook: u32_of(group_rows),
        row_scale: plan.row_scale,
    };
    let lens = layout.byte_lens(rows, row_len).unwrap_or_default();
    if 4 * rows * row_len < lens.codebooks + lens.scales + lens.codes {
        return dense(&groups, plan);
    }
    let mut parts = Parts {
        codebooks: Vec::with_capacity(lens.codebooks),
        scales: Vec::with_capacity(lens.scales),
        codes: vec![0; lens.codes],
    };
    for group in &groups {
        emit_codebook(&group.book, format, bits.code_count(), &mut parts.codebooks);
        group.scales.iter().for_each(|&scale| plan.row_scale.put(scale, &mut parts.scales));
    }
    let row_bytes = bits.packed_len(row_len).max(1);
    let codes = groups.iter().flat_map(|group| group.codes.chunks(row_len));
    for (out, row) in parts.codes.chunks_mut(row_bytes).zip(codes) {
        let done = pack(row, out, bits);
        debug_assert!(done.is_ok(), "codes fit their width");
    }
    Storage::Quantized { layout, parts }
}

/// The values of all groups.
fn dense(groups: &[FittedGroup], plan: &QuantPlan) -> Storage {
    let mut all = Vec::with_capacity(plan.groups.rows * plan.groups.row_len);
    for group in groups {
        if let GroupCodebook::Values(values) = &group.book {
            all.extend(values);
            continue;
        }
        let values = group.book.values(plan.rate.code_bits());
        for (row, codes) in group.codes.chunks(plan.groups.row_len).enumerate() {
            let scale = group.scales.get(row).copied().unwrap_or(1.0);
            all.extend(codes.iter().map(|&code| values[usize::from(code)] * scale));
        }
    }
    Storage::Dense(all)
}

/// Turns every codebook into a table.
fn into_tables(groups: &mut [FittedGroup], bits: Bits) {
    for group in groups {
        if !matches!(group.book, GroupCodebook::Table { .. }) {
            group.book = GroupCodebook::Table { levels: group.book.values(bits), scale: 0.0 };
        }
    }
}

/// The bits that the largest table needs.
fn table_bits(groups: &[FittedGroup]) -> Bits {
    let most = groups.iter().map(|group| group.book.values(Bits::MAX).len()).max().unwrap_or(1);
    Bits::ALL.into_iter().find(|bits| most <= bits.code_count()).unwrap_or(Bits::MAX)
}

/// The format that holds the levels of all tables exactly.
fn table_format(groups: &[FittedGroup], dtype: CodebookDtype) -> CodebookFormat {
    let halves = groups
        .iter()
        .flat_map(|group| group.book.values(Bits::MAX))
        .all(|level| f16::from_f32(level).to_f32().to_bits() == level.to_bits());
    let scales = groups.iter().all(|group| match group.book {
        GroupCodebook::Table { ref levels, scale } => {
            scale > 0.0 || levels.iter().all(|l| *l == 0.0)
        }
        _ => false,
    });
    match dtype {
        CodebookDtype::I8 if scales => CodebookFormat::I8,
        CodebookDtype::I16 if scales && !halves => CodebookFormat::I16,
        _ if halves => CodebookFormat::F16,
        _ => CodebookFormat::F32,
    }
}

/// Appends the stored form of a codebook of `count` levels; a shorter table repeats its last one.
fn emit_codebook(book: &GroupCodebook, format: CodebookFormat, count: usize, out: &mut Vec<u8>) {
    match book {
        GroupCodebook::Affine(affine) => out.extend(affine.to_bytes()),
        GroupCodebook::Logarithmic(range, _) => out.extend(range.to_bytes()),
        GroupCodebook::Values(_) => {}
        GroupCodebook::Table { levels, scale } => {
            let last = levels.last().copied().unwrap_or(0.0);
            let padded = levels.iter().copied().chain(core::iter::repeat(last)).take(count);
            let entry =
                |level: f32| if *scale > 0.0 { i16_of(round_even(level / scale)) } else { 0 };
            match format {
                CodebookFormat::F16 => {
                    out.extend(padded.flat_map(|level| f16::from_f32(level).to_le_bytes()));
                }
                CodebookFormat::I16 => {
                    out.extend(scale.to_le_bytes());
                    out.extend(padded.flat_map(|level| entry(level).to_le_bytes()));
                }
                CodebookFormat::I8 => {
                    out.extend(scale.to_le_bytes());
                    // Below 128, so the low byte is the number.
                    out.extend(padded.map(|level| entry(level).to_le_bytes()[0]));
                }
                _ => out.extend(padded.flat_map(f32::to_le_bytes)),
            }
        }
    }
}
