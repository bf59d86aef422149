//! Rows of codes with their codebooks: how a quantized tensor lies in memory and in the file.
//!
//! A tensor is a matrix `[rows, row_len]`: axis 0 by the product of the other axes; a tensor of
//! fewer than two axes is one row. `rows_per_codebook` neighbouring rows share a codebook, the last
//! codebook may serve fewer. A row may have a scale of its own: its weights are then the
//! codebook's values times the scale, in f32. Each row of codes starts on a byte boundary.

use crate::bits::Bits;
use crate::codebook::{Codebook, CodebookFormat, Table};
use crate::error::{Error, Result, check_count, check_length, check_range};
use crate::kernels;
#[cfg(feature = "alloc")]
use crate::num::{f32_of, i32_of, low_u8, round_even};
use crate::num::{index, u64_of};
use crate::packing::{Codes, tail_is_zero};
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use half::f16;

/// Scale of a row, in front of a codebook that rows share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowScale {
    /// No scale: the codebook's values are the weights.
    None,
    /// An f16 for each row.
    F16,
    /// An f32 for each row.
    F32,
    /// A byte `b` for each row, which means `2^(b / 16 - 12)`: 2^-12 to 15.3.
    Log,
}

/// `2^(i / 16)`, each the nearest f32.
const SIXTEENTHS: [f32; 16] = [
    1.0,
    1.044_273_7,
    1.090_507_7,
    1.138_788_6,
    1.189_207_1,
    1.241_857_8,
    1.296_839_6,
    1.354_255_6,
    core::f32::consts::SQRT_2,
    1.476_826_2,
    1.542_210_8,
    1.610_490_3,
    1.681_792_9,
    1.756_252_2,
    1.834_008_1,
    1.915_206_6,
];

impl RowScale {
    /// The bytes of one scale.
    pub const fn byte_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::F16 => 2,
            Self::F32 => 4,
            Self::Log => 1,
        }
    }

    /// The scale in the bytes of one; `None` where rows have none, and for fewer bytes.
    fn read(self, bytes: &[u8]) -> Option<f32> {
        match self {
            Self::None => None,
            Self::F16 => bytes.first_chunk().map(|&b| f16::from_le_bytes(b).to_f32()),
            Self::F32 => bytes.first_chunk().map(|&b| f32::from_le_bytes(b)),
            Self::Log => {
                let &byte = bytes.first()?;
                let octave = f32::from_bits((u32::from(byte >> 4) + 127 - 12) << 23);
                SIXTEENTHS.get(usize::from(byte & 15)).map(|part| part * octave)
            }
        }
    }

    /// The storable scale nearest to one that is not negative, 1 where rows have none; a byte's is nearest
    /// by ratio.
    #[cfg(feature = "alloc")]
    pub(crate) fn nearest(self, scale: f64) -> f32 {
        match self {
            Self::None => 1.0,
            Self::F16 => f16::from_f32(f32_of(scale)).min(f16::MAX).to_f32(),
            Self::F32 => f32_of(scale).min(f32::MAX),
            Self::Log => self.read(&[log_byte(scale)]).unwrap_or(1.0),
        }
    }

    /// Appends the bytes of a [storable](Self::nearest) scale.
    #[cfg(feature = "alloc")]
    pub(crate) fn put(self, scale: f32, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::F16 => out.extend(f16::from_f32(scale).to_le_bytes()),
            Self::F32 => out.extend(scale.to_le_bytes()),
            Self::Log => out.push(log_byte(scale.into())),
        }
    }
}

/// The byte of the [`RowScale::Log`] nearest to a scale by ratio.
#[cfg(feature = "alloc")]
fn log_byte(scale: f64) -> u8 {
    let byte = round_even(f32_of(16.0 * (libm::log2(scale) + 12.0)));
    low_u8(usize::try_from(i32_of(byte.clamp(0.0, 255.0))).unwrap_or(0))
}

/// Format of the codes, codebooks and scales of a quantized matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantLayout {
    /// Width of a code.
    pub bits: Bits,
    /// Format of the codebooks, each of 2^bits levels.
    pub codebook: CodebookFormat,
    /// Number of rows that share a codebook, at least 1; 1 is the paper's "per channel".
    pub rows_per_codebook: u32,
    /// Format of the scales of rows.
    pub row_scale: RowScale,
}

impl QuantLayout {
    /// Fails unless a codebook has rows.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(self) -> Result<()> {
        let rows = u64::from(self.rows_per_codebook);
        check_range("rows per codebook", rows, 1, u64::from(u32::MAX))
    }

    /// The bytes of one codebook.
    const fn codebook_len(self) -> usize {
        self.codebook.codebook_len(self.bits.code_count())
    }

    /// The number of codebooks of `rows` rows.
    pub const fn codebook_count(self, rows: usize) -> usize {
        match index(self.rows_per_codebook) {
            0 => 0,
            shared => rows.div_ceil(shared),
        }
    }

    /// The bytes of each part of a tensor; `None` beyond the address space or for a layout that
    /// [`QuantLayout::check`] refuses.
    pub fn byte_lens(self, rows: usize, row_len: usize) -> Option<Parts<usize>> {
        self.check().ok()?;
        Some(Parts {
            codebooks: self.codebook_count(rows).checked_mul(self.codebook_len())?,
            scales: rows.checked_mul(self.row_scale.byte_len())?,
            codes: rows.checked_mul(self.bits.packed_len(row_len))?,
        })
    }
}

/// A value for each part of a quantized matrix: its bytes, or their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts<T> {
    /// All codebooks, one after the other.
    pub codebooks: T,
    /// The scales of all rows.
    pub scales: T,
    /// The packed codes of all rows.
    pub codes: T,
}

impl<T: AsRef<[u8]>> Parts<T> {
    /// The bytes of each part, borrowed.
    pub fn as_slices(&self) -> Parts<&[u8]> {
        let Self { codebooks, scales, codes } = self;
        Parts { codebooks: codebooks.as_ref(), scales: scales.as_ref(), codes: codes.as_ref() }
    }
}

/// Rows and elements per row of a shape: `[shape[0], product of the rest]`, one row below rank 2.
///
/// # Errors
/// [`Error::Range`] for more than 2^32 - 1 elements, counted without regard to axes of size 0.
pub fn rows_of(shape: &[usize]) -> Result<(usize, usize)> {
    let most = u64::from(u32::MAX);
    let product = |dims: &[usize]| {
        let nonzero = dims.iter().map(|&dim| u64_of(dim).max(1));
        nonzero.fold(1, u64::saturating_mul)
    };
    check_range("elements of a tensor", product(shape), 0, most)?;
    let (rows, row) = match shape {
        [rows, row @ ..] if !row.is_empty() => (*rows, row),
        vector => (1, vector),
    };
    Ok((rows, row.iter().product()))
}

/// Quantized matrix, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedMatrix<'a> {
    layout: QuantLayout,
    rows: usize,
    row_len: usize,
    parts: Parts<&'a [u8]>,
}

impl<'a> QuantizedMatrix<'a> {
    /// Matrix of `rows` rows whose parts lie in three slices.
    ///
    /// # Errors
    /// Those of [`QuantLayout::check`]; [`Error::Length`] if a slice has not the length that
    /// [`QuantLayout::byte_lens`] tells.
    pub fn new(
        layout: QuantLayout,
        rows: usize,
        row_len: usize,
        parts: Parts<&'a [u8]>,
    ) -> Result<Self> {
        layout.check()?;
        let most = Parts { codebooks: usize::MAX, scales: usize::MAX, codes: usize::MAX };
        let lens = layout.byte_lens(rows, row_len).unwrap_or(most);
        check_length("codebooks", lens.codebooks, parts.codebooks.len())?;
        check_length("row scales", lens.scales, parts.scales.len())?;
        check_length("codes", lens.codes, parts.codes.len())?;
        Ok(Self { layout, rows, row_len, parts })
    }

    /// Format of codes, codebooks and scales.
    pub const fn layout(self) -> QuantLayout {
        self.layout
    }

    /// The number of rows.
    pub const fn rows(self) -> usize {
        self.rows
    }

    /// The elements of a row.
    pub const fn row_len(self) -> usize {
        self.row_len
    }

    /// Stored bytes of each part.
    pub const fn parts(self) -> Parts<&'a [u8]> {
        self.parts
    }

    /// The codebook of a row, `None` after the last row.
    pub fn codebook(self, row: usize) -> Option<Codebook<'a>> {
        let shared = index(self.layout.rows_per_codebook);
        let group = row.checked_div(shared)?;
        let bytes = part(self.parts.codebooks, group, self.layout.codebook_len())?;
        let rows = self.rows.checked_sub(group * shared)?.min(shared);
        let codebook =
            || Codebook::new(self.layout.codebook, self.layout.bits, bytes, rows * self.row_len);
        (row < self.rows).then(codebook)
    }

    /// The scale of a row, `None` after the last row and where rows have none.
    pub fn scale(self, row: usize) -> Option<f32> {
        let bytes = part(self.parts.scales, row, self.layout.row_scale.byte_len())?;
        self.layout.row_scale.read(bytes)
    }

    /// The packed codes of a row, `None` after the last row.
    pub fn packed_row(self, row: usize) -> Option<&'a [u8]> {
        let len = self.layout.bits.packed_len(self.row_len);
        if row < self.rows { part(self.parts.codes, row, len) } else { None }
    }

    /// The codes of a row, `None` after the last row.
    pub fn codes(self, row: usize) -> Option<Codes<'a>> {
        Codes::new(self.packed_row(row)?, self.row_len, self.layout.bits).ok()
    }

    /// Writes the values of a row.
    ///
    /// # Shapes
    /// `out`: `[row_len]`.
    ///
    /// # Errors
    /// [`Error::Range`] after the last row; [`Error::Length`] for an `out` of another length.
    pub fn decode_row(self, row: usize, out: &mut [f32]) -> Result<()> {
        check_length("row to decode into", self.row_len, out.len())?;
        self.decode_part(row, 0, out)
    }

    /// Writes as many values of a row as `out` holds, from `start` on.
    ///
    /// # Errors
    /// [`Error::Range`] after the last row, after its end, or for a `start` that is no multiple of 8:
    /// there codes start in the middle of a byte.
    pub fn decode_part(self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        check_part(self.row_len, start, out.len())?;
        check_count("rest of the first value by 8", start % 8, 0, 0)?;
        let bits = self.layout.bits;
        let codes = || {
            let codes = self.packed_row(row)?.get(bits.packed_len(start)..)?;
            codes.get(..bits.packed_len(out.len()))
        };
        let (Some(codebook), Some(codes)) = (self.codebook(row), codes()) else {
            return Err(row_out_of_range(row, self.rows));
        };
        let scale = self.scale(row);
        if out.len() < bits.code_count() {
            // Fewer values than the codebook has.
            let short = Codes::new(codes, out.len(), bits)?;
            for (out, code) in out.iter_mut().zip(short) {
                let value = codebook.value(code);
                *out = scale.map_or(value, |scale| value * scale);
            }
            return Ok(());
        }
        let mut table: Table = [0.0; 256];
        codebook.fill(scale, &mut table);
        kernels::dequantize(codes, bits, &table, out);
        Ok(())
    }

    /// Fails unless every value is finite and unused bits are zero.
    ///
    /// # Errors
    /// [`Error::NonFinite`] or [`Error::NotZero`].
    pub fn check(self) -> Result<()> {
        let bits = self.layout.bits;
        for group in 0..self.layout.codebook_count(self.rows) {
            let first = group * index(self.layout.rows_per_codebook);
            if !self.codebook(first).is_some_and(Codebook::is_sound) {
                return Err(Error::NonFinite { what: "codebook", index: group });
            }
        }
        for row in 0..self.rows {
            if !tail_is_zero(self.packed_row(row).unwrap_or(&[]), self.row_len, bits) {
                return Err(Error::NotZero { what: "unused bits of a row of codes" });
            }
        }
        if self.layout.row_scale == RowScale::None {
            return Ok(());
        }
        // Products too: a scale must not carry a level to infinity.
        let mut table: Table = [0.0; 256];
        for row in 0..self.rows {
            let Some(codebook) = self.codebook(row) else { continue };
            codebook.fill(self.scale(row), &mut table);
            if !table.iter().take(bits.code_count()).all(|value| value.is_finite()) {
                return Err(Error::NonFinite { what: "scale of row", index: row });
            }
        }
        Ok(())
    }
}

/// Fails unless a row has values `start..start + len`.
pub(crate) fn check_part(row_len: usize, start: usize, len: usize) -> Result<()> {
    check_count("end of the values to decode", start.saturating_add(len), 0, row_len)
}

/// The error for a row after the last one.
pub(crate) fn row_out_of_range(row: usize, rows: usize) -> Error {
    let [found, rows] = [row, rows].map(u64_of);
    Error::Range { what: "row", found, min: 0, max: rows.saturating_sub(1) }
}

/// The `i`-th of equal parts of `bytes`.
pub(crate) fn part(bytes: &[u8], i: usize, len: usize) -> Option<&[u8]> {
    let start = i.checked_mul(len)?;
    bytes.get(start..start.checked_add(len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: QuantLayout = QuantLayout {
        bits: Bits::ALL[1],
        codebook: CodebookFormat::F16,
        rows_per_codebook: 2,
        row_scale: RowScale::None,
    };
    /// Levels 1, 2, 3, 3 for the rows 0 and 1, and -1, -2, -3, -3 for row 2.
    const CODEBOOKS: [u8; 16] =
        [0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x42, 0, 0xbc, 0, 0xc0, 0, 0xc2, 0, 0xc2];
    /// Three codes a row: 0 1 2, 2 2 0, 1 0 3.
    const PARTS: Parts<&[u8]> =
        Parts { codebooks: &CODEBOOKS, scales: &[], codes: &[0x24, 0x0a, 0x31] };

    #[test]
    fn decodes_any_part_that_starts_with_a_byte() {
        let bytes: [u8; 35] = core::array::from_fn(|i| crate::num::low_u8(i * 37));
        for bits in Bits::ALL {
            let layout = QuantLayout { bits, codebook: CodebookFormat::Affine, ..LAYOUT };
            let codes = &bytes[..bits.packed_len(35)];
            let parts: Parts<&[u8]> =
                Parts { codebooks: &[0, 0, 0, 0, 0, 0, 0x80, 0x3f], scales: &[], codes };
            let rows = QuantizedMatrix::new(layout, 1, 35, parts).unwrap();
            let mut all = [0.0; 35];
            rows.decode_row(0, &mut all).unwrap();
            for (start, len) in [(0, 35), (0, 9), (8, 8), (16, 19), (32, 3), (32, 0)] {
                let mut out = [9.0; 35];
                rows.decode_part(0, start, &mut out[..len]).unwrap();
                assert_eq!(out[..len], all[start..start + len], "{bits} bits from {start}");
            }
            let mut out = [0.0; 8];
            for (row, start) in [(0, 4), (0, 32), (0, usize::MAX - 7), (1, 0)] {
                assert!(rows.decode_part(row, start, &mut out).is_err(), "{row}, {start}");
            }
        }
    }

    #[test]
    fn decodes_rows_with_their_codebooks() {
        let rows = QuantizedMatrix::new(LAYOUT, 3, 3, PARTS).unwrap();
        let mut out = [0.0; 3];
        for (row, expected) in
            [[1.0, 2.0, 3.0], [3.0, 3.0, 1.0], [-2.0, -1.0, -3.0]].iter().enumerate()
        {
            rows.decode_row(row, &mut out).unwrap();
            assert_eq!(&out, expected);
        }
        assert_eq!(rows.check(), Ok(()));
        let after = Err(Error::Range { what: "row", found: 3, min: 0, max: 2 });
        assert_eq!(rows.decode_row(3, &mut out), after);
        assert!(rows.decode_row(0, &mut out[..2]).is_err());
    }

    #[test]
    fn row_scales_multiply() {
        let layout = QuantLayout { row_scale: RowScale::F16, ..LAYOUT };
        let scales = [0, 0x3c, 0, 0x40, 0, 0xb8]; // 1, 2, -0.5
        let rows = QuantizedMatrix::new(layout, 3, 3, Parts { scales: &scales, ..PARTS }).unwrap();
        let mut out = [0.0; 3];
        for (row, expected) in
            [[1.0, 2.0, 3.0], [6.0, 6.0, 2.0], [1.0, 0.5, 1.5]].iter().enumerate()
        {
            rows.decode_row(row, &mut out).unwrap();
            assert_eq!(&out, expected);
        }
        assert_eq!(rows.check(), Ok(()));
        let scales = [0, 0x3c, 0, 0x7c, 0, 0xb8]; // the second is infinite
        let rows = QuantizedMatrix::new(layout, 3, 3, Parts { scales: &scales, ..PARTS }).unwrap();
        assert_eq!(rows.check(), Err(Error::NonFinite { what: "scale of row", index: 1 }));
        assert!(QuantizedMatrix::new(layout, 3, 3, PARTS).is_err());
    }

    #[test]
    fn bytes_are_sixteenths_of_octaves() {
        for byte in 0..=u8::MAX {
            let expected = crate::num::f32_of(libm::exp2(f64::from(byte) / 16.0 - 12.0));
            assert_eq!(RowScale::Log.read(&[byte]), Some(expected), "{byte}");
        }
        assert_eq!(RowScale::Log.read(&[]), None);
        let layout = QuantLayout { row_scale: RowScale::Log, ..LAYOUT };
        let parts = Parts { scales: &[192, 208, 176][..], ..PARTS };
        let rows = QuantizedMatrix::new(layout, 3, 3, parts).unwrap();
        let mut out = [0.0; 3];
        for (row, expected) in
            [[1.0, 2.0, 3.0], [6.0, 6.0, 2.0], [-1.0, -0.5, -1.5]].iter().enumerate()
        {
            rows.decode_row(row, &mut out).unwrap();
            assert_eq!(&out, expected);
        }
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn the_nearest_byte_is_that_by_ratio() {
        for byte in 0..=u8::MAX {
            let scale = f64::from(RowScale::Log.read(&[byte]).unwrap());
            for (off, expected) in [(-0.49, byte), (0.0, byte), (0.49, byte)] {
                assert_eq!(log_byte(scale * libm::exp2(off / 16.0)), expected);
            }
        }
        assert_eq!([0.0, 1e-9, 16.0, 1e9].map(log_byte), [0, 0, 255, 255]);
    }

    #[test]
    fn finds_unused_bits() {
        let parts: Parts<&[u8]> = Parts { codes: &[0x24, 0x4a, 0x31], ..PARTS };
        let unused = Err(Error::NotZero { what: "unused bits of a row of codes" });
        assert_eq!(QuantizedMatrix::new(LAYOUT, 3, 3, parts).unwrap().check(), unused);
    }

    #[test]
    fn finds_codebooks_that_are_not_finite() {
        let mut codebooks = CODEBOOKS;
        codebooks[13] = 0x7c; // infinity
        let parts: Parts<&[u8]> = Parts { codebooks: &codebooks, ..PARTS };
        let rows = QuantizedMatrix::new(LAYOUT, 3, 3, parts).unwrap();
        assert_eq!(rows.check(), Err(Error::NonFinite { what: "codebook", index: 1 }));
    }

    #[test]
    fn refuses_layouts_and_lengths_that_make_no_sense() {
        let none = QuantLayout { rows_per_codebook: 0, ..LAYOUT };
        assert!(QuantizedMatrix::new(none, 3, 3, PARTS).is_err());
        let short: Parts<&[u8]> = Parts { codebooks: &CODEBOOKS[1..], ..PARTS };
        assert!(QuantizedMatrix::new(LAYOUT, 3, 3, short).is_err());
        let long: Parts<&[u8]> = Parts { codes: &[0; 4], ..PARTS };
        assert!(QuantizedMatrix::new(LAYOUT, 3, 3, long).is_err());
        assert!(QuantizedMatrix::new(LAYOUT, usize::MAX, usize::MAX, PARTS).is_err());
    }
}
