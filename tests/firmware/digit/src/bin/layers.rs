//! Counts the instructions of single convolutions in integers, at the shapes of the embedded nets and of
//! `benches/peers/cmsis_nn.sh`.
//!
//! The model lies where `memory.x` says and must have been through `fmq calibrate`; for each shape its first
//! weight of that shape is taken. A line for each: side, channels, kernel, multiplications, instructions, bytes
//! of the weight's data and of its bias's.

#![no_std]
#![no_main]

#[path = "../../../../../host/assets/firmware/rust/board.rs"]
mod board;
#[path = "../timer.rs"]
mod timer;

use cortex_m_rt::entry;
use quant_core::Result;
use quant_core::format::{Model, file_at};
use quant_core::infer::ConvLayer;

/// Floats of the arena: 112 KiB.
const ARENA_LEN: usize = 28 << 10;

/// Side of the maps, channels from and to, side of the kernel.
const SHAPES: [[usize; 4]; 7] = [
    [14, 32, 32, 3],
    [14, 64, 32, 3],
    [7, 32, 32, 3],
    [7, 64, 32, 3],
    [28, 32, 32, 3],
    [28, 64, 32, 3],
    [14, 64, 32, 1],
];

#[entry]
fn main() -> ! {
    // The attribute makes it a reference, the only one.
    static mut ARENA: [f32; ARENA_LEN] = [0.0; ARENA_LEN];
    timer::start();
    for shape in SHAPES {
        if let Err(error) = measure(ARENA, shape) {
            say!("error: {error}");
            board::exit(1)
        }
    }
    board::exit(0)
}

fn measure(arena: &mut [f32], [side, from, to, kernel]: [usize; 4]) -> Result<()> {
    let model = Model::parse(file_at(board::model_flash()))?;
    let wanted = [to, from, kernel, kernel];
    let Some(at) = model.tensors().position(|tensor| tensor.shape() == wanted) else {
        return Ok(());
    };
    let layer = ConvLayer::new::<i8>(&model, at, side)?;
    // Any bytes will do: no branch depends on them.
    arena.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from_bits((i as u32) * 0x0103_0507));
    let start = timer::ticks();
    layer.run(&model, arena)?;
    let instructions = timer::instructions(timer::ticks().wrapping_sub(start).into());
    let mut bytes = model.tensors().skip(at).map(|tensor| tensor.data().len());
    let (weight, bias) = (bytes.next().unwrap_or(0), bytes.next().unwrap_or(0));
    let macs = layer.macs();
    say!("{side} {from} {to} {kernel} {macs} {instructions} {weight} {bias}");
    Ok(())
}
