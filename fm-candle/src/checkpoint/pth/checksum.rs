//! The CRC-32 of a zip record whose bytes were replaced in place.
//!
//! It stands in the central directory, and before the record in its local header or, where a flag
//! says so, after the record in a data descriptor, as torch has it. Torch's reader does not look at
//! the sum; others refuse a record whose sum is wrong.
//!
//! Source: APPNOTE.TXT of the ZIP format, 4.3.7, 4.3.9 and 4.3.12.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::Crc;

use super::records::ZipRecords;
use crate::atomic::Writer;

/// Signatures of a record's local header, central header and data descriptor.
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
/// Offsets of flags and sum in them.
const LOCAL_FLAGS: u64 = 6;
const LOCAL_SUM: u64 = 14;
const CENTRAL_SUM: u64 = 16;
const DESCRIPTOR_SUM: u64 = 4;
/// The flag for a data descriptor.
const HAS_DESCRIPTOR: u8 = 1 << 3;

/// Sets the sum of the record at `index` of the archive that `out` is a copy of to that of the
/// bytes that the record has in `out`.
pub(super) fn renew(out: &mut Writer<'_>, archive: &ZipRecords, index: usize) -> io::Result<()> {
    let mut reader = archive.clone();
    let record = reader.by_index_raw(index)?;
    let (local, central) = (record.header_start(), record.central_header_start());
    let start = record.data_start().ok_or_else(|| misplaced("data"))?;
    let (len, old) = (record.compressed_size(), record.crc32().to_le_bytes());

    out.flush()?;
    if read(out, local)? != LOCAL || read(out, central)? != CENTRAL {
        return Err(misplaced("header"));
    }
    let [flags] = read(out, local + LOCAL_FLAGS)?;
    let beside = if flags & HAS_DESCRIPTOR == 0 {
        local + LOCAL_SUM
    } else {
        match read(out, start + len)? {
            DESCRIPTOR => start + len + DESCRIPTOR_SUM,
            // The signature may be left out.
            bytes if bytes == old => start + len,
            _ => return Err(misplaced("data descriptor")),
        }
    };
    let sum = sum(out, start, len)?.to_le_bytes();
    for place in [central + CENTRAL_SUM, beside] {
        out.seek(SeekFrom::Start(place))?;
        out.write_all(&sum)?;
    }
    Ok(())
}

fn misplaced(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its {what} is not where it should be"))
}

/// The bytes at `place` of what has been written.
fn read<const N: usize>(out: &Writer<'_>, place: u64) -> io::Result<[u8; N]> {
    let mut file = *out.get_ref();
    file.seek(SeekFrom::Start(place))?;
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The CRC-32 of `len` bytes from `start` on of what has been written.
fn sum(out: &Writer<'_>, start: u64, len: u64) -> io::Result<u32> {
    let mut file = *out.get_ref();
    file.seek(SeekFrom::Start(start))?;
    let (mut crc, mut left) = (Crc::new(), len);
    let mut block = vec![0; 1 << 16];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.read_exact(&mut block[..want])?;
        crc.update(&block[..want]);
        left -= want as u64;
    }
    Ok(crc.sum())
}
