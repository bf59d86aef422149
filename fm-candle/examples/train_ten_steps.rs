//! Trains a small net for ten steps on images made here, and draws two images by it.
//!
//! ```text
//! cargo run -p fm-candle --example train_ten_steps
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use std::sync::Arc;

use fm_candle::data::{ImageSet, Images};
use fm_candle::device::Device;
use fm_candle::model::UNetConfig;
use fm_candle::sample::{BatchSampler, start_noise};
use fm_candle::solver::{Method, SolverOptions, uniform_grid};
use fm_candle::train::{TrainConfig, Trainer};

fn main() -> fm_candle::Result<()> {
    // 80 grey images of 28 x 28 pixels: bright bars at places that the class tells.
    let pixel = |i: usize| if i % 28 / 3 == i / 784 % 10 { 255 } else { 0 };
    let labels = (0..80).map(|image| image % 10).collect();
    let images: Arc<dyn ImageSet> =
        Arc::new(Images::new([1, 28, 28], (0..80 * 784).map(pixel).collect(), labels)?);

    let net = UNetConfig::preset("mnist-micro")?;
    let config = TrainConfig { batch_size: 8, ..TrainConfig::default() };
    let mut trainer = Trainer::new(&net, &config, &Device::Cpu)?;
    let mut loader = trainer.loader(&images)?;
    while let Some(loss) = trainer.next_batch(&mut loader)? {
        println!("loss {loss:.4}");
    }

    let sampler = BatchSampler {
        method: Method::Midpoint,
        grid: uniform_grid(0.25)?,
        options: SolverOptions::default(),
        cfg_scale: 0.0,
        batch_size: 2,
    };
    let noise = start_noise(0, 0, 2, (1, 28, 28), &Device::Cpu)?;
    let samples = sampler.run(trainer.net(), &noise, Some(&[3, 7]), false, |_| {})?;
    println!("two images after {} evaluations: {:?}", samples.nfe, samples.images.dims());
    Ok(())
}
