//! The 64 bytes at the start of the file.

#[cfg(feature = "alloc")]
use super::bytes::put;
use super::bytes::{check_zero, long, short, word};
use super::record_placement::RecordPlacement;
use super::section::ENTRY_LEN;
use crate::error::{Error, Result, check_range};
use crate::num::{index, u64_of};
use crc::{CRC_32_ISO_HDLC, Crc};

/// The first bytes of every packed file.
pub const MAGIC: [u8; 4] = *b"fmq\x1a";
/// Major and minor version of the files that this code writes.
pub const VERSION: (u16, u16) = (1, 1);
/// The version before 1.0, which differs from it in the number alone.
const BEFORE: (u16, u16) = (0, 9);
/// The most tensors of a file.
pub const MAX_TENSORS: u32 = 4096;
/// The most sections of a file.
pub const MAX_SECTIONS: u32 = 16;
/// The most bytes before the first tensor's data.
pub const MAX_HEAD_LEN: u32 = 1 << 24;

/// The bytes of the header.
pub(super) const HEADER_LEN: usize = field::END;

/// A table of one byte at a time on the chip, of sixteen on the host, where it is ten times faster.
#[cfg(not(feature = "std"))]
type Digest = crc::Table<1>;
#[cfg(feature = "std")]
type Digest = crc::Table<16>;
pub(super) static CRC: Crc<u32, Digest> = Crc::<u32, Digest>::new(&CRC_32_ISO_HDLC);
/// A checksum in the making.
pub(super) type Running = crc::Digest<'static, u32, Digest>;

pub(super) mod field {
    use core::ops::Range;

    #[cfg(feature = "alloc")]
    pub(super) const MAGIC: usize = 0;
    pub(super) const MAJOR: usize = 4;
    pub(super) const MINOR: usize = 6;
    pub(super) const REQUIRED: usize = 8;
    pub(super) const LENGTH: usize = 16;
    pub(super) const HEAD: usize = 24;
    pub(super) const TENSORS: usize = 28;
    pub(in super::super) const SECTIONS: usize = 32;
    pub(super) const HEAD_CRC: Range<usize> = 36..40;
    pub(super) const PAYLOAD_CRC: usize = 40;
    pub(super) const ZERO: usize = 44;
    pub(super) const END: usize = 64;
}

/// Packed file at the start of a memory, as long as its header says; all of the memory where the
/// header says more. To be checked by [`Model::parse`](super::Model::parse).
pub fn file_at(memory: &[u8]) -> &[u8] {
    let len = usize::try_from(long(memory, field::LENGTH)).ok();
    len.and_then(|len| memory.get(..len)).unwrap_or(memory)
}

/// Contents of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: (u16, u16),
    pub(super) placement: RecordPlacement,
    pub(super) head_len: usize,
    pub(super) tensors: usize,
    pub(super) sections: usize,
}

impl Header {
    /// Reads the header of a whole file and checks the file's length and checksums.
    pub(super) fn parse(file: &[u8]) -> Result<Self> {
        let left = u64_of(file.len());
        let Some(header) = file.first_chunk::<HEADER_LEN>() else {
            return Err(Error::Truncated { what: "header", needed: u64_of(HEADER_LEN), left });
        };
        let &[a, b, c, d, ..] = header;
        if [a, b, c, d] != MAGIC {
            return Err(Error::BadMagic { found: [a, b, c, d], expected: MAGIC });
        }
        let version = (short(header, field::MAJOR), short(header, field::MINOR));
        if version.0 != VERSION.0 && version != BEFORE {
            return Err(Error::UnsupportedVersion { found: version, supported: VERSION });
        }
        let features = word(header, field::REQUIRED);
        let unknown =
            Error::UnknownFeatures { bits: features & !RecordPlacement::Inline.features() };
        let placement = RecordPlacement::of_features(features).ok_or(unknown)?;
        let length = long(header, field::LENGTH);
        if left < length {
            return Err(Error::Truncated { what: "file", needed: length, left });
        }
        if left > length {
            return Err(Error::Trailing { bytes: left - length });
        }
        let [head, tensors, sections] =
            [field::HEAD, field::TENSORS, field::SECTIONS].map(|at| word(header, at));
        check_range("number of tensors", u64::from(tensors), 0, u64::from(MAX_TENSORS))?;
        check_range("number of sections", u64::from(sections), 0, u64::from(MAX_SECTIONS))?;
        let (tensors, sections) = (index(tensors), index(sections));
        let least = HEADER_LEN + ENTRY_LEN * sections + placement.record_in_head() * tensors;
        let least = least + placement.padding(least);
        check_range("length of the head", u64::from(head), u64_of(least), u64::from(MAX_HEAD_LEN))?;
        let head_len = index(head);
        let too_short = Error::Truncated { what: "head", needed: u64::from(head), left };
        let (head, payload) = file.split_at_checked(head_len).ok_or(too_short)?;
        if placement.padding(head_len) != 0 {
            return Err(Error::NotZero { what: "length of the head modulo its padding" });
        }
        check_crc("head", word(header, field::HEAD_CRC.start), head_crc(head))?;
        check_crc("payload", word(header, field::PAYLOAD_CRC), CRC.checksum(payload))?;
        if version <= VERSION {
            check_zero("end of the header", header.get(field::ZERO..).unwrap_or(&[]))?;
        }
        Ok(Self { version, placement, head_len, tensors, sections })
    }

    /// Completes a head whose first 64 bytes are zero; `payload_crc` is that of what follows it.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(self, head: &mut [u8], file_len: u64, payload_crc: u32) {
        use crate::num::u32_of;
        put(head, field::MAGIC, MAGIC);
        put(head, field::MAJOR, self.version.0.to_le_bytes());
        put(head, field::MINOR, self.version.1.to_le_bytes());
        put(head, field::REQUIRED, self.placement.features().to_le_bytes());
        put(head, field::LENGTH, file_len.to_le_bytes());
        put(head, field::HEAD, u32_of(self.head_len).to_le_bytes());
        put(head, field::TENSORS, u32_of(self.tensors).to_le_bytes());
        put(head, field::SECTIONS, u32_of(self.sections).to_le_bytes());
        put(head, field::PAYLOAD_CRC, payload_crc.to_le_bytes());
        renew_crc(head);
    }
}

/// Makes the checksum of a changed head right again.
#[cfg(feature = "alloc")]
pub(super) fn renew_crc(head: &mut [u8]) {
    let crc = head_crc(head);
    put(head, field::HEAD_CRC.start, crc.to_le_bytes());
}

fn check_crc(what: &'static str, stored: u32, computed: u32) -> Result<()> {
    if stored == computed { Ok(()) } else { Err(Error::Crc { what, stored, computed }) }
}

/// The checksum of all bytes of the head but its own.
fn head_crc(head: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(head.get(..field::HEAD_CRC.start).unwrap_or(&[]));
    digest.update(head.get(field::HEAD_CRC.end..).unwrap_or(&[]));
    digest.finalize()
}

#[cfg(feature = "alloc")]
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::num::low_u8;

    /// Makes the lengths and the checksums of a damaged file right again, as far as the head's
    /// length makes sense.
    pub(crate) fn fix_up(file: &mut [u8]) {
        let length = u64_of(file.len()).to_le_bytes();
        file[field::LENGTH..field::HEAD].copy_from_slice(&length);
        let head_len = index(word(file, field::HEAD)).clamp(HEADER_LEN, file.len());
        let (head, payload) = file.split_at_mut(head_len);
        head[field::PAYLOAD_CRC..field::ZERO].copy_from_slice(&CRC.checksum(payload).to_le_bytes());
        let crc = head_crc(head).to_le_bytes();
        head[field::HEAD_CRC].copy_from_slice(&crc);
    }

    const EMPTY: Header = Header {
        version: VERSION,
        placement: RecordPlacement::Inline,
        head_len: 64,
        tensors: 0,
        sections: 0,
    };

    fn empty_file() -> [u8; 64] {
        let mut file = [0; 64];
        EMPTY.emit(&mut file, 64, CRC.checksum(&[]));
        file
    }

    #[test]
    fn is_as_documented() {
        let file = empty_file();
        #[rustfmt::skip]
        let golden = [
            b'f', b'm', b'q', 0x1a, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0,
            64, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0x4d, 0x93, 0x37, 0xad, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(file, golden);
        assert_eq!(Header::parse(&file), Ok(EMPTY));
    }

    #[test]
    fn refuses_other_files_by_name() {
        let with = |at: usize, byte: u8| {
            let mut file = empty_file();
            file[at] = byte;
            Header::parse(&file)
        };
        assert_eq!(with(0, b'F'), Err(Error::BadMagic { found: *b"Fmq\x1a", expected: MAGIC }));
        let version = |found| Err(Error::UnsupportedVersion { found, supported: (1, 1) });
        assert_eq!(with(4, 2), version((2, 1)));
        assert_eq!(with(4, 0), version((0, 1)));
        assert_eq!(with(8, 3), Err(Error::UnknownFeatures { bits: 1 }));
        assert_eq!(with(16, 63), Err(Error::Trailing { bytes: 1 }));
        let short = Error::Truncated { what: "file", needed: 65, left: 64 };
        assert_eq!(with(16, 65), Err(short));
        assert!(matches!(with(24, 65), Err(Error::Truncated { what: "head", .. })));
        assert!(matches!(with(24, 63), Err(Error::Range { what: "length of the head", .. })));
        assert!(matches!(with(29, 17), Err(Error::Range { what: "number of tensors", .. })));
        assert!(matches!(with(32, 17), Err(Error::Range { what: "number of sections", .. })));
        assert!(matches!(with(36, 0), Err(Error::Crc { what: "head", .. })));
        assert!(matches!(with(40, 1), Err(Error::Crc { what: "head", .. })));
        assert!(matches!(Header::parse(&empty_file()[..63]), Err(Error::Truncated { .. })));
    }

    #[test]
    fn newer_minor_versions_and_optional_features_are_read() {
        let mut file = empty_file();
        file[6] = 2; // version 1.2
        file[12] = 0x80; // an optional feature
        file[63] = 1; // a field that this version leaves zero
        fix_up(&mut file);
        assert_eq!(Header::parse(&file), Ok(Header { version: (1, 2), ..EMPTY }));
        file[8] = 0; // records in a table
        for (major, minor) in [(1, 0), BEFORE] {
            file[4..8].copy_from_slice(&[low_u8(major.into()), 0, low_u8(minor.into()), 0]);
            fix_up(&mut file);
            assert_eq!(Header::parse(&file), Err(Error::NotZero { what: "end of the header" }));
            file[63] = 0;
            fix_up(&mut file);
            let expected =
                Header { version: (major, minor), placement: RecordPlacement::Table, ..EMPTY };
            assert_eq!(Header::parse(&file), Ok(expected));
            file[63] = 1;
        }
    }

    #[test]
    fn a_damaged_payload_is_told_from_a_damaged_head() {
        let mut file = [0; 65];
        EMPTY.emit(&mut file[..64], 65, CRC.checksum(&[0]));
        assert_eq!(Header::parse(&file), Ok(EMPTY));
        file[64] = 1;
        assert!(matches!(Header::parse(&file), Err(Error::Crc { what: "payload", .. })));
    }
}
