//! Numbers and padding in the bytes of a file.

use crate::error::{Error, Result};

/// The bytes from `len` to the next multiple of `align`, a power of two.
pub(super) const fn padding(len: usize, align: usize) -> usize {
    len.wrapping_neg() & (align - 1)
}

/// Fails unless all bytes are zero.
pub(super) fn check_zero(what: &'static str, bytes: &[u8]) -> Result<()> {
    let zero = bytes.iter().all(|&byte| byte == 0);
    if zero { Ok(()) } else { Err(Error::NotZero { what }) }
}

/// The byte at `at`, 0 after the end.
pub(super) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The number of two bytes at `at`, 0 after the end.
pub(super) fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u16::from_le_bytes(bytes))
}

/// The number of four bytes at `at`, 0 after the end.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u32::from_le_bytes(bytes))
}

/// The number of eight bytes at `at`, 0 after the end.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u64::from_le_bytes(bytes))
}

/// The f32 at `at`, 0 after the end.
pub(super) fn real(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(word(bytes, at))
}

/// Writes a number at `at`, which is before the end.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, number: [u8; N]) {
    if let Some(space) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *space = number;
    }
}
