//! The records of version 1.0: 64 bytes each, in a table of the head.

use super::bytes::{byte, check_zero, long, word};
use super::record::{MAX_RANK, Record, Shape, Tags};
use super::record_placement::{RECORD_LEN, RecordPlacement};
use crate::error::{Result, check_range};
use crate::num::{index, u64_of};

mod field {
    use core::ops::Range;

    pub(super) const OFFSET: usize = 0;
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
}

/// Reads a record of data that come after `end` in a file of `file_len` bytes.
pub(super) fn parse(record: &[u8; RECORD_LEN], end: usize, file_len: usize) -> Result<Record> {
    for zero in field::ZERO {
        check_zero("unused bytes of a tensor record", record.get(zero).unwrap_or(&[]))?;
    }
    let [encoding, rank, bits, order, codebook, scales] = [
        field::ENCODING,
        field::RANK,
        field::BITS,
        field::CODE_ORDER,
        field::CODEBOOK,
        field::ROW_SCALE,
    ]
    .map(|at| byte(record, at));
    let rows_per_codebook = word(record, field::ROWS_PER_CODEBOOK);
    let tags = Tags { encoding, bits, order, codebook, scales, rows_per_codebook };
    // Logarithmic scales came with 1.1.
    check_range("row scales", scales.into(), 0, 2)?;
    check_range("rank", rank.into(), 0, u64_of(MAX_RANK))?;
    let dims = record.get(field::SHAPE).unwrap_or(&[]);
    let (dims, unused) = dims.split_at_checked(4 * usize::from(rank)).unwrap_or((&[], &[]));
    check_zero("unused dimensions", unused)?;
    let dims = dims.as_chunks().0.iter().map(|&dim| index(u32::from_le_bytes(dim)));
    let parsed =
        Record::new(RecordPlacement::Table, Shape::new(dims)?, tags.encoding()?, end..end)?;
    let (start, len) = (u64_of(parsed.start), u64_of(parsed.end - parsed.start));
    check_range("offset of a tensor", long(record, field::OFFSET), start, start)?;
    check_range("bytes of a tensor", long(record, field::LEN), len, len)?;
    parsed.check_end(file_len)?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

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

    #[test]
    fn reads_shapes_and_places() {
        let record = parse(&dense(), 60, 1000).unwrap();
        assert_eq!(record.shape.dims(), [2, 3]);
        assert_eq!((record.start, record.end, record.bytes()), (64, 88, 28));
        let record = parse(&quantized(), 64, 1000).unwrap();
        assert_eq!((record.start, record.end), (64, 98));
        let parts = record.matrix(&[0; 34]).unwrap().parts();
        assert_eq!((parts.codebooks.len(), parts.scales.len(), parts.codes.len()), (16, 8, 2));
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        let with = |record: fn() -> [u8; RECORD_LEN], at: usize, byte: u8| {
            let mut record = record();
            record[at] = byte;
            parse(&record, 64, 1000)
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
        assert!(matches!(parse(&dense(), 64, 87), Err(Error::Truncated { .. })));
    }
}
