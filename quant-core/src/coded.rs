//! Rows of codes with their codebooks: how a quantized tensor lies in memory and in the file.
//!
//! A tensor is a matrix `[rows, row_len]`: axis 0 by the product of the other axes; a tensor of
//! fewer than two axes is one row. `rows_per_codebook` neighbouring rows share a codebook, the last
//! codebook may serve fewer. Each row of codes starts on a byte boundary.

use crate::bits::{Codes, code_count, packed_len, tail_is_zero};
use crate::codebook::{Codebook, Entries};
use crate::error::{Error, Result, check_length};
use crate::num::{index, low_u8};

/// How the rows of a tensor are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Width of a code in bits, 1 to 8.
    pub bits: u8,
    /// How the codebooks are stored.
    pub entries: Entries,
    /// Levels of each codebook, 1 to 2^bits, and 2^bits for [`Entries::Affine`].
    pub levels: u16,
    /// Rows that share a codebook, at least 1; 1 is the paper's "per channel".
    pub rows_per_codebook: u32,
}

impl Coding {
    /// Fails unless each field is in its range.
    ///
    /// # Errors
    /// [`Error::Bits`] or [`Error::Range`].
    pub fn check(self) -> Result<()> {
        let most = u64::try_from(code_count(self.bits)?).unwrap_or(u64::MAX);
        let least = if self.entries == Entries::Affine { most } else { 1 };
        check_range("number of levels", u64::from(self.levels), least, most)?;
        let rows = u64::from(self.rows_per_codebook);
        check_range("rows per codebook", rows, 1, u64::from(u32::MAX))
    }

    /// The number of codebooks of `rows` rows.
    pub const fn codebook_count(self, rows: usize) -> usize {
        rows.div_ceil(index(self.rows_per_codebook))
    }

    /// The bytes of all codebooks, and those of all codes; `None` beyond the address space or for
    /// a coding that [`Coding::check`] refuses.
    pub fn byte_lens(self, rows: usize, row_len: usize) -> Option<(usize, usize)> {
        self.check().ok()?;
        let codebook = self.entries.codebook_len(self.levels);
        let codebooks = self.codebook_count(rows).checked_mul(codebook)?;
        let codes = rows.checked_mul(packed_len(row_len, self.bits).ok()?)?;
        Some((codebooks, codes))
    }
}

/// Rows and elements per row of a shape: `[shape[0], product of the rest]`, one row below rank 2.
///
/// # Errors
/// [`Error::Range`] for more than 2^32 - 1 elements, counted without regard to axes of size 0.
pub fn rows_of(shape: &[usize]) -> Result<(usize, usize)> {
    let most = u64::from(u32::MAX);
    let wide = |dim: usize| u64::try_from(dim).unwrap_or(u64::MAX);
    let product = |dims: &[usize]| {
        let nonzero = dims.iter().map(|&dim| wide(dim).max(1));
        nonzero.fold(1, u64::saturating_mul)
    };
    check_range("elements of a tensor", product(shape), 0, most)?;
    let (rows, row) = match shape {
        [rows, row @ ..] if !row.is_empty() => (*rows, row),
        vector => (1, vector),
    };
    Ok((rows, row.iter().product()))
}

pub(crate) fn check_range(what: &'static str, found: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(Error::Range { what, found, min, max }) }
}

/// A coded tensor, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodedRows<'a> {
    coding: Coding,
    rows: usize,
    row_len: usize,
    codebooks: &'a [u8],
    codes: &'a [u8],
}

impl<'a> CodedRows<'a> {
    /// A tensor of `rows` rows whose codebooks and codes lie in two slices.
    ///
    /// # Errors
    /// Those of [`Coding::check`]; [`Error::Length`] if a slice has not the length that
    /// [`Coding::byte_lens`] tells.
    pub fn new(
        coding: Coding,
        rows: usize,
        row_len: usize,
        codebooks: &'a [u8],
        codes: &'a [u8],
    ) -> Result<Self> {
        coding.check()?;
        let lens = coding.byte_lens(rows, row_len);
        let (codebooks_len, codes_len) = lens.unwrap_or((usize::MAX, usize::MAX));
        check_length("codebooks", codebooks_len, codebooks.len())?;
        check_length("codes", codes_len, codes.len())?;
        Ok(Self { coding, rows, row_len, codebooks, codes })
    }

    /// How the rows are coded.
    pub const fn coding(self) -> Coding {
        self.coding
    }

    /// The number of rows.
    pub const fn rows(self) -> usize {
        self.rows
    }

    /// The elements of a row.
    pub const fn row_len(self) -> usize {
        self.row_len
    }

    /// The codebook of a row, `None` behind the last row.
    pub fn codebook(self, row: usize) -> Option<Codebook<'a>> {
        let group = row / index(self.coding.rows_per_codebook);
        let len = self.coding.entries.codebook_len(self.coding.levels);
        let bytes = part(self.codebooks, group, len)?;
        (row < self.rows).then_some(Codebook::new(self.coding.entries, bytes))
    }

    /// The packed codes of a row, `None` behind the last row.
    pub fn packed_row(self, row: usize) -> Option<&'a [u8]> {
        let len = packed_len(self.row_len, self.coding.bits).ok()?;
        if row < self.rows { part(self.codes, row, len) } else { None }
    }

    /// The codes of a row, `None` behind the last row.
    pub fn codes(self, row: usize) -> Option<Codes<'a>> {
        Codes::new(self.packed_row(row)?, self.row_len, self.coding.bits).ok()
    }

    /// Writes the values of a row.
    ///
    /// # Shapes
    /// `out`: `[row_len]`.
    ///
    /// # Errors
    /// [`Error::Range`] behind the last row; [`Error::Length`] for an `out` of another length;
    /// [`Error::Code`] for a code without level, which a parsed file does not contain.
    pub fn decode_row(self, row: usize, out: &mut [f32]) -> Result<()> {
        check_length("row to decode into", self.row_len, out.len())?;
        let (Some(codebook), Some(codes)) = (self.codebook(row), self.codes(row)) else {
            return Err(row_out_of_range(row, self.rows));
        };
        // The whole table once, then one lookup per weight.
        let mut table = [0.0; 256];
        for (entry, value) in table.iter_mut().zip(codebook.values(self.coding.levels)) {
            *entry = value;
        }
        for (index, (value, code)) in out.iter_mut().zip(codes).enumerate() {
            if u16::from(code) >= self.coding.levels {
                return Err(self.no_level(index, code));
            }
            *value = table[usize::from(code)];
        }
        Ok(())
    }

    /// Fails unless every value is finite, every code has a level and unused bits are zero.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::Code`] or [`Error::NotZero`].
    pub fn check(self) -> Result<()> {
        let step = index(self.coding.rows_per_codebook);
        for (index, row) in (0..self.rows).step_by(step).enumerate() {
            let mut values =
                self.codebook(row).into_iter().flat_map(|c| c.values(self.coding.levels));
            if !values.all(f32::is_finite) {
                return Err(Error::NonFinite { what: "codebook", index });
            }
        }
        let every_code_has_a_level = u32::from(self.coding.levels) == 1 << self.coding.bits;
        for row in 0..self.rows {
            let bytes = self.packed_row(row).unwrap_or(&[]);
            if !tail_is_zero(bytes, self.row_len, self.coding.bits) {
                return Err(Error::NotZero { what: "unused bits of a row of codes" });
            }
            if every_code_has_a_level {
                continue;
            }
            for (index, code) in self.codes(row).into_iter().flatten().enumerate() {
                if u16::from(code) >= self.coding.levels {
                    return Err(self.no_level(index, code));
                }
            }
        }
        Ok(())
    }

    fn no_level(self, index: usize, code: u8) -> Error {
        Error::Code { index, code, max: low_u8(usize::from(self.coding.levels) - 1) }
    }
}

/// The error for a row behind the last one.
pub(crate) fn row_out_of_range(row: usize, rows: usize) -> Error {
    let [found, rows] = [row, rows].map(|x| u64::try_from(x).unwrap_or(u64::MAX));
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

    const CODING: Coding =
        Coding { bits: 2, entries: Entries::F16, levels: 3, rows_per_codebook: 2 };
    /// Levels 1, 2, 3 for the rows 0 and 1, and -1, -2, -3 for row 2.
    const CODEBOOKS: [u8; 12] = [0, 0x3c, 0, 0x40, 0, 0x42, 0, 0xbc, 0, 0xc0, 0, 0xc2];

    #[test]
    fn decodes_rows_with_their_codebooks() {
        // Three codes a row: 0 1 2, 2 2 0, 1 0 1.
        let rows = CodedRows::new(CODING, 3, 3, &CODEBOOKS, &[0x24, 0x0a, 0x11]).unwrap();
        let mut out = [0.0; 3];
        for (row, expected) in
            [[1.0, 2.0, 3.0], [3.0, 3.0, 1.0], [-2.0, -1.0, -2.0]].iter().enumerate()
        {
            rows.decode_row(row, &mut out).unwrap();
            assert_eq!(&out, expected);
        }
        assert_eq!(rows.check(), Ok(()));
        let behind = Err(Error::Range { what: "row", found: 3, min: 0, max: 2 });
        assert_eq!(rows.decode_row(3, &mut out), behind);
        assert!(rows.decode_row(0, &mut out[..2]).is_err());
    }

    #[test]
    fn finds_codes_without_level_and_unused_bits() {
        let at = |codes| CodedRows::new(CODING, 3, 3, &CODEBOOKS, codes).unwrap();
        let no_level = Err(Error::Code { index: 1, code: 3, max: 2 });
        let rows = at(&[0x24, 0x0c, 0x11]);
        assert_eq!(rows.check(), no_level);
        assert_eq!(rows.decode_row(1, &mut [0.0; 3]), no_level);
        let unused = Err(Error::NotZero { what: "unused bits of a row of codes" });
        assert_eq!(at(&[0x24, 0x4a, 0x11]).check(), unused);
    }

    #[test]
    fn finds_codebooks_that_are_not_finite() {
        let mut codebooks = CODEBOOKS;
        codebooks[11] = 0x7c; // infinity
        let rows = CodedRows::new(CODING, 3, 3, &codebooks, &[0x24, 0x0a, 0x11]).unwrap();
        assert_eq!(rows.check(), Err(Error::NonFinite { what: "codebook", index: 1 }));
    }

    #[test]
    fn refuses_codings_and_lengths_that_make_no_sense() {
        for bad in [
            Coding { bits: 0, ..CODING },
            Coding { bits: 9, ..CODING },
            Coding { levels: 0, ..CODING },
            Coding { levels: 5, ..CODING },
            Coding { entries: Entries::Affine, ..CODING },
            Coding { rows_per_codebook: 0, ..CODING },
        ] {
            assert!(CodedRows::new(bad, 3, 3, &CODEBOOKS, &[0; 3]).is_err(), "{bad:?}");
        }
        assert!(CodedRows::new(CODING, 3, 3, &CODEBOOKS[1..], &[0; 3]).is_err());
        assert!(CodedRows::new(CODING, 3, 3, &CODEBOOKS, &[0; 4]).is_err());
        assert!(CodedRows::new(CODING, usize::MAX, usize::MAX, &CODEBOOKS, &[0; 4]).is_err());
    }
}
