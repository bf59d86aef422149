//! Draws an image on a microcontroller: no heap, no operating system, one packed model in flash.

#![no_std]
#![no_main]

mod board;
mod model;
mod picture;
mod plan;

use cortex_m_rt::entry;
use quant_core::format::{Model, file_at};
use quant_core::infer::{Plan, Sampler, SelfTest, Settings};
use quant_core::{Error, Result};

#[entry]
fn main() -> ! {
    // The attribute makes it a reference, the only one.
    static mut ARENA: [f32; plan::ARENA_LEN] = [0.0; plan::ARENA_LEN];
    match draw(ARENA) {
        Ok(()) => board::exit(0),
        Err(error) => {
            say!("error: {error}");
            board::exit(1)
        }
    }
}

fn draw(arena: &mut [f32]) -> Result<()> {
    let model = Model::parse(file_at(board::model_flash()))?;
    let plan = Plan::with_arithmetic::<plan::Arithmetic>(&model)?;
    match plan.self_test(&model, arena)? {
        SelfTest::Passed { .. } => say!("self-test passed"),
        SelfTest::Absent => say!("self-test not in the file"),
        SelfTest::NotComparable => say!("self-test of another version of quant-core"),
    }
    let label = plan::CLASSES.map(|classes| 3 % classes);
    let (method, steps) = (plan::METHOD, plan::STEPS);
    let settings = Settings { method, steps, label, ..Settings::default() };
    let mut sampler = Sampler::new(&model, &plan, settings, arena)?;
    sampler.noise(42, 0);
    while sampler.step()? {} // feed the watchdog here
    let image = sampler.image();
    if image.len() != plan::IMAGE_LEN {
        return Err(Error::Length {
            what: "image of another model",
            expected: plan::IMAGE_LEN,
            found: image.len(),
        });
    }
    picture::print(image, plan.image_size());
    say!("checksum {:08x}", checksum(image));
    Ok(())
}

/// FNV-1a over the bits of the image, to compare devices by.
fn checksum(image: &[f32]) -> u32 {
    let bytes = image.iter().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
