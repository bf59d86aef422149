//! How to quantize a tensor.

use crate::bits::Bits;
use crate::scheme::Scheme;

/// Which rows share a codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Each row has its own, as in the paper.
    Channel,
    /// So many neighbouring rows share one; at least 1.
    Group(u32),
    /// The tensor has one.
    Tensor,
    /// Whatever has the best `SQNR - 6.02 (bits per weight - bits)` in dB of: a codebook per row
    /// with f16 or (to 5 bits) i8 entries; one that many rows share, with and without f16 scales
    /// for the rows; dense f16.
    Auto,
}

/// How precise the levels of a table are. Affine and logarithmic codebooks are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodebookDtype {
    /// As fitted.
    F32,
    /// Rounded to f16, ties to even; codes stay as fitted.
    F16,
    /// Multiples of 1/32767 of the codebook's greatest magnitude; codes stay as fitted.
    I16,
    /// Multiples of 1/127 of it.
    I8,
}

/// How to quantize a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The quantizer.
    pub scheme: Scheme,
    /// Width of a code: a codebook has at most 2^bits levels.
    pub bits: Bits,
    /// Which rows share a codebook.
    pub granularity: Granularity,
    /// Precision of the levels; [`Granularity::Auto`] chooses its own.
    pub codebook_dtype: CodebookDtype,
    /// Lagrange multiplier of entropy under [`Scheme::Ecq`], as [`crate::fit::Group`] has it; `None` for its
    /// default.
    pub lambda: Option<f64>,
}

impl Options {
    /// The paper's way: a codebook per channel, levels in f32.
    pub const fn new(scheme: Scheme, bits: Bits) -> Self {
        let (granularity, codebook_dtype) = (Granularity::Channel, CodebookDtype::F32);
        Self { scheme, bits, granularity, codebook_dtype, lambda: None }
    }
}
