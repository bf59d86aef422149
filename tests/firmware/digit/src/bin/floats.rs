//! Draws a digit in floats alone: what a program of that takes of flash.

#![no_std]
#![no_main]

#[path = "../bits.rs"]
mod bits;
#[path = "../../../../../host/assets/firmware/rust/board.rs"]
mod board;
#[path = "../single.rs"]
mod single;

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    // The attribute makes it a reference, the only one.
    static mut ARENA: [f32; 28 << 10] = [0.0; 28 << 10];
    single::run::<f32>(ARENA)
}
