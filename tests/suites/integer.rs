//! The core's engine on maps of bytes stays close to its floats, in the memory that its plan tells.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a suite: it says what it found, and panics to fail"
)]

use std::path::Path;

use fm_candle::checkpoint;
use fm_candle::model::{UNetConfig, config};
use fm_candle::quantize::{
    Calibration, PackedNet, SelfTestForm, TensorPolicy, calibrate, quantize_in_memory,
    quantize_to_file,
};
use fmq_tests::nets::nets;
use fmq_tests::{formula, formula_weights, width};
use quant_core::Error;
use quant_core::format::{Activations, Model, SectionKind, with_section};
use quant_core::infer::{Input, Plan, Precision, Sampler, SelfTest, Settings};
use quant_core::quantize::{Granularity, QuantizeOptions};
use quant_core::scheme::Scheme;

const BY: Calibration = Calibration { images: 11, steps: 8, seed: 0 };

fn values(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| 1.5 * formula(seed, i, 9) as f32).collect()
}

/// The embedded net of a preset, packed and calibrated.
fn embedded(preset: &str, bits: u8, self_test: Option<SelfTestForm>) -> Vec<u8> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/assets");
    let net = checkpoint::load(&assets.join(format!("{preset}.safetensors")), false).unwrap();
    let config = config::from_json(net.net().unwrap()).unwrap();
    let options = QuantizeOptions::new(Scheme::LloydMax, width(bits));
    let options = QuantizeOptions { granularity: Granularity::Auto, ..options };
    let all: Vec<usize> = (0..net.tensors.len()).collect();
    let packed = Some(PackedNet { config: &config, self_test });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.fmq");
    let policy = |_: &str, _: &[usize]| TensorPolicy::Quantize(options);
    quantize_to_file(&path, &net.tensors[..], &all, packed, policy, |_, _| Ok(())).unwrap();
    calibrate(&std::fs::read(&path).unwrap(), BY, || {}).unwrap()
}

/// An image, and the floats of the arena that it took.
fn draw(file: &[u8], precision: Precision, seed: u64, label: u32) -> (Vec<f32>, usize) {
    let model = Model::parse(file).unwrap();
    let plan = Plan::with_precision(&model, precision).unwrap();
    let settings = Settings { label: Some(label), ..Settings::default() };
    let mut arena = vec![f32::NAN; settings.arena_len(&plan, &model)];
    let mut sampler = Sampler::new(&model, &plan, settings, &mut arena).unwrap();
    sampler.noise(seed, 0);
    while sampler.step().unwrap() {}
    (sampler.image().to_vec(), arena.len())
}

/// How much more noise than was measured a test allows: twice its power.
const MARGIN_DB: f64 = 3.0;

/// Peak signal to noise of two images of -1 to 1, in dB.
fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let off = |(a, b): (&f32, &f32)| f64::from(a.clamp(-1.0, 1.0) - b.clamp(-1.0, 1.0)).powi(2);
    let mse = a.iter().zip(b).map(off).sum::<f64>() / a.len() as f64;
    10.0 * (4.0 / mse).log10()
}

#[test]
fn images_stay_those_of_floats() {
    for (preset, bits, measured) in [
        ("mnist-micro", 2, 51.6),
        ("mnist-micro", 3, 49.5),
        ("mnist-micro", 4, 48.4),
        ("mnist-micro", 8, 47.7),
        ("mnist-small", 4, 49.8),
    ] {
        let file = embedded(preset, bits, None);
        // One image in some tens strays far, and images of one noise stray together.
        let mut each = [0.0; 11];
        for (label, psnr_db) in (0..).zip(&mut each) {
            let seed = 42 + u64::from(label);
            let (floats, most) = draw(&file, Precision::Float, seed, label);
            let (bytes, least) = draw(&file, Precision::Integer, seed, label);
            *psnr_db = psnr(&floats, &bytes);
            assert!(2 * least < most, "{least} of {most} floats");
            assert!(4 * least < 512 << 10);
        }
        each.sort_unstable_by(f64::total_cmp);
        let median = each[each.len() / 2];
        println!("{preset}, {bits} bits: {median:.1} dB");
        assert!(median > measured - MARGIN_DB, "{preset}, {bits} bits: {median:.1} dB");
    }
}

#[test]
fn tuned_nets_of_few_bits_draw_the_digits_of_full_precision() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/assets");
    let net = checkpoint::load(&assets.join("mnist-micro.safetensors"), false).unwrap();
    let config = config::from_json(net.net().unwrap()).unwrap();
    let (full, _) =
        quantize_in_memory(&net.tensors, Some(&config), |_, _| TensorPolicy::F32).unwrap();
    for (bits, least) in [(2, 22.0), (3, 28.0)] {
        let tuned = std::fs::read(assets.join(format!("mnist-micro-tuned-{bits}.fmq"))).unwrap();
        let tuned = calibrate(&tuned, BY, || {}).unwrap();
        let plain = embedded("mnist-micro", bits, None);
        let mut means = [0.0; 2];
        for label in 0..10 {
            let (floats, _) = draw(&full, Precision::Float, 42, label);
            for (mean, file) in means.iter_mut().zip([&tuned, &plain]) {
                *mean += psnr(&floats, &draw(file, Precision::Integer, 42, label).0) / 10.0;
            }
        }
        let [tuned, plain] = means;
        println!("mnist-micro, {bits} bits: tuned {tuned:.1} dB, else {plain:.1}");
        assert!(tuned > least && tuned > plain + 9.0, "{bits} bits: {tuned} {plain}");
    }
}

/// Signal to noise of each of `nets()`, in dB. Up to 39 maps of 8 bits stand between image and
/// velocity; most of the noise comes from the encoder's first ones.
const MEASURED_DB: [f64; 20] = [
    25.3, 25.8, 27.1, 25.7, 25.4, 24.4, 21.4, 22.2, 25.7, 25.6, 28.1, 27.2, 30.6, 29.4, 29.6, 24.2,
    23.7, 25.7, 28.9, 22.1,
];

/// Every kind of layer, and every way in which weights are stored.
#[test]
fn every_net_stays_close_to_its_floats() {
    let coded = |scheme| TensorPolicy::Quantize(QuantizeOptions::new(scheme, width(5)));
    let policies = [TensorPolicy::F32, TensorPolicy::F16, coded(Scheme::EqualMass)];
    let nets = nets();
    assert_eq!(nets.len(), MEASURED_DB.len());
    let policies = policies.into_iter().cycle();
    for ((policy, measured), (name, config, (height, width))) in policies.zip(MEASURED_DB).zip(nets)
    {
        let weights = formula_weights(&config, 3);
        let (file, _) = quantize_in_memory(&weights, Some(&config), |_, _| policy).unwrap();
        let model = Model::parse(&file).unwrap();
        let plan = Plan::with_size(&model, height, width).unwrap();
        let (pixels, concat) = (height * width, config.in_channels - config.out_channels);
        let x = values(1, (config.in_channels - concat) * pixels);
        let extra = values(2, concat * pixels);
        let label = config.num_classes.map(|n| n as u32 / 2);
        let input = Input { x: &x, concat: &extra, t: 0.37, label };
        let mut v = vec![0.0; config.out_channels * pixels];
        let mut ranges = vec![0.0; plan.maps()];
        let mut arena = vec![f32::NAN; plan.arena_len()];
        let mut widen = |map: usize, values: &[f32]| {
            ranges[map] = values.iter().fold(0f32, |most, x| most.max(x.abs()));
        };
        plan.observe(&model, &input, &mut arena, &mut v, &mut widen).unwrap();

        let scales = Activations::emit(0.0, &ranges);
        let file = with_section(&file, SectionKind::ACTIVATION_SCALES, &scales).unwrap();
        let model = Model::parse(&file).unwrap();
        let size = (height, width);
        let plan = Plan::with_size_and_precision(&model, size, Precision::Integer).unwrap();
        let mut arena = vec![f32::NAN; plan.arena_len()];
        let mut bytes = vec![f32::NAN; v.len()];
        plan.velocity(&model, &input, &mut arena, &mut bytes).unwrap();
        let square = |x: f32| f64::from(x * x);
        let noise: f64 = v.iter().zip(&bytes).map(|(a, b)| square(a - b)).sum();
        let snr = 10.0 * (v.iter().map(|&v| square(v)).sum::<f64>() / noise).log10();
        println!("{name}: {snr:.1} dB");
        assert!(snr > measured - MARGIN_DB, "{name}: {snr:.1} dB");

        let short = arena.len() - 1;
        let mut run = |arena: &mut [f32]| plan.velocity(&model, &input, arena, &mut bytes);
        assert!(run(&mut arena[..short]).is_err(), "{name}: an arena that is too short");
    }
}

#[test]
fn calibrating_keeps_everything_else() {
    let file = embedded("mnist-micro", 3, None);
    let again = calibrate(&file, BY, || {}).unwrap();
    assert!(again == file, "the same images give the same file");
    let model = Model::parse(&file).unwrap();
    let (section, plan) = (model.activations().unwrap(), Plan::new(&model).unwrap());
    assert_eq!(section.ranges().len(), plan.maps());
    let other = Calibration { seed: 1, ..BY };
    assert!(calibrate(&file, other, || {}).unwrap() != file, "another seed, other scales");
    for by in [Calibration { images: 0, ..BY }, Calibration { steps: 0, ..BY }] {
        assert!(calibrate(&file, by, || {}).is_err());
    }
}

#[test]
fn a_device_is_right_only_with_the_very_same_numbers() {
    let file = embedded("mnist-micro", 4, Some(SelfTestForm::Vector));
    let model = Model::parse(&file).unwrap();
    let plan = Plan::with_precision(&model, Precision::Integer).unwrap();
    let mut arena = vec![0.0; Settings::default().arena_len(&plan, &model)];
    let off = model.activations().unwrap().self_test_error();
    assert!(off > 0.0 && off < 0.2, "{off}");
    assert_eq!(plan.self_test(&model, &mut arena), Ok(SelfTest::Passed { off }));

    let section =
        model.sections().find(|(kind, _)| *kind == SectionKind::ACTIVATION_SCALES).unwrap().1;
    for change in [-1, 1] {
        let mut section = section.to_vec();
        let bits = off.to_bits().wrapping_add_signed(change);
        section[..4].copy_from_slice(&bits.to_le_bytes());
        let file = with_section(&file, SectionKind::ACTIVATION_SCALES, &section).unwrap();
        let model = Model::parse(&file).unwrap();
        let found = plan.self_test(&model, &mut arena);
        assert!(matches!(found, Err(Error::SelfTest { .. })), "{found:?}");
    }
}

#[test]
fn a_checksum_of_integers_is_of_its_file_alone() {
    let file = embedded("mnist-micro", 3, Some(SelfTestForm::Checksum));
    let model = Model::parse(&file).unwrap();
    let checksum = model.self_test_checksum().unwrap();
    assert!(checksum.integer.is_some_and(|integer| integer != checksum.float));
    for (precision, at) in [(Precision::Float, 16), (Precision::Integer, 20)] {
        let plan = Plan::with_precision(&model, precision).unwrap();
        let mut arena = vec![0.0; Settings::default().arena_len(&plan, &model)];
        assert_eq!(plan.self_test(&model, &mut arena), Ok(SelfTest::Passed { off: 0.0 }));
        let mut section = checksum.emit();
        section[at] ^= 1;
        let file = with_section(&file, SectionKind::SELF_TEST_CHECKSUM, &section).unwrap();
        let found = plan.self_test(&Model::parse(&file).unwrap(), &mut arena);
        assert!(matches!(found, Err(Error::Crc { .. })), "{found:?}");
    }
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let file = embedded("mnist-micro", 2, None);
    let section = SectionKind::ACTIVATION_SCALES;
    let few = with_section(&file, section, &Activations::emit(0.0, &[1.0, 2.0])).unwrap();
    let model = Model::parse(&few).unwrap();
    let refused = Plan::with_precision(&model, Precision::Integer);
    assert!(matches!(refused, Err(Error::Length { found: 2, .. })), "{refused:?}");
    assert!(Plan::new(&model).is_ok(), "floats do not look at them");

    for bad in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
        let error = with_section(&file, section, &Activations::emit(0.0, &[bad])).unwrap_err();
        assert_eq!(error.to_string(), "activation scale: must be above 0", "{bad}");
    }
    let config = UNetConfig::preset("mnist-micro").unwrap();
    let weights = formula_weights(&config, 3);
    let (file, _) = quantize_in_memory(&weights, Some(&config), |_, _| TensorPolicy::F16).unwrap();
    let model = Model::parse(&file).unwrap();
    let error = Plan::with_precision(&model, Precision::Integer).unwrap_err();
    assert!(error.to_string().contains("fmq calibrate"), "{error}");
}
