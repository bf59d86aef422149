//! A GPU: packed weights made dense, convolutions with their gradients beside candle's own, the small
//! MNIST net dense and packed. Without a GPU it says so and times nothing.
//!
//! ```text
//! cargo bench -p fmq-benches --features cuda --bench cuda
//! ```
//! Each sample waits until the device is done. An element is a weight in `decode`, a floating-point
//! operation in `conv2d` (the backward pass counts as two forward ones), an image in `velocity`.

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use fm_candle::device;
use fm_candle::model::Mode;
use fm_candle::ops::{self, ConvArithmetic, QuantizedWeight};
use fm_candle::quantize::{TensorPolicy, quantize_in_memory};
use fmq_benches::{Form, net_on, quick, small_config, tensor, width};
use quant_core::format::Model;
use quant_core::quantize::QuantizeOptions;
use quant_core::scheme::Scheme;

const TYPES: [(&str, DType); 3] = [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];

/// The GPU, or why nothing is timed.
fn gpu() -> Option<Device> {
    device::open(Some("cuda")).inspect_err(|error| eprintln!("nothing to time: {error}")).ok()
}

fn decode(c: &mut Criterion) {
    let Some(gpu) = gpu() else { return };
    let shape = [512, 512, 3, 3];
    let weight = [("w".to_string(), tensor(0, &shape).expect("a shape"))];
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(shape.iter().product::<usize>() as u64));
    for bits in [1, 2, 3, 4, 8].map(width) {
        let policy = TensorPolicy::Quantize(QuantizeOptions::new(Scheme::Uniform, bits));
        let packed = quantize_in_memory(&weight, None, |_, _| policy);
        let (file, _) = packed.expect("finite weights");
        let model = Model::parse(&file).expect("our own file");
        let coded = model.tensors().next().and_then(|tensor| tensor.quantized()).expect("codes");
        for (name, dtype) in TYPES {
            let weight = QuantizedWeight::new(coded, &shape, dtype, &gpu).expect("memory");
            let id = BenchmarkId::new(format!("bits={bits}/to={name}"), "n=2359296");
            group.bench_function(id, |b| b.iter(|| waited(&gpu, || weight.dense())));
        }
    }
    group.finish();
}

/// A convolution of an input with a weight and a bias, with padding 1.
type Op = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;

fn conv2d(c: &mut Criterion) {
    let Some(gpu) = gpu() else { return };
    let ours: Op = |x, weight, bias| ops::conv2d(x, weight, bias, 1, 1);
    let candle: Op = |x, weight, bias| {
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        let y = x.conv2d(weight, 1, 1, 1, 1)?.permute((0, 2, 3, 1))?;
        y.contiguous()?.broadcast_add(bias)
    };
    let mut group = c.benchmark_group("conv2d");
    group.sampling_mode(SamplingMode::Flat);
    for [n, channels, side] in [[128, 128, 28], [128, 256, 16], [64, 256, 32], [64, 512, 8]] {
        let flops = 2 * n * channels * channels * 9 * side * side;
        for (dtype_name, dtype) in TYPES {
            let shapes =
                [vec![n, side, side, channels], vec![channels, channels, 3, 3], vec![channels]];
            let make = |(index, shape): (u64, &Vec<usize>)| {
                Var::from_tensor(&tensor(index, shape)?.to_dtype(dtype)?.to_device(&gpu)?)
            };
            let vars = (0..).zip(&shapes).map(make).collect::<Result<Vec<_>>>().expect("memory");
            let inputs: Vec<Tensor> = vars.iter().map(|var| var.detach()).collect();
            for (name, op) in [("ours", ours), ("candle", candle)] {
                let id = |pass| {
                    let key = format!("c={channels}/side={side}/{dtype_name}");
                    BenchmarkId::new(format!("pass={pass}/{key}/impl={name}"), format!("n={n}"))
                };
                group.throughput(Throughput::Elements(flops as u64));
                let forward = || op(&inputs[0], &inputs[1], &inputs[2]);
                group.bench_function(id("forward"), |b| b.iter(|| waited(&gpu, forward)));
                group.throughput(Throughput::Elements(3 * flops as u64));
                let both = || op(&vars[0], &vars[1], &vars[2])?.sum_all()?.backward();
                group.bench_function(id("both"), |b| b.iter(|| waited(&gpu, both)));
            }
        }
    }
    group.finish();
}

fn velocity(c: &mut Criterion) {
    let Some(gpu) = gpu() else { return };
    let config = small_config().expect("the preset exists");
    let mut group = c.benchmark_group("velocity");
    group.sampling_mode(SamplingMode::Flat);
    let forms =
        [("dense", Form::Dense), ("packed4", Form::Packed(width(4), ConvArithmetic::Float))];
    for (name, form) in forms {
        for (dtype_name, dtype) in TYPES {
            let net = net_on(&gpu, dtype, &config, form).expect("the preset is a net");
            for n in [1, 64] {
                let device = |t: Result<Tensor>| t.and_then(|t| t.to_device(&gpu)).expect("memory");
                let x = device(tensor(0, &[n, 1, 28, 28]));
                let t = device(Tensor::full(0.5_f32, n, &Device::Cpu));
                let label = device(Tensor::zeros(n, DType::U32, &Device::Cpu));
                group.throughput(Throughput::Elements(n as u64));
                let key = format!("net=mnist-small/{dtype_name}/impl={name}");
                group.bench_function(BenchmarkId::new(key, format!("n={n}")), |b| {
                    b.iter(|| {
                        waited(&gpu, || {
                            let v = net.forward(&x, &t, Some(&label), None, Mode::Eval);
                            v.map_err(candle_core::Error::wrap)
                        })
                    });
                });
            }
        }
    }
    group.finish();
}

/// What `f` gives, once the device is done with it.
fn waited<T>(device: &Device, f: impl Fn() -> Result<T>) -> T {
    let result = f().and_then(|result| device.synchronize().map(|()| result));
    result.expect("shapes that fit, and memory")
}

criterion_group! {
    name = benches;
    config = quick();
    targets = decode, conv2d, velocity
}
criterion_main!(benches);
