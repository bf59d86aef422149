//! The width of a code.

use crate::error::{Error, Result};

/// The largest width of a code in bits.
pub const MAX_BITS: u8 = 8;

/// The number of codes of `bits` bits, `K = 2^bits`.
///
/// # Errors
/// [`Error::Bits`] outside 1..=8.
pub const fn code_count(bits: u8) -> Result<usize> {
    match bits {
        1..=MAX_BITS => Ok(1 << bits),
        _ => Err(Error::Bits(bits)),
    }
}

/// The bytes that `n` codes of `bits` bits take, `⌈n·bits / 8⌉`.
///
/// # Errors
/// [`Error::Bits`] outside 1..=8.
pub const fn packed_len(n: usize, bits: u8) -> Result<usize> {
    match bits {
        // Eight codes take `bits` whole bytes: in this order nothing overflows.
        1..=MAX_BITS => Ok(n / 8 * bits as usize + (n % 8 * bits as usize).div_ceil(8)),
        _ => Err(Error::Bits(bits)),
    }
}
