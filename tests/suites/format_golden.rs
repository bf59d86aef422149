//! Packed files written by earlier code keep reading, to the same bits.
//!
//! Each `NAME.fmq` in `tests/data/format` stands beside a `NAME.txt` that says what it holds. The
//! files of a version are written once, by the code of that version:
//!
//! ```text
//! cargo test -p fmq-tests --test format_golden -- --ignored
//! ```

#![allow(clippy::unwrap_used, reason = "a suite: it panics to fail")]

use core::fmt::Write;
use std::fs;
use std::path::PathBuf;

use fm_candle::quantize::{Calibration, calibrate};
use fmq_tests::width;
use quant_core::bits::Bits;
use quant_core::format::{
    Dense, Encoding, Head, MemoryPlan, Model, SectionKind, SelfTestChecksum, SelfTestInput,
    SelfTestVector, Writer, fill_section,
};
use quant_core::infer::{ARITHMETIC, Input, Plan, Precision, SelfTest, Settings};
use quant_core::matrix::{QuantLayout, RowScale};
use quant_core::net::UNetConfig;
use quant_core::noise::Stream;
use quant_core::quantize::{CodebookDtype, Granularity, QuantizeOptions, quantize_tensor};
use quant_core::scheme::Scheme;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/format")
}

/// What a model holds, a line for each part; values by their count and a sum over their bits.
fn describe(model: &Model<'_>) -> String {
    let mut text = format!("version {}.{}\n", model.version().0, model.version().1);
    for (kind, contents) in model.sections() {
        writeln!(text, "section {} of {} bytes", kind.0, contents.len()).unwrap();
    }
    if let Some(MemoryPlan { size, arena_bytes, macs }) = model.memory_plan() {
        writeln!(text, "plan {size:?} {arena_bytes} {macs}").unwrap();
    }
    if let Some(vector) = model.self_test_vector() {
        let sum = fingerprint(vector.velocity());
        let SelfTestInput { seed, t, label } = vector.input;
        writeln!(text, "golden {seed} {t} {label:?} {sum:016x}").unwrap();
    }
    if let Some(checksum) = model.self_test_checksum() {
        let SelfTestChecksum { arithmetic, float, integer, .. } = checksum;
        let integer = integer.unwrap_or(0);
        writeln!(text, "checksum {arithmetic} {float:08x} {integer:08x}").unwrap();
    }
    for tensor in model.tensors() {
        let form = match tensor.encoding() {
            Encoding::Quantized(QuantLayout { bits, codebook, rows_per_codebook, row_scale }) => {
                let scale = if row_scale == RowScale::None { "" } else { " scaled" };
                format!("{bits} bits {codebook:?} per {rows_per_codebook}{scale}")
            }
            dense => format!("{dense:?}"),
        };
        let sum = if let Some(integers) = tensor.integers() {
            integers.map(i64::cast_unsigned).fold(0, u64::wrapping_add)
        } else {
            let mut row = vec![0.0; tensor.row_len()];
            let mut values = Vec::new();
            for i in 0..tensor.rows() {
                tensor.decode_row(i, &mut row).unwrap();
                values.extend_from_slice(&row);
            }
            fingerprint(values.into_iter())
        };
        writeln!(text, "{} {:?} {form} {sum:016x}", tensor.name(), tensor.shape()).unwrap();
    }
    text
}

/// FNV-1a over the bits of the values.
fn fingerprint(values: impl Iterator<Item = f32>) -> u64 {
    let bytes = values.flat_map(f32::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn files_of_every_version_read_as_they_were_written() {
    let (mut count, mut integers) = (0, 0);
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "fmq") {
            let file = fs::read(&path).unwrap();
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            let model = Model::parse(&file).unwrap();
            assert_eq!(describe(&model), expected, "{}", path.display());
            if model.has_self_test() && model.net().is_some() {
                let plan = Plan::new(&model).unwrap();
                let mut arena = vec![0.0; Settings::default().arena_len(&plan, &model)];
                // What another engine may be off by is not asked: the same bits.
                assert_eq!(
                    plan.self_test(&model, &mut arena),
                    Ok(SelfTest::Passed { off: 0.0 }),
                    "{}",
                    path.display()
                );
            }
            if let Some(activations) = model.activations() {
                let plan = Plan::with_precision(&model, Precision::Integer).unwrap();
                let mut arena = vec![0.0; Settings::default().arena_len(&plan, &model)];
                // A checksum goes before the vector.
                let bits = model.self_test_checksum().is_some();
                let off = if bits { 0.0 } else { activations.self_test_error() };
                assert_eq!(
                    plan.self_test(&model, &mut arena),
                    Ok(SelfTest::Passed { off }),
                    "{}",
                    path.display()
                );
                integers += 1;
            }
            count += 1;
        }
    }
    assert!(count >= 10 && integers >= 2, "{count} golden files, {integers} in integers");
}

/// Weights that no later change of a library will draw differently.
fn weights(n: usize) -> Vec<f32> {
    let mut weights = vec![0.0; n];
    Stream::new(9, 9).fill_normal(0, 0, &mut weights);
    weights
}

/// Every scheme, width, kind of codebook, and section.
fn everything() -> Vec<u8> {
    let auto = Granularity::Auto;
    let mut plans = Vec::new();
    for scheme in Scheme::ALL {
        plans.extend(Bits::ALL.map(|bits| QuantizeOptions::new(scheme, bits)));
    }
    for (codebook_dtype, granularity) in [
        (CodebookDtype::F16, Granularity::Group(2)),
        (CodebookDtype::I16, Granularity::Tensor),
        (CodebookDtype::I8, auto),
    ] {
        plans.push(QuantizeOptions {
            codebook_dtype,
            granularity,
            ..QuantizeOptions::new(Scheme::LloydMax, width(3))
        });
    }
    let names: Vec<String> =
        (0..plans.len()).map(|i| format!("{}.{}.{i}", plans[i].scheme, plans[i].rate)).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.extend(["f32", "i64", "empty"]);
    let input = SelfTestInput { seed: 3, t: 0.25, label: Some(7) };
    let vector = SelfTestVector::emit(input, 1e-4, (2, 2), &weights(12)).unwrap();
    let sections =
        vec![(SectionKind::SELF_TEST, &vector[..]), (SectionKind(1000), b"of a later version")];
    let mut writer =
        Writer::new(Vec::new(), &Head { net: None, names: Some(names), sections }).unwrap();
    for options in &plans {
        let tensor = quantize_tensor(&weights(5 * 37), &[5, 37], options).unwrap();
        writer.quantized(&tensor).unwrap();
    }
    writer.dense(&[3], Dense::F32(&[f32::INFINITY, -0.0, 1e-45])).unwrap();
    writer.dense(&[], Dense::I64(&[i64::MIN])).unwrap();
    writer.dense(&[0, 7], Dense::F32(&[])).unwrap();
    writer.into_file().unwrap()
}

/// A net of patches with all that a device reads.
fn net(embedding_rank: Option<usize>) -> Vec<u8> {
    let net = UNetConfig {
        in_channels: 1,
        model_channels: 32,
        out_channels: 1,
        num_res_blocks: 1,
        attention_resolutions: [].into(),
        channel_mult: [1.0].into(),
        conv_resample: false,
        num_classes: Some(3),
        num_heads: 2,
        use_scale_shift_norm: true,
        use_new_attention_order: true,
        image_size: Some(8),
        patch: 2,
        embedding_rank,
        ..UNetConfig::default()
    };
    let shapes = net.shapes();
    let input = SelfTestInput { seed: 5, t: 0.5, label: Some(1) };
    let vector = |velocity: &[f32]| SelfTestVector::emit(input, 1e-3, (8, 8), velocity).unwrap();
    let checksum =
        |float| SelfTestChecksum { input, arithmetic: ARITHMETIC, float, integer: None }.emit();
    let plan = MemoryPlan { size: (8, 8), arena_bytes: 0, macs: 0 }.emit();
    let (empty, unknown) = (vector(&[0.0; 64]), checksum(0));
    let sections = vec![
        (SectionKind::MEMORY_PLAN, &plan[..]),
        (SectionKind::SELF_TEST, &empty),
        (SectionKind::SELF_TEST_CHECKSUM, &unknown),
    ];
    let head = Head { net: Some(&net), names: None, sections };
    let mut writer = Writer::new(Vec::new(), &head).unwrap();
    for shape in &shapes {
        let fan_in: usize = shape[1..].iter().product();
        let scale = 1.0 / f64::from(u32::try_from(fan_in).unwrap()).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
        let weights: Vec<f32> =
            weights(shape.iter().product()).iter().map(|w| w * scale as f32).collect();
        let options = QuantizeOptions {
            codebook_dtype: CodebookDtype::F16,
            ..QuantizeOptions::new(Scheme::UniformMse, width(2))
        };
        writer.quantized(&quantize_tensor(&weights, shape, &options).unwrap()).unwrap();
    }
    let written = writer.finish().unwrap();
    let (mut file, mut head) = (written.sink, written.head);
    file[..head.len()].copy_from_slice(&head);
    let model = Model::parse(&file).unwrap();
    let plan = Plan::new(&model).unwrap();
    let (mut x, mut v) = (vec![0.0; 64], vec![0.0; 64]);
    quant_core::noise::fill_normal(5, 0, 0, &mut x);
    let point = Input { x: &x, concat: &[], t: 0.5, label: Some(1) };
    plan.velocity(&model, &point, &mut vec![0.0; plan.arena_len()], &mut v).unwrap();
    let mut arena = vec![0.0; plan.arena_len() + 64];
    let float = plan.velocity_checksum(&model, input, &mut arena).unwrap();
    fill_section(&mut head, SectionKind::SELF_TEST_CHECKSUM, &checksum(float)).unwrap();
    fill_section(&mut head, SectionKind::MEMORY_PLAN, &plan.stored().emit()).unwrap();
    fill_section(&mut head, SectionKind::SELF_TEST, &vector(&v)).unwrap();
    file[..head.len()].copy_from_slice(&head);
    file
}

/// No tensors and no sections.
fn nothing() -> Vec<u8> {
    Writer::new(Vec::new(), &Head::default()).unwrap().into_file().unwrap()
}

#[test]
#[ignore = "writes the files of the present version"]
fn write_golden_files() {
    let version = quant_core::format::VERSION;
    let by = Calibration { seed: 0, images: 2, steps: 4 };
    let calibrated = calibrate(&net(None), by, || {}).unwrap();
    for (name, file) in [
        ("everything", everything()),
        ("net", net(None)),
        ("projected", net(Some(6))),
        ("nothing", nothing()),
        ("calibrated", calibrated),
    ] {
        let path = folder().join(format!("{}.{}-{name}.fmq", version.0, version.1));
        if path.exists() {
            // Golden files are written once.
            continue;
        }
        fs::write(path.with_extension("txt"), describe(&Model::parse(&file).unwrap())).unwrap();
        fs::write(path, file).unwrap();
    }
}
