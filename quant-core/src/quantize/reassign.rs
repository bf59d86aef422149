//! Other codes for a quantized tensor, whose codebooks and scales stay as they are; and the tensor that
//! a file stores.

use super::distortion::{Distortion, distortion};
use super::storage::Storage;
use super::tensor::QuantizedTensor;
use crate::codebook::Table;
use crate::error::{Error, Result, check_length};
use crate::matrix::{Parts, QuantizedMatrix, rows_of};
use crate::num::low_u8;
use crate::packing::pack;
use alloc::vec;
use alloc::vec::Vec;

/// The values that a row's codes can have, in ascending order, each with its code.
#[derive(Clone, Debug, PartialEq)]
pub struct RowValues {
    values: Vec<f32>,
    codes: Vec<u8>,
}

impl RowValues {
    /// The values, ascending; at least one.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Index of the value nearest to `x`, the lower of two on ties.
    #[inline]
    pub fn nearest(&self, x: f32) -> usize {
        let above = |pair: &[f32]| f32::midpoint(pair[0], pair[1]) < x;
        if self.values.len() <= 16 {
            return self.values.windows(2).map(|pair| usize::from(above(pair))).sum();
        }
        let above = |i: &usize| self.values.get(*i..*i + 2).is_some_and(above);
        let (mut low, mut high) = (0, self.values.len() - 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            if above(&middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl QuantizedTensor {
    /// The rows as matrix, `None` where the values have no codes.
    fn matrix(&self) -> Option<QuantizedMatrix<'_>> {
        let Storage::Quantized { layout, parts } = &self.storage else { return None };
        QuantizedMatrix::new(*layout, self.rows, self.row_len, parts.as_slices()).ok()
    }

    /// The values that a row can have; `None` after the last row, and where there are no codes.
    pub fn row_values(&self, row: usize) -> Option<RowValues> {
        let matrix = self.matrix()?;
        let mut table: Table = [0.0; 256];
        matrix.codebook(row)?.fill(matrix.scale(row), &mut table);
        let count = matrix.layout().bits.code_count();
        let mut codes: Vec<u8> = (0..count).map(low_u8).collect();
        let value = |code: &u8| table[usize::from(*code)];
        codes.sort_by(|a, b| value(a).total_cmp(&value(b)));
        codes.dedup_by_key(|code| value(code).to_bits());
        Some(RowValues { values: codes.iter().map(value).collect(), codes })
    }

    /// These codebooks and scales with the codes whose values are nearest to `targets`; the error is
    /// that towards `originals`. A tensor without codes stays as it is.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of either; [`Error::NonFinite`] for a target that is not
    /// finite.
    pub fn reassigned(&self, targets: &[f32], originals: &[f32]) -> Result<Self> {
        check_length("targets", self.rows * self.row_len, targets.len())?;
        check_length("originals", self.rows * self.row_len, originals.len())?;
        if let Some(index) = targets.iter().position(|target| !target.is_finite()) {
            return Err(Error::NonFinite { what: "target", index });
        }
        let mut changed = self.clone();
        let Storage::Quantized { layout, parts } = &mut changed.storage else {
            return Ok(changed);
        };
        let (bits, row_len) = (layout.bits, self.row_len.max(1));
        let packed = parts.codes.chunks_mut(bits.packed_len(row_len).max(1));
        let mut codes = vec![0; row_len];
        for (row, (targets, packed)) in targets.chunks(row_len).zip(packed).enumerate() {
            let Some(own) = self.row_values(row) else { continue };
            for (code, &target) in codes.iter_mut().zip(targets) {
                *code = own.codes[own.nearest(target)];
            }
            pack(&codes, packed, bits)?;
        }
        changed.distortion = changed.distortion_of(originals);
        Ok(changed)
    }

    /// The tensor of this shape that a file stores as `matrix`; the error is that towards `originals`.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of originals, or a shape that is not the matrix's.
    pub fn of_matrix(
        shape: &[usize],
        matrix: QuantizedMatrix<'_>,
        originals: &[f32],
    ) -> Result<Self> {
        let (rows, row_len) = rows_of(shape)?;
        check_length("rows", matrix.rows(), rows)?;
        check_length("elements of a row", matrix.row_len(), row_len)?;
        check_length("originals", rows * row_len, originals.len())?;
        let parts = matrix.parts();
        let parts = Parts {
            codebooks: parts.codebooks.to_vec(),
            scales: parts.scales.to_vec(),
            codes: parts.codes.to_vec(),
        };
        let storage = Storage::Quantized { layout: matrix.layout(), parts };
        let distortion = Distortion::default();
        let mut tensor = Self { shape: shape.to_vec(), rows, row_len, storage, distortion };
        tensor.distortion = tensor.distortion_of(originals);
        Ok(tensor)
    }

    /// The error of the codes towards `originals`, and the entropy of the codes of each codebook.
    fn distortion_of(&self, originals: &[f32]) -> Distortion {
        let mut sum = Distortion::default();
        let Some(matrix) = self.matrix() else { return sum };
        let values = self.dequantized();
        let shared = usize::try_from(matrix.layout().rows_per_codebook).unwrap_or(usize::MAX);
        let group = shared.saturating_mul(self.row_len).max(1);
        for (group, (originals, values)) in
            originals.chunks(group).zip(values.chunks(group)).enumerate()
        {
            let rows =
                group.saturating_mul(shared)..self.rows.min((group + 1).saturating_mul(shared));
            let codes: Vec<u8> = rows.filter_map(|row| matrix.codes(row)).flatten().collect();
            sum.add(distortion(originals, &codes, |_, i| values[i]));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::Bits;
    use crate::quantize::{Granularity, QuantizeOptions, quantize_tensor};
    use crate::scheme::Scheme;

    fn weights() -> Vec<f32> {
        (0..120_u8).map(|i| libm::sinf(f32::from(i) * 0.7) * f32::from(1 + i / 24)).collect()
    }

    fn tensor(scheme: Scheme, granularity: Granularity, bits: u8) -> QuantizedTensor {
        let options = QuantizeOptions {
            granularity,
            ..QuantizeOptions::new(scheme, Bits::new(bits).unwrap())
        };
        quantize_tensor(&weights(), &[5, 24], &options).unwrap()
    }

    #[test]
    fn its_own_values_give_a_tensor_again() {
        for scheme in Scheme::ALL {
            for granularity in [Granularity::Channel, Granularity::Group(2), Granularity::Auto] {
                for bits in [1, 2, 3, 5] {
                    let tensor = tensor(scheme, granularity, bits);
                    let again = tensor.reassigned(&tensor.dequantized(), &weights()).unwrap();
                    assert_eq!(again.dequantized(), tensor.dequantized(), "{scheme} {bits}");
                    let (found, expected) = (again.distortion(), tensor.distortion());
                    assert!((found.noise - expected.noise).abs() < 1e-9 * expected.signal);
                    let entropies = [found, expected].map(Distortion::entropy_bits);
                    assert!((entropies[0] - entropies[1]).abs() < 0.05, "{entropies:?}");
                    if let Some(matrix) = tensor.matrix() {
                        let stored =
                            QuantizedTensor::of_matrix(&[5, 24], matrix, &weights()).unwrap();
                        assert_eq!(stored, again);
                        assert!(QuantizedTensor::of_matrix(&[24, 5], matrix, &weights()).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_takes_the_nearest_value_of_its_row() {
        let tensor = tensor(Scheme::EqualMass, Granularity::Channel, 2);
        let targets: Vec<f32> = weights().iter().map(|w| 1.0 - 2.0 * w).collect();
        let changed = tensor.reassigned(&targets, &weights()).unwrap().dequantized();
        for (i, (target, value)) in targets.iter().zip(&changed).enumerate() {
            let values = tensor.row_values(i / 24).unwrap();
            assert!(values.values().is_sorted() && values.values().len() == 4);
            assert!(values.values().iter().all(|v| (v - target).abs() >= (value - target).abs()));
        }
        assert_eq!(tensor.row_values(5), None);
        assert!(tensor.reassigned(&targets[1..], &weights()).is_err());
        assert!(tensor.reassigned(&[f32::NAN; 120], &weights()).is_err());
    }

    #[test]
    fn many_values_are_searched_as_few_are() {
        let many = RowValues { values: (0..20_u8).map(f32::from).collect(), codes: vec![0; 20] };
        let few = RowValues { values: (0..4_u8).map(f32::from).collect(), codes: vec![0; 4] };
        for i in 0..40_u8 {
            let x = f32::from(i) * 0.25 - 2.0;
            assert_eq!(few.nearest(x), many.nearest(x).min(3), "{x}");
        }
        assert_eq!((many.nearest(1e9), many.nearest(-1e9), many.nearest(0.5)), (19, 0, 0));
    }
}
