//! Samples equal those of upstream's evaluation loop: grids, guidance, labels, trajectories, pixels.

#![allow(clippy::float_cmp, clippy::unwrap_used, reason = "a suite: it panics to fail")]

use std::collections::HashMap;

use candle_core::{DType, Device, IndexOp, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{Mode, StateDict, UNet};
use fm_candle::sample::{BatchSampler, Samples, to_pixels};
use fm_candle::solver::{Method, SolverOptions, edm_grid, solve, uniform_grid};
use fmq_tests::{config, json, max_difference, numbers, ran, reference, tensors};
use serde_json::Value;

/// A net of the reference with its start noise, labels and results.
struct Fixture {
    net: UNet,
    labels: Option<Vec<u32>>,
    io: HashMap<String, Tensor>,
}

/// The net of this name.
fn fixture(name: &str, facts: &Value) -> Fixture {
    let weights = reference(&format!("sampling/{name}.weights.safetensors"));
    let weights = checkpoint::load(&weights, false).unwrap();
    let config = config(&facts["config"]);
    let net = UNet::new(&config, &mut StateDict::new(weights.tensors, &Device::Cpu)).unwrap();
    let io = tensors(&format!("sampling/{name}.samples.safetensors"));
    let labels = config.num_classes.map(|_| {
        let labels = io["label"].to_dtype(DType::U32).unwrap();
        labels.to_vec1().unwrap()
    });
    Fixture { net, labels, io }
}

/// The last states of a case, and those at every time where it keeps them.
fn samples(of: &Fixture, case: &Value, cfg_scale: f64) -> Samples {
    let method: Method = case["method"].as_str().unwrap().parse().unwrap();
    let x0 = &of.io[case["start"].as_str().unwrap_or("x0")];
    let step = case["step_size"].as_f64();
    let times: Option<Vec<f64>> = serde_json::from_value(case["time_grid"].clone()).ok();
    let trajectory = case["return_intermediates"] == true;
    if let (true, Some(_), Some(times)) = (trajectory, step, &times) {
        return between_steps(of, method, x0, times, step);
    }
    let grid = match (step, times) {
        (Some(step), _) => uniform_grid(step).unwrap(),
        (None, Some(times)) => times,
        (None, None) => edm_grid(50).unwrap(),
    };
    let sampler = BatchSampler {
        method,
        grid,
        options: SolverOptions::default(),
        cfg_scale,
        // The error of an adaptive step is that of a whole batch: as many as were solved together.
        batch_size: if method.is_adaptive() { x0.dim(0).unwrap() } else { 2 },
    };
    sampler.run(&of.net, x0, of.labels.as_deref(), trajectory, |_| {}).unwrap()
}

/// States at times that are not all on the steps' grid, which the solver gives but no sampler does.
fn between_steps(
    of: &Fixture,
    method: Method,
    x0: &Tensor,
    times: &[f64],
    step_size: Option<f64>,
) -> Samples {
    let mut field = |x: &Tensor, t: f64| {
        let t = Tensor::full(t, x.dim(0)?, x.device())?.to_dtype(DType::F32)?;
        of.net.forward(x, &t, None, None, Mode::Eval)
    };
    let mut states = vec![x0.clone()];
    let options = SolverOptions { step_size, ..SolverOptions::default() };
    let trace = solve(method, &mut field, x0, times, &options, |x| states.push(x)).unwrap();
    let (images, trajectory) = (states[states.len() - 1].clone(), Tensor::stack(&states, 0));
    let nfe = trace.evaluations.len();
    Samples { images, trajectory: Some(trajectory.unwrap()), nfe, warning: None }
}

/// Holds pixels to the reference's; one within 1e-3 of a whole number may fall to either side.
fn assert_pixels(name: &str, images: &Tensor, floats: &Tensor, expected: &Tensor) {
    let last = |x: &Tensor| numbers(&x.permute((0, 2, 3, 1)).unwrap());
    let (floats, expected) = (last(floats), last(expected));
    for (i, pixel) in to_pixels(images).unwrap().into_iter().map(f64::from).enumerate() {
        let level = (floats[i] * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0;
        let edge = (level - level.round()).abs() < 1e-3;
        assert!(
            edge || pixel == expected[i],
            "{name}: pixel {pixel}, not {} = {level}",
            expected[i]
        );
    }
}

#[test]
fn samples_equal_upstream() {
    let facts = json("sampling/sampling.json");
    let nets = facts["nets"].as_object().unwrap();
    let nets: HashMap<&str, Fixture> =
        nets.iter().map(|(name, facts)| (name.as_str(), fixture(name, facts))).collect();
    let cases = facts["cases"].as_object().unwrap();
    for (name, case) in cases {
        let of = &nets[name.split('.').next().unwrap()];
        // Encoding is guided as the sampling was whose result it starts from.
        let guided = case["start"].as_str().map_or(case, |start| &cases[start]);
        let found = samples(of, case, guided["cfg_scale"].as_f64().unwrap());
        let (nfe, expected) = (found.nfe as u64, case["nfe"].as_u64().unwrap());
        let (slack, tolerance) = if case["method"] == "dopri5" {
            // One step more or less where its error is on the edge; results as the reference's
            // own vary with the last bits of x0.
            (6, (20.0 * case["y_change_perturbed"].as_f64().unwrap()).max(2e-4))
        } else {
            (0, 2e-5)
        };
        assert!(nfe.abs_diff(expected) <= slack, "{name}: {nfe} evaluations for {expected}");
        let states = found.trajectory.as_ref().unwrap_or(&found.images);
        let difference = max_difference(states, &of.io[name]);
        println!("{name}: off by {difference:.1e}, {nfe} evaluations for {expected}");
        assert!(difference <= tolerance, "{name}: {difference}");
        if let Some(pixels) = of.io.get(&format!("{name}.u8")) {
            let all = &of.io[name];
            let last =
                if all.rank() == 5 { all.i(all.dims()[0] - 1).unwrap() } else { all.clone() };
            assert_pixels(name, &found.images, &last, pixels);
        }
    }
    ran("samples", cases.len(), 14, 14);
}

#[test]
fn the_edm_grid_equals_upstream() {
    let io = tensors("train/samplers.safetensors");
    for n in [2, 18, 50] {
        let expected = numbers(&io[&format!("edm_grid.{n}")]);
        for (t, expected) in edm_grid(n).unwrap().into_iter().zip(&expected) {
            assert!((t - expected).abs() < 1e-14, "n = {n}: {t} for {expected}");
        }
    }
}
