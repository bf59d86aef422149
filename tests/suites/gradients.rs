//! Every way to a gradient: all presets, block by block, in half precision.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    reason = "a suite: it panics to fail"
)]

use candle_core::{Device, Tensor};
use fm_candle::model::UNetConfig;
use fm_candle::train::{Batch, TrainConfig, TrainPrecision, Trainer};
use fmq_tests::{formula, formula_weights, max_difference};

/// A preset of upstream's depth and an eighth to a quarter of its width, for small images.
fn narrow(name: &str) -> UNetConfig {
    let preset = UNetConfig::preset(name).unwrap();
    // Heads of half the width, too.
    let num_head_channels = preset.num_head_channels.map(|width| width.min(32));
    UNetConfig { model_channels: 32, num_head_channels, ..preset }
}

fn formula_tensor(p: u64, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product::<usize>() as u64).map(|i| formula(p, i, 7) as f32);
    Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
}

fn batch(config: &UNetConfig, n: usize, side: usize) -> Batch {
    let image = |p| formula_tensor(p, &[n, config.in_channels, side, side]);
    let labels = || Tensor::arange(0u32, u32::try_from(n).unwrap(), &Device::Cpu).unwrap();
    Batch {
        x1: image(1),
        x0: image(2),
        t: formula_tensor(3, &[n]).abs().unwrap(),
        label: config.num_classes.map(|_| labels()),
    }
}

fn trainer(config: &UNetConfig, settings: &TrainConfig) -> Trainer {
    let mut trainer = Trainer::new(config, settings, &Device::Cpu).unwrap();
    trainer.set_weights(&formula_weights(config, 3)).unwrap();
    trainer
}

/// The loss, and the trainer with its gradients.
fn accumulated(config: &UNetConfig, settings: &TrainConfig, batch: &Batch) -> (f64, Trainer) {
    let mut trainer = trainer(config, settings);
    let loss = trainer.accumulate(batch).unwrap();
    (loss, trainer)
}

#[test]
fn every_parameter_of_every_preset_gets_a_gradient() {
    for name in UNetConfig::PRESETS {
        let config = narrow(name);
        let side = 1 << (config.channel_mult.len() - 1);
        for recompute in [false, true] {
            let settings = TrainConfig { recompute, ..TrainConfig::default() };
            let (_, mut trainer) = accumulated(&config, &settings, &batch(&config, 2, 4 * side));
            assert_eq!(trainer.without_gradient(), Vec::<&str>::new(), "{name}");
            trainer.update().unwrap();
            let weights = trainer.evaluation_weights().unwrap();
            for (state, (weight, _)) in trainer.optimizer().moments().zip(weights) {
                let moved = state.unwrap().mean.iter().any(|&mean| mean != 0.0);
                assert!(moved, "{name}: {weight} has a gradient of zero");
            }
        }
    }
}

#[test]
fn gradients_block_by_block_are_those_of_the_whole() {
    for name in ["imagenet", "cifar10", "mnist-small"] {
        let config = narrow(name);
        let batch = batch(&config, 3, 16);
        let moments = |recompute| {
            let settings = TrainConfig { recompute, ..TrainConfig::default() };
            let (loss, mut trainer) = accumulated(&config, &settings, &batch);
            trainer.update().unwrap();
            (loss, trainer.grad_norm(), trainer)
        };
        let (loss, norm, whole) = moments(false);
        let (by_blocks, norm_by_blocks, blocks) = moments(true);
        assert!((loss - by_blocks).abs() <= 1e-7 * loss, "{name}: {loss} {by_blocks}");
        assert!((norm - norm_by_blocks).abs() <= 1e-5 * norm, "{name}: {norm} {norm_by_blocks}");
        for (a, b) in whole.optimizer().moments().zip(blocks.optimizer().moments()) {
            let (a, b) = (a.unwrap(), b.unwrap());
            let floor = 1e-4 * norm as f32;
            let most = a.mean.iter().fold(floor, |most, x| most.max(x.abs()));
            for (x, y) in a.mean.iter().zip(&b.mean) {
                assert!((x - y).abs() <= 1e-4 * most, "{name}: {x} and {y} of at most {most}");
            }
        }
    }
}

#[test]
fn half_precision_trains_like_single() {
    let config = UNetConfig { dropout: 0.1, ..narrow("mnist-small") };
    let batch = batch(&config, 4, 8);
    let losses = |precision| {
        let settings = TrainConfig { precision, use_ema: true, ..TrainConfig::default() };
        let mut trainer = trainer(&config, &settings);
        let losses: Vec<f64> = (0..4)
            .map(|_| {
                let loss = trainer.accumulate(&batch).unwrap();
                trainer.update_with(1e-3).unwrap();
                loss
            })
            .collect();
        (losses, trainer.optimizer().updates)
    };
    let (single, updates) = losses(TrainPrecision::F32);
    let (half, half_updates) = losses(TrainPrecision::F16);
    assert_eq!((updates, half_updates), (4, 4), "no gradient overflowed");
    for (single, half) in single.iter().zip(&half) {
        // 20 unit roundoffs of 2^-11: small gradients lose digits, and AdamW steps by their signs.
        assert!((single - half).abs() <= 0.01 * single, "{half} for {single}");
    }
    assert!(half[3] < half[0], "{half:?}");
}

#[test]
fn an_update_that_overflows_is_skipped() {
    let config = narrow("mnist-small");
    let mut large = batch(&config, 2, 8);
    let settings =
        TrainConfig { precision: TrainPrecision::F16, use_ema: true, ..TrainConfig::default() };
    let mut trainer = trainer(&config, &settings);
    // A target far outside the images' range makes gradients beyond f16.
    large.x1 = (large.x1 * 1e4).unwrap();
    assert!(trainer.accumulate(&large).unwrap().is_finite());
    trainer.update().unwrap();
    assert!(!trainer.grad_norm().is_finite());
    assert_eq!((trainer.optimizer().updates, trainer.optimizer().averaged), (0, 1));
    let expected = formula_weights(&config, 3);
    for ((name, a), (_, b)) in trainer.evaluation_weights().unwrap().iter().zip(&expected) {
        assert!(max_difference(a, b) == 0.0, "{name}");
    }
}
