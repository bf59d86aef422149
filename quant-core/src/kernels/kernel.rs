//! The trait of vector kernels, which pack, unpack and dequantize codes.

use crate::bits::Bits;

/// The largest code of `b` bits, 1 to 8.
pub(super) const fn max_code(b: usize) -> u8 {
    u8::MAX >> (8 - b)
}

/// `n` low ones, 1 to 64.
pub(super) const fn ones(n: usize) -> u64 {
    u64::MAX >> (64 - n)
}

/// Vector instructions that this CPU has; a value is the proof.
///
/// Each loop handles whole blocks from the front, as far as both slices reach, and returns the
/// number of codes done: a multiple of eight, and 0 for a width that it leaves to [`scalar`](super::scalar).
pub(super) trait Kernel {
    /// [`dequantize`](super::dequantize).
    fn dequantize(&self, codes: &[u8], bits: Bits, table: &[f32; 256], out: &mut [f32]) -> usize;

    /// [`unpack`](super::unpack).
    fn unpack(&self, _bytes: &[u8], _bits: Bits, _codes: &mut [u8]) -> usize {
        0
    }

    /// [`pack`](super::pack); stops in front of a block with a code that does not fit.
    fn pack(&self, _codes: &[u8], _bits: Bits, _out: &mut [u8]) -> usize {
        0
    }
}
