//! The net gives the numbers of upstream's `UNetModel`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use candle_core::{Device, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{Mode, Stored, UNet};
use fmq_tests::{config, data, formula, formula_weights, json, max_difference};

/// Outputs are of size 0.6; the reference's own f32 noise is up to 8e-6.
const TOLERANCE: f64 = 1e-5;

fn floats(value: &serde_json::Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn small_nets_from_torch_files_equal_upstream() {
    let cases = json("unet/unet.json");
    for name in ["mnist_like", "cifar_like"] {
        let case = &cases[name];
        let config = config(&case["config"]);
        let expected: Vec<(String, Vec<usize>)> =
            serde_json::from_value(case["state_dict"].clone()).unwrap();
        assert_eq!(UNet::shapes(&config).unwrap(), expected, "{name}: names, shapes, order");

        let file = checkpoint::load(&data(&format!("unet/{name}.bare.pth")), false).unwrap();
        let mut weights = Stored::new(file.tensors, &Device::Cpu);
        let net = UNet::new(&config, &mut weights).unwrap();
        weights.finish().unwrap();
        let io = data(&format!("unet/{name}.io.safetensors"));
        let io = candle_core::safetensors::load(io, &Device::Cpu).unwrap();
        let y = net.forward(&io["x"], &io["t"], None, None, Mode::Eval).unwrap();
        let difference = max_difference(&y, &io["y"]);
        assert!(difference < TOLERANCE, "{name}: {difference}");
    }
}

#[test]
fn the_full_size_mnist_net_equals_upstream() {
    let reference = json("full/full.json");
    let (salt, case) = (reference["salt"].as_u64().unwrap(), &reference["cases"]["mnist"]);
    let config = config(&case["config"]);
    let weights = formula_weights(&config, salt);
    let count: usize = weights.iter().map(|(_, tensor)| tensor.elem_count()).sum();
    assert_eq!(count as u64, case["num_params"].as_u64().unwrap());
    let net = UNet::new(&config, &mut Stored::new(weights, &Device::Cpu)).unwrap();

    let shape: Vec<usize> = serde_json::from_value(case["x_shape"].clone()).unwrap();
    let n = shape.iter().product::<usize>() as u64;
    let root3 = 1.732_050_807_568_877_2;
    let x: Vec<f32> = (0..n).map(|i| (formula(1_000_000, i, salt) * root3) as f32).collect();
    assert_eq!(x[..8], floats(&case["x_first8"]));
    let x = Tensor::from_vec(x, shape, &Device::Cpu).unwrap();
    let t = Tensor::new(floats(&case["t"]), &Device::Cpu).unwrap();
    let y = net.forward(&x, &t, None, None, Mode::Eval).unwrap();

    let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let output = &case["outputs"]["y"];
    let indices: Vec<usize> = serde_json::from_value(output["sample_index"].clone()).unwrap();
    for (index, expected) in indices.into_iter().zip(floats(&output["sample_value"])) {
        let difference = (y[index] - expected).abs();
        assert!(difference < 2e-5, "element {index}: {} for {expected}", y[index]);
    }
}
