//! A whole tensor → the cheapest exact description of its quantized values.
//!
//! The tensor is cut into groups of rows that share a codebook, each group is fitted
//! ([`crate::fit`]), its levels are rounded to what the codebook's entries can hold, and what comes
//! out is stored in whichever of these forms takes the fewest bytes, the first on ties:
//!
//! 1. codes with affine or logarithmic codebooks, under the schemes that have such levels;
//! 2. codes with tables, as f16 where that is exact; codes are as wide as the largest table needs;
//! 3. the values themselves as f32.
//!
//! So a small tensor at 8 bits may come out dense, and one of few distinct values below its bits.
//! [`Granularity::Auto`] compares several such descriptions by error and size.
//!
//! Groups are independent: a caller with threads passes a [`Spread`] that uses them. The result
//! does not depend on it.

mod auto;
mod form;
mod group;
mod scaled;

use crate::bits::Bits;
use crate::coded::{CodedRows, Coding, Parts, rows_of};
use crate::error::{Error, Result, check_length, check_range};
use crate::num::{f64_of, log10};
use crate::scheme::Scheme;
use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use form::{Form, Layout, assemble};
use group::{FittedGroup, Plan, fit_group};
use half::f16;

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
pub enum Levels {
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
    pub levels: Levels,
    /// Price of entropy under [`Scheme::Ecq`], as [`crate::fit::Group`] has it; none for its
    /// default.
    pub lambda: Option<f64>,
}

impl Options {
    /// The paper's way: a codebook per channel, levels in f32.
    pub const fn new(scheme: Scheme, bits: Bits) -> Self {
        let (granularity, levels) = (Granularity::Channel, Levels::F32);
        Self { scheme, bits, granularity, levels, lambda: None }
    }
}

/// The weights of a tensor, row-major, wherever they are.
pub trait Weights: Sync {
    /// Their number.
    fn count(&self) -> usize;

    /// Some of them.
    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]>;
}

impl Weights for [f32] {
    fn count(&self) -> usize {
        self.len()
    }

    fn range(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        Cow::Borrowed(self.get(range).unwrap_or(&[]))
    }
}

/// Runs independent pieces of work, perhaps on several threads.
pub trait Spread {
    /// The results of pieces `0..count`, in order.
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T>;
}

/// One piece after the other.
struct Sequential;

impl Spread for Sequential {
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        (0..count).map(work).collect()
    }
}

/// What quantization did to the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// The number of weights.
    pub count: usize,
    /// `sum w^2`.
    pub signal: f64,
    /// `sum (w - q)^2`.
    pub noise: f64,
    /// Bits that an ideal entropy code of each group would take for all codes together, codebooks
    /// not counted; 32 for each weight without a code.
    pub entropy: f64,
}

impl Distortion {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.signal += other.signal;
        self.noise += other.noise;
        self.entropy += other.entropy;
    }

    /// Mean squared error.
    pub fn mse(&self) -> f64 {
        self.noise / f64_of(self.count.max(1))
    }

    /// `10 log10(sum w^2 / sum (w - q)^2)` in dB; none for an exact copy.
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.noise > 0.0).then(|| 10.0 * log10(self.signal / self.noise))
    }

    /// Bits per weight of an ideal entropy code.
    pub fn entropy_bits(&self) -> f64 {
        self.entropy / f64_of(self.count.max(1))
    }
}

/// A quantized tensor in its stored form.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    shape: Vec<usize>,
    rows: usize,
    row_len: usize,
    form: Form,
    distortion: Distortion,
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
        coding: Coding,
        /// Codebooks, scales and packed codes.
        parts: Parts<&'a [u8]>,
    },
}

/// Quantizes the weights of a tensor of the given shape, one group after the other.
///
/// # Errors
/// Those of [`quantize_on`].
pub fn quantize_tensor(
    weights: &[f32],
    shape: &[usize],
    options: &Options,
) -> Result<QuantizedTensor> {
    quantize_on(&Sequential, weights, shape, options)
}

/// Quantizes the weights of a tensor of the given shape, its groups spread as the caller likes.
///
/// A tensor without elements comes out dense and empty.
///
/// # Errors
/// [`Error::Length`] if there are not as many weights as the shape says;
/// [`Error::NonFinite`] and [`Error::F16Overflow`] with the position in the tensor;
/// [`Error::Range`] for [`Granularity::Group`]`(0)` or a shape beyond the address space;
/// [`Error::Real`] for a price of entropy below 0.
pub fn quantize_on(
    spread: &impl Spread,
    weights: &(impl Weights + ?Sized),
    shape: &[usize],
    options: &Options,
) -> Result<QuantizedTensor> {
    let (rows, row_len) = rows_of(shape)?;
    check_length("weights", rows * row_len, weights.count())?;
    let shared = match options.granularity {
        Granularity::Channel | Granularity::Auto => 1,
        Granularity::Group(rows) => usize::try_from(rows).unwrap_or(usize::MAX),
        Granularity::Tensor => rows.max(1),
    };
    check_range(
        "rows per codebook",
        u64::try_from(shared).unwrap_or(u64::MAX),
        1,
        u32::MAX.into(),
    )?;
    let layout = Layout { rows, row_len, group_rows: shared.min(rows.max(1)) };
    let (form, distortion) = if weights.count() == 0 {
        (Form::Dense(Vec::new()), Distortion::default())
    } else if options.granularity == Granularity::Auto {
        auto::best(spread, weights, layout, options)?
    } else {
        let plan = Plan::new(options, layout);
        describe(spread, weights, &plan)?
    };
    Ok(QuantizedTensor { shape: shape.to_vec(), rows, row_len, form, distortion })
}

/// Fits every group as planned and stores the result.
fn describe(
    spread: &impl Spread,
    weights: &(impl Weights + ?Sized),
    plan: &Plan,
) -> Result<(Form, Distortion)> {
    let (count, len) = (weights.count(), plan.layout.group_len());
    let groups = spread.map(count.div_ceil(len), |group| {
        let first = group * len;
        let range = first..count.min(first + len);
        let in_tensor = |error| match error {
            Error::NonFinite { what, index } => Error::NonFinite { what, index: first + index },
            Error::F16Overflow { index } => Error::F16Overflow { index: first + index },
            other => other,
        };
        fit_group(&weights.range(range), plan).map_err(in_tensor)
    });
    // The error of the first group that has one, whichever came first.
    let groups: Vec<FittedGroup> = groups.into_iter().collect::<Result<_>>()?;
    let mut distortion = Distortion::default();
    for group in &groups {
        distortion.add(group.distortion);
    }
    Ok((assemble(groups, plan), distortion))
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
            Form::Coded { coding, parts } => {
                let Parts { codebooks, scales, codes } = parts;
                Contents::Coded { coding: *coding, parts: Parts { codebooks, scales, codes } }
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
            Contents::Coded { coding, parts } => {
                let mut values = vec![0.0; self.rows * self.row_len];
                let coded = CodedRows::new(coding, self.rows, self.row_len, parts);
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

#[cfg(test)]
mod tests;
