//! Runs go on from checkpoints: ours exactly, upstream's as upstream would.

#![allow(
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use fm_candle::checkpoint::{self, Choice, Source};
use fm_candle::data::{ImageSet, Images};
use fm_candle::train::{Batch, TrainConfig, Trainer};
use fmq_tests::{config, data, formula, json, max_difference, own};
use serde_json::{Map, Value};

/// A checkpoint of upstream after epoch 9, with an average and a falling learning rate.
fn upstream() -> PathBuf {
    data("unet/ema_class.checkpoint-9.pth")
}

fn formula_tensor(p: u64, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product::<usize>() as u64).map(|i| formula(p, i, 7) as f32);
    Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
}

/// The batch that the reference trained on.
fn batch() -> Batch {
    let image = |p| formula_tensor(p, &[2, 3, 8, 8]);
    Batch {
        x1: image(1),
        x0: image(2),
        t: formula_tensor(3, &[2]).abs().unwrap(),
        label: Some(Tensor::new(&[1u32, 3], &Device::Cpu).unwrap()),
    }
}

fn resume(path: &Path, settings: &TrainConfig) -> fm_candle::Result<Trainer> {
    let config = config(&own("train/resume.json")["config"]);
    Trainer::resume(path, &config, settings, &Device::Cpu)
}

/// Trains as the reference did: two updates, an epoch ends between them.
fn train(trainer: &mut Trainer) {
    let reference = own("train/resume.json");
    for step in 0..2 {
        let lr = trainer.schedule().lr(trainer.progress().epoch);
        let expected = reference["lr"][step].as_f64().unwrap();
        assert!((lr / expected - 1.0).abs() < 1e-12, "step {step}: lr {lr} for {expected}");
        let loss = trainer.accumulate(&batch()).unwrap();
        let expected = reference["losses"][step].as_f64().unwrap();
        assert!((loss / expected - 1.0).abs() < 5e-6, "step {step}: loss {loss} for {expected}");
        trainer.update().unwrap();
        if step == 0 {
            trainer.end_epoch();
        }
    }
}

/// Compares the first elements of each parameter with the reference's.
fn assert_close(what: &str, tensors: &[(String, Tensor)], tolerance: f64) {
    let reference = own("train/resume.json");
    let expected = reference[what].as_object().unwrap();
    assert_eq!(tensors.len(), expected.len());
    for ((name, tensor), (expected_name, expected)) in tensors.iter().zip(expected) {
        assert_eq!(name, expected_name);
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let moments = reference["exp_avg"][name].as_array().unwrap();
        for ((value, expected), moment) in
            values.iter().zip(expected.as_array().unwrap()).zip(moments)
        {
            // Where the true gradient is zero (a bias in front of a norm), AdamW steps by noise.
            if moment.as_f64().unwrap().abs() < 1e-6 {
                continue;
            }
            let off = (f64::from(*value) - expected.as_f64().unwrap()).abs();
            assert!(off < tolerance, "{what}: {name}: {value} for {expected}");
        }
    }
}

fn ema() -> TrainConfig {
    TrainConfig { use_ema: true, decay_lr: true, epochs: 50, ..TrainConfig::default() }
}

#[test]
fn upstreams_run_goes_on_as_upstream_would() {
    let mut trainer = resume(&upstream(), &ema()).unwrap();
    assert_eq!((trainer.progress().epoch, trainer.progress().batch), (10, 0));
    train(&mut trainer);
    assert_close("average", &trainer.evaluation_weights().unwrap(), 1e-7);

    // And from what it saves in between.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint.pth");
    trainer.save(&file, &Map::new()).unwrap();
    let raw = checkpoint::load(&file, true).unwrap();
    assert_close("weights", &raw.tensors, 1e-7);
    let average = checkpoint::load(&file, false).unwrap();
    assert!(average.ema && average.net().is_some());
    assert_close("average", &average.tensors, 1e-7);

    let (moments, rest) = Source::open_training(&file).unwrap().unwrap();
    let whole = Source::open_whole(&file, &Choice::default()).unwrap();
    let counter = whole.read(0).unwrap().to_scalar::<i64>().unwrap();
    assert_eq!(counter, own("train/resume.json")["num_updates"].as_i64().unwrap());
    let find = |name: &str| moments.tensors().iter().position(|info| info.name == name).unwrap();
    let step = moments.read(find("state.0.step")).unwrap();
    assert_eq!(f64::from(step.to_scalar::<f32>().unwrap()), own("train/resume.json")["steps"][0]);
    let names = raw.tensors.iter().enumerate();
    let means = names.map(|(i, (name, _))| {
        (name.clone(), moments.read(find(&format!("state.{i}.exp_avg"))).unwrap())
    });
    assert_close("exp_avg", &means.collect::<Vec<_>>(), 1e-6);
    assert_eq!(rest["epoch"], 10);
    assert_eq!(rest["lr_schedule"]["last_epoch"], 2);
    assert_eq!(rest["lr_schedule"]["end_factor"], 1e-8 / 1e-4);
}

#[test]
fn a_checkpoint_of_ours_has_upstreams_layout() {
    let args: Map<String, Value> =
        serde_json::from_str(r#"{"batch_size": 32, "lr": 1e-4, "dataset": "mnist"}"#).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint.pth");
    resume(&upstream(), &ema()).unwrap().save(&file, &args).unwrap();
    let shape = |path: &Path| {
        let (moments, mut rest) = Source::open_training(path).unwrap().unwrap();
        let own = rest.as_object_mut().unwrap().shift_remove("fmq");
        let names = |source: &Source| {
            source.tensors().iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect()
        };
        let tensors: [Vec<_>; 2] =
            [names(&moments), names(&Source::open_whole(path, &Choice::default()).unwrap())];
        (tensors, rest, own)
    };
    let (tensors, mut rest, own) = shape(&file);
    let (expected_tensors, mut expected, none) = shape(&upstream());
    assert_eq!(tensors, expected_tensors, "names, dtypes, shapes, order");
    assert_eq!((own.is_some(), none), (true, None));
    assert_eq!(rest["args"].take(), Value::Object(args));
    expected["args"].take();
    // The gradient scaler goes on, too.
    assert_eq!(expected["scaler"]["_growth_tracker"], 1);
    assert_eq!(rest.to_string(), expected.to_string(), "the same keys in the same order");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused() {
    let without = resume(&upstream(), &TrainConfig { use_ema: false, ..ema() }).err().unwrap();
    assert!(without.to_string().contains("add --use_ema"), "{without}");
    let text = own("train/resume.json")["config"].to_string();
    let other = config(&serde_json::from_str(&text.replace("[1]", "[2]")).unwrap());
    assert!(Trainer::resume(&upstream(), &other, &ema(), &Device::Cpu).is_err());
}

#[test]
fn upstreams_average_is_evaluated_whatever_the_settings() {
    let settings = TrainConfig { accum_iter: 7, lr: 3.0, ..TrainConfig::default() };
    let config = config(&own("train/resume.json")["config"]);
    let run = Trainer::evaluating(&upstream(), &config, &settings, &Device::Cpu).unwrap();
    assert_eq!((run.progress().epoch, run.progress().batches), (10, run.optimizer().updates));
    let average = checkpoint::load(&upstream(), false).unwrap();
    assert!(average.ema && run.optimizer().updates > 0);
    for ((name, a), (_, b)) in run.evaluation_weights().unwrap().iter().zip(&average.tensors) {
        assert_eq!(max_difference(a, b), 0.0, "{name}");
    }
}

#[test]
fn a_file_with_weights_alone_starts_a_run() {
    let weights = checkpoint::load(&upstream(), false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    checkpoint::safetensors::save(&file, &weights.tensors, &[]).unwrap();
    let trainer = resume(&file, &ema()).unwrap();
    assert_eq!((trainer.progress().epoch, trainer.optimizer().updates), (0, 0));
    for ((name, a), (_, b)) in trainer.evaluation_weights().unwrap().iter().zip(&weights.tensors) {
        assert_eq!(max_difference(a, b), 0.0, "{name}");
    }
}

#[test]
fn a_resumed_run_goes_on_as_if_it_had_not_been_cut() {
    let config = config(&json("train/train.json")["config"]);
    let pixels = (0..40 * 3 * 64u32).map(|i| (i * 37 % 251) as u8).collect();
    let labels = (0..40).map(|i| i % 4).collect();
    let images: Arc<dyn ImageSet> = Arc::new(Images::new([3, 8, 8], pixels, labels).unwrap());
    let settings = TrainConfig {
        use_ema: true,
        batch_size: 12,
        accum_iter: 2,
        skewed_timesteps: true,
        ..TrainConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint.pth");

    let mut whole = Trainer::new(&config, &settings, &Device::Cpu).unwrap();
    let mut part = Trainer::new(&config, &settings, &Device::Cpu).unwrap();
    let train = |trainer: &mut Trainer, batches: usize| -> Vec<f64> {
        let mut loader = trainer.loader(&images).unwrap();
        (0..batches).map(|_| trainer.next_batch(&mut loader).unwrap().unwrap()).collect()
    };
    let losses = train(&mut whole, 3);
    train(&mut part, 1);
    assert!(part.save(&file, &Map::new()).is_err(), "between two updates of an accumulating run");
    // A run that stops there forgets what was not used yet, and does it again.
    part.forget_pending();
    assert_eq!(part.progress().batch, 0);
    part.save(&file, &Map::new()).unwrap();
    assert_eq!(train(&mut part, 2), losses[..2]);
    part.save(&file, &Map::new()).unwrap();
    let mut resumed = Trainer::resume(&file, &config, &settings, &Device::Cpu).unwrap();
    assert_eq!(resumed.progress(), part.progress());
    assert_eq!(train(&mut resumed, 1), losses[2..]);
    resumed.update().unwrap();
    whole.update().unwrap();
    let (a, b) = (resumed.evaluation_weights().unwrap(), whole.evaluation_weights().unwrap());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert_eq!(max_difference(a, b), 0.0, "{name}");
    }

    // Inside an epoch the batches of all processes stay as large; behind it they need not.
    let again = |settings: &TrainConfig| {
        Trainer::resume(&file, &config, settings, &Device::Cpu).map(|run| run.progress().examples)
    };
    let halves = TrainConfig { batch_size: 6, world_size: 2, ..settings.clone() };
    let more = TrainConfig { world_size: 2, ..settings.clone() };
    assert_eq!(again(&halves).unwrap(), 24);
    let error = again(&more).unwrap_err().to_string();
    assert!(error.contains("--batch_size 12 in 1 process"), "{error}");
    part.end_epoch();
    part.save(&file, &Map::new()).unwrap();
    assert_eq!(again(&more).unwrap(), 24);

    let other = TrainConfig { seed: 1, ..settings };
    assert!(Trainer::resume(&file, &config, &other, &Device::Cpu).is_err(), "another seed");
}
