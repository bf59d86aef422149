//! Inference without a heap: the velocity of a packed U-Net, and the solver that draws an image.
//!
//! Weights stay packed and are decoded a row at a time. All else lives in one slice of floats, the
//! arena, whose length [`Plan`] tells exactly before anything is computed. `Plan::with_arithmetic::<i8>` makes
//! it maps of bytes and integer convolutions, for a file that has been calibrated; the rest is the same:
//!
//! ```no_run
//! # fn main() -> quant_core::Result<()> {
//! use quant_core::format::Model;
//! use quant_core::infer::{Method, Plan, Sampler, Settings};
//!
//! let file: &[u8] = &[]; // in flash
//! let model = Model::parse(file)?;
//! let plan = Plan::new(&model)?;
//! let settings = Settings { steps: 16, label: Some(7), ..Settings::default() };
//! let mut arena = [0.0; 1 << 15];
//! let mut sampler = Sampler::new(&model, &plan, settings, &mut arena)?;
//! sampler.noise(42, 0);
//! while sampler.step()? {} // feed the watchdog here
//! let image = sampler.image();
//! # Ok(()) }
//! ```
//!
//! Results have the same bits on every target: sums are added in one fixed order, products and sums
//! are rounded apart, and all functions come from [`num`](crate::num).
//!
//! | file | idea |
//! |---|---|
//! | `plan` | the memory of an evaluation, and its result |
//! | `unet` | the forward pass, of `blocks` |
//! | `walk` | parameters and maps on the way, handed on as an `op` |
//! | `executor` | runs the operations of a walk, or measures them |
//! | `float/` `integer/` | the layers on maps of floats, on maps of bytes |
//! | `embedding` | time and label, in floats for both |
//! | `map` | feature maps, and what a layer reads of them |
//! | `workspace` | the memory's parts |
//! | `sampler` | the solver |
//! | `self_test` | whether this device computes the right velocity |
//! | `layer` | one convolution alone, to be measured |
//!
//! The arithmetic is a type: [`Arithmetic`] is `f32` or `i8`, and a program links those that it names.

mod blocks;
mod embedding;
mod executor;
mod float;
mod integer;
mod layer;
mod map;
mod op;
mod plan;
mod precision;
mod sampler;
mod self_test;
mod unet;
mod walk;
mod workspace;

pub use crate::method::Method;
pub use executor::Engine;
pub use layer::ConvLayer;
pub use plan::Plan;
pub use precision::Precision;
pub use sampler::{Sampler, Settings};
pub use self_test::{ARITHMETIC, SelfTest};
pub use unet::Input;

/// The bytes of stack that a [`Sampler`] takes, about: as measured on a Cortex-M4.
pub const STACK_BYTES: usize = 8 << 10;

/// The type of a map's values: `f32`, or `i8` for a file with activation scales.
pub trait Arithmetic {
    /// The layers of this arithmetic.
    #[doc(hidden)]
    const ENGINE: Engine;
}

impl Arithmetic for f32 {
    const ENGINE: Engine = Engine::of::<Self>();
}

impl Arithmetic for i8 {
    const ENGINE: Engine = Engine::of::<Self>();
}

/// The engine of a precision that is known when the program runs.
const fn engine(precision: Precision) -> Engine {
    match precision {
        Precision::Float => f32::ENGINE,
        Precision::Integer => i8::ENGINE,
    }
}
