//! A quantized tensor in its stored form.

use super::distortion::Distortion;
use super::form::Form;
use crate::matrix::{Parts, QuantLayout, QuantizedMatrix};
use crate::num::f64_of;
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// A quantized tensor in its stored form.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    pub(super) shape: Vec<usize>,
    pub(super) rows: usize,
    pub(super) row_len: usize,
    pub(super) form: Form,
    pub(super) distortion: Distortion,
}

/// A quantized tensor's contents, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contents<'a> {
    /// The values themselves, row-major.
    Dense(&'a [f32]),
    /// The values rounded to f16, row-major.
    Half(&'a [f16]),
    /// Codes with codebooks.
    Coded {
        /// How the rows are coded.
        layout: QuantLayout,
        /// Codebooks, scales and packed codes.
        parts: Parts<&'a [u8]>,
    },
}

impl QuantizedTensor {
    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What is stored.
    pub fn contents(&self) -> Contents<'_> {
        match &self.form {
            Form::Dense(values) => Contents::Dense(values),
            Form::Half(values) => Contents::Half(values),
            Form::Coded { layout, parts } => {
                let Parts { codebooks, scales, codes } = parts;
                Contents::Coded { layout: *layout, parts: Parts { codebooks, scales, codes } }
            }
        }
    }

    /// The error made, and the entropy of the codes.
    pub const fn distortion(&self) -> &Distortion {
        &self.distortion
    }

    /// The values, row-major: bit for bit those that the file's reader decodes.
    pub fn dequantized(&self) -> Vec<f32> {
        match self.contents() {
            Contents::Dense(values) => values.to_vec(),
            Contents::Half(values) => values.iter().map(|v| v.to_f32()).collect(),
            Contents::Coded { layout, parts } => {
                let mut values = vec![0.0; self.rows * self.row_len];
                let coded = QuantizedMatrix::new(layout, self.rows, self.row_len, parts);
                for (row, out) in values.chunks_mut(self.row_len.max(1)).enumerate() {
                    let decoded = coded.and_then(|coded| coded.decode_row(row, out));
                    debug_assert!(decoded.is_ok(), "codes are built with their codebooks");
                }
                values
            }
        }
    }

    /// The bytes of codes, scales and codebooks, or of dense values.
    pub fn data_bytes(&self) -> usize {
        self.form.bytes()
    }

    /// Bits per weight, codebooks and scales included; 0 for a tensor without elements.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * f64_of(self.data_bytes()) / f64_of((self.rows * self.row_len).max(1))
    }
}
