//! The format as a whole: golden bytes, round trips, damaged files.

use super::header::tests::fix_up;
use super::*;
use crate::bits::tests::width;
use crate::matrix::QuantizedMatrix;
use crate::net::UNetConfig;
use crate::net::record::tests::example;
use crate::quantize::{
    CodebookDtype, Granularity, QuantizeOptions, QuantizedTensor, quantize_tensor,
};
use crate::scheme::Scheme;
use crate::{Error, Result};
use half::f16;
use proptest::prelude::*;
use std::string::String;
use std::vec;
use std::vec::Vec;

fn writer(names: &[&str]) -> Writer<Vec<u8>> {
    Writer::new(Vec::new(), &Head { names: Some(names.to_vec()), ..Head::default() }).unwrap()
}

const NAMES: [&str; 9] = ["steps", "bias", "empty", "ot", "uniform", "w2", "log", "i8", "auto"];
/// What [`small_file`] was in version 1.0.
const SMALL_1_0: &[u8] = include_bytes!("../../testdata/small-1.0.fmq");

/// A file with every kind of record and of section, small enough to damage everywhere.
fn small_file() -> Vec<u8> {
    let weights: Vec<f32> = (0..48_u16).map(|i| f32::from(i * 37 % 48) / 16.0 - 1.0).collect();
    let input = SelfTestInput { seed: 5, t: 0.5, label: None };
    let vector = SelfTestVector::emit(input, 1e-3, (1, 2), &[0.0; 2]).unwrap();
    let head = Head {
        net: None,
        names: Some(NAMES.to_vec()),
        sections: vec![(SectionKind::SELF_TEST, &vector), (SectionKind(77), b"unknown")],
    };
    let mut writer = Writer::new(Vec::new(), &head).unwrap();
    writer.dense(&[], Dense::I64(&[-3])).unwrap();
    writer.dense(&[2], Dense::F16(&[f16::ONE, f16::NAN])).unwrap();
    writer.dense(&[0, 3], Dense::F32(&[])).unwrap();
    for (scheme, bits, codebook_dtype, granularity) in [
        (Scheme::EqualMass, 2, CodebookDtype::F32, Granularity::Group(2)),
        (Scheme::Uniform, 3, CodebookDtype::F32, Granularity::Group(2)),
        (Scheme::LloydMax, 3, CodebookDtype::F16, Granularity::Channel),
        (Scheme::Logarithmic, 3, CodebookDtype::F32, Granularity::Tensor),
        (Scheme::LloydMax, 2, CodebookDtype::I8, Granularity::Tensor),
        (Scheme::LloydMax, 1, CodebookDtype::F32, Granularity::Auto),
    ] {
        let options = QuantizeOptions {
            granularity,
            codebook_dtype,
            ..QuantizeOptions::new(scheme, width(bits))
        };
        writer.quantized(&quantize_tensor(&weights, &[3, 4, 4], &options).unwrap()).unwrap();
    }
    writer.into_file().unwrap()
}

/// Every how many-th position is tried: all, but for the interpreter.
const STRIDE: usize = if cfg!(miri) { 101 } else { 1 };

/// Calls everything that a model offers; the bytes that it accounts for.
fn read_everything(model: &Model<'_>) -> Result<usize> {
    let mut bytes = model.header_bytes();
    let vector = model.self_test_vector();
    vector.into_iter().flat_map(SelfTestVector::velocity).for_each(|v| assert!(v.is_finite()));
    assert!(model.sections().all(|(kind, _)| kind.0 > 0));
    for tensor in model.tensors() {
        assert!(model.tensor(tensor.name()).is_some());
        assert_eq!(tensor.shape().iter().product::<usize>(), tensor.numel());
        assert!(tensor.bits_per_weight().is_finite());
        // An empty axis makes the other large without a byte in the file.
        let mut row = vec![0.0; tensor.row_len().min(1 << 16)];
        for i in (0..tensor.rows()).take(1000) {
            match tensor.decode_row(i, &mut row) {
                Err(Error::Encoding { .. }) => {
                    assert_eq!(tensor.integers().map(|i| i.len()), Some(tensor.numel()));
                }
                Err(Error::Length { .. }) => assert!(tensor.row_len() > row.len()),
                done => done?,
            }
            if let Some(matrix) = tensor.quantized() {
                assert!(row.iter().all(|value| value.is_finite()));
                assert!(matrix.codes(i).is_some() && matrix.codebook(i).is_some());
                assert!(matrix.codes(matrix.rows()).is_none());
            }
        }
        bytes += tensor.record_bytes();
    }
    Ok(bytes)
}

#[test]
fn golden_bytes_of_a_tiny_file() {
    let options = QuantizeOptions::new(Scheme::LloydMax, width(2));
    let weights = [1.0, -2.0, 0.5, 1.0, 1.0, -2.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0];
    let mut writer = writer(&["w"]);
    writer.quantized(&quantize_tensor(&weights, &[2, 6], &options).unwrap()).unwrap();
    #[rustfmt::skip]
    let golden = [
        b'f', b'm', b'q', 0x1a, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        0x70, 0, 0, 0, 0, 0, 0, 0, 0x54, 0, 0, 0, 1, 0, 0, 0,
        1, 0, 0, 0, 0x5, 0x8d, 0xe8, 0x4e, 0xe6, 0xbb, 0xcf, 0x35, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // section of kind 2, the names: 3 bytes at 0x50, and padding to 4
        2, 0, 0, 0, 0x50, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        1, 0, b'w', 0,
        // quantized, rank 2; 2 bits, f16 tables; no scales; tables per row; [2, 6]; padding to 4
        0x23, 0x12, 0, 1, 2, 6, 0, 0,
        // levels -2, 0.5, 1, 1 and 0.5, 1, 1, 1
        0x00, 0xc0, 0x00, 0x38, 0x00, 0x3c, 0x00, 0x3c, 0x00, 0x38, 0x00, 0x3c, 0x00, 0x3c, 0x00, 0x3c,
        // codes 2 0 1 2 2 0 and 0 0 1 1 1 1
        0b10_01_00_10, 0b00_10, 0b01_01_00_00, 0b01_01,
    ];
    assert_eq!(writer.into_file().unwrap(), golden);
    let model = Model::parse(&golden).unwrap();
    let mut row = [0.0; 6];
    model.tensor("w").unwrap().decode_row(1, &mut row).unwrap();
    assert_eq!(row, weights[6..]);
}

#[test]
fn reads_back_every_kind_of_record() {
    let file = small_file();
    let model = Model::parse(&file).unwrap();
    assert!(model.tensors().map(|tensor| tensor.name()).eq(NAMES));
    assert_eq!(read_everything(&model), Ok(file.len()));
    let steps: Vec<i64> = model.tensor("steps").unwrap().integers().unwrap().collect();
    assert_eq!(steps, [-3]);
    let mut bias = [0.0; 2];
    model.tensor("bias").unwrap().decode_row(0, &mut bias).unwrap();
    assert!(bias[0] == 1.0 && bias[1].is_nan());
    assert_eq!(model.self_test_vector().map(|vector| vector.input.seed), Some(5));
    assert!(model.sections().any(|section| section == (SectionKind(77), b"unknown")));
    let offset = |bytes: &[u8]| bytes.as_ptr().addr() - file.as_ptr().addr();
    assert!(model.tensors().all(|t| offset(t.data()) % 4 == 0));
}

#[test]
fn version_1_0_holds_the_same() {
    let file = small_file();
    let [new, old] = [&file, SMALL_1_0].map(|file| Model::parse(file).unwrap());
    assert_eq!((new.version(), old.version()), ((1, 1), (1, 0)));
    assert_eq!(read_everything(&old), Ok(SMALL_1_0.len()));
    assert!(new.sections().eq(old.sections()));
    for (new, old) in new.tensors().zip(old.tensors()) {
        assert_eq!((new.name(), new.shape()), (old.name(), old.shape()));
        assert_eq!(new.encoding(), old.encoding());
        let [a, b] = [new, old].map(|tensor| tensor.quantized().map(QuantizedMatrix::parts));
        assert_eq!(a, b);
        assert!(new.quantized().is_some() || new.data() == old.data());
    }
    let (kind, contents) = new.sections().last().unwrap();
    assert_eq!(with_section(SMALL_1_0, kind, contents), Ok(file.clone()), "written again");
}

#[test]
fn reads_at_every_alignment() {
    let file = small_file();
    for shift in 0..8 {
        let shifted = [&vec![0; shift], &file[..]].concat();
        let model = Model::parse(&shifted[shift..]).unwrap();
        assert_eq!(read_everything(&model), Ok(file.len()));
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    for mut file in [small_file(), SMALL_1_0.to_vec()] {
        for at in (0..file.len()).step_by(STRIDE) {
            for bit in 0..8 {
                file[at] ^= 1 << bit;
                assert!(Model::parse(&file).is_err(), "bit {bit} of byte {at}");
                file[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn every_other_length_is_an_error() {
    for mut file in [small_file(), SMALL_1_0.to_vec()] {
        for len in (0..file.len()).step_by(STRIDE) {
            assert!(Model::parse(&file[..len]).is_err(), "length {len}");
            // Even with lengths and checksums made right.
            let mut short = file[..len].to_vec();
            if len >= 64 {
                fix_up(&mut short);
                assert!(Model::parse(&short).is_err(), "length {len}");
            }
        }
        file.push(0);
        assert_eq!(Model::parse(&file), Err(Error::Trailing { bytes: 1 }));
        fix_up(&mut file);
        assert_eq!(Model::parse(&file), Err(Error::Trailing { bytes: 1 }));
    }
}

#[test]
fn writer_refuses_what_the_reader_would() {
    let refused = |names: &[&str]| {
        let head = Head { names: Some(names.to_vec()), ..Head::default() };
        Writer::new(Vec::new(), &head).err()
    };
    assert!(refused(&[""]).is_some() && refused(&[&"n".repeat(513)]).is_some());
    assert_eq!(refused(&["a", "a"]), Some(Error::DuplicateName { tensor: 1 }));
    let many: Vec<String> = (0..=MAX_TENSORS).map(|i| std::format!("{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refused(&many).is_some());
    for kind in [SectionKind(0), SectionKind::NET, SectionKind::NAMES] {
        let head = Head { sections: vec![(kind, &[][..])], ..Head::default() };
        assert!(Writer::new(Vec::new(), &head).is_err(), "{kind:?}");
    }

    let one = Dense::F32(&[1.0]);
    let mut writer = writer(&["a"]);
    assert!(writer.dense(&[1; 7], one).is_err());
    assert!(writer.dense(&[2], one).is_err());
    writer.dense(&[1], one).unwrap();
    assert!(matches!(writer.dense(&[1], one), Err(Error::Range { .. })));
    let file = writer.into_file().unwrap();
    assert_eq!(Model::parse(&file).unwrap().tensors().len(), 1);
    let unfinished = super::tests::writer(&["a"]).into_file();
    assert_eq!(unfinished, Err(Error::Length { what: "tensors", expected: 1, found: 0 }));
}

#[test]
#[cfg_attr(miri, ignore = "quadratic in the names")]
fn the_most_tensors_are_read() {
    let names: Vec<String> = (0..MAX_TENSORS).map(|i| std::format!("{i}")).collect();
    let mut writer = writer(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in &names {
        writer.dense(&[], Dense::F32(&[1.0])).unwrap();
    }
    let file = writer.into_file().unwrap();
    assert_eq!(Model::parse(&file).unwrap().tensors().len(), 4096);
}

/// A net of one level, and its parameters as zeros.
fn net_file(net: &UNetConfig) -> Result<Vec<u8>> {
    let head = Head { net: Some(net), names: None, sections: vec![] };
    let mut writer = Writer::new(Vec::new(), &head)?;
    for shape in &net.shapes() {
        let zeros = vec![0.0; shape.iter().product()];
        let options = QuantizeOptions::new(Scheme::Uniform, width(1));
        writer.quantized(&quantize_tensor(&zeros, shape, &options)?)?;
    }
    writer.into_file()
}

#[test]
#[cfg_attr(miri, ignore = "a net has too many weights to interpret")]
fn tensors_are_the_parameters_of_the_net() {
    let net = UNetConfig {
        model_channels: 32,
        num_res_blocks: 1,
        attention_resolutions: [].into(),
        channel_mult: [1.0].into(),
        ..example()
    };
    let mut file = net_file(&net).unwrap();
    let model = Model::parse(&file).unwrap();
    assert_eq!((model.net(), read_everything(&model)), (Some(&net), Ok(file.len())));
    assert!(model.tensors().all(|tensor| tensor.name().is_empty()));
    // With more classes the label table, tensor 4, would have more rows.
    let record = Model::parse(&file).unwrap().sections().next().unwrap().1;
    let at = record.as_ptr().addr() - file.as_ptr().addr();
    file[at + 28] += 1;
    fix_up(&mut file);
    assert_eq!(Model::parse(&file), Err(Error::NotOfTheNet { tensor: 4 }));

    let head = |names| Head { net: Some(&net), names, sections: vec![] };
    let refused = Writer::new(Vec::new(), &head(Some(vec!["a"]))).err();
    assert_eq!(refused, Some(Error::NotOfTheNet { tensor: 1 }));
    let mut writer = Writer::new(Vec::new(), &head(None)).unwrap();
    let refused = writer.dense(&[1], Dense::F32(&[0.0]));
    assert_eq!(refused, Err(Error::NotOfTheNet { tensor: 0 }));
}

fn any_tensor() -> impl Strategy<Value = (Vec<f32>, QuantizedTensor)> {
    let shape = prop_oneof![
        (0_usize..40).prop_map(|n| vec![n]),
        (0_usize..5, 0_usize..12).prop_map(|(a, b)| vec![a, b]),
        (1_usize..4, 1_usize..4, 1_usize..4, 1_usize..4).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
    ];
    let granularity = prop_oneof![
        Just(Granularity::Channel),
        (1_u32..4).prop_map(Granularity::Group),
        Just(Granularity::Tensor),
        Just(Granularity::Auto)
    ];
    let codebook_dtype = prop::sample::select(
        &[CodebookDtype::F32, CodebookDtype::F16, CodebookDtype::I16, CodebookDtype::I8][..],
    );
    let scheme = prop::sample::select(&Scheme::ALL[..]);
    (shape, scheme, 1_u8..=8, granularity, codebook_dtype).prop_flat_map(
        |(shape, scheme, bits, granularity, codebook_dtype)| {
            let n = shape.iter().product::<usize>();
            prop::collection::vec(-3.0_f32..3.0, n).prop_map(move |weights| {
                let options = QuantizeOptions {
                    granularity,
                    codebook_dtype,
                    ..QuantizeOptions::new(scheme, width(bits))
                };
                let tensor = quantize_tensor(&weights, &shape, &options).unwrap();
                (weights, tensor)
            })
        },
    )
}

proptest! {
    #[test]
    fn decoding_gives_the_dequantized_values(
        tensors in prop::collection::vec(any_tensor(), 0..5),
    ) {
        let names: Vec<String> = (0..2 * tensors.len()).map(|i| std::format!("tensor.{i}")).collect();
        let mut writer = writer(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (weights, tensor) in &tensors {
            writer.quantized(tensor).unwrap();
            writer.dense(tensor.shape(), Dense::F32(weights)).unwrap();
        }
        let file = writer.into_file().unwrap();
        let model = Model::parse(&file).unwrap();
        prop_assert_eq!(read_everything(&model), Ok(file.len()));
        let expected = tensors.iter().flat_map(|(weights, tensor)| [tensor.dequantized(), weights.clone()]);
        for ((name, expected), read) in names.iter().zip(expected).zip(model.tensors()) {
            prop_assert_eq!(read.name(), name);
            let mut values = vec![0.0; read.numel()];
            for row in 0..read.rows() {
                let at = row * read.row_len();
                read.decode_row(row, &mut values[at..at + read.row_len()]).unwrap();
            }
            let as_bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(as_bits(&values), as_bits(&expected));
        }
    }

    /// The parser meets contradictions that no checksum hides, and what it accepts can be read.
    #[test]
    fn damage_behind_right_checksums_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        old in any::<bool>(),
    ) {
        let mut file = if old { SMALL_1_0.to_vec() } else { small_file() };
        for (at, byte) in edits {
            let at = at.index(file.len());
            file[at] = byte;
        }
        fix_up(&mut file);
        if let Ok(model) = Model::parse(&file) {
            prop_assert_eq!(read_everything(&model), Ok(file.len()));
        }
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Model::parse(&bytes).is_err());
        for features in [0, 2] {
            if bytes.len() >= 256 {
                bytes[..16].copy_from_slice(b"fmq\x1a\x01\0\x01\0\0\0\0\0\0\0\0\0");
                bytes[8] = features;
                bytes[24..36].copy_from_slice(&[0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
                bytes[44..64].fill(0);
                fix_up(&mut bytes);
                prop_assert!(Model::parse(&bytes).is_err());
            }
        }
    }
}

/// Each single byte of a small file set to many values, with the checksums made right.
#[test]
fn every_byte_of_many_values_is_read_without_panic() {
    for file in [small_file(), SMALL_1_0.to_vec()] {
        for at in (0..file.len()).step_by(STRIDE) {
            for byte in [0, 1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 63, 64, 127, 128, 254, 255] {
                let mut damaged = file.clone();
                damaged[at] = byte;
                fix_up(&mut damaged);
                if let Ok(model) = Model::parse(&damaged) {
                    assert_eq!(read_everything(&model), Ok(file.len()), "byte {at} = {byte}");
                }
            }
        }
    }
}

#[test]
fn a_section_may_be_filled_once_the_tensors_are_known() {
    let plan = MemoryPlan { size: (4, 6), arena_bytes: 64, macs: 7 };
    let mut sections = vec![(SectionKind::MEMORY_PLAN, &[0; 24][..])];
    sections.push((SectionKind(9), b"other"));
    let head = Head { names: Some(vec!["w"]), sections, ..Head::default() };
    let mut writer = Writer::new(Vec::new(), &head).unwrap();
    writer.dense(&[2], Dense::F32(&[1.0, 2.0])).unwrap();
    let written = writer.finish().unwrap();
    let (mut head, mut file) = (written.head, written.sink);
    assert!(fill_section(&mut head, SectionKind::MEMORY_PLAN, &plan.emit()[1..]).is_err());
    assert!(fill_section(&mut head, SectionKind::SELF_TEST, &[0; 24]).is_err());
    fill_section(&mut head, SectionKind::MEMORY_PLAN, &plan.emit()).unwrap();
    file[..head.len()].copy_from_slice(&head);
    let model = Model::parse(&file).unwrap();
    assert_eq!(model.memory_plan(), Some(plan));
    assert!(
        model.sections().any(|(kind, contents)| (kind, contents) == (SectionKind(9), b"other"))
    );
}
