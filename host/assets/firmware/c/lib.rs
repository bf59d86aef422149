//! The functions of `fmq.h` as a library to link into C, `libfmq.a`.
//!
//! The panic handler calls a function that nobody defines: the program links only if nothing that it
//! calls could panic.

#![no_std]

use core::panic::PanicInfo;

pub use quant_core::capi::*;

unsafe extern "C" {
    /// The name says what is wrong when the linker prints it.
    safe fn quant_core_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    quant_core_can_panic()
}
