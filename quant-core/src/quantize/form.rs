//! The forms in which quantized values may be stored, and the choice among them.

use crate::bits::{MAX_BITS, pack, packed_len};
use crate::codebook::{Affine, Entries};
use crate::coded::Coding;
use crate::num::{low_u8, u32_of};
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// What is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    Dense(Vec<f32>),
    Coded { coding: Coding, codebooks: Vec<u8>, codes: Vec<u8> },
}

/// A tensor that is not empty as a matrix, cut into groups of rows.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) row_len: usize,
    pub(super) group_rows: usize,
}

impl Layout {
    pub(super) const fn group_len(self) -> usize {
        self.group_rows * self.row_len
    }

    fn coding(self, bits: u8, entries: Entries, levels: usize) -> Coding {
        let levels = u16::try_from(levels).unwrap_or(u16::MAX);
        Coding { bits, entries, levels, rows_per_codebook: u32_of(self.group_rows) }
    }

    fn cost(self, coding: Coding) -> Option<usize> {
        let (codebooks, codes) = coding.byte_lens(self.rows, self.row_len)?;
        codebooks.checked_add(codes)
    }
}

/// Stores the values in the form that takes the fewest bytes.
pub(super) fn cheapest(
    values: Vec<f32>,
    affines: Option<&[Affine]>,
    layout: Layout,
    bits: u8,
) -> Form {
    let tables = Tables::of(&values, layout);
    let affine_coding = layout.coding(bits, Entries::Affine, 1 << bits);
    let dense_cost = 4 * values.len();
    let table_cost = tables.as_ref().and_then(|t| layout.cost(t.coding)).unwrap_or(usize::MAX);
    let affine_cost = affines.and_then(|_| layout.cost(affine_coding)).unwrap_or(usize::MAX);
    match (affines, tables) {
        (Some(affines), _) if affine_cost <= table_cost && affine_cost <= dense_cost => {
            let codebooks = affines.iter().flat_map(|affine| affine.to_bytes()).collect();
            let last = low_u8((1 << bits) - 1);
            let codes =
                values.chunks(layout.group_len()).zip(affines).flat_map(|(group, affine)| {
                    // Values ascend with codes, so the code is the first that reaches the value.
                    let levels: Vec<f32> = (0..=last).map(|code| affine.value(code)).collect();
                    group.iter().map(move |v| low_u8(levels.partition_point(|level| level < v)))
                });
            let codes: Vec<u8> = codes.collect();
            Form::Coded { coding: affine_coding, codebooks, codes: pack_rows(&codes, layout, bits) }
        }
        (_, Some(tables)) if table_cost <= dense_cost => tables.encode(&values, layout),
        _ => Form::Dense(values),
    }
}

/// The distinct values of each group, ascending, by bit pattern.
struct Tables {
    coding: Coding,
    groups: Vec<Vec<f32>>,
}

impl Tables {
    /// `None` if a group has more than 256 distinct values.
    fn of(values: &[f32], layout: Layout) -> Option<Self> {
        let mut groups = Vec::new();
        for group in values.chunks(layout.group_len()) {
            let mut distinct = group.to_vec();
            distinct.sort_unstable_by(f32::total_cmp);
            distinct.dedup_by_key(|value| value.to_bits());
            if distinct.len() > 1 << MAX_BITS {
                return None;
            }
            groups.push(distinct);
        }
        let levels = groups.iter().map(Vec::len).max()?;
        let bits = (1..MAX_BITS).find(|&bits| levels <= 1 << bits).unwrap_or(MAX_BITS);
        let exact = |v: &f32| f16::from_f32(*v).to_f32().to_bits() == v.to_bits();
        let halves = groups.iter().flatten().all(exact);
        let entries = if halves { Entries::F16 } else { Entries::F32 };
        Some(Self { coding: layout.coding(bits, entries, levels), groups })
    }

    fn encode(&self, values: &[f32], layout: Layout) -> Form {
        let mut codebooks = Vec::new();
        for group in &self.groups {
            // A shorter table repeats its last level.
            let padding = group.last().into_iter().cycle();
            let levels = usize::from(self.coding.levels);
            for &level in group.iter().chain(padding).take(levels) {
                match self.coding.entries {
                    Entries::F16 => codebooks.extend(f16::from_f32(level).to_le_bytes()),
                    Entries::F32 | Entries::Affine => codebooks.extend(level.to_le_bytes()),
                }
            }
        }
        let groups = values.chunks(layout.group_len()).zip(&self.groups);
        let codes = groups.flat_map(|(group, table)| {
            let code = |v: &f32| table.partition_point(|level| level.total_cmp(v).is_lt());
            group.iter().map(move |v| low_u8(code(v)))
        });
        let codes: Vec<u8> = codes.collect();
        let codes = pack_rows(&codes, layout, self.coding.bits);
        Form::Coded { coding: self.coding, codebooks, codes }
    }
}

/// Packs codes row by row; each fits `bits` bits.
fn pack_rows(codes: &[u8], layout: Layout, bits: u8) -> Vec<u8> {
    let row_bytes = packed_len(layout.row_len, bits).unwrap_or(0);
    let mut packed = vec![0; layout.rows * row_bytes];
    for (out, row) in packed.chunks_mut(row_bytes.max(1)).zip(codes.chunks(layout.row_len)) {
        let done = pack(row, out, bits);
        debug_assert!(done.is_ok(), "codes fit their width");
    }
    packed
}
