//! The 32 bytes at the start of the file.

use crate::coded::check_range;
use crate::error::{Error, Result};
use crc::{CRC_32_ISO_HDLC, Crc};

/// The first bytes of every packed file.
pub const MAGIC: [u8; 4] = *b"fmq\x1a";
/// The version that this code reads and writes.
pub const VERSION: u32 = 0;
/// The most tensors of a file.
pub const MAX_TENSORS: u32 = 4096;

pub(super) const HEADER_LEN: usize = 32;
const FEATURE_NET: u32 = 1;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

mod field {
    use core::ops::Range;

    pub(super) const VERSION: usize = 4;
    pub(super) const FEATURES: usize = 8;
    pub(super) const CRC: Range<usize> = 12..16;
    pub(super) const LENGTH_LOW: usize = 16;
    pub(super) const LENGTH_HIGH: usize = 20;
    pub(super) const TENSORS: usize = 24;
    pub(super) const ZERO: usize = 28;
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) has_net: bool,
    pub(super) tensors: u32,
}

impl Header {
    /// Reads the header of a whole file and checks the file's length and checksum.
    pub(super) fn parse(file: &[u8]) -> Result<Self> {
        let left = wide(file.len());
        let needed = wide(HEADER_LEN);
        let Some(header) = file.first_chunk::<HEADER_LEN>() else {
            return Err(Error::Truncated { what: "header", needed, left });
        };
        let [a, b, c, d, ..] = *header;
        if [a, b, c, d] != MAGIC {
            return Err(Error::BadMagic { found: [a, b, c, d] });
        }
        let found = word(header, field::VERSION);
        if found != VERSION {
            return Err(Error::UnsupportedVersion { found, supported: VERSION });
        }
        let features = word(header, field::FEATURES);
        if features & !FEATURE_NET != 0 {
            return Err(Error::UnknownFeatures { bits: features & !FEATURE_NET });
        }
        let high = u64::from(word(header, field::LENGTH_HIGH));
        let length = high << 32 | u64::from(word(header, field::LENGTH_LOW));
        if left < length {
            return Err(Error::Truncated { what: "file", needed: length, left });
        }
        if left > length {
            return Err(Error::Trailing { bytes: left - length });
        }
        let (stored, computed) = (word(header, field::CRC.start), checksum(file));
        if stored != computed {
            return Err(Error::Crc { stored, computed });
        }
        let tensors = word(header, field::TENSORS);
        check_range("number of tensors", u64::from(tensors), 0, u64::from(MAX_TENSORS))?;
        if word(header, field::ZERO) != 0 {
            return Err(Error::NotZero { what: "last field of the header" });
        }
        Ok(Self { has_net: features == FEATURE_NET, tensors })
    }

    /// Writes the header of a file that is complete but for its first 32 bytes.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(self, file: &mut [u8]) {
        let length = wide(file.len()).to_le_bytes();
        let Some(header) = file.first_chunk_mut::<HEADER_LEN>() else { return };
        *header = [0; HEADER_LEN];
        header[..field::VERSION].copy_from_slice(&MAGIC);
        header[field::VERSION..field::FEATURES].copy_from_slice(&VERSION.to_le_bytes());
        let features = if self.has_net { FEATURE_NET } else { 0 };
        header[field::FEATURES..field::CRC.start].copy_from_slice(&features.to_le_bytes());
        header[field::LENGTH_LOW..field::TENSORS].copy_from_slice(&length);
        header[field::TENSORS..field::ZERO].copy_from_slice(&self.tensors.to_le_bytes());
        let crc = checksum(file);
        file[field::CRC].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A length as the file stores it.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The checksum of all bytes but its own.
fn checksum(file: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(file.get(..field::CRC.start).unwrap_or(&[]));
    digest.update(file.get(field::CRC.end..).unwrap_or(&[]));
    digest.finalize()
}

fn word(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u32::from_le_bytes(bytes))
}

#[cfg(feature = "alloc")]
#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes the length and the checksum of a damaged file right again.
    pub(crate) fn fix_up(file: &mut [u8]) {
        let length = wide(file.len()).to_le_bytes();
        file[field::LENGTH_LOW..field::TENSORS].copy_from_slice(&length);
        let crc = checksum(file);
        file[field::CRC].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn reads_what_it_writes() {
        let header = Header { has_net: true, tensors: 3 };
        let mut file = [7; 40];
        header.emit(&mut file);
        assert_eq!(Header::parse(&file), Ok(header));
        assert_eq!(file[..12], *b"fmq\x1a\0\0\0\0\x01\0\0\0");
        assert_eq!(file[16..32], [40, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn rejects_other_files() {
        let mut file = [0; 33];
        Header { has_net: false, tensors: 0 }.emit(&mut file);
        let with = |at: usize, byte: u8| {
            let mut file = file;
            file[at] = byte;
            Header::parse(&file)
        };
        assert_eq!(with(0, b'F'), Err(Error::BadMagic { found: *b"Fmq\x1a" }));
        assert_eq!(with(4, 1), Err(Error::UnsupportedVersion { found: 1, supported: 0 }));
        assert_eq!(with(8, 6), Err(Error::UnknownFeatures { bits: 6 }));
        assert_eq!(with(16, 32), Err(Error::Trailing { bytes: 1 }));
        let short = Error::Truncated { what: "file", needed: 34, left: 33 };
        assert_eq!(with(16, 34), Err(short));
        assert!(matches!(with(32, 1), Err(Error::Crc { .. })));
        assert!(matches!(Header::parse(&file[..31]), Err(Error::Truncated { .. })));
    }
}
