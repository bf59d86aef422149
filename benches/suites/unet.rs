//! The small MNIST net: a velocity, and steps of training and tuning with batch, loss, gradients and update.

use candle_core::{Device, Tensor};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use fm_candle::data::Images;
use fm_candle::model::Mode;
use fm_candle::ops::ConvArithmetic;
use fm_candle::train::{TrainConfig, Trainer};
use fmq_benches::{Form, Steps, TuneSteps, codes, net, quick, small_config, tensor, width};

/// How the weights may lie, by name.
const FORMS: [(&str, Form); 3] = [
    ("dense", Form::Dense),
    ("packed4", Form::Packed(width(4), ConvArithmetic::Float)),
    ("int8", Form::Packed(width(4), ConvArithmetic::Integer)),
];

fn forward(c: &mut Criterion) {
    let config = small_config().expect("the preset exists");
    let mut group = c.benchmark_group("unet_forward");
    group.sampling_mode(SamplingMode::Flat);
    for (name, form) in FORMS {
        let net = net(&config, form).expect("the preset is a net");
        for n in [1, 8, 32] {
            let x = tensor(0, &[n, 1, 28, 28]).expect("a shape");
            let t = Tensor::full(0.5_f32, n, &Device::Cpu).expect("a shape");
            let label = Tensor::zeros(n, candle_core::DType::U32, &Device::Cpu).expect("a shape");
            group.throughput(Throughput::Elements(n as u64));
            let id = BenchmarkId::new(format!("net=mnist-small/impl={name}"), format!("n={n}"));
            group.bench_function(id, |b| {
                b.iter(|| net.forward(&x, &t, Some(&label), None, Mode::Eval));
            });
        }
    }
    group.finish();
}

fn train(c: &mut Criterion) {
    const N: usize = 16;
    let images = Images::new(
        [1, 28, 28],
        codes(4 * N * 28 * 28, 8),
        codes(4 * N, 3).into_iter().map(u32::from).collect(),
    );
    let images = images.expect("as many pixels as the shape says");
    let config = TrainConfig { batch_size: N, use_ema: true, ..TrainConfig::default() };
    let arch = small_config().expect("the preset exists");
    let trainer = Trainer::new(&arch, &config, &Device::Cpu).expect("settings that train");
    let mut steps = Steps::new(trainer, images).expect("a thread");

    let mut group = c.benchmark_group("train_step");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Elements(N as u64));
    let id = BenchmarkId::new("net=mnist-small/impl=ours", format!("n={N}"));
    group.bench_function(id, |b| b.iter(|| steps.step().expect("a finite loss")));
    group.finish();
}

fn tune(c: &mut Criterion) {
    const N: usize = 16;
    let arch = small_config().expect("the preset exists");
    let mut steps = TuneSteps::new(&arch, N, &Device::Cpu).expect("settings that tune");
    let mut group = c.benchmark_group("tune_step");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Elements(N as u64));
    let id = BenchmarkId::new("net=mnist-small/impl=ours", format!("n={N}"));
    group.bench_function(id, |b| b.iter(|| steps.step().expect("a finite error")));
    group.finish();
}

criterion_group! {
    name = benches;
    config = quick();
    targets = forward, train, tune
}
criterion_main!(benches);
