//! One tensor record, and the data that it describes.

#[cfg(feature = "alloc")]
use super::bytes::put;
use super::bytes::{ALIGN, INNER_ALIGN, byte, check_zero, long, padding, word};
use crate::bits::Bits;
use crate::codebook::{CodebookFormat, READS_LOG};
use crate::error::{Error, Result, check_range};
use crate::matrix::{Parts, QuantLayout, QuantizedMatrix, RowScale, rows_of};
use crate::num::{index, u64_of};

/// The bytes of a record.
pub(super) const RECORD_LEN: usize = field::END;

pub(super) mod field {
    use core::ops::Range;

    pub(in super::super) const OFFSET: usize = 0;
    pub(super) const LEN: usize = 8;
    pub(super) const ENCODING: usize = 16;
    pub(super) const RANK: usize = 17;
    pub(super) const BITS: usize = 18;
    pub(super) const CODE_ORDER: usize = 19;
    pub(super) const CODEBOOK: usize = 20;
    pub(super) const ROW_SCALE: usize = 21;
    pub(super) const ZERO: [Range<usize>; 3] = [22..24, 28..32, 56..64];
    pub(super) const ROWS_PER_CODEBOOK: usize = 24;
    pub(super) const SHAPE: Range<usize> = 32..56;
    pub(super) const END: usize = 64;
}

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
const ROW_SCALES: [RowScale; 3] = [RowScale::None, RowScale::F16, RowScale::F32];

impl Encoding {
    /// Bytes of the data of a tensor; `None` beyond the address space.
    fn data_len(self, shape: &Shape) -> Option<usize> {
        let element = match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I64 => 8,
            Self::Quantized(layout) => {
                let lens = layout.byte_lens(shape.rows, shape.row_len)?;
                let before = lens.codebooks.checked_add(lens.scales)?;
                let before = before.checked_add(padding(before, INNER_ALIGN))?;
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

/// Contents of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Record {
    /// Reads a record whose data must start at `start` in a file of `file_len` bytes.
    pub(super) fn parse(record: &[u8; RECORD_LEN], start: usize, file_len: usize) -> Result<Self> {
        for zero in field::ZERO {
            check_zero("unused bytes of a tensor record", record.get(zero).unwrap_or(&[]))?;
        }
        let bytes = [field::ENCODING, field::RANK, field::BITS, field::CODE_ORDER];
        let [tag, rank, bits, order] = bytes.map(|at| byte(record, at));
        let [codebook, scales] = [field::CODEBOOK, field::ROW_SCALE].map(|at| byte(record, at));
        let rows_per_codebook = word(record, field::ROWS_PER_CODEBOOK);
        let encoding = match tag {
            0 => Encoding::F32,
            1 => Encoding::F16,
            2 => Encoding::I64,
            _ => {
                check_range("encoding", tag.into(), 0, 3)?;
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
                Encoding::Quantized(layout)
            }
        };
        if !matches!(encoding, Encoding::Quantized(_)) {
            let fields = [bits, order, codebook, scales, u8::from(rows_per_codebook != 0)];
            check_zero("codebook fields of a dense tensor", &fields)?;
        }
        check_range("rank", rank.into(), 0, u64_of(MAX_RANK))?;
        let dims = record.get(field::SHAPE).unwrap_or(&[]);
        let (dims, unused) = dims.split_at_checked(4 * usize::from(rank)).unwrap_or((&[], &[]));
        check_zero("unused dimensions", unused)?;
        let dims = dims.as_chunks().0.iter().map(|&dim| index(u32::from_le_bytes(dim)));
        let shape = Shape::new(dims)?;
        if let Encoding::Quantized(_) = encoding {
            // Rows without codes could be many without a byte in the file.
            check_range(
                "elements of a quantized tensor",
                u64_of(shape.numel()),
                1,
                u32::MAX.into(),
            )?;
        }
        let offset = long(record, field::OFFSET);
        check_range("offset of a tensor", offset, u64_of(start), u64_of(start))?;
        let len = encoding.data_len(&shape).map_or(u64::MAX, u64_of);
        check_range("bytes of a tensor", long(record, field::LEN), len, len)?;
        let left = u64_of(file_len.saturating_sub(start));
        if len > left {
            return Err(Error::Truncated { what: "tensor", needed: len, left });
        }
        // Not more than `left`, so it fits.
        let end = start.saturating_add(usize::try_from(len).unwrap_or(0));
        Ok(Self { shape, encoding, start, end })
    }

    /// The stored form.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(&self) -> [u8; RECORD_LEN] {
        use crate::num::{low_u8, u32_of};
        let mut record = [0; RECORD_LEN];
        put(&mut record, field::OFFSET, u64_of(self.start).to_le_bytes());
        put(&mut record, field::LEN, u64_of(self.end - self.start).to_le_bytes());
        record[field::RANK] = low_u8(self.shape.rank);
        match self.encoding {
            Encoding::F32 => record[field::ENCODING] = 0,
            Encoding::F16 => record[field::ENCODING] = 1,
            Encoding::I64 => record[field::ENCODING] = 2,
            Encoding::Quantized(layout) => {
                let QuantLayout { bits, codebook, rows_per_codebook, row_scale } = layout;
                let id = |found: Option<usize>| low_u8(found.unwrap_or(usize::MAX));
                record[field::ENCODING] = 3;
                record[field::BITS] = bits.get();
                record[field::CODEBOOK] = id(CODEBOOKS.iter().position(|&other| other == codebook));
                record[field::ROW_SCALE] = id(ROW_SCALES.iter().position(|&s| s == row_scale));
                put(&mut record, field::ROWS_PER_CODEBOOK, rows_per_codebook.to_le_bytes());
            }
        }
        let dims = record[field::SHAPE].as_chunks_mut().0;
        for (bytes, &dim) in dims.iter_mut().zip(self.shape.dims()) {
            *bytes = u32_of(dim).to_le_bytes();
        }
        record
    }

    /// A record for data that starts at `start`.
    #[cfg(feature = "alloc")]
    pub(super) fn new(shape: Shape, encoding: Encoding, start: usize) -> Result<Self> {
        let len = encoding.data_len(&shape).and_then(|len| start.checked_add(len));
        let end = len.ok_or(Error::Range {
            what: "bytes of a tensor",
            found: u64::MAX,
            min: 0,
            max: u64_of(usize::MAX),
        })?;
        Ok(Self { shape, encoding, start, end })
    }

    /// Offset at which the data of the next tensor starts.
    pub(super) const fn next(&self) -> usize {
        self.end.saturating_add(padding(self.end, ALIGN))
    }

    /// The quantized matrix in the record's data, `None` if the tensor is dense.
    pub(super) fn matrix<'a>(&self, data: &'a [u8]) -> Option<QuantizedMatrix<'a>> {
        let Encoding::Quantized(layout) = self.encoding else { return None };
        let Shape { rows, row_len, .. } = self.shape;
        let lens = layout.byte_lens(rows, row_len)?;
        let (codebooks, rest) = data.split_at_checked(lens.codebooks)?;
        let (scales, rest) = rest.split_at_checked(lens.scales)?;
        let codes = rest.get(padding(lens.codebooks + lens.scales, INNER_ALIGN)..)?;
        QuantizedMatrix::new(layout, rows, row_len, Parts { codebooks, scales, codes }).ok()
    }

    /// Checks codebooks, codes and the padding between them.
    pub(super) fn check_data(&self, data: &[u8]) -> Result<()> {
        let Some(matrix) = self.matrix(data) else { return Ok(()) };
        let Parts { codebooks, scales, codes } = matrix.parts();
        let gap = data.get(codebooks.len() + scales.len()..data.len() - codes.len());
        check_zero("padding before codes", gap.unwrap_or(&[]))?;
        matrix.check()
    }
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

    /// f32 of shape [2, 3] at 64.
    fn dense() -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        [record[0], record[8], record[17], record[32], record[36]] = [64, 24, 2, 2, 3];
        record
    }

    /// Codes of 2 bits with f16 tables and f32 row scales, of shape [2, 3] at 64: 16 bytes of
    /// codebooks, 8 of scales, 8 of padding, 2 of codes.
    fn quantized() -> [u8; RECORD_LEN] {
        let mut record = dense();
        [record[8], record[16], record[18], record[20], record[21], record[24]] =
            [34, 3, 2, 1, 2, 1];
        record
    }

    fn parse(record: &[u8; RECORD_LEN]) -> Result<Record> {
        Record::parse(record, 64, 1000)
    }

    #[test]
    fn reads_shapes_and_places() {
        let record = parse(&dense()).unwrap();
        assert_eq!((record.shape.dims(), record.start, record.end), (&[2, 3][..], 64, 88));
        assert_eq!((record.encoding, record.next()), (Encoding::F32, 128));
        let record = parse(&quantized()).unwrap();
        assert_eq!((record.end, record.next()), (98, 128));
        let matrix = record.matrix(&[0; 34]).unwrap();
        let Parts { codebooks, scales, codes } = matrix.parts();
        assert_eq!((codebooks.len(), scales.len(), codes.len()), (16, 8, 2));
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn writes_what_it_reads() {
        for bytes in [dense(), quantized()] {
            assert_eq!(parse(&bytes).unwrap().emit(), bytes);
        }
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        let with = |record: fn() -> [u8; RECORD_LEN], at: usize, byte: u8| {
            let mut record = record();
            record[at] = byte;
            parse(&record)
        };
        for (at, byte) in [
            (0, 65),  // elsewhere
            (8, 25),  // another length
            (16, 4),  // encoding
            (17, 7),  // rank
            (17, 1),  // a dimension after the rank
            (18, 1),  // bits of a dense tensor
            (19, 1),  // layout of one
            (20, 1),  // codebook of one
            (21, 1),  // row scales of one
            (22, 1),  // zeros
            (24, 1),  // rows per codebook of one
            (28, 1),  // zeros
            (35, 99), // more elements than 2^32 - 1
            (36, 4),  // more data than the length says
            (40, 1),  // a third dimension
            (63, 1),  // zeros
        ] {
            assert!(with(dense, at, byte).is_err(), "dense, byte {at} = {byte}");
        }
        for (at, byte) in [(18, 0), (18, 9), (19, 1), (20, 6), (21, 3), (24, 0), (32, 0), (8, 33)] {
            assert!(with(quantized, at, byte).is_err(), "quantized, byte {at} = {byte}");
        }
        assert!(matches!(Record::parse(&dense(), 64, 87), Err(Error::Truncated { .. })));
    }

    #[test]
    fn padding_before_codes_is_zero() {
        let record = parse(&quantized()).unwrap();
        let mut data = [0; 34];
        assert_eq!(record.check_data(&data), Ok(()));
        data[31] = 1;
        assert!(matches!(record.check_data(&data), Err(Error::NotZero { .. })));
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
