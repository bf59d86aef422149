//! Options of quantization.

use crate::rate::Rate;
use crate::scheme::Scheme;

/// Rows that share a codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// A codebook for each row, as in the paper.
    Channel,
    /// A codebook for so many neighbouring rows, at least 1.
    Group(u32),
    /// One codebook for the tensor.
    Tensor,
    /// The description with the best `SQNR - 6.02 (bits per weight - bits)` in dB of: a codebook per row
    /// with f16 or (to 5 bits) i8 entries; one that many rows share, with and without f16 scales
    /// for the rows; dense f16.
    Auto,
}

/// Type of the entries of a table; affine and logarithmic codebooks are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodebookDtype {
    /// Levels in f32, as fitted.
    F32,
    /// Levels rounded to f16, ties to even; codes stay as fitted.
    F16,
    /// Levels rounded to multiples of 1/32767 of the codebook's greatest magnitude; codes stay as fitted.
    I16,
    /// Levels rounded to multiples of 1/127 of the codebook's greatest magnitude; codes stay as fitted.
    I8,
}

/// Options of quantization for one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeOptions {
    /// Quantizer.
    pub scheme: Scheme,
    /// Rate: the greatest number of levels of a codebook.
    pub rate: Rate,
    /// Rows that share a codebook.
    pub granularity: Granularity,
    /// Type of a table's entries; [`Granularity::Auto`] chooses its own.
    pub codebook_dtype: CodebookDtype,
    /// Lagrange multiplier of entropy under [`Scheme::Ecq`], as [`crate::fit::Group`] has it; `None` for its
    /// default.
    pub lambda: Option<f64>,
}

impl QuantizeOptions {
    /// Options of the paper: a codebook per channel, levels in f32.
    pub fn new(scheme: Scheme, rate: impl Into<Rate>) -> Self {
        let rate = rate.into();
        let (granularity, codebook_dtype) = (Granularity::Channel, CodebookDtype::F32);
        Self { scheme, rate, granularity, codebook_dtype, lambda: None }
    }
}
