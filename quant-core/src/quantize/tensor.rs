//! A quantized tensor as it is stored.

use super::distortion::Distortion;
use super::storage::Storage;
use crate::matrix::QuantizedMatrix;
use crate::num::f64_of;
use alloc::vec;
use alloc::vec::Vec;

/// Quantized tensor as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    pub(super) shape: Vec<usize>,
    pub(super) rows: usize,
    pub(super) row_len: usize,
    pub(super) storage: Storage,
    pub(super) distortion: Distortion,
}

impl QuantizedTensor {
    /// Shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values as they are stored.
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Error of the values, and entropy of the codes.
    pub const fn distortion(&self) -> &Distortion {
        &self.distortion
    }

    /// The values, row-major: bit for bit those that the file's reader decodes.
    pub fn dequantized(&self) -> Vec<f32> {
        match &self.storage {
            Storage::Dense(values) => values.clone(),
            Storage::Half(values) => values.iter().map(|v| v.to_f32()).collect(),
            Storage::Quantized { layout, parts } => {
                let mut values = vec![0.0; self.rows * self.row_len];
                let matrix =
                    QuantizedMatrix::new(*layout, self.rows, self.row_len, parts.as_slices());
                for (row, out) in values.chunks_mut(self.row_len.max(1)).enumerate() {
                    let decoded = matrix.and_then(|matrix| matrix.decode_row(row, out));
                    debug_assert!(decoded.is_ok(), "codes are built with their codebooks");
                }
                values
            }
        }
    }

    /// The bytes of codes, scales and codebooks, or of dense values.
    pub fn data_bytes(&self) -> usize {
        self.storage.bytes()
    }

    /// Bits per weight, codebooks and scales included; 0 for a tensor without elements.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * f64_of(self.data_bytes()) / f64_of((self.rows * self.row_len).max(1))
    }
}
