//! A GPU computes what the CPU computes: every operation with its gradients, packed weights, whole
//! nets, a training step.
//!
//! ```text
//! cargo test --release -p fmq-tests --features cuda --test cuda_parity -- --ignored
//! ```

#![allow(clippy::unwrap_used, reason = "a suite: it panics to fail")]

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use fm_candle::checkpoint::{FileWeights, Source};
use fm_candle::data::{ImageSet, Images};
use fm_candle::device;
use fm_candle::model::{Mode, StateDict, UNet, UNetConfig};
use fm_candle::ops::{
    Activation, Mask, QkvOrder, QuantizedWeight, add, attention, concat, conv2d, downsample2,
    dropout, group_norm, modulated_group_norm, upsample2,
};
use fm_candle::quantize::{TensorPolicy, quantize_in_memory};
use fm_candle::train::{TrainConfig, TrainPrecision, Trainer};
use fmq_tests::{formula, formula_weights, numbers, width};
use quant_core::format::Model;
use quant_core::noise::Stream;
use quant_core::quantize::QuantizeOptions;
use quant_core::scheme::Scheme;

/// The types in which a GPU computes, and how far their results may be from the CPU's in f32,
/// relative to the greatest value.
const TYPES: [(DType, f64); 3] = [(DType::F32, 1e-5), (DType::F16, 1e-2), (DType::BF16, 6e-2)];

/// The same for the velocity of a net and its gradient, by root mean squares. In half precision 16
/// unit roundoffs, 2^-11 and 2^-8: on a CPU, which rounds at the same places, the velocity is off by
/// 4 and its gradient, which passes the net twice, by 8.
const NETS: [(DType, f64); 3] = [(DType::F32, 1e-4), (DType::F16, 8e-3), (DType::BF16, 6.2e-2)];

fn gpu() -> Device {
    device::open(Some("cuda")).unwrap()
}

/// Numbers in `[-1, 1)` that differ with the salt.
fn irregular(shape: &[usize], salt: u64) -> Tensor {
    let count = shape.iter().product::<usize>() as u64;
    let values: Vec<f64> = (0..count).map(|i| formula(salt, i, 11)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Greatest difference relative to the greatest expected value.
fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let most = expected.iter().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    // A NaN is far from everything.
    off.map(|off| if off.is_nan() { f64::INFINITY } else { off }).fold(0.0, f64::max) / most
}

/// Root mean square of the differences relative to that of the expected values.
fn rms_apart(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let squares: f64 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / expected.iter().map(|x| x.powi(2)).sum::<f64>()).sqrt()
}

/// The result of `f` and the gradient of each argument.
fn run(
    device: &Device,
    dtype: DType,
    shapes: &[&[usize]],
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = (1..).zip(shapes).map(|(salt, shape)| {
        Var::from_tensor(&irregular(shape, salt).to_device(device)?.to_dtype(dtype)?)
    });
    let vars = vars.collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    assert_eq!((y.dtype(), y.device().is_cpu()), (dtype, device.is_cpu()));
    let factor = irregular(y.dims(), 99).to_device(device)?.to_dtype(dtype)?;
    let grads = (&y * factor)?.to_dtype(DType::F32)?.sum_all()?.backward()?;
    let gradients = vars.iter().map(|var| grads.get(var).unwrap().clone());
    [y].into_iter().chain(gradients).map(|t| t.to_device(&Device::Cpu)).collect()
}

/// Holds the GPU to the CPU in every type.
fn compare(what: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let gpu = gpu();
    let expected = run(&Device::Cpu, DType::F32, shapes, &f).unwrap();
    for (dtype, most) in TYPES {
        let found = run(&gpu, dtype, shapes, &f).unwrap();
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let off = apart(found, expected);
            assert!(off < most, "{what} {shapes:?}, {dtype:?}, result {i}: off by {off}");
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn conv2d_with_gradients() {
    for (x, w, stride, padding) in [
        ([2, 8, 8, 32], [64, 32, 3, 3], 1, 1),
        ([3, 7, 9, 5], [6, 5, 3, 3], 1, 1),
        ([1, 33, 20, 3], [32, 3, 3, 3], 1, 1),
        ([2, 9, 6, 16], [32, 16, 3, 3], 2, 1),
        ([2, 8, 8, 16], [16, 16, 3, 3], 2, 1),
        ([70, 2, 2, 24], [33, 24, 1, 1], 1, 0),
        ([7, 1, 1, 50], [70, 50, 1, 1], 1, 0),
        ([2, 6, 5, 12], [24, 12, 5, 5], 1, 0),
        // Columns of more than one group of images.
        ([40, 64, 64, 64], [8, 64, 3, 3], 1, 1),
    ] {
        compare("conv2d", &[&x, &w, &w[..1]], |t| conv2d(&t[0], &t[1], &t[2], stride, padding));
    }
    compare("conv2d of a transposed map", &[&[2, 6, 5, 8], &[4, 8, 3, 3], &[4]], |t| {
        conv2d(&t[0].transpose(1, 2)?, &t[1], &t[2], 1, 1)
    });
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn group_norm_with_gradients() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (x, groups) in [([2, 7, 5, 32], 32), ([3, 16, 16, 64], 32), ([19, 4, 1, 12], 4)] {
            compare("group_norm", &[&x, &[x[0], x[3]], &[x[0], x[3]]], |t| {
                group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation)
            });
            let (n, c) = (x[0], x[3]);
            compare("modulated_group_norm", &[&x, &[c], &[c], &[n, 2 * c]], |t| {
                let weights = (&t[1], &t[2]);
                modulated_group_norm(&t[0], weights, Some(&t[3]), groups, 1e-5, activation)
            });
            compare("unmodulated group norm", &[&x, &[c], &[c]], |t| {
                modulated_group_norm(&t[0], (&t[1], &t[2]), None, groups, 1e-5, activation)
            });
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn attention_with_gradients() {
    for order in [QkvOrder::Parts, QkvOrder::Heads] {
        for (x, heads) in [([2, 49, 24], 2), ([1, 256, 192], 4), ([3, 1, 6], 1)] {
            compare("attention", &[&x], |t| attention(&t[0], heads, order));
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_other_operations_with_gradients() {
    let map = [2, 6, 5, 7];
    compare("upsample2", &[&map], |t| upsample2(&t[0]));
    compare("downsample2", &[&map], |t| downsample2(&t[0]));
    compare("add", &[&map, &map], |t| add(&t[0], &t[1]));
    compare("concat", &[&map, &[2, 6, 5, 3]], |t| concat(&t[0], &t[1]));
    compare("dropout", &[&map], |t| {
        let mask = Mask { stream: Stream::new(1 << 40, 7), base: 3 << 32, images: (5, 2) };
        dropout(&t[0], &mask, 0.3)
    });
}

/// A packed file of these tensors, every one quantized.
fn packed(
    tensors: &[(String, Tensor)],
    net: Option<&UNetConfig>,
    options: &QuantizeOptions,
) -> Vec<u8> {
    let policy = |_: &str, _: &[usize]| TensorPolicy::Quantize(*options);
    quantize_in_memory(tensors, net, policy).unwrap().0
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn packed_weights_decode_to_the_same_bits() {
    let gpu = gpu();
    // Rows of codes that end within a byte.
    let shape = [33, 29, 3, 3];
    let weight = irregular(&shape, 1).to_dtype(DType::F32).unwrap();
    for scheme in [Scheme::Uniform, Scheme::EqualMass, Scheme::LloydMax] {
        // Tables of more levels take more room than such rows themselves.
        for bits in 1..=if scheme == Scheme::Uniform { 8 } else { 5 } {
            let file = packed(
                &[("w".into(), weight.clone())],
                None,
                &QuantizeOptions::new(scheme, width(bits)),
            );
            let model = Model::parse(&file).unwrap();
            let coded = model.tensors().next().unwrap().quantized().unwrap();
            for (dtype, _) in TYPES {
                let dense = |device| {
                    let weight = QuantizedWeight::new(coded, &shape, dtype, device)?;
                    weight.dense()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()
                };
                let [found, expected] = [&gpu, &Device::Cpu].map(|device| dense(device).unwrap());
                let bits_of = |values: Vec<f32>| -> Vec<u32> {
                    values.into_iter().map(f32::to_bits).collect()
                };
                assert!(bits_of(found) == bits_of(expected), "{scheme:?}, {bits}, {dtype:?}");
            }
        }
    }
}

fn config() -> UNetConfig {
    UNetConfig {
        in_channels: 3,
        out_channels: 3,
        model_channels: 32,
        channel_mult: [1.0, 2.0].into(),
        num_res_blocks: 1,
        attention_resolutions: [2].into(),
        num_classes: Some(3),
        use_scale_shift_norm: true,
        ..UNetConfig::default()
    }
}

/// A velocity on the CPU, and the gradient of its squares with regard to the images.
fn velocity(net: &UNet, device: &Device) -> Result<[Tensor; 2]> {
    let x = irregular(&[2, 3, 16, 16], 3).to_dtype(DType::F32)?.to_device(device)?;
    let x = Var::from_tensor(&x)?;
    let t = Tensor::new(&[0.25_f32, 0.5], device)?;
    let label = Tensor::new(&[0_u32, 2], device)?;
    let v = net.forward(&x, &t, Some(&label), None, Mode::Eval).unwrap();
    let gradient = v.sqr()?.sum_all()?.backward()?.get(&x).unwrap().clone();
    Ok([v.to_device(&Device::Cpu)?, gradient.to_device(&Device::Cpu)?])
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_net_has_the_same_velocity_and_gradient() {
    let gpu = gpu();
    let weights = formula_weights(&config(), 5);
    let net = |device: &Device, dtype| {
        let mut stored = StateDict::new(weights.clone(), device).with_dtype(dtype);
        velocity(&UNet::new(&config(), &mut stored).unwrap(), device).unwrap()
    };
    let expected = net(&Device::Cpu, DType::F32);
    for (dtype, most) in NETS {
        for (found, expected) in net(&gpu, dtype).iter().zip(&expected) {
            let off = rms_apart(found, expected);
            assert!(off < most, "{dtype:?}: off by {off}");
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_packed_net_has_the_same_velocity_and_gradient() {
    let gpu = gpu();
    let folder = tempfile::tempdir().unwrap();
    let weights = formula_weights(&config(), 5);
    for bits in [2, 3, 8] {
        let path = folder.path().join(format!("{bits}.fmq"));
        let options = QuantizeOptions::new(Scheme::EqualMass, width(bits));
        std::fs::write(&path, packed(&weights, Some(&config()), &options)).unwrap();
        let net = |device: &Device, dtype| {
            let source = Source::open(&path, false).unwrap();
            let mut weights = FileWeights::new(source, device, dtype);
            let net = UNet::new(&config(), &mut weights).unwrap();
            weights.finish().unwrap();
            velocity(&net, device).unwrap()
        };
        let expected = net(&Device::Cpu, DType::F32);
        for (dtype, most) in NETS {
            for (found, expected) in net(&gpu, dtype).iter().zip(&expected) {
                let off = rms_apart(found, expected);
                assert!(off < most, "{bits} bits, {dtype:?}: off by {off}");
            }
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn training_steps_have_the_same_losses() {
    let gpu = gpu();
    let pixels = (0..8 * 3 * 16 * 16_u32).map(|i| (i * 37 % 251).to_le_bytes()[0]).collect();
    let images = Images::new([3, 16, 16], pixels, vec![0, 1, 2, 0, 1, 2, 0, 1]).unwrap();
    let images: Arc<dyn ImageSet> = Arc::new(images);
    let settings = |precision, recompute| TrainConfig {
        batch_size: 4,
        use_ema: true,
        precision,
        recompute,
        ..TrainConfig::default()
    };
    let arch = UNetConfig { dropout: 0.1, ..config() };
    let losses = |device: &Device, precision, recompute| -> Vec<f64> {
        let mut trainer = Trainer::new(&arch, &settings(precision, recompute), device).unwrap();
        let mut loader = trainer.loader(&images).unwrap();
        (0..2).map_while(|_| trainer.next_batch(&mut loader).unwrap()).collect()
    };
    let expected = losses(&Device::Cpu, TrainPrecision::F32, false);
    assert_eq!(expected.len(), 2);
    let ways = [
        (TrainPrecision::F32, false, 1e-3),
        (TrainPrecision::F32, true, 1e-3),
        // A loss is off by no more than the velocity: 4 unit roundoffs.
        (TrainPrecision::F16, false, 2e-3),
        (TrainPrecision::Bf16, false, 1.6e-2),
    ];
    for (precision, recompute, most) in ways {
        for (found, expected) in losses(&gpu, precision, recompute).iter().zip(&expected) {
            let off = (found / expected - 1.0).abs();
            assert!(off < most, "{precision:?}: loss {found} for {expected}");
        }
    }
}
