//! NEON up to 4 bits, 16 codes at a time: every 64-bit ARM.
//!
//! ```text
//! plane p = byte p of the 16 entries                      ld4
//! for each 16 codes, 2·B ≤ 8 bytes:
//!     pair k  = the two bytes that code k begins in       tbl, twice
//!     code k  = low B bits of pair k >> k·B mod 8         ushl, uzp1, and
//!     plane p = byte p of table[code]                     tbl, four times
//!     out     = the four planes, interleaved              st4
//! ```
//!
//! The 16 floats of a table would fill four registers; their byte planes fill one each, so that a
//! `tbl` looks up one byte of 16 weights at once. `ld4` and `st4` take floats apart into bytes and
//! put them together, least significant byte first: hence little-endian only.
//!
//! No such CPU was at hand, so this kernel is tested (under QEMU) but not timed. Wider codes stay
//! with `scalar`: their planes fill two registers or more, and a `tbl` of four is slow on many
//! cores.
#![expect(unsafe_code, reason = "vector instructions, loads and stores")]
#![allow(clippy::wildcard_imports, reason = "NEON has a name for each instruction and type")]

use core::arch::aarch64::*;

use super::block::{self, Words, blocks};
use super::kernel::{Kernel, max_code};
use crate::bits::Bits;
use crate::num::low_u8;

/// The CPU has NEON.
pub(super) struct Neon(());

impl Neon {
    /// The proof; every CPU of this target has it.
    #[expect(clippy::unnecessary_wraps, reason = "as the other kernels")]
    pub(super) const fn detect() -> Option<&'static Self> {
        Some(&Self(()))
    }
}

impl Kernel for Neon {
    fn dequantize(&self, codes: &[u8], bits: Bits, table: &[f32; 256], out: &mut [f32]) -> usize {
        // SAFETY: `self` is the proof of NEON.
        unsafe { by_width!(bits in 1 2 3 4: look_up(codes, table, out)) }
    }
}

/// 16 codes in 8 bytes.
const fn words(bits: usize) -> Words<8> {
    Words { bits, codes: 16 }
}

#[target_feature(enable = "neon")]
fn look_up<const B: usize>(codes: &[u8], table: &[f32; 256], out: &mut [f32]) -> usize {
    let uint8x16x4_t(p0, p1, p2, p3) = load_planes(&core::array::from_fn(|i| table[i]));
    let spread = const { WordUnpacking::new(B) };
    let mut done = 0;
    for (block, out) in blocks::<B>(codes).iter().zip(out.as_chunks_mut::<{ block::CODES }>().0) {
        for (part, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let word = u64::from_le_bytes(words(B).read(block, part)) >> words(B).shift(part);
            let codes = spread.codes(word);
            let planes = uint8x16x4_t(
                vqtbl1q_u8(p0, codes),
                vqtbl1q_u8(p1, codes),
                vqtbl1q_u8(p2, codes),
                vqtbl1q_u8(p3, codes),
            );
            store_planes(out, planes);
        }
        done += block::CODES;
    }
    done
}

/// Unpacking of 16 packed codes of a word to bytes.
struct WordUnpacking {
    /// For each half of the codes: the two bytes of the word that each begins in,
    pairs: [[u8; 16]; 2],
    /// and how far up it is in them, negative as `ushl` wants it to move down.
    shifts: [[i16; 8]; 2],
    mask: u8,
}

impl WordUnpacking {
    const fn new(bits: usize) -> Self {
        let (mut pairs, mut shifts) = ([[0; 16]; 2], [[0; 8]; 2]);
        let mut code = 0;
        while code < 16 {
            let (half, i, bit) = (code / 8, code % 8, code * bits);
            // Behind the word's eight bytes they start anew; the mask drops what comes from there.
            pairs[half][2 * i] = low_u8(bit / 8);
            pairs[half][2 * i + 1] = low_u8(bit / 8 + 1);
            shifts[half][i] = -i16::from_le_bytes([low_u8(bit % 8), 0]);
            code += 1;
        }
        Self { pairs, shifts, mask: max_code(bits) }
    }

    /// A code in each byte.
    #[target_feature(enable = "neon")]
    fn codes(&self, word: u64) -> uint8x16_t {
        let bytes = vreinterpretq_u8_u64(vdupq_n_u64(word));
        let [low, high] = [0, 1].map(|half| {
            let pairs = vreinterpretq_u16_u8(vqtbl1q_u8(bytes, load(&self.pairs[half])));
            vreinterpretq_u8_u16(vshlq_u16(pairs, load_shifts(&self.shifts[half])))
        });
        vandq_u8(vuzp1q_u8(low, high), vdupq_n_u8(self.mask))
    }
}

#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the reference is to 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn load_shifts(shifts: &[i16; 8]) -> int16x8_t {
    // SAFETY: the reference is to 8 numbers.
    unsafe { vld1q_s16(shifts.as_ptr()) }
}

/// Byte p of each float in plane p.
#[target_feature(enable = "neon")]
fn load_planes(floats: &[f32; 16]) -> uint8x16x4_t {
    // SAFETY: the reference is to 16 floats, 64 bytes, as many as are read.
    unsafe { vld4q_u8(floats.as_ptr().cast()) }
}

/// Plane p into byte p of each float.
#[target_feature(enable = "neon")]
fn store_planes(floats: &mut [f32; 16], planes: uint8x16x4_t) {
    // SAFETY: the reference is to 16 floats, 64 bytes, as many as are written; any bits are floats.
    unsafe { vst4q_u8(floats.as_mut_ptr().cast(), planes) }
}
