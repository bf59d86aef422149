//! The specification of the kernels: eight codes at a time, as one word.
//!
//! ```text
//! for each eight codes, which take B whole bytes:
//!     word = those bytes, little-endian
//!     code k = bits k·B .. (k+1)·B of word
//! ```
//!
//! Unpacking and packing move the codes of a word all at once, in three steps that halve, or
//! double, the distance between neighbours. With B = 3 and codes `h..a`, `?` for bits that nobody
//! looks at:
//!
//! ```text
//!          bit 63                                   bit 0
//! packed     ?       ?       ?       ?       ?  hhhgggfffeeedddcccbbbaaa
//! 32 apart   ?       ?        hhhgggfffeee   ?       ?      dddcccbbbaaa
//! 16 apart   ?   hhhggg   ?   fffeee   ?   dddccc   ?   bbbaaa
//!  8 apart   hhh     ggg     fff     eee     ddd     ccc     bbb     aaa
//! ```
//!
//! The width is a constant of each loop, so that shifts and masks are constants. In ns per code, on
//! an AMD EPYC (Zen 5) and in its first cache, beside a loop code by code:
//!
//! | | here | code by code |
//! |---|---|---|
//! | look up | 0.19 to 0.26 | |
//! | unpack 1 to 7 bits | 0.06 to 0.09 | 0.53 to 0.74 |
//! | pack 1 to 7 bits | 0.10 to 0.21 | 0.50 to 0.90 |
//! | either, 8 bits: a copy | 0.01 | 0.75 to 1.0 |

use super::kernel::{max_code, ones};
use crate::bits::Bits;

/// [`kernels::dequantize`](super::dequantize) for any CPU.
pub fn dequantize(codes: &[u8], bits: Bits, table: &[f32; 256], out: &mut [f32]) {
    by_width!(bits in 1 2 3 4 5 6 7 8: look_up(codes, table, out));
}

fn look_up<const B: usize>(codes: &[u8], table: &[f32; 256], out: &mut [f32]) {
    let value = |word: u64, k: usize| table[usize::from(code::<B>(word, k))];
    for (bytes, values) in codes.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<8>().0) {
        let word = word(bytes);
        for (k, out) in values.iter_mut().enumerate() {
            *out = value(word, k);
        }
    }
    let (bytes, out) = rest::<B, _>(codes, out);
    let word = word(bytes);
    for (k, out) in out.iter_mut().enumerate() {
        *out = value(word, k);
    }
}

/// [`packing::unpack`](crate::packing::unpack) without its checks: as many codes as are there.
pub(super) fn unpack(bytes: &[u8], bits: Bits, codes: &mut [u8]) {
    by_width!(bits in 1 2 3 4 5 6 7 8: spread_all(bytes, codes));
}

fn spread_all<const B: usize>(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks::<B>().0.iter().zip(codes.as_chunks_mut::<8>().0) {
        *codes = spread::<B>(word(bytes)).to_le_bytes();
    }
    let (bytes, codes) = rest::<B, _>(bytes, codes);
    for (code, read) in codes.iter_mut().zip(spread::<B>(word(bytes)).to_le_bytes()) {
        *code = read;
    }
}

/// Packs up to the first code that does not fit; the number of codes packed.
///
/// # Shapes
/// `out`: the bytes that the codes take.
pub(super) fn pack(codes: &[u8], bits: Bits, out: &mut [u8]) -> usize {
    by_width!(bits in 1 2 3 4 5 6 7 8: squeeze_all(codes, out))
}

fn squeeze_all<const B: usize>(codes: &[u8], out: &mut [u8]) -> usize {
    let (eights, last) = codes.as_chunks::<8>();
    let (out, out_last) = out.split_at_mut(out.len().min(eights.len() * B));
    for (i, (codes, bytes)) in eights.iter().zip(out.as_chunks_mut::<B>().0).enumerate() {
        let word = u64::from_le_bytes(*codes);
        if word & !each_byte(max_code(B)) != 0 {
            return 8 * i + fitting::<B>(codes);
        }
        let squeezed = squeeze::<B>(word).to_le_bytes();
        for (byte, squeezed) in bytes.iter_mut().zip(squeezed) {
            *byte = squeezed;
        }
    }
    let fitting = fitting::<B>(last);
    if fitting == last.len() {
        for (byte, squeezed) in out_last.iter_mut().zip(squeeze::<B>(word(last)).to_le_bytes()) {
            *byte = squeezed;
        }
    }
    8 * eights.len() + fitting
}

/// The codes in front of the first that does not fit.
fn fitting<const B: usize>(codes: &[u8]) -> usize {
    codes.iter().take_while(|&&code| code <= max_code(B)).count()
}

/// The rest after the last eight codes that both slices hold: the bytes left, and the places for
/// the codes that are whole in them, fewer than eight.
fn rest<'a, const B: usize, T>(bytes: &'a [u8], out: &'a mut [T]) -> (&'a [u8], &'a mut [T]) {
    let eights = (bytes.len() / B).min(out.len() / 8);
    let bytes = bytes.get(eights * B..).unwrap_or(&[]);
    let out = out.get_mut(eights * 8..).unwrap_or(&mut []);
    // One of the two has less than a group left.
    let there = out.len().min(bytes.len().min(B) * 8 / B);
    (bytes, out.get_mut(..there).unwrap_or(&mut []))
}

/// A word of eight equal bytes.
const fn each_byte(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The first eight bytes, zeros after their end.
fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(padded)
}

/// Code `k` of a packed word.
fn code<const B: usize>(word: u64, k: usize) -> u8 {
    let [low, ..] = (word >> (k * B)).to_le_bytes();
    low & max_code(B)
}

/// Eight packed codes into the eight bytes of a word.
fn spread<const B: usize>(word: u64) -> u64 {
    let word = select(0x0000_0000_ffff_ffff, word, word << (32 - 4 * B));
    let word = select(0x0000_ffff_0000_ffff, word, word << (16 - 2 * B));
    let word = select(0x00ff_00ff_00ff_00ff, word, word << (8 - B));
    word & each_byte(max_code(B))
}

/// The codes in the eight bytes of a word into its low bits.
fn squeeze<const B: usize>(word: u64) -> u64 {
    let word = select(ones(B) * 0x0001_0001_0001_0001, word, word >> (8 - B));
    let word = select(ones(2 * B) * 0x0000_0001_0000_0001, word, word >> (16 - 2 * B));
    select(ones(4 * B), word, word >> (32 - 4 * B))
}

/// The bits of `a` where `mask` is one, those of `b` where it is zero.
const fn select(mask: u64, a: u64, b: u64) -> u64 {
    (a & mask) | (b & !mask)
}
