//! Quantization to tables and scales that are given, not fitted.
//!
//! ```text
//! w[r][i] ≈ s[r] · level[code[r][i]]        the code of the nearest level
//! ```

use super::distortion::{Distortion, distortion};
use super::fitted_group::{FittedGroup, GroupCodebook, round_levels};
use super::options::{CodebookDtype, Granularity, QuantizeOptions};
use super::plan::{QuantPlan, RowGroups};
use super::storage::{Storage, assemble};
use super::tensor::QuantizedTensor;
use crate::bits::Bits;
use crate::codebook::CodebookFormat;
use crate::error::{Error, Result, check_length, check_range};
use crate::matrix::{QuantizedMatrix, RowScale, rows_of};
use crate::num::{low_u8, u64_of};
use crate::rate::Rate;
use crate::scheme::Scheme;
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// Tables of levels that rows share, and scales of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Rate: the number of levels of a table.
    pub rate: Rate,
    /// Type of the tables' entries.
    pub codebook_dtype: CodebookDtype,
    /// Rows that share a table, at least 1.
    pub rows_per_table: usize,
    /// Levels of all tables, `[tables, K]`, those of a table ascending.
    pub levels: Vec<f32>,
    /// Scales, `[rows]`, all above 0; empty where rows have none.
    pub scales: Vec<f32>,
    /// Format of the scales.
    pub row_scale: RowScale,
}

impl Tables {
    /// The tables of a quantized tensor, of three levels where no table of 2-bit codes has four; `None`
    /// where it has no codes.
    pub fn of(tensor: &QuantizedTensor) -> Option<Self> {
        let Storage::Quantized { layout, parts } = tensor.storage() else { return None };
        let (rows, row_len) = (tensor.rows, tensor.row_len);
        let matrix = QuantizedMatrix::new(*layout, rows, row_len, parts.as_slices()).ok()?;
        let rows_per_table = usize::try_from(layout.rows_per_codebook).ok()?.min(rows.max(1));
        let mut tables = Vec::new();
        for first in (0..rows).step_by(rows_per_table) {
            let codebook = matrix.codebook(first)?;
            let codes = (0..layout.bits.code_count()).map(low_u8);
            let mut levels: Vec<f32> = codes.map(|code| codebook.value(code)).collect();
            levels.sort_unstable_by(f32::total_cmp);
            tables.push(levels);
        }
        let rate = rate_of(layout.bits, &mut tables);
        let scales = match layout.row_scale {
            RowScale::None => Vec::new(),
            _ => (0..rows).filter_map(|row| matrix.scale(row)).collect(),
        };
        let codebook_dtype = match layout.codebook {
            CodebookFormat::F32 => CodebookDtype::F32,
            CodebookFormat::I16 => CodebookDtype::I16,
            CodebookFormat::I8 => CodebookDtype::I8,
            _ => CodebookDtype::F16,
        };
        let (levels, row_scale) = (tables.concat(), layout.row_scale);
        Some(Self { rate, codebook_dtype, rows_per_table, levels, scales, row_scale })
    }

    /// These tables as they are stored: levels ascending and rounded to the type of the entries, scales
    /// to theirs, at least the smallest normal f16.
    #[must_use]
    pub fn stored(&self) -> Self {
        let tables = self.levels.chunks(self.rate.levels());
        let levels = tables.flat_map(|table| self.stored_table(table).0).collect();
        let least = f16::MIN_POSITIVE.to_f32();
        let round = |&scale: &f32| self.row_scale.nearest(scale.max(least).into());
        Self { levels, scales: self.scales.iter().map(round).collect(), ..self.clone() }
    }

    /// A table as it is stored, and the scale of integer entries.
    fn stored_table(&self, levels: &[f32]) -> (Vec<f32>, f32) {
        let most = match self.codebook_dtype {
            CodebookDtype::F16 => f16::MAX.to_f32(),
            _ => f32::MAX,
        };
        let mut levels: Vec<f32> = levels.iter().map(|level| level.clamp(-most, most)).collect();
        levels.sort_unstable_by(f32::total_cmp);
        round_levels(&levels, self.codebook_dtype)
    }

    /// The levels of a row, `[K]`, before its scale; empty after the last table.
    pub fn row_levels(&self, row: usize) -> &[f32] {
        let count = self.rate.levels();
        let first = row / self.rows_per_table.max(1) * count;
        self.levels.get(first..first + count).unwrap_or(&[])
    }

    /// The scale of a row; 1 where rows have none.
    pub fn row_scale(&self, row: usize) -> f32 {
        self.scales.get(row).copied().unwrap_or(1.0)
    }

    /// Writes the code of the level nearest to each weight of a row, the lower of two on ties.
    pub fn encode_row(&self, row: usize, weights: &[f32], codes: &mut [u8]) {
        let (levels, scale) = (self.row_levels(row), self.row_scale(row));
        let mut thresholds = [f32::INFINITY; 255];
        for (threshold, pair) in thresholds.iter_mut().zip(levels.windows(2)) {
            *threshold = f32::midpoint(pair[0], pair[1]);
        }
        let thresholds = thresholds.get(..levels.len().saturating_sub(1)).unwrap_or(&[]);
        for (&w, code) in weights.iter().zip(codes) {
            let x = w / scale;
            *code = if thresholds.len() < 16 {
                thresholds.iter().map(|&threshold| u8::from(threshold < x)).sum()
            } else {
                low_u8(thresholds.partition_point(|&threshold| threshold < x))
            };
        }
    }

    /// Weights of a shape by these tables as they are [stored](Self::stored), with the error towards
    /// `originals`.
    ///
    /// # Errors
    /// [`Error::Length`] for weights, levels or scales of another number; [`Error::Range`] for a shape
    /// beyond the address space; [`Error::NonFinite`] for a weight that is not finite.
    pub fn quantize(
        &self,
        weights: &[f32],
        originals: &[f32],
        shape: &[usize],
    ) -> Result<QuantizedTensor> {
        let (rows, row_len) = rows_of(shape)?;
        check_length("weights", rows * row_len, weights.len())?;
        check_length("originals", rows * row_len, originals.len())?;
        check_range("rows per codebook", u64_of(self.rows_per_table), 1, u32::MAX.into())?;
        let tables = rows.div_ceil(self.rows_per_table);
        check_length("levels", tables * self.rate.levels(), self.levels.len())?;
        let scales = if self.row_scale == RowScale::None { 0 } else { rows };
        check_length("row scales", scales, self.scales.len())?;
        if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
            return Err(Error::NonFinite { what: "weight", index });
        }
        let stored = self.stored();
        let groups = RowGroups { rows, row_len, group_rows: self.rows_per_table };
        let options = QuantizeOptions {
            granularity: Granularity::Tensor,
            codebook_dtype: self.codebook_dtype,
            ..QuantizeOptions::new(Scheme::LloydMax, self.rate)
        };
        let plan = QuantPlan { row_scale: self.row_scale, ..QuantPlan::new(&options, groups) };
        let mut sum = Distortion::default();
        let fitted = (0..tables).map(|table| {
            let first = table * self.rows_per_table;
            let own = first..rows.min(first + self.rows_per_table);
            let range = own.start * row_len..own.end * row_len;
            let mut codes = vec![0; range.len()];
            for (row, codes) in own.clone().zip(codes.chunks_mut(row_len.max(1))) {
                stored.encode_row(row, &weights[row * row_len..][..row_len], codes);
            }
            let count = self.rate.levels();
            let own_levels = self.levels.get(table * count..(table + 1) * count).unwrap_or(&[]);
            let (levels, scale) = self.stored_table(own_levels);
            let value = |code: u8, i: usize| {
                levels[usize::from(code)] * stored.row_scale(first + i / row_len.max(1))
            };
            let distortion = distortion(&originals[range], &codes, value);
            sum.add(distortion);
            let scales = stored.scales.get(own).unwrap_or(&[]);
            FittedGroup {
                scales: scales.to_vec(),
                book: GroupCodebook::Table { levels, scale },
                codes,
                distortion,
            }
        });
        let storage = assemble(fitted.collect(), &plan);
        Ok(QuantizedTensor { shape: shape.to_vec(), rows, row_len, storage, distortion: sum })
    }
}

/// The rate of tables of ascending levels, which lose what they repeat where none has more than three.
fn rate_of(bits: Bits, tables: &mut [Vec<f32>]) -> Rate {
    let three = Rate::THREE_LEVELS;
    let repeated = |levels: &Vec<f32>| {
        levels.windows(2).position(|pair| pair[0].to_bits() == pair[1].to_bits())
    };
    if bits != three.code_bits() || !tables.iter().all(|levels| repeated(levels).is_some()) {
        return bits.into();
    }
    for levels in tables {
        if let Some(at) = repeated(levels) {
            levels.remove(at);
        }
    }
    three
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::quantize_tensor;

    fn weights() -> Vec<f32> {
        (0..96_u8).map(|i| libm::sinf(f32::from(i) * 0.7) * f32::from(1 + i / 24)).collect()
    }

    #[test]
    fn tables_of_a_tensor_give_it_again() {
        use CodebookDtype::{F16, F32, I8, I16};
        for codebook_dtype in [F32, F16, I16, I8] {
            let options = QuantizeOptions {
                granularity: Granularity::Group(2),
                codebook_dtype,
                ..QuantizeOptions::new(Scheme::LloydMax, Bits::ALL[1])
            };
            let tensor = quantize_tensor(&weights(), &[4, 24], &options).unwrap();
            let tables = Tables::of(&tensor).unwrap();
            assert_eq!((tables.levels.len(), tables.scales.len()), (8, 0));
            let again = tables.quantize(&tensor.dequantized(), &weights(), &[4, 24]).unwrap();
            assert_eq!(again, tensor, "{codebook_dtype:?}");
        }
    }

    #[test]
    fn levels_and_scales_are_what_is_decoded() {
        let tables = Tables {
            rate: Bits::ALL[0].into(),
            codebook_dtype: CodebookDtype::F16,
            rows_per_table: 4,
            levels: vec![0.75, -1.000_1],
            scales: vec![1.0, 2.0, 0.3, 0.0],
            row_scale: RowScale::F16,
        };
        let tensor = tables.quantize(&weights(), &weights(), &[4, 24]).unwrap();
        let stored = tables.stored();
        assert_eq!(stored.levels, [-1.0, 0.75]);
        let values = tensor.dequantized();
        for (row, values) in values.chunks(24).enumerate() {
            let scale = stored.row_scale(row);
            assert!(values.iter().all(|value| [-scale, 0.75 * scale].contains(value)), "{row}");
        }
        let errors: f64 =
            weights().iter().zip(&values).map(|(w, q)| f64::from(w - q).powi(2)).sum();
        let noise = tensor.distortion().noise;
        assert!((noise - errors).abs() < 1e-9_f64 * noise);
        assert!(
            Tables { scales: vec![1.0], ..tables.clone() }
                .quantize(&weights(), &weights(), &[4, 24])
                .is_err()
        );
        assert!(tables.quantize(&[f32::NAN; 96], &weights(), &[4, 24]).is_err());
        // Bytes of sixteenths of octaves.
        let tables = Tables { row_scale: RowScale::Log, ..tables };
        let sixteenths = [192_u8, 208, 164, 0];
        let expected =
            sixteenths.map(|b| crate::num::f32_of(libm::exp2(f64::from(b) / 16.0 - 12.0)));
        assert_eq!(tables.stored().scales, expected);
        let tensor = tables.quantize(&weights(), &weights(), &[4, 24]).unwrap();
        let Storage::Quantized { parts, .. } = tensor.storage() else { panic!() };
        assert_eq!(parts.scales, sixteenths);
        assert_eq!(Tables::of(&tensor).unwrap(), tables.stored());
    }
}
