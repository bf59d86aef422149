//! `scalar` against single codes; each kernel that this CPU has, called directly, against `scalar`;
//! then what the others call.

use super::*;
use crate::bits::Bits;
use crate::packing::get;
use std::vec;
use std::vec::Vec;

/// Value of the guards around a result.
const GUARD: u8 = 0xa5;
const GUARD_FLOAT: f32 = -12345.678;

/// Past four blocks; a few up to past one for Miri, which is slow.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).filter(|n| !cfg!(miri) || [0, 1, 17, 71].contains(n))
}

/// The vector kernels of this CPU.
fn kernels() -> Vec<(&'static str, &'static dyn Kernel)> {
    let all: &[Option<(&'static str, &'static dyn Kernel)>] = &[
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        avx512::Avx512::detect().map(|kernel| ("avx512", kernel as _)),
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        avx2::Avx2::detect().map(|kernel| ("avx2", kernel as _)),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        neon::Neon::detect().map(|kernel| ("neon", kernel as _)),
    ];
    all.iter().copied().flatten().collect()
}

/// Knuth's generator, its high bits.
fn random_bytes(seed: u8, n: usize) -> Vec<u8> {
    let step = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = core::iter::successors(Some(u64::from(seed)), step).skip(4);
    states.take(n).map(|state| state.to_be_bytes()[0]).collect()
}

/// Any finite floats, and those at the ends of the range.
fn random_table(seed: u8) -> [f32; 256] {
    let extremes = [0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, -f32::INFINITY, f32::NAN, 1e-45];
    let bytes = random_bytes(seed, 1024);
    core::array::from_fn(|i| {
        let value = f32::from_le_bytes(bytes.as_chunks().0[i]);
        if value.is_finite() && bytes[4 * i] > 40 { value } else { extremes[i % 8] }
    })
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs `test` with every width and length, packed bytes that start at an odd address, and the
/// number of codes in whole blocks.
fn for_each_case(mut test: impl FnMut(Bits, usize, &[u8], usize)) {
    for bits in Bits::ALL {
        for n in lengths() {
            let packed = random_bytes(bits.get(), 1 + bits.packed_len(n));
            test(bits, n, &packed[1..], n / 64 * 64);
        }
    }
}

/// `scalar` of `n` weights between two guards.
fn dequantized(packed: &[u8], bits: Bits, table: &[f32; 256], n: usize) -> Vec<u32> {
    let mut out = vec![GUARD_FLOAT; n + 2];
    scalar::dequantize(packed, bits, table, &mut out[1..=n]);
    bits_of(&out)
}

#[test]
fn scalar_looks_up_each_code() {
    for_each_case(|bits, n, packed, _| {
        let table = random_table(bits.get());
        let value = |i| table[usize::from(get(packed, i, bits).unwrap())];
        let mut expected = vec![GUARD_FLOAT];
        expected.extend((0..n).map(value));
        expected.push(GUARD_FLOAT);
        assert_eq!(dequantized(packed, bits, &table, n), bits_of(&expected), "{bits} bits, {n}");
    });
}

#[test]
fn each_kernel_dequantizes_as_scalar() {
    for (name, kernel) in kernels() {
        for_each_case(|bits, n, packed, whole| {
            let table = random_table(bits.get());
            let mut out = vec![GUARD_FLOAT; n + 2];
            let done = kernel.dequantize(packed, bits, &table, &mut out[1..=n]);
            let widest = if name == "avx512" { 8 } else { 4 };
            assert_eq!(
                done,
                if bits.get() <= widest { whole } else { 0 },
                "{name}, {bits} bits, {n}"
            );
            // Nothing after the blocks: neither weights nor the guard.
            let mut expected = dequantized(packed, bits, &table, n);
            expected[1 + done..].fill(GUARD_FLOAT.to_bits());
            assert_eq!(bits_of(&out), expected, "{name}, {bits} bits, {n} weights");
        });
    }
}

#[test]
fn each_kernel_unpacks_as_scalar() {
    for (name, kernel) in kernels() {
        for_each_case(|bits, n, packed, whole| {
            let mut codes = vec![GUARD; n + 2];
            let done = kernel.unpack(packed, bits, &mut codes[1..=n]);
            assert_eq!(done, if name == "avx512" { whole } else { 0 });
            let mut expected = vec![GUARD; n + 2];
            scalar::unpack(packed, bits, &mut expected[1..=n]);
            expected[1 + done..].fill(GUARD);
            assert_eq!(codes, expected, "{name}, {bits} bits, {n} codes");
        });
    }
}

#[test]
fn each_kernel_packs_as_scalar() {
    for (name, kernel) in kernels() {
        for_each_case(|bits, n, packed, whole| {
            let mut codes = vec![0; n];
            scalar::unpack(packed, bits, &mut codes);
            let mut out = vec![GUARD; packed.len() + 2];
            let done = kernel.pack(&codes, bits, &mut out[1..=packed.len()]);
            assert_eq!(done, if name == "avx512" { whole } else { 0 });
            let (written, kept) = out[1..].split_at(bytes_of(done, bits));
            assert_eq!(written, &packed[..written.len()], "{name}, {bits} bits, {n} codes");
            assert!(out[0] == GUARD && kept.iter().all(|&byte| byte == GUARD));
        });
    }
}

#[test]
fn stops_packing_where_a_code_does_not_fit() {
    for bits in Bits::ALL.into_iter().filter(|&bits| bits < Bits::MAX) {
        for at in lengths() {
            for wrong in [bits.max_code() + 1, 0x80, 0xff] {
                let mut codes = [0; 301];
                codes[at] = wrong;
                assert_eq!(pack(&codes, bits, &mut [0; 301]), at, "{bits} bits");
            }
        }
    }
}

#[test]
fn the_best_kernel_and_scalar_make_a_whole() {
    for_each_case(|bits, n, packed, _| {
        let table = random_table(bits.get());
        let mut out = vec![GUARD_FLOAT; n + 2];
        dequantize(packed, bits, &table, &mut out[1..=n]);
        assert_eq!(bits_of(&out), dequantized(packed, bits, &table, n), "{bits} bits, {n}");

        let mut codes = vec![GUARD; n + 2];
        unpack(packed, bits, &mut codes[1..=n]);
        let expected: Vec<u8> = (0..n).map_while(|i| get(packed, i, bits)).collect();
        assert_eq!(codes[1..=n], expected, "{bits} bits, {n} codes");
        assert_eq!([codes[0], codes[n + 1]], [GUARD; 2]);

        let mut again = vec![GUARD; packed.len() + 2];
        assert_eq!(pack(&expected, bits, &mut again[1..=packed.len()]), n);
        let read: Vec<u8> = (0..n).map_while(|i| get(&again[1..], i, bits)).collect();
        assert_eq!(read, expected, "{bits} bits, {n} codes");
        assert_eq!([again[0], again[packed.len() + 1]], [GUARD; 2]);
    });
}

#[test]
fn decodes_what_is_there() {
    let table = random_table(0);
    let packed = random_bytes(0, 300);
    for bits in Bits::ALL {
        for len in lengths() {
            let there = (len * 8 / usize::from(bits.get())).min(250);
            let mut expected = dequantized(&packed, bits, &table, 250);
            expected[1 + there..].fill(GUARD_FLOAT.to_bits());
            for run in [dequantize, scalar::dequantize] {
                let mut out = [GUARD_FLOAT; 252];
                run(&packed[..len], bits, &table, &mut out[1..251]);
                assert_eq!(bits_of(&out), expected, "{bits} bits, {len} bytes");
            }
        }
    }
}
