//! Likelihoods equal upstream's `compute_likelihood`; a U-Net's divergence is the measured one.

#![allow(clippy::unwrap_used, reason = "a suite: it panics to fail")]

use candle_core::{DType, Device, Tensor};
use fm_candle::Result;
use fm_candle::likelihood::{Divergence, Likelihood, divergence, normal, rademacher};
use fm_candle::model::{Mode, StateDict, UNet, UNetConfig};
use fm_candle::solver::{Method, SolverOptions, Velocity};
use fmq_tests::{formula_weights, json, max_difference, tensors};

#[test]
fn likelihoods_and_sources_equal_upstream() {
    let io = tensors("solver/likelihood.safetensors");
    // tanh(x M' + t c) + 0.3 x
    let mut field = |x: &Tensor, t: f64| -> Result<Tensor> {
        let inner = x.matmul(&io["M"].t()?)?.broadcast_add(&(&io["c"] * t)?)?;
        Ok((inner.tanh()? + (x * 0.3)?)?)
    };
    let z = io["z_normal"].lt(0.0).unwrap().to_dtype(DType::F32).unwrap();
    let z = z.affine(2.0, -1.0).unwrap();
    let cases = &json("solver/solver.json")["likelihood"]["cases"];
    let cases = cases.as_object().unwrap();
    assert_eq!(cases.len(), 5);
    for (name, case) in cases {
        let method: Method = case["method"].as_str().unwrap().parse().unwrap();
        let plan = Likelihood {
            method,
            grid: vec![1.0, 0.0],
            options: SolverOptions {
                step_size: case["step_size"].as_f64(),
                time: DType::F32,
                ..SolverOptions::default()
            },
            divergence: if case["exact_divergence"] == true {
                Divergence::Exact
            } else {
                Divergence::Hutchinson(z.clone())
            },
        };
        let found = plan.run(&mut field, &io["x1"]).unwrap();
        let tolerance = if method.is_adaptive() { 5e-4 } else { 1e-4 };
        let off = max_difference(&found.log_p, &io[&format!("{name}.loglik")]);
        let moved = max_difference(&found.x0, &io[&format!("{name}.x0")]);
        println!("{name}: log-likelihood off by {off:.1e}, source by {moved:.1e}");
        assert!(off < tolerance && moved < tolerance, "{name}: {off}, {moved}");
        assert_eq!(case["nfe"], found.trace.evaluations.len(), "{name}: evaluations");
    }
}

/// A net of one level on 4x4 pixels, with the formula's weights, as a field.
fn net() -> impl Velocity {
    let config = UNetConfig {
        in_channels: 1,
        out_channels: 1,
        model_channels: 32,
        num_res_blocks: 1,
        attention_resolutions: [1].into(),
        channel_mult: [1.0].into(),
        use_scale_shift_norm: true,
        image_size: Some(4),
        ..UNetConfig::default()
    };
    let weights = formula_weights(&config, 5);
    let net = UNet::new(&config, &mut StateDict::new(weights, &Device::Cpu)).unwrap();
    move |x: &Tensor, t: f64| {
        let t = Tensor::full(t, x.dim(0)?, x.device())?.to_dtype(DType::F32)?;
        net.forward(x, &t, None, None, Mode::Eval)
    }
}

/// Two images of 4x4 pixels.
fn images() -> Tensor {
    let like = Tensor::zeros((2, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
    normal(11, 0, &like).unwrap()
}

fn floats(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_nets_divergence_is_that_of_central_differences() {
    const STEP: f64 = 1e-2;
    let (mut field, x) = (net(), images());
    let (v, exact) = divergence(&mut field, &x, 0.4, &Divergence::Exact).unwrap();
    assert!(max_difference(&v, &field.velocity(&x, 0.4).unwrap()) < 1e-6);
    for (row, exact) in floats(&exact).into_iter().enumerate() {
        // Row i of the batch is the image with element i moved.
        let moved = (Tensor::eye(16, DType::F32, &Device::Cpu).unwrap() * STEP).unwrap();
        let moved = moved.reshape((16, 1, 4, 4)).unwrap();
        let image = x.narrow(0, row, 1).unwrap();
        let mut trace = |sign: f64| -> f64 {
            let x = image.broadcast_add(&(&moved * sign).unwrap()).unwrap();
            let v = floats(&field.velocity(&x, 0.4).unwrap());
            (0..16).map(|i| v[17 * i]).sum()
        };
        let measured = (trace(1.0) - trace(-1.0)) / (2.0 * STEP);
        // Rounding: 16 outputs near 1, each off by some 2^-22, over the two steps: about 1e-4;
        // truncation: third derivatives near 1 times STEP²/6, 16 times: about 3e-4.
        println!("row {row}: {exact} exactly, {measured} by differences");
        assert!((exact - measured).abs() < 1e-3, "row {row}: {exact}, {measured}");
    }
}

#[test]
fn hutchinsons_mean_is_the_divergence() {
    const PROBES: u16 = 1000;
    let (mut field, x) = (net(), images().narrow(0, 0, 1).unwrap());
    let (_, exact) = divergence(&mut field, &x, 0.4, &Divergence::Exact).unwrap();
    let exact = floats(&exact)[0];
    let many = x.broadcast_as((usize::from(PROBES), 1, 4, 4)).unwrap().contiguous().unwrap();
    for draw in [rademacher, normal] {
        let z = Divergence::Hutchinson(draw(1, 0, &many).unwrap());
        let (_, estimates) = divergence(&mut field, &many, 0.4, &z).unwrap();
        let estimates = floats(&estimates);
        let count = f64::from(PROBES);
        let mean = estimates.iter().sum::<f64>() / count;
        let variance = estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance / count).sqrt();
        println!("{mean} +- {deviation} for {exact}");
        assert!(deviation > 0.0 && (mean - exact).abs() < 4.0 * deviation, "{mean} for {exact}");
    }
}
