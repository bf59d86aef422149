//! A whole tensor → the cheapest exact description of its quantized values.
//!
//! Each group of rows is fitted ([`crate::fit`]); the values that come out are then stored in
//! whichever of these forms takes the fewest bytes, the first on ties:
//!
//! 1. codes with affine codebooks, under `uniform`, if each group is either affine or constant;
//! 2. codes with tables of the distinct values of each group, as f16 where that is exact, if no
//!    group has more than 256; codes are as wide as the largest table needs;
//! 3. the values themselves as f32.
//!
//! So a small tensor at 8 bits may come out dense, and one of few distinct values below its bits.

mod form;

use crate::bits::code_count;
use crate::codebook::Affine;
use crate::coded::{CodedRows, Coding, check_range, rows_of};
use crate::error::{Error, Result, check_length};
use crate::fit::{Fit, Fitter, Group};
use crate::num::f64_of;
use crate::scheme::Scheme;
use alloc::vec;
use alloc::vec::Vec;
use form::{Form, Layout, cheapest};
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
}

/// How precise the levels of a table are. Affine codebooks are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Levels {
    /// As fitted.
    F32,
    /// Rounded to f16, ties to even; codes stay as fitted.
    F16,
}

/// How to quantize a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// The quantizer.
    pub scheme: Scheme,
    /// Levels per codebook: at most 2^bits.
    pub bits: u8,
    /// Which rows share a codebook.
    pub granularity: Granularity,
    /// Precision of the levels.
    pub levels: Levels,
}

impl Options {
    /// The paper's way: a codebook per channel, levels in f32.
    pub const fn new(scheme: Scheme, bits: u8) -> Self {
        Self { scheme, bits, granularity: Granularity::Channel, levels: Levels::F32 }
    }
}

/// A quantized tensor in its stored form.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    shape: Vec<usize>,
    rows: usize,
    row_len: usize,
    form: Form,
}

/// A quantized tensor's contents, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contents<'a> {
    /// The values themselves, row-major.
    Dense(&'a [f32]),
    /// Codes with codebooks.
    Coded {
        /// How the rows are coded.
        coding: Coding,
        /// All codebooks.
        codebooks: &'a [u8],
        /// All codes, packed row by row.
        codes: &'a [u8],
    },
}

/// Quantizes the weights of a tensor of the given shape.
///
/// A tensor without elements comes out dense and empty.
///
/// # Errors
/// [`Error::Bits`]; [`Error::Length`] if there are not as many weights as the shape says;
/// [`Error::NonFinite`] and [`Error::F16Overflow`] with the position in the tensor;
/// [`Error::Range`] for [`Granularity::Group`]`(0)` or a shape beyond the address space.
pub fn quantize_tensor(
    weights: &[f32],
    shape: &[usize],
    options: &Options,
) -> Result<QuantizedTensor> {
    let (rows, row_len) = rows_of(shape)?;
    check_length("weights", rows * row_len, weights.len())?;
    code_count(options.bits)?;
    let per_codebook = match options.granularity {
        Granularity::Channel => 1,
        Granularity::Group(rows) => rows,
        Granularity::Tensor => u32::try_from(rows.max(1)).unwrap_or(u32::MAX),
    };
    check_range("rows per codebook", u64::from(per_codebook), 1, u64::from(u32::MAX))?;
    let group_rows = usize::try_from(per_codebook).unwrap_or(usize::MAX).min(rows.max(1));
    let layout = Layout { rows, row_len, group_rows };
    let form = if weights.is_empty() {
        Form::Dense(Vec::new())
    } else {
        let (values, affines) = fit_groups(weights, layout, options)?;
        cheapest(values, affines.as_deref(), layout, options.bits)
    };
    Ok(QuantizedTensor { shape: shape.to_vec(), rows, row_len, form })
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
            Form::Coded { coding, codebooks, codes } => {
                Contents::Coded { coding: *coding, codebooks, codes }
            }
        }
    }

    /// The values, row-major: bit for bit those that the file's reader decodes.
    pub fn dequantized(&self) -> Vec<f32> {
        match &self.form {
            Form::Dense(values) => values.clone(),
            Form::Coded { coding, codebooks, codes } => {
                let mut values = vec![0.0; self.rows * self.row_len];
                let coded = CodedRows::new(*coding, self.rows, self.row_len, codebooks, codes);
                for (row, out) in values.chunks_mut(self.row_len.max(1)).enumerate() {
                    let decoded = coded.and_then(|coded| coded.decode_row(row, out));
                    debug_assert!(decoded.is_ok(), "codes are built with their codebooks");
                }
                values
            }
        }
    }

    /// The bytes of codes and codebooks, or of dense values.
    pub fn data_bytes(&self) -> usize {
        match &self.form {
            Form::Dense(values) => 4 * values.len(),
            Form::Coded { codebooks, codes, .. } => codebooks.len() + codes.len(),
        }
    }

    /// Bits per weight, codebooks included; 0 for a tensor without elements.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * f64_of(self.data_bytes()) / f64_of((self.rows * self.row_len).max(1))
    }
}

/// The values that replace the weights, and the affine codebooks if every group has one.
fn fit_groups(
    weights: &[f32],
    layout: Layout,
    options: &Options,
) -> Result<(Vec<f32>, Option<Vec<Affine>>)> {
    let mut fitter = Fitter::new();
    let mut values = Vec::with_capacity(weights.len());
    let mut affines = Some(Vec::new());
    for group in weights.chunks(layout.group_len()) {
        let first = values.len();
        let in_tensor = |error| match error {
            Error::NonFinite { what, index } => Error::NonFinite { what, index: first + index },
            other => other,
        };
        let spec = Group { numel: weights.len(), ..Group::new(group, options.bits) };
        let fitted = fitter.fit(options.scheme, &spec).map_err(in_tensor)?;
        values.extend(fitted.dequantized(group));
        let affine = match fitted.fit {
            Fit::Affine { min, step } => Some(Affine { min, step }),
            Fit::Copied if options.scheme == Scheme::Uniform => constant(group),
            Fit::Copied => None,
            Fit::Table { .. } | Fit::Logarithmic(_) => {
                if options.levels == Levels::F16 {
                    round_to_f16(&mut values, first)?;
                }
                None
            }
        };
        affines = affines.zip(affine).map(|(mut all, affine)| {
            all.push(affine);
            all
        });
    }
    Ok((values, affines))
}

/// The affine codebook whose code 0 is the one value of a group, sign of zero included.
fn constant(group: &[f32]) -> Option<Affine> {
    let min = *group.first()?;
    let same = group.iter().all(|w| w.to_bits() == min.to_bits());
    // 0 · step is zero of the sign of `min`, and -0.0 + -0.0 = -0.0.
    same.then_some(Affine { min, step: 0.0_f32.copysign(min) })
}

fn round_to_f16(values: &mut [f32], first: usize) -> Result<()> {
    for (index, value) in values.iter_mut().enumerate().skip(first) {
        let rounded = f16::from_f32(*value);
        if !rounded.is_finite() {
            return Err(Error::F16Overflow { index });
        }
        *value = rounded.to_f32();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codebook::Entries;
    use proptest::prelude::*;

    fn quantize(weights: &[f32], shape: &[usize], scheme: Scheme, bits: u8) -> QuantizedTensor {
        quantize_tensor(weights, shape, &Options::new(scheme, bits)).unwrap()
    }

    fn coding(tensor: &QuantizedTensor) -> Option<Coding> {
        match tensor.contents() {
            Contents::Coded { coding, .. } => Some(coding),
            Contents::Dense(_) => None,
        }
    }

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| crate::num::f32_of(f64_of(i * i % 977) / 977.0 - 0.3)).collect()
    }

    #[test]
    fn uniform_is_affine_and_keeps_constant_channels() {
        let mut weights = ramp(64);
        weights[16..32].fill(-0.0);
        weights[32..48].fill(0.7);
        let tensor = quantize(&weights, &[4, 16], Scheme::Uniform, 4);
        assert_eq!(coding(&tensor).map(|c| c.entries), Some(Entries::Affine));
        assert_eq!(tensor.data_bytes(), 4 * 8 + 32);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&tensor.dequantized()[16..48]), bits(&weights[16..48]));
    }

    #[test]
    fn tables_are_trimmed_to_the_levels_used() {
        // Three distinct values: two bits are enough, whatever was asked for.
        let weights: Vec<f32> = (0..300).map(|i| [0.1, -0.2, 0.3][i % 3]).collect();
        let tensor = quantize(&weights, &[300], Scheme::LloydMax, 8);
        let coding = coding(&tensor).unwrap();
        assert_eq!((coding.bits, coding.levels, coding.entries), (2, 3, Entries::F32));
        assert_eq!(tensor.dequantized(), weights);
    }

    #[test]
    fn values_that_f16_holds_are_stored_as_f16() {
        let tensor = quantize(&[0.0; 128], &[128], Scheme::EqualMass, 8);
        let coding = coding(&tensor).unwrap();
        assert_eq!((coding.bits, coding.levels, coding.entries), (1, 1, Entries::F16));
        assert_eq!(tensor.data_bytes(), 2 + 16);
    }

    #[test]
    fn dense_where_codebooks_would_cost_more() {
        let tensor = quantize(&ramp(300), &[3, 100], Scheme::EqualMass, 8);
        assert_eq!(tensor.contents(), Contents::Dense(&ramp(300)));
        assert_eq!(tensor.bits_per_weight(), 32.0);
    }

    #[test]
    fn f16_levels_are_rounded_and_may_not_overflow() {
        let options = Options { levels: Levels::F16, ..Options::new(Scheme::EqualMass, 1) };
        let tensor = quantize_tensor(&[0.1, 0.1, 0.7, 0.7], &[4], &options).unwrap();
        let low = f16::from_f32(0.1).to_f32();
        assert_eq!(tensor.dequantized()[..2], [low; 2]);
        let refused = quantize_tensor(&[1.0, 1.0, 7e4, 7e4], &[4], &options);
        assert_eq!(refused, Err(Error::F16Overflow { index: 2 }));
    }

    #[test]
    fn rows_share_codebooks() {
        let weights = ramp(5 * 64);
        for (granularity, count) in [
            (Granularity::Channel, 5),
            (Granularity::Group(2), 3),
            (Granularity::Tensor, 1),
            (Granularity::Group(99), 1),
        ] {
            let options = Options { granularity, ..Options::new(Scheme::LloydMax, 2) };
            let tensor = quantize_tensor(&weights, &[5, 8, 8], &options).unwrap();
            assert_eq!(tensor.data_bytes(), count * 16 + 5 * 16, "{granularity:?}");
        }
        let none =
            Options { granularity: Granularity::Group(0), ..Options::new(Scheme::Uniform, 2) };
        assert!(matches!(quantize_tensor(&weights, &[5, 64], &none), Err(Error::Range { .. })));
    }

    #[test]
    fn wrong_input_is_refused_by_name() {
        let options = Options::new(Scheme::Uniform, 4);
        let mut weights = ramp(32);
        weights[17] = f32::NAN;
        let refused = quantize_tensor(&weights, &[4, 8], &options);
        assert_eq!(refused, Err(Error::NonFinite { what: "weight", index: 17 }));
        let refused = quantize_tensor(&weights, &[4, 9], &options);
        assert_eq!(refused, Err(Error::Length { what: "weights", expected: 36, found: 32 }));
        assert!(quantize_tensor(&[], &[usize::MAX, 2, 2], &options).is_err());
        assert_eq!(
            quantize_tensor(&[], &[0], &Options::new(Scheme::Uniform, 9)),
            Err(Error::Bits(9))
        );
    }

    #[test]
    fn tensors_without_elements_and_scalars_are_defined() {
        for shape in [&[0][..], &[0, 3], &[3, 0]] {
            let tensor = quantize(&[], shape, Scheme::EqualMass, 4);
            assert_eq!((tensor.contents(), tensor.bits_per_weight()), (Contents::Dense(&[]), 0.0));
        }
        assert_eq!(quantize(&[2.5], &[], Scheme::Logarithmic, 4).dequantized(), [2.5]);
    }

    proptest! {
        #[test]
        fn stores_exactly_what_the_fit_says(
            scheme in prop::sample::select(&Scheme::ALL[..]),
            bits in 1_u8..=8,
            rows in 1_usize..5,
            raw in proptest::collection::vec(-2.0_f32..2.0, 64),
            row_len in 1_usize..16,
            coarse in any::<bool>(),
        ) {
            let grid = if coarse { 4.0 } else { 1e7 };
            let weights: Vec<f32> =
                raw[..rows * row_len].iter().map(|w| (w * grid).round() / grid).collect();
            let tensor = quantize(&weights, &[rows, row_len], scheme, bits);
            let mut fitter = Fitter::new();
            let mut expected = Vec::new();
            for row in weights.chunks(row_len) {
                let group = Group { numel: weights.len(), ..Group::new(row, bits) };
                expected.extend(fitter.fit(scheme, &group).unwrap().dequantized(row));
            }
            let as_bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            prop_assert_eq!(as_bits(tensor.dequantized()), as_bits(expected));
            prop_assert!(tensor.data_bytes() <= 4 * weights.len());
        }
    }
}
