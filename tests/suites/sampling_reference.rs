//! Samples equal those of upstream's evaluation loop: grids, guidance, labels, pixels.

#![allow(clippy::unwrap_used, reason = "a suite: it panics to fail")]

use candle_core::{DType, Device};
use fm_candle::checkpoint;
use fm_candle::model::{Stored, UNet};
use fm_candle::sample::{Sampler, to_pixels};
use fm_candle::solver::{Options, edm_grid, uniform_grid};
use fmq_tests::{config, data, json, max_difference};

#[test]
fn fixed_step_samples_equal_upstream() {
    let reference = json("sampling/sampling.json");
    let config = config(&reference["config"]);
    let weights = checkpoint::load(&data("sampling/cond.weights.safetensors"), false).unwrap();
    let net = UNet::new(&config, &mut Stored::new(weights.tensors, &Device::Cpu)).unwrap();
    let io = data("sampling/cond.samples.safetensors");
    let io = candle_core::safetensors::load(io, &Device::Cpu).unwrap();
    let labels = io["label"].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();

    let cases = reference["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 4, "midpoint and heun2, with and without guidance");
    for (name, case) in cases {
        let grid = match case["step_size"].as_f64() {
            Some(step) => uniform_grid(step).unwrap(),
            None => edm_grid(50).unwrap(),
        };
        let sampler = Sampler {
            method: case["method"].as_str().unwrap().parse().unwrap(),
            grid,
            options: Options::default(),
            cfg_scale: case["cfg_scale"].as_f64().unwrap(),
            batch_size: 2,
        };
        let samples = sampler.run(&net, &io["x0"], Some(&labels), false, |_| {}).unwrap();
        assert_eq!(samples.nfe as u64, case["nfe"].as_u64().unwrap(), "{name}: evaluations");
        let difference = max_difference(&samples.images, &io[name]);
        assert!(difference < 2e-5, "{name}: {difference}");

        let pixels = to_pixels(&samples.images).unwrap();
        let expected = io[&format!("{name}.u8")].permute((0, 2, 3, 1)).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        // A value within 1e-3 of a whole number may fall to either side.
        let off = pixels.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(off * 100 < pixels.len(), "{name}: {off} of {} pixels differ", pixels.len());
        assert!(pixels.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
    }
}

#[test]
fn the_edm_grid_equals_upstream() {
    let file = data("train/samplers.safetensors");
    let io = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    for n in [2, 18, 50] {
        let expected = io[&format!("edm_grid.{n}")].to_vec1::<f64>().unwrap();
        for (t, expected) in edm_grid(n).unwrap().into_iter().zip(&expected) {
            assert!((t - expected).abs() < 1e-14, "n = {n}: {t} for {expected}");
        }
    }
}
