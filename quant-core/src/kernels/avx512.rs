//! AVX-512 with VBMI, 64 codes a step: Intel from Ice Lake, AMD from Zen 4.
//!
//! # Up to 4 bits: the table in one register
//!
//! ```text
//! for each 16 codes, 2·B ≤ 8 bytes:
//!     words = those bytes in all eight 64-bit lanes       vpbroadcastq
//!     index = in lane j: code 2j | code 2j + 1            vpmultishiftqb
//!     out   = table[index]                                vpermps, which looks at 4 bits
//! ```
//!
//! The table repeats its 2^B entries up to 16, so that the bits above a code, which belong to its
//! neighbour, do no harm and need no mask.
//!
//! # From 5 bits: the table in byte planes
//!
//! A register holds 64 bytes, but only 16 floats. Plane p is byte p of all entries: one register
//! up to 6 bits, two for 7, four for 8.
//!
//! ```text
//! for each 64 codes, 8·B bytes:
//!     codes   = a byte each, by `BlockUnpacking`                  vpermb, vpmultishiftqb
//!     plane p = byte p of table[codes]                    vpermb or vpermi2b, four times
//!     out     = the four planes, interleaved              vpunpck*, eight times
//! ```
//!
//! Interleaving works inside 128-bit lanes: from four bytes of each lane it makes one register of
//! floats. So the codes are spread in the order that makes those floats neighbours:
//!
//! ```text
//!           lane 0                lane 1        lane 2        lane 3
//! codes     0-3 16-19 32-35 48-51 4-7 20-23 ... 8-11 24- ...  12-15 28- ...
//! out 0     0-3                   4-7           8-11          12-15
//! out 1     16-19                 20-23         24-27         28-31
//! ```
//!
//! # Gain
//!
//! In ns per code, 4096 codes on an AMD EPYC (Zen 5):
//!
//! | | here | `scalar` | copying the result |
//! |---|---|---|---|
//! | look up 1 to 4 bits | 0.024 | 0.20 | 0.035 |
//! | look up 5 to 7 bits | 0.027 | 0.20 to 0.26 | 0.035 |
//! | look up 8 bits | 0.040 | 0.19 | 0.035 |
//! | unpack 1 to 7 bits | 0.008 | 0.06 to 0.09 | 0.013 |
//! | pack 1 to 7 bits | 0.015 to 0.018 | 0.10 to 0.21 | 0.013, the codes |
#![expect(unsafe_code, reason = "vector instructions, loads and stores")]
#![allow(clippy::wildcard_imports, reason = "the prefix says where a name comes from")]

use core::arch::x86_64::*;

use super::block::{self, CodeBlock, Words, blocks};
use super::kernel::{Kernel, max_code, ones};
use crate::bits::Bits;
use crate::num::low_u8;

/// The CPU has AVX-512 F, BW and VBMI.
pub(super) struct Avx512(());

impl Avx512 {
    /// The proof, where the CPU has all three.
    pub(super) fn detect() -> Option<&'static Self> {
        let found = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vbmi");
        found.then_some(&Self(()))
    }
}

impl Kernel for Avx512 {
    fn dequantize(&self, codes: &[u8], bits: Bits, table: &[f32; 256], out: &mut [f32]) -> usize {
        // SAFETY: `self` exists only where `detect` found the three features.
        unsafe {
            if bits.get() <= 4 {
                by_width!(bits in 1 2 3 4: in_register(codes, table, out))
            } else {
                by_width!(bits in 5 6 7 8: in_planes(codes, table, out))
            }
        }
    }

    fn unpack(&self, bytes: &[u8], bits: Bits, codes: &mut [u8]) -> usize {
        // SAFETY: as in `dequantize`.
        unsafe { by_width!(bits in 1 2 3 4 5 6 7 8: spread_all(bytes, codes)) }
    }

    fn pack(&self, codes: &[u8], bits: Bits, out: &mut [u8]) -> usize {
        // SAFETY: as in `dequantize`.
        unsafe { by_width!(bits in 1 2 3 4 5 6 7 8: squeeze_all(codes, out)) }
    }
}

/// Up to 4 bits: 16 codes in 8 bytes.
const fn words(bits: usize) -> Words<8> {
    Words { bits, codes: 16 }
}

/// 1 to 4 bits, the table in one register.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn in_register<const B: usize>(codes: &[u8], table: &[f32; 256], out: &mut [f32]) -> usize {
    let levels = const { 1 << B };
    let table = load_floats(&core::array::from_fn(|i| table[i % levels]));
    let shifts = const { shifts_of_16(B) };
    let mut done = 0;
    for (block, out) in blocks::<B>(codes).iter().zip(out.as_chunks_mut::<{ block::CODES }>().0) {
        for (part, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let word = u64::from_le_bytes(words(B).read(block, part));
            let index = _mm512_multishift_epi64_epi8(
                load(&shifts[part]),
                _mm512_set1_epi64(word.cast_signed()),
            );
            store_floats(out, _mm512_permutexvar_ps(index, table));
        }
        done += block::CODES;
    }
    done
}

/// For each part of a block: the bit of its word where lane `i` of 32 bits finds code `i`.
const fn shifts_of_16(bits: usize) -> [[u8; 64]; 4] {
    let mut shifts = [[0; 64]; 4];
    let mut i = 0;
    while i < block::CODES {
        let (part, lane) = (i / 16, i % 16);
        shifts[part][4 * lane] = low_u8(words(bits).shift(part) + bits * lane);
        i += 1;
    }
    shifts
}

/// 5 to 8 bits, the table in byte planes.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn in_planes<const B: usize>(codes: &[u8], table: &[f32; 256], out: &mut [f32]) -> usize {
    let order = const { BlockUnpacking::new(B, true) };
    let planes = planes::<B>(table);
    let mut done = 0;
    for (block, out) in blocks::<B>(codes).iter().zip(out.as_chunks_mut::<{ block::CODES }>().0) {
        let codes = spread(&order, block);
        let [p0, p1, p2, p3] = [0, 1, 2, 3].map(|p| look_up::<B>(&planes[p], codes));
        let (low01, high01) = (_mm512_unpacklo_epi8(p0, p1), _mm512_unpackhi_epi8(p0, p1));
        let (low23, high23) = (_mm512_unpacklo_epi8(p2, p3), _mm512_unpackhi_epi8(p2, p3));
        let floats = [
            _mm512_unpacklo_epi16(low01, low23),
            _mm512_unpackhi_epi16(low01, low23),
            _mm512_unpacklo_epi16(high01, high23),
            _mm512_unpackhi_epi16(high01, high23),
        ];
        for (out, floats) in out.as_chunks_mut::<16>().0.iter_mut().zip(floats) {
            store_floats(out, _mm512_castsi512_ps(floats));
        }
        done += block::CODES;
    }
    done
}

/// Byte p of the entries 64r .. 64r + 64, at `[p][r]`; 5 bits repeat their 32 entries.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn planes<const B: usize>(table: &[f32; 256]) -> [[__m512i; 4]; 4] {
    let mut planes = [[_mm512_setzero_si512(); 4]; 4];
    let registers = const { (1_usize << B).div_ceil(64) };
    let entries = table.as_chunks::<16>().0;
    for r in 0..registers {
        let of_16 = |i: usize| {
            let i = if B == 5 { i % 2 } else { i };
            _mm512_castps_si512(load_floats(&entries[4 * r + i]))
        };
        let [a, b, c, d] = [of_16(0), of_16(1), of_16(2), of_16(3)];
        for (p, plane) in planes.iter_mut().enumerate() {
            let every_fourth = load(&EVERY_FOURTH[p]);
            let low = _mm512_permutex2var_epi8(a, every_fourth, b);
            let high = _mm512_permutex2var_epi8(c, every_fourth, d);
            plane[r] = _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high));
        }
    }
    planes
}

/// Byte p of the 32 floats in two registers, as positions in both.
const EVERY_FOURTH: [[u8; 64]; 4] = {
    let mut at = [[0; 64]; 4];
    let mut i = 0;
    while i < 128 {
        at[i % 4][i / 4] = low_u8(i);
        i += 1;
    }
    at
};

/// One byte of the entry of each code.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up<const B: usize>(plane: &[__m512i; 4], codes: __m512i) -> __m512i {
    let [a, b, c, d] = *plane;
    match B {
        8 => {
            let low = _mm512_permutex2var_epi8(a, codes, b);
            let high = _mm512_permutex2var_epi8(c, codes, d);
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high)
        }
        7 => _mm512_permutex2var_epi8(a, codes, b),
        _ => _mm512_permutexvar_epi8(codes, a),
    }
}

/// [`BlockUnpacking`] and nothing else.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn spread_all<const B: usize>(bytes: &[u8], codes: &mut [u8]) -> usize {
    let order = const { BlockUnpacking::new(B, false) };
    let mask = _mm512_set1_epi8(max_code(B).cast_signed());
    let mut done = 0;
    for (block, codes) in blocks::<B>(bytes).iter().zip(codes.as_chunks_mut().0) {
        store(codes, _mm512_and_si512(spread(&order, block), mask));
        done += block::CODES;
    }
    done
}

/// Unpacking of 64 packed codes to bytes.
///
/// Four neighbouring codes lie in four bytes of the block: 4·B ≤ 28 bits from a bit 0 or 4 for a
/// width below 8. Two such fours make a 64-bit lane.
struct BlockUnpacking {
    /// For each byte of the result, which byte of the block goes there,
    bytes: [u8; 64],
    /// and the bit in its 64-bit lane where its code then starts.
    shifts: [u8; 64],
}

impl BlockUnpacking {
    /// The codes in their order, or in the order that interleaving undoes.
    const fn new(b: usize, interleaved: bool) -> Self {
        let (mut bytes, mut shifts) = ([0; 64], [0; 64]);
        let mut i = 0;
        while i < block::CODES {
            let (four, k) = (i / 4, i % 4);
            let first = if interleaved { 16 * (four % 4) + 4 * (four / 4) } else { 4 * four };
            let bit = b * first;
            bytes[i] = low_u8(bit / 8 + k);
            shifts[i] = low_u8(32 * (four % 2) + bit % 8 + b * k);
            i += 1;
        }
        Self { bytes, shifts }
    }
}

/// A code in the low bits of each byte, below bits of its neighbours.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn spread<const B: usize>(order: &BlockUnpacking, block: &CodeBlock<B>) -> __m512i {
    let bytes = _mm512_permutexvar_epi8(load(&order.bytes), load_first(block));
    _mm512_multishift_epi64_epi8(load(&order.shifts), bytes)
}

/// Neighbours move together as in `scalar`, in eight words at once; then the words do.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn squeeze_all<const B: usize>(codes: &[u8], out: &mut [u8]) -> usize {
    let too_large = _mm512_set1_epi8((!max_code(B)).cast_signed());
    let low_bytes = load(const { &low_bytes(B) });
    let out = out.as_chunks_mut::<B>().0.as_chunks_mut().0;
    let mut done = 0;
    for (codes, out) in codes.as_chunks().0.iter().zip(out) {
        let codes = load(codes);
        if _mm512_test_epi8_mask(codes, too_large) != 0 {
            break;
        }
        let by_two = join(codes, const { ones(B) * 0x0001_0001_0001_0001 }, 8 - B);
        let by_four = join(by_two, const { ones(2 * B) * 0x0000_0001_0000_0001 }, 16 - 2 * B);
        let by_eight = join(by_four, const { ones(4 * B) }, 32 - 4 * B);
        store_first(out, _mm512_permutexvar_epi8(low_bytes, by_eight));
        done += block::CODES;
    }
    done
}

/// The bits of `words` where `mask` is one, else those `shift` places above.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn join(words: __m512i, mask: u64, shift: usize) -> __m512i {
    let shift = _mm512_set1_epi64(u64::from(low_u8(shift)).cast_signed());
    let above = _mm512_srlv_epi64(words, shift);
    // 0xca: for each bit, mask ? words : above.
    _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi64(mask.cast_signed()), words, above)
}

/// The lowest `b` bytes of each of eight words.
const fn low_bytes(b: usize) -> [u8; 64] {
    let mut at = [0; 64];
    let mut i = 0;
    while i < 8 * b {
        at[i] = low_u8(i / b * 8 + i % b);
        i += 1;
    }
    at
}

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The bytes of a block, zeros after them.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_first<const B: usize>(block: &CodeBlock<B>) -> __m512i {
    // SAFETY: the mask has a one for each of the 8·B bytes of the block, and no others are read.
    unsafe { _mm512_maskz_loadu_epi8(const { ones(8 * B) }, block.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_floats(floats: &[f32; 16]) -> __m512 {
    // SAFETY: the reference is to 16 floats; the load needs no alignment.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: the reference is to 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// Stores as many bytes as the block has.
#[target_feature(enable = "avx512f,avx512bw")]
fn store_first<const B: usize>(block: &mut CodeBlock<B>, value: __m512i) {
    // SAFETY: the mask has a one for each of the 8·B bytes of the block, and no others are written.
    unsafe { _mm512_mask_storeu_epi8(block.as_mut_ptr().cast(), const { ones(8 * B) }, value) }
}

#[target_feature(enable = "avx512f")]
fn store_floats(floats: &mut [f32; 16], value: __m512) {
    // SAFETY: the reference is to 16 floats; the store needs no alignment.
    unsafe { _mm512_storeu_ps(floats.as_mut_ptr(), value) }
}
