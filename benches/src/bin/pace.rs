//! Times evaluations or training steps of a whole net, one for each line on stdin.
//!
//! `pace NET N KIND [DEVICE TYPE]` with a preset's name, a number of images, and `dense`, `packed4`,
//! `packed2`, `int8`, `train` or `tune` (a step at 2 bits), on `cpu` in `f32` unless it says otherwise, or `pace inception N dense`
//! for FID's features, `pace frechet D dense` for the distance on D of them; it prints `ready`, then the
//! seconds of each. `peers/cpu.py`, `peers/gpu.py`, `peers/fid.py` and `peers/frechet.py` run it in turn
//! with PyTorch and scipy.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use fm_candle::data::Images;
use fm_candle::device;
use fm_candle::fid::inception::{FeatureLayer, Inception};
use fm_candle::fid::resize::SIDE;
use fm_candle::fid::{Statistics, fid};
use fm_candle::model::{Mode, RandomInit, UNetConfig};
use fm_candle::ops::ConvArithmetic;
use fm_candle::train::{TrainConfig, TrainPrecision, Trainer};
use fmq_benches::{Form, Steps, TuneSteps, codes, net_on, tensor, width};

/// The work of one line.
type Work = Box<dyn FnMut()>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, n, kind, device, precision) = match &args[..] {
        [name, n, kind] => (name, n, kind, "cpu", "f32"),
        [name, n, kind, device, precision] => (name, n, kind, &device[..], &precision[..]),
        _ => panic!("usage: pace NET N KIND [DEVICE TYPE]"),
    };
    let n = n.parse().expect("a number of images");
    let device = device::open(Some(device)).expect("a device");
    let mut work = match &name[..] {
        "inception" => features(n),
        "frechet" => distance(n),
        preset => {
            let config = UNetConfig::preset(preset).expect("a preset");
            work(&config, n, kind, &device, precision)
        }
    };
    work();
    let mut out = io::stdout();
    writeln!(out, "ready").expect("a reader");
    for line in io::stdin().lock().lines() {
        line.expect("text");
        let start = Instant::now();
        work();
        writeln!(out, "{}", start.elapsed().as_secs_f64()).expect("a reader");
    }
}

/// The last features of images that have Inception's size already, by an untrained net.
fn features(n: usize) -> Work {
    let net = Inception::new(&mut RandomInit::new(1, &Device::Cpu), &Device::Cpu).expect("a net");
    let x = tensor(0, &[n, SIDE, SIDE, 3]).expect("a shape");
    Box::new(move || {
        net.features(&x, FeatureLayer::D2048).expect("inputs that fit");
    })
}

/// The Fréchet distance between two sets of noise with a few more rows than the `d` features.
fn distance(d: usize) -> Work {
    let [a, b] = [0, 1].map(|salt| {
        let rows = tensor(salt, &[d + d / 4, d]).and_then(|rows| rows.flatten_all()?.to_vec1());
        Statistics::of_rows(&rows.expect("a shape"), d).expect("enough rows")
    });
    Box::new(move || {
        fid(&a, &b).expect("statistics that fit");
    })
}

fn work(config: &UNetConfig, n: usize, kind: &str, device: &Device, precision: &str) -> Work {
    let (precision, dtype) = match precision {
        "f32" => (TrainPrecision::F32, DType::F32),
        "tf32" => {
            device::allow_tf32();
            (TrainPrecision::F32, DType::F32)
        }
        "f16" => (TrainPrecision::F16, DType::F16),
        "bf16" => (TrainPrecision::Bf16, DType::BF16),
        other => panic!("no type `{other}`"),
    };
    let (c, side) = (config.in_channels, config.image_size.expect("a preset has an image size"));
    let form = match kind {
        "train" => {
            let images = Images::new(
                [c, side, side],
                codes(4 * n * c * side * side, 8),
                codes(4 * n, 3).into_iter().map(u32::from).collect(),
            );
            let images = images.expect("as many pixels as the shape says");
            let settings = TrainConfig {
                batch_size: n,
                precision,
                class_drop_prob: if config.num_classes.is_some() { 0.2 } else { 1.0 },
                ..TrainConfig::default()
            };
            let trainer = Trainer::new(config, &settings, device).expect("settings that train");
            let mut steps = Steps::new(trainer, images).expect("a thread");
            let device = device.clone();
            return Box::new(move || {
                steps.step().expect("a finite loss");
                device.synchronize().expect("a device at work");
            });
        }
        "tune" => {
            let mut steps = TuneSteps::new(config, n, device).expect("settings that tune");
            let device = device.clone();
            return Box::new(move || {
                steps.step().expect("a finite error");
                device.synchronize().expect("a device at work");
            });
        }
        "dense" => Form::Dense,
        "packed4" => Form::Packed(width(4), ConvArithmetic::Float),
        "packed2" => Form::Packed(width(2), ConvArithmetic::Float),
        "int8" => Form::Packed(width(4), ConvArithmetic::Integer),
        other => panic!("no kind `{other}`"),
    };
    let net = net_on(device, dtype, config, form).expect("the preset is a net");
    let there =
        |x: candle_core::Result<Tensor>| x.and_then(|x| x.to_device(device)).expect("memory");
    let x = there(tensor(0, &[n, c, side, side]));
    let t = there(Tensor::full(0.5_f32, n, &Device::Cpu));
    let label = config.num_classes.map(|_| there(Tensor::zeros(n, DType::U32, &Device::Cpu)));
    let device = device.clone();
    Box::new(move || {
        net.forward(&x, &t, label.as_ref(), None, Mode::Eval).expect("inputs that fit");
        device.synchronize().expect("a device at work");
    })
}
