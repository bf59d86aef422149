//! One tensor record, and the data that it describes.

use super::bytes::check_zero;
use super::record_placement::RecordPlacement;
use super::varint::{self, take_byte};
use crate::bits::Bits;
use crate::codebook::{CodebookFormat, READS_LOG};
use crate::error::{Error, Result, check_range};
use crate::matrix::{Parts, QuantLayout, QuantizedMatrix, RowScale, rows_of};
use crate::num::{index, low_u8, u64_of};
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::ops::Range;

/// The most axes of a tensor.
pub const MAX_RANK: usize = 6;

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Dense f32, 4 bytes each.
    F32,
    /// Dense f16, 2 bytes each.
    F16,
    /// Dense i64, 8 bytes each.
    I64,
    /// Codes with codebooks.
    Quantized(QuantLayout),
}

const CODEBOOKS: [CodebookFormat; 6] = [
    CodebookFormat::F32,
    CodebookFormat::F16,
    CodebookFormat::I16,
    CodebookFormat::I8,
    CodebookFormat::Affine,
    CodebookFormat::Logarithmic,
];
/// The stored number of the quantized encoding.
const QUANTIZED: u8 = 3;
const ROW_SCALES: [RowScale; 4] = [RowScale::None, RowScale::F16, RowScale::F32, RowScale::Log];

impl Encoding {
    /// Bytes of the data of a tensor; `None` beyond the address space.
    fn data_len(self, shape: &Shape, placement: RecordPlacement) -> Option<usize> {
        let element = match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I64 => 8,
            Self::Quantized(layout) => {
                let lens = layout.byte_lens(shape.rows, shape.row_len)?;
                let before = lens.codebooks.checked_add(lens.scales)?;
                let before = before.checked_add(placement.inner_padding(before))?;
                return before.checked_add(lens.codes);
            }
        };
        shape.rows.checked_mul(shape.row_len)?.checked_mul(element)
    }
}

/// A tensor's shape, and the matrix that it is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
    pub(super) rows: usize,
    pub(super) row_len: usize,
}

impl Shape {
    /// Checks the rank and that the number of elements stays below 2^32.
    pub(super) fn new(shape: impl ExactSizeIterator<Item = usize>) -> Result<Self> {
        let rank = shape.len();
        check_range("rank", u64_of(rank), 0, u64_of(MAX_RANK))?;
        let mut dims = [0; MAX_RANK];
        dims.iter_mut().zip(shape).for_each(|(dim, given)| *dim = given);
        let (rows, row_len) = rows_of(dims.get(..rank).unwrap_or(&dims))?;
        Ok(Self { dims, rank, rows, row_len })
    }

    pub(super) fn dims(&self) -> &[usize] {
        self.dims.get(..self.rank).unwrap_or(&[])
    }

    pub(super) const fn numel(&self) -> usize {
        // Below 2^32, but that may be more than a chip's address space; then there is no data.
        self.rows.saturating_mul(self.row_len)
    }
}

/// The fields of a record that tell the encoding, as they are stored.
pub(super) struct Tags {
    pub(super) encoding: u8,
    pub(super) bits: u8,
    pub(super) order: u8,
    pub(super) codebook: u8,
    pub(super) scales: u8,
    pub(super) rows_per_codebook: u32,
}

impl Tags {
    /// The encoding; the fields of codes must be zero for a dense one.
    pub(super) fn encoding(&self) -> Result<Encoding> {
        let &Self { encoding, bits, order, codebook, scales, rows_per_codebook } = self;
        let dense = match encoding {
            0 => Encoding::F32,
            1 => Encoding::F16,
            2 => Encoding::I64,
            _ => {
                check_range("encoding", encoding.into(), 0, QUANTIZED.into())?;
                check_range("layout of codes", order.into(), 0, 0)?;
                let codebook = one_of("codebook entries", &CODEBOOKS, codebook)?;
                if codebook == CodebookFormat::Logarithmic && !READS_LOG {
                    let needed = "of another scheme than `log`, which this build cannot read \
                                  (feature `log`)";
                    return Err(Error::Encoding { needed });
                }
                let row_scale = one_of("row scales", &ROW_SCALES, scales)?;
                let bits = Bits::new(bits)?;
                let layout = QuantLayout { bits, codebook, rows_per_codebook, row_scale };
                layout.check()?;
                return Ok(Encoding::Quantized(layout));
            }
        };
        let fields = [bits, order, codebook, scales, u8::from(rows_per_codebook != 0)];
        check_zero("codebook fields of a dense tensor", &fields)?;
        Ok(dense)
    }
}

/// Contents of a record, and the place of its tensor in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
    pub(super) placement: RecordPlacement,
    /// Bytes of the record, where that is not in the table, and of the padding after it.
    described: u8,
    padding: u8,
    /// Where the data begin and end.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Record {
    /// A record in the bytes `place`, before its data.
    pub(super) fn new(
        placement: RecordPlacement,
        shape: Shape,
        encoding: Encoding,
        place: Range<usize>,
    ) -> Result<Self> {
        if let Encoding::Quantized(_) = encoding {
            // Rows without codes could be many without a byte in the file.
            check_range(
                "elements of a quantized tensor",
                u64_of(shape.numel()),
                1,
                u32::MAX.into(),
            )?;
        }
        let (described, padding) = (low_u8(place.len()), low_u8(placement.padding(place.end)));
        let start = place.end.saturating_add(padding.into());
        let end = encoding.data_len(&shape, placement).and_then(|len| start.checked_add(len));
        let end = end.ok_or(Error::Range {
            what: "bytes of a tensor",
            found: u64::MAX,
            min: 0,
            max: u64_of(usize::MAX),
        })?;
        Ok(Self { shape, encoding, placement, described, padding, start, end })
    }

    /// Reads the record that begins at `first`.
    pub(super) fn parse(file: &[u8], first: usize) -> Result<Self> {
        const WHAT: &str = "tensor record";
        let mut left = file.get(first..).unwrap_or(&[]);
        let (encoding, rank) = nibbles(take_byte(WHAT, &mut left)?);
        let mut tags =
            Tags { encoding, bits: 0, order: 0, codebook: 0, scales: 0, rows_per_codebook: 0 };
        if encoding == QUANTIZED {
            (tags.bits, tags.codebook) = nibbles(take_byte(WHAT, &mut left)?);
            (tags.scales, tags.order) = nibbles(take_byte(WHAT, &mut left)?);
            tags.rows_per_codebook = varint::take("rows per codebook", &mut left)?;
        }
        check_range("rank", rank.into(), 0, u64_of(MAX_RANK))?;
        let mut dims = [0; MAX_RANK];
        let dims = dims.get_mut(..rank.into()).unwrap_or(&mut []);
        for dim in dims.iter_mut() {
            *dim = index(varint::take("dimension of a tensor", &mut left)?);
        }
        let shape = Shape::new(dims.iter().copied())?;
        let place = first..file.len().saturating_sub(left.len());
        let record = Self::new(RecordPlacement::Inline, shape, tags.encoding()?, place)?;
        record.check_end(file.len())?;
        Ok(record)
    }

    /// The bytes of the tensor in the payload.
    pub(super) fn bytes(&self) -> usize {
        let data = self.end.saturating_sub(self.start);
        data.saturating_add(self.described.into()).saturating_add(self.padding.into())
    }

    /// Fails unless the data end within a file of `file_len` bytes.
    pub(super) fn check_end(&self, file_len: usize) -> Result<()> {
        if self.end <= file_len {
            return Ok(());
        }
        let needed = u64_of(self.end.saturating_sub(self.start));
        let left = u64_of(file_len.saturating_sub(self.start));
        Err(Error::Truncated { what: "tensor", needed, left })
    }

    /// Appends the record and the padding after it, which ends at `start`; returns the whole of it.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(shape: Shape, encoding: Encoding, first: usize) -> Result<(Self, Vec<u8>)> {
        use crate::num::u32_of;
        let mut bytes = Vec::new();
        let tag = match encoding {
            Encoding::F32 => 0,
            Encoding::F16 => 1,
            Encoding::I64 => 2,
            Encoding::Quantized(_) => QUANTIZED,
        };
        bytes.push(tag | low_u8(shape.rank) << 4);
        if let Encoding::Quantized(layout) = encoding {
            let QuantLayout { bits, codebook, rows_per_codebook, row_scale } = layout;
            let id = |found: Option<usize>| low_u8(found.unwrap_or(usize::MAX));
            let codebook = id(CODEBOOKS.iter().position(|&other| other == codebook));
            bytes.push(bits.get() | codebook << 4);
            bytes.push(id(ROW_SCALES.iter().position(|&other| other == row_scale)));
            varint::put(rows_per_codebook, &mut bytes);
        }
        shape.dims().iter().for_each(|&dim| varint::put(u32_of(dim), &mut bytes));
        let record =
            Self::new(RecordPlacement::Inline, shape, encoding, first..first + bytes.len())?;
        bytes.resize(record.start - first, 0);
        Ok((record, bytes))
    }

    /// The quantized matrix in the record's data, `None` if the tensor is dense.
    pub(super) fn matrix<'a>(&self, data: &'a [u8]) -> Option<QuantizedMatrix<'a>> {
        let Encoding::Quantized(layout) = self.encoding else { return None };
        let Shape { rows, row_len, .. } = self.shape;
        let lens = layout.byte_lens(rows, row_len)?;
        let (codebooks, rest) = data.split_at_checked(lens.codebooks)?;
        let (scales, rest) = rest.split_at_checked(lens.scales)?;
        let codes = rest.get(self.placement.inner_padding(lens.codebooks + lens.scales)..)?;
        QuantizedMatrix::new(layout, rows, row_len, Parts { codebooks, scales, codes }).ok()
    }

    /// Checks the padding before the data, and codebooks, codes and the padding between them.
    pub(super) fn check_data(&self, file: &[u8]) -> Result<()> {
        let gap = file.get(self.start.saturating_sub(self.padding.into())..self.start);
        check_zero("padding before a tensor's data", gap.unwrap_or(&[]))?;
        let data = file.get(self.start..self.end).unwrap_or(&[]);
        let Some(matrix) = self.matrix(data) else { return Ok(()) };
        let Parts { codebooks, scales, codes } = matrix.parts();
        let gap = data.get(codebooks.len() + scales.len()..data.len() - codes.len());
        check_zero("padding before codes", gap.unwrap_or(&[]))?;
        matrix.check()
    }
}

/// The low and the high four bits.
const fn nibbles(byte: u8) -> (u8, u8) {
    (byte & 15, byte >> 4)
}

/// The value with an id.
fn one_of<T: Copy>(what: &'static str, values: &[T], id: u8) -> Result<T> {
    let max = u64_of(values.len()).saturating_sub(1);
    let unknown = Error::Range { what, found: id.into(), min: 0, max };
    values.get(usize::from(id)).copied().ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f32 of shape [2, 3] at 5: a record of 3 bytes, 24 of data.
    const DENSE: [u8; 3] = [0x20, 2, 3];
    /// Codes of 2 bits with f16 tables and f32 row scales, of shape [2, 3] at 5: a record of 6 bytes, a
    /// byte of padding, 16 bytes of codebooks, 8 of scales, 2 of codes.
    const QUANTIZED: [u8; 6] = [0x23, 0x12, 2, 1, 2, 3];

    fn parse(record: &[u8]) -> Result<Record> {
        let mut file = [0; 60];
        file[5..5 + record.len()].copy_from_slice(record);
        Record::parse(&file, 5)
    }

    #[test]
    fn reads_shapes_and_places() {
        let record = parse(&DENSE).unwrap();
        assert_eq!(record.shape.dims(), [2, 3]);
        assert_eq!((record.described, record.padding, record.start, record.end), (3, 0, 8, 32));
        assert_eq!(record.encoding, Encoding::F32);
        let record = parse(&QUANTIZED).unwrap();
        assert_eq!((record.described, record.padding, record.start, record.end), (6, 1, 12, 38));
        assert_eq!(record.bytes(), 33);
        let matrix = record.matrix(&[0; 26]).unwrap();
        let Parts { codebooks, scales, codes } = matrix.parts();
        assert_eq!((codebooks.len(), scales.len(), codes.len()), (16, 8, 2));
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn writes_what_it_reads() {
        for bytes in [&DENSE[..], &QUANTIZED] {
            let record = parse(bytes).unwrap();
            let (again, emitted) = Record::emit(record.shape, record.encoding, 5).unwrap();
            assert_eq!((again, &emitted[..bytes.len()]), (record, bytes));
            assert_eq!(emitted.len(), record.start - 5);
        }
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        let with = |record: &[u8], at: usize, byte: u8| {
            let mut record = record.to_vec();
            record[at] = byte;
            parse(&record).map(|_| ())
        };
        for (at, byte) in [
            (0, 0x24), // encoding
            (0, 0x70), // rank
            (1, 100),  // more data than the file has
        ] {
            assert!(with(&DENSE, at, byte).is_err(), "dense, byte {at} = {byte}");
        }
        for (at, byte) in [
            (1, 0x10), // bits
            (1, 0x19), // bits
            (1, 0x62), // codebook
            (2, 4),    // row scales
            (2, 0x12), // layout of codes
            (3, 0),    // rows per codebook
            (4, 0),    // no elements
        ] {
            assert!(with(&QUANTIZED, at, byte).is_err(), "quantized, byte {at} = {byte}");
        }
        assert!(matches!(Record::parse(&DENSE, 0), Err(Error::Truncated { .. })));
        assert!(Record::parse(&DENSE, 1).is_err());
        assert!(Record::parse(&DENSE, 3).is_err());
        assert!(Record::parse(&DENSE, 9).is_err());
    }

    #[test]
    fn paddings_are_zero() {
        let mut file = [0; 60];
        file[5..11].copy_from_slice(&QUANTIZED);
        let record = Record::parse(&file, 5).unwrap();
        assert_eq!(record.check_data(&file), Ok(()));
        file[11] = 1;
        let refused = Err(Error::NotZero { what: "padding before a tensor's data" });
        assert_eq!(record.check_data(&file), refused);
        // Codebooks of 8 bytes and a scale of 2, then a padding of 2.
        let mut file = [0; 60];
        file[..5].copy_from_slice(&[0x13, 0x12, 1, 1, 3]);
        let record = Record::parse(&file, 0).unwrap();
        assert_eq!((record.start, record.end, record.check_data(&file)), (8, 21, Ok(())));
        file[19] = 1;
        assert_eq!(record.check_data(&file), Err(Error::NotZero { what: "padding before codes" }));
    }

    #[test]
    fn shapes_are_matrices_of_at_most_u32_elements() {
        let of = |dims: &[usize]| Shape::new(dims.iter().copied()).map(|s| (s.rows, s.row_len));
        assert_eq!(of(&[]), Ok((1, 1)));
        assert_eq!(of(&[5]), Ok((1, 5)));
        assert_eq!(of(&[4, 3, 2]), Ok((4, 6)));
        assert_eq!(of(&[0, 3]), Ok((0, 3)));
        assert_eq!(of(&[3, 0]), Ok((3, 0)));
        assert!(of(&[65536, 65536]).is_err());
        assert!(of(&[2, 65536, 65536, 0]).is_err());
        assert!(of(&[1; 7]).is_err());
    }
}
