//! A program that computes in one arithmetic, and prints an image and nothing else.

use crate::{bits, board};
use quant_core::Result;
use quant_core::format::{Model, file_at};
use quant_core::infer::{Arithmetic, Plan, Sampler, Settings};

/// Draws class 3 from seed 42 in 16 steps, and prints the image's bits.
pub fn run<A: Arithmetic>(arena: &mut [f32]) -> ! {
    match draw::<A>(arena) {
        Ok(()) => board::exit(0),
        Err(_) => {
            board::print(b"error\n");
            board::exit(1)
        }
    }
}

fn draw<A: Arithmetic>(arena: &mut [f32]) -> Result<()> {
    let model = Model::parse(file_at(board::model_flash()))?;
    let plan = Plan::with_arithmetic::<A>(&model)?;
    let settings = Settings { label: Some(3), ..Settings::default() };
    let mut sampler = Sampler::new(&model, &plan, settings, arena)?;
    sampler.noise(42, 0);
    while sampler.step()? {}
    bits::print(sampler.image(), plan.image_size().1);
    Ok(())
}
