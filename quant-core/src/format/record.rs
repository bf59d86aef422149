//! One tensor record: parsed from the front of a slice, without a heap.

use super::header::wide;
use super::padding;
use crate::codebook::Entries;
use crate::coded::{Coding, check_range, rows_of};
use crate::error::{Error, Result};
use crate::num::index;

/// The most axes of a tensor.
pub const MAX_RANK: usize = 6;
/// The most bytes of a tensor's name.
pub const MAX_NAME_LEN: usize = 512;

const HEAD_LEN: usize = 12;

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// f32, 4 bytes each.
    F32,
    /// f16, 2 bytes each.
    F16,
    /// i64, 8 bytes each.
    I64,
    /// Codes with codebooks.
    Coded(Coding),
}

impl Encoding {
    #[cfg(feature = "alloc")]
    const fn tag(self) -> u8 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::I64 => 2,
            Self::Coded(Coding { entries: Entries::F32, .. }) => 3,
            Self::Coded(Coding { entries: Entries::F16, .. }) => 4,
            Self::Coded(Coding { entries: Entries::Affine, .. }) => 5,
        }
    }

    /// Bytes of the codebooks and of the codes, or none and those of the elements.
    fn byte_lens(self, rows: usize, row_len: usize) -> Option<(usize, usize)> {
        let element = match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I64 => 8,
            Self::Coded(coding) => return coding.byte_lens(rows, row_len),
        };
        Some((0, rows.checked_mul(row_len)?.checked_mul(element)?))
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
        check_range("rank", wide(rank), 0, wide(MAX_RANK))?;
        let mut dims = [1; MAX_RANK];
        dims.iter_mut().zip(shape).for_each(|(dim, given)| *dim = given);
        let (rows, row_len) = rows_of(dims.get(..rank).unwrap_or(&dims))?;
        Ok(Self { dims, rank, rows, row_len })
    }

    pub(super) fn dims(&self) -> &[usize] {
        self.dims.get(..self.rank).unwrap_or(&[])
    }
}

/// A record, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) name: &'a [u8],
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
    pub(super) codebooks: &'a [u8],
    pub(super) elements: &'a [u8],
    /// Bytes of the record with all padding.
    pub(super) len: usize,
}

impl<'a> Record<'a> {
    /// Splits the first record off `bytes`. The contents of codebooks and codes, and whether the
    /// name is text, are left to the reader.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut cursor = Cursor { left: bytes };
        let &[n0, n1, rank, tag, bits, zero, l0, l1, r0, r1, r2, r3] =
            cursor.take_array("tensor record")?;
        let rank = usize::from(rank);
        check_range("rank", wide(rank), 0, wide(MAX_RANK))?;
        let name_len = usize::from(u16::from_le_bytes([n0, n1]));
        check_range("length of a tensor name", wide(name_len), 1, wide(MAX_NAME_LEN))?;
        if zero != 0 {
            return Err(Error::NotZero { what: "unused byte of a tensor record" });
        }
        let levels = u16::from_le_bytes([l0, l1]);
        let rows_per_codebook = u32::from_le_bytes([r0, r1, r2, r3]);
        let coded = |entries| Coding { bits, entries, levels, rows_per_codebook };
        let encoding = match tag {
            0 => Encoding::F32,
            1 => Encoding::F16,
            2 => Encoding::I64,
            3 => Encoding::Coded(coded(Entries::F32)),
            4 => Encoding::Coded(coded(Entries::F16)),
            5 => Encoding::Coded(coded(Entries::Affine)),
            _ => {
                let found = u64::from(tag);
                return Err(Error::Range { what: "encoding", found, min: 0, max: 5 });
            }
        };
        match encoding {
            Encoding::Coded(coding) => coding.check()?,
            _ if (bits, levels, rows_per_codebook) != (0, 0, 0) => {
                return Err(Error::NotZero { what: "codebook fields of a dense tensor" });
            }
            _ => {}
        }
        let dims = cursor.take("shape", Some(4 * rank))?.as_chunks().0;
        let shape = Shape::new(dims.iter().map(|&dim| index(u32::from_le_bytes(dim))))?;
        if let Encoding::Coded(_) = encoding {
            // Rows without codes could be many without a byte in the file.
            let most = u64::from(u32::MAX);
            check_range("elements of a coded tensor", wide(shape.rows * shape.row_len), 1, most)?;
        }
        let name = cursor.take("tensor name", Some(name_len))?;
        cursor.skip_padding(HEAD_LEN + 4 * rank + name_len)?;
        let lens = encoding.byte_lens(shape.rows, shape.row_len);
        let (codebooks_len, elements_len) = lens.unzip();
        let codebooks = cursor.take("codebooks", codebooks_len)?;
        cursor.skip_padding(codebooks.len())?;
        let elements = cursor.take("elements", elements_len)?;
        cursor.skip_padding(elements.len())?;
        let len = bytes.len() - cursor.left.len();
        Ok((Self { name, shape, encoding, codebooks, elements, len }, cursor.left))
    }

    /// Appends the record to a file.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(&self, file: &mut alloc::vec::Vec<u8>) {
        use crate::num::u32_of;
        let (bits, levels, rows) = match self.encoding {
            Encoding::Coded(coding) => (coding.bits, coding.levels, coding.rows_per_codebook),
            _ => (0, 0, 0),
        };
        // The name is at most 512 bytes long, a dimension below 2^32.
        let [n0, n1, ..] = u32_of(self.name.len()).to_le_bytes();
        let [rank, ..] = u32_of(self.shape.rank).to_le_bytes();
        file.extend([n0, n1, rank, self.encoding.tag(), bits, 0]);
        file.extend(levels.to_le_bytes());
        file.extend(rows.to_le_bytes());
        for &dim in self.shape.dims() {
            file.extend(u32_of(dim).to_le_bytes());
        }
        for part in [self.name, self.codebooks, self.elements] {
            file.extend(part);
            // The file is a whole number of units before the record.
            file.resize(file.len() + padding(file.len()), 0);
        }
    }
}

/// The bytes that are not yet read.
struct Cursor<'a> {
    left: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The next bytes; a length of `None` is one beyond the address space.
    fn take(&mut self, what: &'static str, len: Option<usize>) -> Result<&'a [u8]> {
        let split = len.and_then(|len| self.left.split_at_checked(len));
        let needed = len.map_or(u64::MAX, wide);
        let (taken, left) =
            split.ok_or(Error::Truncated { what, needed, left: wide(self.left.len()) })?;
        self.left = left;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N]> {
        let split = self.left.split_first_chunk();
        let (taken, left) =
            split.ok_or(Error::Truncated { what, needed: wide(N), left: wide(self.left.len()) })?;
        self.left = left;
        Ok(taken)
    }

    /// Skips the padding behind `len` bytes.
    fn skip_padding(&mut self, len: usize) -> Result<()> {
        let zeros = self.take("padding", Some(padding(len)))?;
        let clean = zeros.iter().all(|&byte| byte == 0);
        if clean { Ok(()) } else { Err(Error::NotZero { what: "padding" }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENSE: [u8; 32] = [
        2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // name of 2 bytes, rank 1, f32
        2, 0, 0, 0, // shape [2]
        b'w', b'1', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // name, padding
    ];

    #[test]
    fn splits_a_dense_record() {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&DENSE);
        bytes[32..40].copy_from_slice(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
        let (record, left) = Record::parse(&bytes).unwrap();
        assert_eq!((record.name, record.shape.dims(), record.len), (&b"w1"[..], &[2][..], 48));
        assert_eq!(record.elements, [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
        assert_eq!(left.len(), 16);
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        let with = |at: usize, byte: u8| {
            let mut bytes = [0; 48];
            bytes[..32].copy_from_slice(&DENSE);
            bytes[at] = byte;
            Record::parse(&bytes).map(|_| ())
        };
        assert_eq!(with(0, 2), Ok(()));
        for (at, byte) in
            [(0, 0), (1, 3), (2, 7), (3, 6), (4, 1), (5, 1), (6, 1), (8, 1), (20, 1), (41, 1)]
        {
            assert!(with(at, byte).is_err(), "byte {at} = {byte}");
        }
        // A shape of 2^31 + 2 elements.
        assert!(matches!(with(15, 0x80), Err(Error::Truncated { what: "elements", .. })));
    }

    #[test]
    fn refuses_coded_rows_that_take_no_bytes() {
        let mut bytes = [0; 64];
        // f32 tables, 1 bit, 1 level, one codebook for all of 2^32 - 1 rows of no elements.
        bytes[..12].copy_from_slice(&[1, 0, 2, 3, 1, 0, 1, 0, 255, 255, 255, 255]);
        bytes[12..21].copy_from_slice(&[255, 255, 255, 255, 0, 0, 0, 0, b'w']);
        let refused = Record::parse(&bytes).map(|_| ());
        assert!(matches!(refused, Err(Error::Range { what: "elements of a coded tensor", .. })));
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
