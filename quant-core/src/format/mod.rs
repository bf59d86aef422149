//! The packed file: a net's configuration and its tensors, read in place.
//!
//! Version 0. It is not promised to stay readable: a file names its version, and a reader refuses
//! every other.
//!
//! All numbers are little-endian and unsigned unless said otherwise. Everything starts at a multiple
//! of 16 bytes from the start of the file; the bytes up to the next multiple are *padding* and are
//! zero. A file is a header, the net if there is one, and one record per tensor in the order of the
//! state dict, without gaps and with nothing behind.
//!
//! # Header, 32 bytes
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `66 6d 71 1a` ("fmq", then a control character that ends text) |
//! | 4 | 4 | version, 0 |
//! | 8 | 4 | feature bits; bit 0: a net follows; a reader refuses bits that it does not know |
//! | 12 | 4 | CRC-32 (IEEE 802.3, as in zlib) of all bytes of the file but these four |
//! | 16 | 8 | length of the file |
//! | 24 | 4 | number of tensors, at most 4096 |
//! | 28 | 4 | zero |
//!
//! # Net, 112 bytes
//! See [`crate::net`].
//!
//! # Tensor record
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | length `m` of the name, 1..=512 |
//! | 2 | 1 | rank `r`, 0..=6 |
//! | 3 | 1 | encoding, see below |
//! | 4 | 1 | bits of a code, 1..=8; 0 if dense |
//! | 5 | 1 | zero |
//! | 6 | 2 | levels of a codebook, 1..=2^bits, 2^bits if affine; 0 if dense |
//! | 8 | 4 | rows per codebook, from 1; 0 if dense |
//! | 12 | 4r | shape; the number of elements is at most 2^32 - 1 |
//! | 12 + 4r | m | name in UTF-8, unlike that of any other tensor |
//! | | | padding |
//! | | | dense: elements, row-major. Coded: all codebooks, padding, all codes |
//! | | | padding |
//!
//! | encoding | elements |
//! |---|---|
//! | 0 | dense f32 |
//! | 1 | dense f16 |
//! | 2 | dense i64 (signed) |
//! | 3 | codes with f32 tables |
//! | 4 | codes with f16 tables |
//! | 5 | codes with affine codebooks |
//!
//! A coded tensor is a matrix of `shape[0]` rows (of one row if `r < 2`); see [`crate::coded`] for
//! its rows, [`crate::codebook`] for codebooks, [`crate::bits`] for codes. It has at least one element,
//! codebook entries are finite, every code has a level, and unused bits of a row are zero.
//!
//! [`Model::parse`] checks all of this once; whatever it accepts can be read without an error.

mod header;
mod reader;
mod record;
#[cfg(feature = "alloc")]
mod writer;

pub use header::{MAGIC, MAX_TENSORS, VERSION};
pub use reader::{Model, Tensor, Tensors};
pub use record::{Encoding, MAX_NAME_LEN, MAX_RANK};
#[cfg(feature = "alloc")]
pub use writer::{Dense, Writer};

#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests;

/// Everything in the file starts at a multiple of this.
pub(crate) const ALIGN: usize = 16;

/// The bytes from `len` to the next multiple of [`ALIGN`].
const fn padding(len: usize) -> usize {
    len.wrapping_neg() % ALIGN
}
