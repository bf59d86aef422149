//! The core's engine gives candle's numbers, in the memory that its plan tells.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use candle_core::{Device, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{Mode, StateDict, UNet, UNetConfig};
use fm_candle::quantize::{
    PackedNet, SelfTestForm, TensorPolicy, quantize_in_memory, quantize_to_file,
};
use fm_candle::sample::{BatchSampler, start_noise};
use fm_candle::solver::{self, uniform_grid};
use fmq_tests::nets::nets;
use fmq_tests::{formula, formula_weights, width};
use quant_core::Error;
use quant_core::format::{Model, SectionKind, fill_section, with_section};
use quant_core::infer::{self, ConvLayer, Input, Method, Plan, SelfTest, Settings};
use quant_core::quantize::QuantizeOptions;
use quant_core::scheme::Scheme;

/// A packed file of formula weights, every tensor packed alike, and the net of what it holds.
fn packed(config: &UNetConfig, policy: TensorPolicy) -> (Vec<u8>, UNet) {
    let weights = formula_weights(config, 3);
    let (file, _) = quantize_in_memory(&weights, Some(config), |_, _| policy).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.fmq");
    std::fs::write(&path, &file).unwrap();
    let decoded = checkpoint::load(&path, false).unwrap();
    (file, UNet::new(config, &mut StateDict::new(decoded.tensors, &Device::Cpu)).unwrap())
}

fn values(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| 1.5 * formula(seed, i, 9) as f32).collect()
}

/// The largest difference between both engines, over the largest value.
fn off(config: &UNetConfig, policy: TensorPolicy, (height, width): (usize, usize)) -> f32 {
    let (file, net) = packed(config, policy);
    let model = Model::parse(&file).unwrap();
    let plan = Plan::with_size(&model, height, width).unwrap();
    let concat = config.in_channels.saturating_sub(config.out_channels);
    let own = config.in_channels - concat;
    let pixels = height * width;
    let (x, extra) = (values(1, own * pixels), values(2, concat * pixels));
    let mut arena = vec![f32::NAN; plan.arena_len()];
    let mut worst = 0f32;
    for (t, label) in [(0.0, None), (0.37, config.num_classes.map(|n| n as u32 / 2))] {
        let input = Input { x: &x, concat: &extra, t, label };
        let mut v = vec![f32::NAN; config.out_channels * pixels];
        plan.velocity(&model, &input, &mut arena, &mut v).unwrap();

        let tensor = |values: &[f32], c: usize| {
            Tensor::from_slice(values, (1, c, height, width), &Device::Cpu).unwrap()
        };
        let label = label.map(|label| Tensor::new(&[label], &Device::Cpu).unwrap());
        let t = Tensor::new(&[t], &Device::Cpu).unwrap();
        let extra = (concat > 0).then(|| tensor(&extra, concat));
        let expected =
            net.forward(&tensor(&x, own), &t, label.as_ref(), extra.as_ref(), Mode::Eval).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
        assert_eq!(v.len(), expected.len());
        for (v, expected) in v.iter().zip(&expected) {
            worst = worst.max((v - expected).abs() / scale);
            assert!(v.is_finite());
        }
    }
    worst
}

#[test]
fn velocities_equal_candles() {
    for (name, config, size) in nets() {
        let off = off(&config, TensorPolicy::F32, size);
        println!("{name}: {off:.1e}");
        assert!(off < 1e-5, "{name}: {off}");
    }
    let fourier = UNetConfig { with_fourier_features: true, ..nets()[0].1.clone() };
    assert!(off(&fourier, TensorPolicy::F32, (8, 8)) < 1e-5);
    let both = UNetConfig { in_channels: 5, ..fourier };
    assert!(off(&both, TensorPolicy::F32, (8, 8)) < 1e-5);
}

#[test]
fn packed_weights_are_read_as_they_are() {
    let config = UNetConfig::preset("mnist-micro").unwrap();
    for bits in [2, 3, 4, 8] {
        let policy = TensorPolicy::Quantize(QuantizeOptions::new(Scheme::EqualMass, width(bits)));
        let off = off(&config, policy, (28, 28));
        assert!(off < 1e-5, "{bits} bits: {off}");
    }
    assert!(off(&config, TensorPolicy::F16, (28, 28)) < 1e-5);
}

#[test]
fn the_plan_is_exact() {
    for (name, config, (height, width)) in nets() {
        let (file, _) = packed(&config, TensorPolicy::F16);
        let model = Model::parse(&file).unwrap();
        let plan = Plan::with_size(&model, height, width).unwrap();
        let concat = vec![0.5; config.in_channels * height * width];
        let input = Input { x: &[], concat: &concat, t: 0.5, label: None };
        let mut v = vec![0.0; config.out_channels * height * width];
        let mut arena = vec![0.0; plan.arena_len()];
        let mut run = |arena: &mut [f32]| plan.velocity(&model, &input, arena, &mut v);
        assert!(run(&mut arena).is_ok(), "{name}");
        let short = arena.len() - 1;
        assert!(run(&mut arena[..short]).is_err(), "{name}: an arena that is too short");
    }
}

#[test]
fn the_micro_net_fits_a_microcontroller() {
    let config = UNetConfig::preset("mnist-micro").unwrap();
    let policy = TensorPolicy::Quantize(QuantizeOptions::new(Scheme::EqualMass, width(4)));
    let (file, _) = packed(&config, policy);
    let model = Model::parse(&file).unwrap();
    let plan = Plan::new(&model).unwrap();
    let settings = Settings { label: Some(3), ..Settings::default() };
    let arena = 4 * settings.arena_len(&plan, &model);
    println!("arena {arena} B, {} MAC, file {} B", plan.macs(), file.len());
    assert!(arena <= 112 << 10, "{arena}");
    assert!(plan.macs() <= 25_000_000, "{}", plan.macs());
}

#[test]
fn the_solver_equals_candles() {
    let config = UNetConfig::preset("mnist-micro").unwrap();
    let policy = TensorPolicy::Quantize(QuantizeOptions::new(Scheme::LloydMax, width(3)));
    let (file, net) = packed(&config, policy);
    let model = Model::parse(&file).unwrap();
    let plan = Plan::new(&model).unwrap();
    let x0 = start_noise(5, 2, 1, (1, 28, 28), &Device::Cpu).unwrap();
    for (method, theirs, guidance) in [
        (Method::Euler, solver::Method::Euler, 0.0),
        (Method::Midpoint, solver::Method::Midpoint, 0.5),
        (Method::Heun2, solver::Method::Heun2, 0.0),
    ] {
        let settings = Settings { method, steps: 4, label: Some(7), guidance };
        let mut arena = vec![f32::NAN; settings.arena_len(&plan, &model)];
        let short = arena.len() - 1;
        assert!(infer::Sampler::new(&model, &plan, settings, &mut arena[..short]).is_err());
        let mut sampler = infer::Sampler::new(&model, &plan, settings, &mut arena).unwrap();
        sampler.noise(5, 2);
        let mut steps = 1;
        while sampler.step().unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 4);
        let sampler_of_candle = BatchSampler {
            method: theirs,
            grid: uniform_grid(0.25).unwrap(),
            options: solver::SolverOptions::default(),
            cfg_scale: f64::from(guidance),
            batch_size: 1,
        };
        let expected = sampler_of_candle.run(&net, &x0, Some(&[7]), false, |_| {}).unwrap();
        let expected = expected.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let pairs = sampler.image().iter().zip(&expected);
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        println!("{method:?}: {off:.1e}");
        assert!(off < 1e-5, "{method:?}: {off}");
    }
}

#[test]
fn what_makes_no_image_is_refused() {
    let config = UNetConfig::preset("mnist-micro").unwrap();
    let (file, _) = packed(&config, TensorPolicy::F16);
    let model = Model::parse(&file).unwrap();
    assert!(Plan::with_size(&model, 28, 26).is_err(), "26 is no multiple of 4");
    assert!(Plan::with_size(&model, 0, 28).is_err());
    let plan = Plan::new(&model).unwrap();
    let (mut arena, mut v) = (vec![0.0; plan.arena_len()], vec![0.0; 784]);
    let x = vec![0.0; 784];
    let input = Input { x: &x, concat: &[], t: 0.0, label: Some(11) };
    assert!(plan.velocity(&model, &input, &mut arena, &mut v).is_err(), "label 11");
    let input = Input { label: Some(10), ..input };
    assert!(plan.velocity(&model, &input, &mut arena, &mut v).is_ok());
    assert!(plan.velocity(&model, &input, &mut arena, &mut v[1..]).is_err());
    assert!(plan.velocity(&model, &Input { x: &x[1..], ..input }, &mut arena, &mut v).is_err());
    // The plan of another net with images of the same size: wider, so that numbers would be missing.
    let wide = UNetConfig { channel_mult: [1.0, 2.0].into(), ..config.clone() };
    let (other, _) = packed(&wide, TensorPolicy::F16);
    let other = Model::parse(&other).unwrap();
    let (mut large, large_plan) = (vec![0.0; 1 << 18], Plan::new(&other).unwrap());
    assert!(plan.velocity(&other, &input, &mut large, &mut v).is_err());
    assert!(large_plan.velocity(&model, &input, &mut large, &mut v).is_err());
    assert!(large_plan.velocity(&other, &input, &mut large, &mut v).is_ok());
    for settings in [
        Settings { steps: 0, ..Settings::default() },
        Settings { guidance: f32::NAN, ..Settings::default() },
    ] {
        let mut arena = vec![0.0; 1 << 16];
        assert!(infer::Sampler::new(&model, &plan, settings, &mut arena).is_err());
    }
    let without = UNetConfig { image_size: None, ..config };
    let (file, _) = packed(&without, TensorPolicy::F16);
    assert!(Plan::new(&Model::parse(&file).unwrap()).is_err(), "a net of unknown size");
}

#[test]
fn a_file_with_a_self_test_tests_its_device() {
    for form in [SelfTestForm::Vector, SelfTestForm::Checksum] {
        tests_its_device(form);
    }
}

fn tests_its_device(form: SelfTestForm) {
    let config = UNetConfig::preset("mnist-micro").unwrap();
    let weights = formula_weights(&config, 3);
    let policy = |_: &str, _: &[usize]| {
        TensorPolicy::Quantize(QuantizeOptions::new(Scheme::EqualMass, width(3)))
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.fmq");
    let all: Vec<usize> = (0..weights.len()).collect();
    let packed = PackedNet { config: &config, self_test: Some(form) };
    quantize_to_file(&path, &weights[..], &all, Some(packed), policy, |_, _| Ok(())).unwrap();
    let mut file = std::fs::read(&path).unwrap();

    let model = Model::parse(&file).unwrap();
    let plan = Plan::new(&model).unwrap();
    assert_eq!(model.memory_plan(), Some(plan.stored()));
    let mut arena = vec![f32::NAN; Settings::default().arena_len(&plan, &model)];
    assert_eq!(
        plan.self_test(&model, &mut arena),
        Ok(SelfTest::Passed { off: 0.0 }),
        "its own engine"
    );
    assert!(plan.self_test(&model, &mut arena[1..]).is_err());

    // A wrong element or checksum, in a file whose own checksums are right.
    let (kind, at) = match form {
        SelfTestForm::Vector => (SectionKind::SELF_TEST, 24 + 4 * 5 + 3),
        SelfTestForm::Checksum => (SectionKind::SELF_TEST_CHECKSUM, 16),
    };
    let mut section = model.sections().find(|(found, _)| *found == kind).unwrap().1.to_vec();
    let other_arithmetic = (form == SelfTestForm::Checksum).then(|| {
        let mut section = section.clone();
        section[24] += 1;
        with_section(&file, kind, &section).unwrap()
    });
    section[at] ^= 0x80;
    let head_len = file.len() - payload_len(&file);
    let (head, _) = file.split_at_mut(head_len);
    fill_section(head, kind, &section).unwrap();
    let model = Model::parse(&file).unwrap();
    match (plan.self_test(&model, &mut arena), form) {
        (Err(Error::SelfTest { index: 5 }), SelfTestForm::Vector)
        | (Err(Error::Crc { what: "self-test velocity", .. }), SelfTestForm::Checksum) => {}
        (other, _) => panic!("{other:?}"),
    }
    if let Some(file) = other_arithmetic {
        let model = Model::parse(&file).unwrap();
        assert_eq!(plan.self_test(&model, &mut arena), Ok(SelfTest::NotComparable));
    }

    let (file, _) = quantize_in_memory(&weights, Some(&config), policy).unwrap();
    let model = Model::parse(&file).unwrap();
    assert_eq!(model.memory_plan(), Some(plan.stored()));
    assert_eq!(plan.self_test(&model, &mut arena), Ok(SelfTest::Absent), "nothing to test by");
}

/// Bytes behind the head, whose length is at byte 24.
fn payload_len(file: &[u8]) -> usize {
    file.len() - u32::from_le_bytes(file[24..28].try_into().unwrap()) as usize
}

/// A 3 x 3 convolution alone is the sum of its products; other tensors have no map to run over.
#[test]
fn a_layer_alone_is_a_convolution() {
    let (_, config, _) = nets().into_iter().next().unwrap();
    let (file, _) = packed(&config, TensorPolicy::F32);
    let model = Model::parse(&file).unwrap();
    let at = model.tensors().position(|tensor| tensor.shape().ends_with(&[3, 3])).unwrap();
    let [weight, bias] = [at, at + 1].map(|i| model.tensors().nth(i).unwrap());
    let &[out, channels, ..] = weight.shape() else { panic!("{:?}", weight.shape()) };
    let side = 5;
    let layer = ConvLayer::new::<f32>(&model, at, side).unwrap();
    assert_eq!(layer.macs(), (out * channels * 9 * side * side) as u64);
    let mut arena = vec![f32::NAN; layer.arena_len()];
    let x = values(4, channels * side * side);
    arena[..x.len()].copy_from_slice(&x);
    layer.run(&model, &mut arena).unwrap();
    let (mut taps, mut biases) = (vec![0.0; channels * 9], vec![0.0; out]);
    bias.decode_row(0, &mut biases).unwrap();
    for o in 0..out {
        weight.decode_row(o, &mut taps).unwrap();
        for (y, at) in (0..side * side).map(|i| ((i / side, i % side), i)) {
            let mut sum = f64::from(biases[o]);
            for (i, &tap) in taps.iter().enumerate() {
                let (c, dy, dx) = (i / 9, i % 9 / 3, i % 3);
                let inside = (y.0 + dy).wrapping_sub(1) < side && (y.1 + dx).wrapping_sub(1) < side;
                if inside {
                    sum += f64::from(tap * x[(c * side + y.0 + dy - 1) * side + y.1 + dx - 1]);
                }
            }
            let found = f64::from(arena[x.len() + o * side * side + at]);
            assert!((found - sum).abs() < 1e-4 * sum.abs().max(1.0), "{o} {at}: {found} {sum}");
        }
    }

    let short = arena.len() - 1;
    assert!(layer.run(&model, &mut arena[..short]).is_err());
    let none = |i| ConvLayer::new::<f32>(&model, i, side).unwrap_err();
    assert_eq!(none(at + 1), Error::NotOfTheNet { tensor: at + 1 });
    assert_eq!(none(0), Error::NotOfTheNet { tensor: 0 });
    assert!(matches!(none(usize::MAX), Error::NotOfTheNet { .. }));
    assert!(ConvLayer::new::<i8>(&model, at, side).is_err());
}
