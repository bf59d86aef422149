//! Low-bit codebook quantization, a packed weight file, and reproducible noise for flow-matching
//! nets: everything that must mean the same on a PC and on a microcontroller.
//!
//! The crate knows bytes and numbers; it knows no tensor library, no operating system and, without
//! the feature `alloc`, no heap. No input makes it panic: every fallible call returns [`Error`].
//!
//! ```
//! # #[cfg(feature = "alloc")] fn main() -> quant_core::Result<()> {
//! use quant_core::bits::Bits;
//! use quant_core::format::{Head, Model, Writer};
//! use quant_core::quantize::{QuantizeOptions, quantize_tensor};
//! use quant_core::scheme::Scheme;
//!
//! let weights = [0.5, -1.0, 0.5, 2.0, -1.0, -1.0, 2.0, 0.5];
//! let options = QuantizeOptions::new(Scheme::EqualMass, Bits::new(2)?);
//! let quantized = quantize_tensor(&weights, &[8], &options)?;
//! let head = Head { names: Some(vec!["out.bias"]), ..Head::default() };
//! let mut writer = Writer::new(Vec::new(), &head)?;
//! writer.quantized(&quantized)?;
//! let file = writer.into_file()?;
//!
//! let mut read = [0.0; 8];
//! Model::parse(&file)?.tensor("out.bias").unwrap().decode_row(0, &mut read)?;
//! assert_eq!(read, quantized.dequantized()[..]);
//! # Ok(()) }
//! # #[cfg(not(feature = "alloc"))] fn main() {}
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`error`] | the one error type |
//! | [`num`] | every lossy cast and every libm call |
//! | [`bits`] | the width of a code |
//! | [`packing`] | codes of 1 to 8 bits in bytes |
//! | [`kernels`] | the inner loops over codes, with vector instructions where the CPU has them |
//! | [`scheme`] | the names of the quantizers |
//! | `fit` | weights → levels and codes, one file per scheme (`alloc`) |
//! | [`log_range`] | the levels of the scheme `log` from four numbers |
//! | [`codebook`] | a stored codebook: table, affine or logarithmic |
//! | [`matrix`] | rows of codes with their codebooks, decoded in place |
//! | `quantize` | a whole tensor → its cheapest exact description (`alloc`) |
//! | [`net`] | the U-Net: its configuration, its layers, its parameters |
//! | [`method`] | the names of the solver's methods |
//! | [`mod@format`] | the packed file, byte by byte; reader, and writer (`alloc`) |
//! | [`infer`] | the net and its solver without a heap |
//! | [`noise`] | counter-based uniforms and normals |
//! | `capi` | the same for programs in C (`capi`) |

#![no_std]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "the tests want exact values"))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod bits;
#[cfg(any(feature = "capi-float", feature = "capi-integer"))]
pub mod capi;
pub mod codebook;
pub mod error;
#[cfg(feature = "alloc")]
pub mod fit;
pub mod format;
pub mod infer;
pub mod kernels;
pub mod log_range;
pub mod matrix;
pub mod method;
pub mod net;
pub mod noise;
pub mod num;
pub mod packing;
#[cfg(feature = "alloc")]
pub mod quantize;
pub mod rate;
pub mod scheme;

pub use error::{Error, Result};

/// The declarations of `capi` for programs in C: the text of `fmq.h`.
pub const C_HEADER: &str = include_str!("../include/fmq.h");
