//! The packed file: a net's configuration and its tensors, read in place.
//!
//! Version 1.1. All numbers are little-endian and unsigned unless said otherwise; *padding* is the
//! bytes up to the next multiple of a number, counted from the start of the file, and is zero.
//!
//! ```text
//!  0 ┌───────────────────────────┐
//!    │ header           64 bytes │  magic, version, features, lengths, checksums
//!    ├───────────────────────────┤
//!    │ section table   16 · S    │  the head: all that a reader must understand
//!    ├───────────────────────────┤
//!    │ sections                  │  net, names, self-test, ...
//!    │ padding to 4              │
//!  H ├───────────────────────────┤
//!    │ record of tensor 0        │  type, shape
//!    │ padding to 4              │
//!    │ data of tensor 0          │  codebooks, row scales, codes; or dense elements
//!    ├───────────────────────────┤
//!    │ record of tensor 1        │  the payload
//!    │ ...                       │
//!    └───────────────────────────┘  the end of the last tensor's data
//! ```
//!
//! # Header
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `66 6d 71 1a` ("fmq", then a control character that ends text) |
//! | 4 | 2 | major version, 1; a reader refuses every other |
//! | 6 | 2 | minor version, 1; a reader reads greater ones |
//! | 8 | 4 | required features; a reader refuses bits that it does not know |
//! | 12 | 4 | optional features, which a reader may ignore; none is defined yet |
//! | 16 | 8 | length of the file |
//! | 24 | 4 | length `H` of the head, a multiple of 4, at most 2^24 |
//! | 28 | 4 | number `T` of tensors, at most 4096 |
//! | 32 | 4 | number `S` of sections, at most 16 |
//! | 36 | 4 | CRC-32 (IEEE 802.3, as in zlib) of the head but these four bytes |
//! | 40 | 4 | CRC-32 of the payload: all bytes from `H` on |
//! | 44 | 20 | zero |
//!
//! | feature bit | required to |
//! |---|---|
//! | 0 | reserved for entropy-coded codes |
//! | 1 | read the records of tensors in the payload, and paddings to 4; without it see "Version 1.0" |
//!
//! # Section table
//! An entry for each section, of strictly ascending kind:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | kind, see below |
//! | 4 | 4 | offset of the contents |
//! | 8 | 4 | bytes of the contents |
//! | 12 | 4 | zero |
//!
//! The contents lie in the order of the table, each after padding to 4, without gaps. A reader skips
//! kinds that it does not know.
//!
//! | kind | contents |
//! |---|---|
//! | 1 | the net: see [`crate::net`]. The tensors are then its parameters in state-dict order |
//! | 2 | names: for each tensor the length of its name (2 bytes, 1..=512) and the name in UTF-8, unlike any other. Only the host needs them. Without this section the names are those of the net's parameters |
//! | 3 | memory plan: see [`MemoryPlan`] |
//! | 4 | activation scales, for integer arithmetic: see [`Activations`] |
//! | 5 | bias corrections: reserved for integer arithmetic |
//! | 6 | self-test vector: see [`SelfTestVector`] |
//! | 7 | self-test checksum: see [`SelfTestChecksum`] |
//!
//! # Tensor record
//! Numbers marked *v* are varints: seven bits a byte from the lowest on, the top bit of each byte but
//! the last is 1; as few bytes as the number needs, at most 2^32 - 1.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | low four bits: encoding, 0 f32, 1 f16, 2 i64 (signed), 3 quantized; high four: rank `r`, 0..=6 |
//! | 1 | quantized only: low four bits: bits of a code, 1..=8; high four: format of a codebook, 0 f32, 1 f16, 2 i16, 3 i8, 4 affine, 5 logarithmic |
//! | 1 | quantized only: low four bits: row scales, 0 none, 1 f16, 2 f32, 3 a byte `b` that means `2^(b / 16 - 12)`, as the product of 2^(b / 16 mod 1) rounded to f32 and a power of two; high four: layout of the codes, 0, row after row as [`crate::packing`] packs them |
//! | *v* | quantized only: rows per codebook, from 1 |
//! | `r` · *v* | shape; at most 2^32 - 1 elements |
//!
//! # Tensor data
//! Dense: the elements, row-major. Quantized: all codebooks ([`crate::codebook`]), the scales of all
//! rows, padding to 4 (counted from the start of the data), all codes ([`crate::matrix`]). A quantized
//! tensor has at least one element, all its values are finite, and unused bits of a row are zero.
//!
//! # Rules
//! - A file is accepted as a whole or not at all: [`Model::parse`] checks everything above in one
//!   pass, without a heap and without recursion. Whatever it accepts can be read without an error.
//! - No alignment is assumed of the memory that a file is read from.
//! - A writer leaves zero what is zero above; a reader checks that, so a file has one form only. In
//!   a file of a greater minor version it ignores the header's last 20 bytes.
//! - A change that an older reader would misread takes a required feature or a new major version:
//!   every reader of a version 1.x reads the files of every earlier one.
//!
//! # Version 1.0
//! Without feature bit 1, paddings are to 16 for sections, to 64 for the head and for each tensor's
//! data, and to 16 before codes. The records are `T` times 64 bytes after the section table, and the
//! payload is data alone:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | offset of the data: for the first tensor `H`, then the end of the data before with padding to 64 |
//! | 8 | 8 | bytes of the data, as follows from the other fields |
//! | 16 | 1 | encoding |
//! | 17 | 1 | rank `r`, 0..=6 |
//! | 18 | 1 | bits of a code; 0 if dense |
//! | 19 | 1 | layout of the codes; 0 if dense |
//! | 20 | 1 | format of a codebook; 0 if dense |
//! | 21 | 1 | row scales; 0 if dense |
//! | 22 | 2 | zero |
//! | 24 | 4 | rows per codebook; 0 if dense |
//! | 28 | 4 | zero |
//! | 32 | 24 | shape: `r` numbers, then zeros |
//! | 56 | 8 | zero |
//!
//! Version 0.9, from before the promise, differs from 1.0 in the number alone and is read too.

mod activations;
#[cfg(feature = "alloc")]
mod amend;
mod bytes;
mod header;
mod memory_plan;
mod reader;
mod record;
mod record_placement;
mod section;
mod self_test;
mod self_test_checksum;
mod table;
mod varint;
#[cfg(feature = "alloc")]
mod writer;

pub use activations::Activations;
#[cfg(feature = "alloc")]
pub use amend::{fill_section, with_section};
pub use header::{MAGIC, MAX_HEAD_LEN, MAX_SECTIONS, MAX_TENSORS, VERSION, file_at};
pub use memory_plan::MemoryPlan;
pub use reader::{Model, Tensor, Tensors};
pub use record::{Encoding, MAX_RANK};
pub use section::{MAX_NAME_LEN, SectionKind};
pub use self_test::{SelfTestInput, SelfTestVector};
pub use self_test_checksum::SelfTestChecksum;
pub(crate) use self_test_checksum::VelocityDigest;
#[cfg(feature = "alloc")]
pub use writer::{Dense, Head, Sink, Writer, Written};

#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests;
