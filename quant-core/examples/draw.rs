//! Draws a digit from a packed file, as a microcontroller does: in memory that the plan tells, without
//! allocating.
//!
//! ```text
//! cargo run -p quant-core --features std --example draw -- host/assets/mnist-micro-tuned-2.fmq 7
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use core::error::Error;

use quant_core::format::Model;
use quant_core::infer::{Plan, Sampler, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: draw FILE.fmq CLASS")?;
    let label = args.next().map(|class| class.parse()).transpose()?;
    let file = std::fs::read(path)?;

    let model = Model::parse(&file)?; // checks the whole file
    let plan = Plan::new(&model)?;
    let settings = Settings { steps: 16, label, ..Settings::default() };
    let mut arena = vec![0.0; settings.arena_len(&plan, &model)];
    let mut sampler = Sampler::new(&model, &plan, settings, &mut arena)?;
    sampler.noise(42, 0);
    while sampler.step()? {}

    let side = sampler.image().len().isqrt();
    for line in sampler.image().chunks(side) {
        let shade = |&value: &f32| match value {
            ..-0.5 => ' ',
            ..0.0 => '.',
            ..0.5 => '+',
            _ => '#',
        };
        println!("{}", line.iter().map(shade).collect::<String>());
    }
    Ok(())
}
