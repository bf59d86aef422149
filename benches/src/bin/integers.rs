//! Holds the images of integers against those of floats, for `firmware.sh`.
//!
//! `integers N [--to FULL] FILE...`: for each calibrated packed file, images 0 to N - 1 drawn with both on
//! this machine, of seeds 42, 43 and so on and of each class in turn, by 16 steps of Euler's method; it
//! prints the mean and the worst PSNR and which image that is. The floats are those of the packed file
//! FULL where it is given.

use std::io::{self, Write};
use std::thread;

use quant_core::format::Model;
use quant_core::infer::{Plan, Precision, Sampler, Settings};

/// The first seed.
const SEED: u64 = 42;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (count, full, files) = match &args[..] {
        [count, to, full, files @ ..] if to == "--to" => (count, Some(full), files),
        [count, files @ ..] => (count, None, files),
        [] => panic!("usage: integers N [--to FULL] FILE..."),
    };
    let count: u32 = count.parse().expect("a number of images");
    let full = full.map(|path| std::fs::read(path).expect("a packed file"));
    let full = full.as_ref().map(|file| Model::parse(file).expect("a packed file"));
    for path in files {
        let file = std::fs::read(path).expect("a packed file");
        let model = Model::parse(&file).expect("a packed file");
        let classes = model.net().and_then(|net| u32::try_from(net.num_classes?).ok());
        let next = |image: u32| (u64::from(image) + SEED, classes.map(|classes| image % classes));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = |thread: usize| {
            let (model, floats) = (&model, full.as_ref().unwrap_or(&model));
            move || {
                let own = (0..count).skip(thread).step_by(threads);
                own.map(|image| (compare(floats, model, next(image)), next(image)))
                    .collect::<Vec<_>>()
            }
        };
        let all: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
            running.into_iter().flat_map(|thread| thread.join().expect("images")).collect()
        });
        let mean = all.iter().map(|(psnr, _)| psnr).sum::<f64>() / f64::from(count);
        let worst = all.iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("an image");
        let (psnr, (seed, label)) = worst;
        writeln!(
            io::stdout(),
            "{path}: mean {mean:.1} dB, worst {psnr:.1} (seed {seed}, {label:?})"
        )
        .expect("a reader");
    }
}

/// PSNR in dB of the image that `model` draws in integers, beside that of `full` in floats; values are -1
/// to 1.
fn compare(full: &Model<'_>, model: &Model<'_>, (seed, label): (u64, Option<u32>)) -> f64 {
    let draw = |model, precision| {
        let plan = Plan::with_precision(model, precision).expect("a calibrated file");
        let settings = Settings { label, ..Settings::default() };
        let mut arena = vec![0.0; settings.arena_len(&plan, model)];
        let mut sampler = Sampler::new(model, &plan, settings, &mut arena).expect("a sampler");
        sampler.noise(seed, 0);
        while sampler.step().expect("a step") {}
        sampler.image().to_vec()
    };
    let (floats, integers) = (draw(full, Precision::Float), draw(model, Precision::Integer));
    let square = |(a, b): (&f32, &f32)| f64::from(a.clamp(-1.0, 1.0) - b.clamp(-1.0, 1.0)).powi(2);
    let squares = floats.iter().zip(&integers).map(square);
    let (sum, count) = squares.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
    10.0 * (4.0 * count / sum).log10()
}
