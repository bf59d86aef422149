//! The inner loops over codes: packed codes → weights, packed codes ↔ codes.
//!
//! [`scalar`] is the specification. The files beside it do the same with the vector instructions of
//! one CPU family each, in whole blocks of codes; what is left after the last block goes to
//! [`scalar`]. Which of them runs:
//!
//! | CPU | `dequantize` | `unpack`, `pack` | chosen |
//! |---|---|---|---|
//! | x86-64 with AVX-512 VBMI (Ice Lake, Zen 4 and later) | `avx512` | `avx512` | at run time, with the feature `std` |
//! | x86-64 with AVX2 | `avx2` up to 4 bits | `scalar` | at run time, with the feature `std` |
//! | little-endian AArch64 | `neon` up to 4 bits | `scalar` | when compiled |
//! | any other | `scalar` | `scalar` | |

/// Calls a function with the width as its constant; its default for a width that is not listed.
macro_rules! by_width {
    ($bits:ident in $($width:literal)*: $function:ident$arguments:tt) => {
        match $bits.get() {
            $($width => $function::<$width> $arguments,)*
            _ => Default::default(),
        }
    };
}

#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod avx512;
#[cfg(any(
    all(target_arch = "x86_64", feature = "std"),
    all(target_arch = "aarch64", target_endian = "little")
))]
mod block;
pub(crate) mod buckets;
mod kernel;
#[cfg(fmq_buckets)]
mod ldm;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
pub(crate) mod pairs;
mod reach;
pub mod scalar;
#[cfg(fmq_dsp)]
mod smlad;
#[cfg(test)]
mod tests;
#[cfg(fmq_thumb1)]
mod thumb1;

use crate::bits::Bits;
use kernel::Kernel;

/// Writes the weights of packed codes: `out[i] = table[code i]`.
///
/// `codes` are packed as in [`packing`](crate::packing); only the first 2^bits entries of the table mean
/// something. Nothing panics: where `codes` is too short, the weights whose codes are there are
/// written and the others keep their values.
///
/// ```
/// # fn main() -> quant_core::Result<()> {
/// let mut table = [0.0; 256];
/// table[..4].copy_from_slice(&[-1.5, -0.5, 0.5, 1.5]);
/// let mut weights = [0.0; 5];
/// // The codes 3, 2, 1, 0 and 3.
/// let bits = quant_core::bits::Bits::new(2)?;
/// quant_core::kernels::dequantize(&[0b00_01_10_11, 0b11], bits, &table, &mut weights);
/// assert_eq!(weights, [1.5, 0.5, -0.5, -1.5, 1.5]);
/// # Ok(()) }
/// ```
pub fn dequantize(codes: &[u8], bits: Bits, table: &[f32; 256], out: &mut [f32]) {
    let done = best().dequantize(codes, bits, table, out);
    scalar::dequantize(from(codes, done, bits), bits, table, tail(out, done));
}

/// Unpacks as many codes as both slices have room for.
pub(crate) fn unpack(bytes: &[u8], bits: Bits, codes: &mut [u8]) {
    let done = best().unpack(bytes, bits, codes);
    scalar::unpack(from(bytes, done, bits), bits, tail(codes, done));
}

/// Packs codes up to the first that does not fit, and returns how many those are.
///
/// # Shapes
/// `out`: the bytes that the codes take.
pub(crate) fn pack(codes: &[u8], bits: Bits, out: &mut [u8]) -> usize {
    let done = best().pack(codes, bits, out);
    let left = codes.get(done..).unwrap_or(&[]);
    done + scalar::pack(left, bits, tail(out, bytes_of(done, bits)))
}

/// The bytes from code `done` on, a multiple of eight.
fn from(bytes: &[u8], done: usize, bits: Bits) -> &[u8] {
    bytes.get(bytes_of(done, bits)..).unwrap_or(&[])
}

/// The bytes of `done` codes, a multiple of eight.
const fn bytes_of(done: usize, bits: Bits) -> usize {
    done / 8 * bits.get() as usize
}

fn tail<T>(all: &mut [T], done: usize) -> &mut [T] {
    all.get_mut(done..).unwrap_or(&mut [])
}

/// The best kernel that this CPU has.
fn best() -> &'static dyn Kernel {
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    {
        if let Some(kernel) = avx512::Avx512::detect() {
            return kernel;
        }
        if let Some(kernel) = avx2::Avx2::detect() {
            return kernel;
        }
    }
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    if let Some(kernel) = neon::Neon::detect() {
        return kernel;
    }
    &NoVectors
}

/// Leaves everything to [`scalar`].
struct NoVectors;

impl Kernel for NoVectors {
    fn dequantize(
        &self,
        _codes: &[u8],
        _bits: Bits,
        _table: &[f32; 256],
        _out: &mut [f32],
    ) -> usize {
        0
    }
}
