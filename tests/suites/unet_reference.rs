//! The net gives the numbers of upstream's `UNetModel`, from the files that upstream writes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use candle_core::{Device, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{Mode, StateDict, UNet, UNetConfig};
use fmq_tests::{
    config, formula, formula_weights, json, max_difference, numbers, own, ran, reference, tensors,
};
use serde_json::Value;

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Holds a net's parameters to a state dict as the reference lists it: names, shapes, order.
fn assert_parameters(what: &str, config: &UNetConfig, listed: &Value) {
    let listed: Vec<(String, Vec<usize>, String)> = parsed(listed);
    let shapes = UNet::shapes(config).unwrap();
    assert_eq!(shapes.len(), listed.len(), "{what}: number of parameters");
    for ((name, shape), (their_name, their_shape, dtype)) in shapes.iter().zip(&listed) {
        assert_eq!((name, shape), (their_name, their_shape), "{what}");
        assert!(dtype.ends_with("float32"), "{what}: {name} is {dtype}");
    }
}

/// Outputs are of size 0.6, and f32 alone costs the reference up to 8e-6; the Fourier features
/// are sines of numbers up to 800.
fn tolerance(case: &str) -> f64 {
    if case.starts_with("fourier") { 5e-4 } else { 1e-5 }
}

#[test]
fn small_nets_from_torch_files_equal_upstream() {
    let all = json("unet/unet.json");
    let all = all.as_object().unwrap();
    let mut run = 0;
    for (name, case) in all {
        let [weights, io]: [String; 2] = parsed(&case["files"]);
        let file = reference(&format!("unet/{weights}"));
        if !file.exists() {
            continue;
        }
        run += 1;
        let config = config(&case["config"]);
        assert_parameters(name, &config, &case["state_dict"]);
        let io = tensors(&format!("unet/{io}"));
        for output in case["outputs"].as_object().unwrap().keys() {
            let (raw, unconditional) = match output.as_str() {
                "y" | "y_ema" => (false, false),
                "y_raw" => (true, false),
                "y_uncond" | "y_ema_uncond" => (false, true),
                _ => panic!("{name}: an output {output}"),
            };
            let file = checkpoint::load(&file, raw).unwrap();
            assert_eq!(file.ema, case["layout"] == "official_ema" && !raw, "{name}: EMA");
            let mut weights = StateDict::new(file.tensors, &Device::Cpu);
            let net = UNet::new(&config, &mut weights).unwrap();
            weights.finish().unwrap();
            let label = io.get("label").filter(|_| !unconditional);
            let concat = io.get("concat_conditioning");
            let y = net.forward(&io["x"], &io["t"], label, concat, Mode::Eval).unwrap();
            let difference = max_difference(&y, &io[output]);
            println!("{name}, {output}: off by {difference:.1e}");
            assert!(difference <= tolerance(name), "{name}, {output}: {difference}");
        }
    }
    ran("small nets", run, all.len(), 7);
}

/// A full-size net whose weights follow the reference's formula.
fn full_size(name: &str) {
    let reference = json("full/full.json");
    let (salt, case) = (reference["salt"].as_u64().unwrap(), &reference["cases"][name]);
    let config = config(&case["config"]);
    assert_parameters(name, &config, &json(&format!("full/{name}.state_dict.json")));

    let weights = formula_weights(&config, salt);
    let count: usize = weights.iter().map(|(_, tensor)| tensor.elem_count()).sum();
    assert_eq!(count as u64, case["num_params"].as_u64().unwrap());
    for (checked, expected) in case["weight_check_first3"].as_object().unwrap() {
        let (_, tensor) = weights.iter().find(|(name, _)| name == checked).unwrap();
        let expected: Vec<f32> = parsed(expected);
        let first = tensor.flatten_all().unwrap().narrow(0, 0, expected.len()).unwrap();
        assert_eq!(first.to_vec1::<f32>().unwrap(), expected, "{name}: {checked}");
    }
    let sum: f64 = weights.iter().map(|(_, tensor)| numbers(tensor).iter().sum::<f64>()).sum();
    assert_close(name, "sum of all weights", sum, &case["weight_sum_f64"], 1e-6 * sum.abs());
    let net = UNet::new(&config, &mut StateDict::new(weights, &Device::Cpu)).unwrap();

    let x = formula_tensor(1_000_000, &case["x_shape"], salt);
    let first = x.flatten_all().unwrap().narrow(0, 0, 8).unwrap();
    let expected: Vec<f32> = parsed(&case["x_first8"]);
    assert_eq!(first.to_vec1::<f32>().unwrap(), expected, "{name}: x");
    let t = Tensor::new(parsed::<Vec<f32>>(&case["t"]), &Device::Cpu).unwrap();
    let label: Option<Vec<i64>> = parsed(&case["label"]);
    let label = label.map(|label| Tensor::new(label, &Device::Cpu).unwrap());
    let outputs = case["outputs"].as_object().unwrap();
    for (output, expected) in outputs {
        let label = label.as_ref().filter(|_| output == "y");
        let y = net.forward(&x, &t, label, None, Mode::Eval).unwrap();
        assert_statistics(&format!("{name}, {output}"), &y, expected);
    }
    ran(&format!("outputs of {name}"), outputs.len(), outputs.len(), outputs.len());
}

/// Holds a number to the reference's; returns how far it is off.
fn assert_close(name: &str, what: &str, found: f64, expected: &Value, tolerance: f64) -> f64 {
    let off = (found - expected.as_f64().unwrap()).abs();
    assert!(off <= tolerance, "{name}, {what}: {found} for {expected}");
    off
}

/// Holds an output to the single values that are kept of it.
fn assert_elements(name: &str, y: &Tensor, expected: &Value, tolerance: f64) {
    assert_eq!(y.dims(), parsed::<Vec<usize>>(&expected["shape"]), "{name}");
    let values = numbers(y);
    let indices: Vec<usize> = parsed(&expected["sample_index"]);
    let samples = indices.iter().zip(expected["sample_value"].as_array().unwrap());
    let offs = samples.map(|(&i, y)| assert_close(name, "an element", values[i], y, tolerance));
    println!("{name}: {} elements off by {:.1e} at most", indices.len(), offs.fold(0.0, f64::max));
}

/// Holds an output to the moments and the single values that the reference keeps of it.
fn assert_statistics(name: &str, y: &Tensor, expected: &Value) {
    assert_elements(name, y, expected, 2e-5);
    let values = numbers(y);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|y| y * y).sum();
    let std = (squares / values.len() as f64 - mean(&values).powi(2)).sqrt();
    let most = values.iter().fold(0.0, |most: f64, y| most.max(y.abs()));
    assert_close(name, "mean", mean(&values), &expected["mean"], 1e-5);
    assert_close(name, "standard deviation", std, &expected["std"], 1e-5);
    assert_close(name, "norm", squares.sqrt(), &expected["l2"], 1e-5 * squares.sqrt());
    assert_close(name, "largest", most, &expected["abs_max"], 2e-5);
    for (c, expected) in expected["per_channel_mean"].as_array().unwrap().iter().enumerate() {
        let channel = numbers(&y.narrow(1, c, 1).unwrap());
        assert_close(name, "mean of a channel", mean(&channel), expected, 1e-5);
    }
}

/// A tensor of numbers by the reference's formula, of variance 1.
fn formula_tensor(p: u64, shape: &Value, salt: u64) -> Tensor {
    let shape: Vec<usize> = parsed(shape);
    let n = shape.iter().product::<usize>() as u64;
    let root3 = 1.732_050_807_568_877_2;
    let x: Vec<f32> = (0..n).map(|i| (formula(p, i, salt) * root3) as f32).collect();
    Tensor::from_vec(x, shape, &Device::Cpu).unwrap()
}

#[test]
fn nets_of_every_option_equal_upstream() {
    let cases = own("nets/nets.json");
    for (name, case) in cases["cases"].as_object().unwrap() {
        let config = config(&case["config"]);
        let weights = formula_weights(&config, 1);
        let net = UNet::new(&config, &mut StateDict::new(weights, &Device::Cpu)).unwrap();
        let x = formula_tensor(1_000_000, &case["x_shape"], 1);
        let concat = &case["concat_shape"];
        let concat = concat.is_array().then(|| formula_tensor(1_000_001, concat, 1));
        let t = Tensor::new(parsed::<Vec<f32>>(&case["t"]), &Device::Cpu).unwrap();
        let label: Option<Vec<i64>> = parsed(&case["label"]);
        let label = label.map(|label| Tensor::new(label, &Device::Cpu).unwrap());
        for (output, expected) in case["outputs"].as_object().unwrap() {
            let label = label.as_ref().filter(|_| output == "y");
            let y = net.forward(&x, &t, label, concat.as_ref(), Mode::Eval).unwrap();
            assert_elements(&format!("{name}, {output}"), &y, expected, tolerance(name));
        }
    }
}

#[test]
fn the_full_size_mnist_net_equals_upstream() {
    full_size("mnist");
}

#[test]
fn the_full_size_cifar10_net_equals_upstream() {
    full_size("cifar10");
}

#[test]
fn the_full_size_imagenet_net_equals_upstream() {
    full_size("imagenet");
}
