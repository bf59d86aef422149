//! Codes of 1 to 8 bits packed into bytes, least significant bit first.
//!
//! Code `i` of width `b` occupies the bits `i·b .. (i+1)·b` of a stream in which bit `k` is bit
//! `k mod 8` (0 the least significant) of byte `k / 8`. Unused bits of the last byte are zero.
//!
//! The 3-bit codes 1, 2, 3, 4, 5 make the bytes `0xd1 0x58`:
//!
//! ```text
//! code     2   1   0        5 at bit 12, 4 at bit 9, 3 at bit 6, 2 at bit 3, 1 at bit 0
//! byte 0   11 010 001 = 0xd1     the low two bits of 3, then 2, then 1
//! byte 1   0 101 100 0 = 0x58    the unused bit, 5, 4, the high bit of 3
//! ```

use crate::bits::Bits;
use crate::error::{Error, Result, check_length};
use crate::kernels;

/// Packs `codes` into `out`.
///
/// # Shapes
/// `out`: [`Bits::packed_len`]`(codes.len())` bytes.
///
/// # Errors
/// [`Error::Length`] for an `out` of another length; [`Error::Code`] for a code
/// that does not fit, with `out` then written in part.
pub fn pack(codes: &[u8], out: &mut [u8], bits: Bits) -> Result<()> {
    check_length("packed codes", bits.packed_len(codes.len()), out.len())?;
    let index = kernels::pack(codes, bits, out);
    match codes.get(index) {
        Some(&code) => Err(Error::Code { index, code, max: bits.max_code() }),
        None => Ok(()),
    }
}

/// Unpacks as many codes as `codes` holds; bits after the last code are not looked at.
///
/// # Shapes
/// `bytes`: [`Bits::packed_len`]`(codes.len())` bytes.
///
/// # Errors
/// [`Error::Length`] for `bytes` of another length.
pub fn unpack(bytes: &[u8], codes: &mut [u8], bits: Bits) -> Result<()> {
    check_length("packed codes", bits.packed_len(codes.len()), bytes.len())?;
    kernels::unpack(bytes, bits, codes);
    Ok(())
}

/// Code `index` of a packed stream, `None` after the end of `bytes`.
pub fn get(bytes: &[u8], index: usize, bits: Bits) -> Option<u8> {
    let width = usize::from(bits.get());
    // Eight codes take `bits` whole bytes, so the position never overflows before `get` refuses.
    let bit = index % 8 * width;
    let at = (index / 8).checked_mul(width)?.checked_add(bit / 8)?;
    let low = *bytes.get(at)?;
    let straddles = bit % 8 + width > 8;
    let high = if straddles { *bytes.get(at.checked_add(1)?)? } else { 0 };
    let [code, _] = (u16::from_le_bytes([low, high]) >> (bit % 8)).to_le_bytes();
    Some(code & bits.max_code())
}

/// `true` if the bits after the last of `n` codes are zero, as [`pack`] leaves them.
pub(crate) fn tail_is_zero(bytes: &[u8], n: usize, bits: Bits) -> bool {
    let used = n % 8 * usize::from(bits.get()) % 8;
    used == 0 || bytes.last().is_none_or(|last| last >> used == 0)
}

/// Iterator over the codes of a packed stream.
#[derive(Clone, Debug)]
pub struct Codes<'a> {
    bytes: core::slice::Iter<'a, u8>,
    left: usize,
    bits: Bits,
    pending: u16,
    filled: u8,
}

impl<'a> Codes<'a> {
    /// The `n` codes of `bits` bits that `bytes` holds.
    ///
    /// # Errors
    /// [`Error::Length`] unless `bytes` has [`Bits::packed_len`]`(n)` bytes.
    pub fn new(bytes: &'a [u8], n: usize, bits: Bits) -> Result<Self> {
        check_length("packed codes", bits.packed_len(n), bytes.len())?;
        Ok(Self { bytes: bytes.iter(), left: n, bits, pending: 0, filled: 0 })
    }
}

impl Iterator for Codes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        if self.filled < self.bits.get() {
            self.pending |= u16::from(*self.bytes.next()?) << self.filled;
            self.filled += 8;
        }
        let [low, _] = self.pending.to_le_bytes();
        self.pending >>= self.bits.get();
        self.filled -= self.bits.get();
        Some(low & self.bits.max_code())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Codes<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::tests::{any_width, width};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn packs_three_bit_codes_as_documented() {
        let mut bytes = [0xff; 2];
        pack(&[1, 2, 3, 4, 5], &mut bytes, width(3)).unwrap();
        assert_eq!(bytes, [0xd1, 0x58]);
    }

    #[test]
    fn packs_whole_bytes_and_nibbles() {
        let mut bytes = [0; 3];
        pack(&[0x12, 0x34, 0xff], &mut bytes, Bits::MAX).unwrap();
        assert_eq!(bytes, [0x12, 0x34, 0xff]);
        pack(&[1, 2, 3, 4, 15], &mut bytes, width(4)).unwrap();
        assert_eq!(bytes, [0x21, 0x43, 0x0f]);
        pack(&[1, 0, 0, 0, 0, 0, 0, 1, 1], &mut bytes[..2], width(1)).unwrap();
        assert_eq!(bytes[..2], [0x81, 0x01]);
    }

    #[test]
    fn rejects_codes_that_do_not_fit() {
        let refused = Err(Error::Code { index: 1, code: 8, max: 7 });
        assert_eq!(pack(&[7, 8], &mut [0], width(3)), refused);
    }

    #[test]
    fn rejects_other_lengths() {
        let refused = Err(Error::Length { what: "packed codes", expected: 2, found: 1 });
        assert_eq!(pack(&[0; 3], &mut [0], width(4)), refused);
        assert_eq!(unpack(&[0], &mut [0; 3], width(4)), refused);
    }

    #[test]
    fn positions_never_overflow() {
        assert_eq!(get(&[0], usize::MAX, Bits::MAX), None);
    }

    /// Miri is slow, and lets no test read files.
    fn config() -> ProptestConfig {
        ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..Default::default()
        }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn unpack_undoes_pack(bits in any_width(), raw in proptest::collection::vec(any::<u8>(), 0..70)) {
            let codes: Vec<u8> = raw.iter().map(|code| code & bits.max_code()).collect();
            let mut bytes = vec![0xaa; bits.packed_len(codes.len())];
            pack(&codes, &mut bytes, bits).unwrap();
            let mut read = vec![0xaa; codes.len()];
            unpack(&bytes, &mut read, bits).unwrap();
            prop_assert_eq!(&read, &codes);
            let got: Vec<u8> = (0..codes.len()).map_while(|i| get(&bytes, i, bits)).collect();
            prop_assert_eq!(&got, &codes);
            prop_assert!(tail_is_zero(&bytes, codes.len(), bits));
        }

        #[test]
        fn each_unused_bit_counts(bits in any_width(), n in 1_usize..40) {
            let mut bytes = vec![0; bits.packed_len(n)];
            for unused in n * usize::from(bits.get())..bytes.len() * 8 {
                bytes[unused / 8] |= 1 << (unused % 8);
                prop_assert!(!tail_is_zero(&bytes, n, bits));
                bytes[unused / 8] = 0;
            }
        }
    }
}
