//! Numbers of as few bytes as they need: seven bits each from the lowest on, the top bit set in all
//! but the last.

use crate::error::{Error, Result};
use crate::num::u64_of;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// Takes a number off the front of `bytes`.
pub(super) fn take(what: &'static str, bytes: &mut &[u8]) -> Result<u32> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = take_byte(what, bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let shorter = byte == 0 && shift > 0;
            let range = Error::Range { what, found: number, min: 0, max: u32::MAX.into() };
            return match u32::try_from(number) {
                Ok(number) if !shorter => Ok(number),
                _ => Err(range),
            };
        }
    }
    Err(Error::Range { what, found: u64::MAX, min: 0, max: u32::MAX.into() })
}

/// Takes a byte off the front of `bytes`.
pub(super) fn take_byte(what: &'static str, bytes: &mut &[u8]) -> Result<u8> {
    let left = u64_of(bytes.len());
    let (&byte, rest) =
        bytes.split_first().ok_or(Error::Truncated { what, needed: left + 1, left })?;
    *bytes = rest;
    Ok(byte)
}

/// Appends a number.
#[cfg(feature = "alloc")]
pub(super) fn put(mut number: u32, bytes: &mut Vec<u8>) {
    use crate::num::low_u8;
    while number >= 0x80 {
        bytes.push(low_u8(number as usize) | 0x80);
        number >>= 7;
    }
    bytes.push(low_u8(number as usize));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mut bytes: &[u8]) -> Option<(u32, usize)> {
        let number = take("number", &mut bytes).ok()?;
        Some((number, bytes.len()))
    }

    #[test]
    fn reads_the_documented_bytes() {
        assert_eq!(parse(&[0]), Some((0, 0)));
        assert_eq!(parse(&[0x7f, 9]), Some((127, 1)));
        assert_eq!(parse(&[0x80, 1]), Some((128, 0)));
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, 0)));
    }

    #[test]
    fn refuses_long_forms_large_numbers_and_ends() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(parse(bytes), None, "{bytes:x?}");
        }
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn put_undoes_take() {
        for number in [0, 1, 127, 128, 300, 1 << 14, (1 << 28) - 1, u32::MAX] {
            let mut bytes = Vec::new();
            put(number, &mut bytes);
            assert_eq!(parse(&bytes), Some((number, 0)));
        }
    }
}
