//! Training steps equal upstream's: path, loss, AdamW, EMA, times, learning rates.

#![allow(
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use candle_core::{Device, IndexOp, Tensor};
use fm_candle::model::{Masks, Mode, RandomInit, UNet};
use fm_candle::path::{cond_ot, loss, skewed};
use fm_candle::train::{Batch, Schedule, TrainConfig, Trainer};
use fmq_tests::{config, formula_weights, json, max_difference, numbers, ran, tensors};
use serde_json::Value;

/// A run from formula weights, and its batches.
fn run(settings: &TrainConfig) -> (Trainer, impl Fn(usize, bool) -> Batch + use<>) {
    let reference = json("train/train.json");
    let config = config(&reference["config"]);
    let mut trainer = Trainer::new(&config, settings, &Device::Cpu).unwrap();
    let salt = reference["salt"].as_u64().unwrap();
    trainer.set_weights(&formula_weights(&config, salt)).unwrap();
    let batches = tensors("train/batches.safetensors");
    let batch = move |step: usize, labelled: bool| {
        let at = |name: &str| batches[name].i(step).unwrap();
        Batch {
            x1: (at("x1") * 2.0).and_then(|x| x - 1.0).unwrap(),
            x0: at("noise"),
            t: at("t"),
            label: labelled.then(|| at("labels")),
        }
    };
    (trainer, batch)
}

fn floats(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Ten steps as the reference took them, with every loss held to its.
fn ten_steps(use_ema: bool) -> Trainer {
    let reference = json("train/train.json");
    let dropped: Vec<usize> =
        serde_json::from_value(reference["label_dropped_at_steps"].clone()).unwrap();
    let settings = TrainConfig { use_ema, batch_size: 4, ..TrainConfig::default() };
    let (mut trainer, batch) = run(&settings);
    for (step, expected) in floats(&reference["loss"]).into_iter().enumerate() {
        let loss = trainer.accumulate(&batch(step, !dropped.contains(&step))).unwrap();
        trainer.update().unwrap();
        let error = (loss - expected).abs() / expected;
        assert!(error < 5e-6, "step {step}: loss {loss} for {expected}");
    }
    trainer
}

/// How far weights are from those of the reference, of which the committed selection keeps every
/// 37th element of each tensor of more than one dimension.
///
/// The third of an attention's bias that belongs to the keys has no gradient but rounding, of
/// which `AdamW` makes steps of the size of the learning rate: it is apart, second.
fn off(name: &str, found: &Tensor, expected: &Tensor) -> (f64, f64) {
    let (found, expected) = (numbers(found), numbers(expected));
    let every = if found.len() == expected.len() { 1 } else { 37 };
    assert_eq!(found.len().div_ceil(every), expected.len(), "{name}");
    let keys = found.len() / 3..found.len() / 3 * 2;
    let mut off = (0.0_f64, 0.0_f64);
    for (i, expected) in (0..found.len()).step_by(every).zip(expected) {
        let key = name.ends_with("qkv.bias") && keys.contains(&i);
        let most = if key { &mut off.1 } else { &mut off.0 };
        *most = most.max((found[i] - expected).abs());
    }
    off
}

#[test]
fn ten_steps_have_upstreams_losses_and_weights() {
    for file in ["final", "ema"] {
        let weights = ten_steps(file == "ema").evaluation_weights().unwrap();
        let expected = tensors(&format!("train/{file}.safetensors"));
        assert_eq!(weights.len(), expected.len());
        let mut worst = 0.0_f64;
        for (name, tensor) in &weights {
            let (off, keys) = off(name, tensor, &expected[name]);
            assert!(off <= 2e-5, "{file}: {name}: {off}");
            assert!(keys <= 2e-3, "{file}: keys of {name}: {keys}");
            worst = worst.max(off);
        }
        println!("{file}: weights off by {worst:.1e}");
    }
}

#[test]
fn the_first_gradients_equal_upstream() {
    let reference = json("train/train.json");
    let config = config(&reference["config"]);
    let mut initial = RandomInit::new(0, &Device::Cpu);
    let net = UNet::new(&config, &mut initial).unwrap();
    let weights = formula_weights(&config, reference["salt"].as_u64().unwrap());
    let sum: f64 = weights.iter().flat_map(|(_, tensor)| numbers(tensor)).sum();
    let expected = reference["init_sum_f64"].as_f64().unwrap();
    assert!((sum - expected).abs() < 1e-6 * expected, "sum of all weights {sum} for {expected}");
    for ((_, var), (_, value)) in initial.vars.iter().zip(&weights) {
        var.set(value).unwrap();
    }
    let (_, batch) = run(&TrainConfig::default());
    let batch = batch(0, true);
    let (x_t, u) = cond_ot(&batch.x0, &batch.x1, &batch.t).unwrap();
    let mode = Mode::Train(&Masks::new(0, 0, (0, 1)));
    let v = net.forward(&x_t, &batch.t, batch.label.as_ref(), None, mode).unwrap();
    let gradients = loss(&v, &u).unwrap().backward().unwrap();

    let mut squares = 0.0;
    for (name, var) in &initial.vars {
        let facts = &reference["params"][name];
        let gradient = numbers(gradients.get(var).unwrap());
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let expected = facts["grad1_l2"].as_f64().unwrap();
        squares += norm * norm;
        assert!((norm - expected).abs() <= 1e-5 * expected, "{name}: norm {norm} for {expected}");
        for (g, first) in gradient.into_iter().zip(floats(&facts["grad1_first3"])) {
            assert!((g - first).abs() <= 1e-5 * expected, "{name}: {g} for {first}");
        }
    }
    let all = reference["params"].as_object().unwrap().len();
    ran("first gradients", initial.vars.len(), all, all);
    let (norm, expected) = (squares.sqrt(), floats(&reference["grad_norm"])[0]);
    assert!((norm - expected).abs() <= 1e-5 * expected, "norm {norm} for {expected}");
}

#[test]
fn accumulation_and_the_falling_learning_rate_equal_upstream() {
    let reference = &json("train/train.json")["accumulation"];
    let lrs = floats(&reference["lr_at_update"]);
    let settings = TrainConfig { accum_iter: 2, lr: 1e-3, batch_size: 4, ..TrainConfig::default() };
    let (mut trainer, batch) = run(&settings);
    for (step, expected) in floats(&reference["loss"]).into_iter().enumerate() {
        let loss = trainer.accumulate(&batch(step, true)).unwrap();
        if step % 2 == 1 {
            trainer.update_with(lrs[step / 2]).unwrap();
        }
        let error = (loss - expected).abs() / expected;
        assert!(error < 5e-6, "step {step}: loss {loss} for {expected}");
    }
    let weights = trainer.evaluation_weights().unwrap();
    let sum: f64 = weights
        .iter()
        .map(|(_, tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f64::from).sum::<f64>()
        })
        .sum();
    let expected = reference["final_sum_f64"].as_f64().unwrap();
    assert!((sum - expected).abs() < 2e-2, "sum of all weights {sum} for {expected}");
    let (_, out) = weights.iter().find(|(name, _)| name == "out.2.weight").unwrap();
    let out = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (w, expected) in out.into_iter().zip(floats(&reference["out2_weight_first5"])) {
        assert!((f64::from(w) - expected).abs() < 1e-7, "{w} for {expected}");
    }
}

#[test]
fn learning_rates_equal_torchs_linear_schedule() {
    for (epochs, name) in [(921, "lr0.0001_epochs921"), (10, "lr0.0001_epochs10")] {
        let config = TrainConfig { epochs, decay_lr: true, ..TrainConfig::default() };
        for (epoch, expected) in json("train/train.json")["linear_lr"][name].as_object().unwrap() {
            let lr = Schedule::new(&config).lr(epoch.parse().unwrap());
            let expected = expected.as_f64().unwrap();
            assert!((lr - expected).abs() < 1e-9 * expected + 1e-18, "{name}, epoch {epoch}: {lr}");
        }
    }
}

#[test]
fn path_and_times_equal_upstream() {
    let io = tensors("train/samplers.safetensors");
    let (x_t, u) = cond_ot(&io["path.x0"], &io["path.x1"], &io["path.t"]).unwrap();
    assert!(max_difference(&x_t, &io["path.xt"]) < 1e-6);
    assert!(max_difference(&u, &io["path.dxt"]) < 1e-6);
    let normals = io["skew.normal"].to_vec1::<f32>().unwrap();
    for (n, t) in normals.into_iter().zip(io["skew.time"].to_vec1::<f32>().unwrap()) {
        assert!((skewed(n) - t).abs() < 1e-6, "n = {n}: {} for {t}", skewed(n));
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let (mut trainer, batch) = run(&TrainConfig { use_ema: false, ..TrainConfig::default() });
    trainer.accumulate(&batch(0, true)).unwrap();
    assert_eq!(trainer.without_gradient(), Vec::<&str>::new());
}
