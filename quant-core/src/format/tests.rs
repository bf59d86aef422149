//! The format as a whole: golden bytes, round trips, damaged files.

use super::header::tests::fix_up;
use super::*;
use crate::net::tests::example;
use crate::quantize::{Granularity, Levels, Options, QuantizedTensor, quantize_tensor};
use crate::scheme::Scheme;
use crate::{Error, Result};
use half::f16;
use proptest::prelude::*;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// A file with every kind of record, small enough to damage everywhere.
fn small_file() -> Vec<u8> {
    let weights: Vec<f32> = (0..48_u16).map(|i| f32::from(i * 37 % 48) / 16.0 - 1.0).collect();
    let mut writer = Writer::new(Some(&example())).unwrap();
    writer.dense("steps", &[], Dense::I64(&[-3])).unwrap();
    writer.dense("bias", &[2], Dense::F16(&[f16::ONE, f16::NAN])).unwrap();
    writer.dense("empty", &[0, 3], Dense::F32(&[])).unwrap();
    for (name, scheme, bits) in
        [("ot", Scheme::EqualMass, 2), ("uniform", Scheme::Uniform, 3), ("w2", Scheme::LloydMax, 3)]
    {
        let options = Options { granularity: Granularity::Group(2), ..Options::new(scheme, bits) };
        let levels = if name == "w2" { Levels::F16 } else { Levels::F32 };
        let options = Options { levels, ..options };
        let tensor = quantize_tensor(&weights, &[3, 4, 4], &options).unwrap();
        writer.quantized(name, &tensor).unwrap();
    }
    writer.finish()
}

/// Calls everything that a model offers.
fn read_everything(model: &Model<'_>) -> Result<usize> {
    let mut bytes = model.header_bytes();
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
            assert_eq!(tensor.codes(i).is_some(), tensor.codebook(i).is_some());
        }
        assert!(tensor.codebook(tensor.rows()).is_none() && tensor.codes(tensor.rows()).is_none());
        bytes += tensor.record_bytes();
    }
    Ok(bytes)
}

#[test]
fn golden_bytes_of_a_tiny_file() {
    let options = Options::new(Scheme::LloydMax, 2);
    let weights = [1.0, -2.0, 0.5, 1.0, 1.0, -2.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0];
    let mut writer = Writer::new(None).unwrap();
    writer.quantized("w", &quantize_tensor(&weights, &[2, 6], &options).unwrap()).unwrap();
    #[rustfmt::skip]
    let golden = [
        b'f', b'm', b'q', 0x1a, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb, 0x9d, 0xbc, 0xbf,
        96, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        // name of 1 byte, rank 2, f16 tables, 2 bits, 3 levels, 1 row per codebook, shape [2, 6]
        1, 0, 2, 4, 2, 0, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0,
        6, 0, 0, 0, b'w', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // levels -2, 0.5, 1 and 0.5, 1, 1
        0x00, 0xc0, 0x00, 0x38, 0x00, 0x3c, 0x00, 0x38, 0x00, 0x3c, 0x00, 0x3c, 0, 0, 0, 0,
        // codes 2 0 1 2 2 0 and 0 0 1 1 1 1
        0b10_01_00_10, 0b00_10, 0b01_01_00_00, 0b01_01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(writer.finish(), golden);
    let model = Model::parse(&golden).unwrap();
    let mut row = [0.0; 6];
    model.tensor("w").unwrap().decode_row(1, &mut row).unwrap();
    assert_eq!(row, weights[6..]);
}

#[test]
fn reads_back_every_kind_of_record() {
    let file = small_file();
    let model = Model::parse(&file).unwrap();
    assert_eq!(model.net(), Some(&example()));
    let names: Vec<&str> = model.tensors().map(|t| t.name()).collect();
    assert_eq!(names, ["steps", "bias", "empty", "ot", "uniform", "w2"]);
    assert_eq!(read_everything(&model), Ok(file.len()));
    let steps: Vec<i64> = model.tensor("steps").unwrap().integers().unwrap().collect();
    assert_eq!(steps, [-3]);
    let mut bias = [0.0; 2];
    model.tensor("bias").unwrap().decode_row(0, &mut bias).unwrap();
    assert!(bias[0] == 1.0 && bias[1].is_nan());
    let offset = |bytes: &[u8]| bytes.as_ptr().addr() - file.as_ptr().addr();
    assert!(model.tensors().all(|t| t.numel() == 0 || offset(t.element_bytes()) % ALIGN == 0));
}

#[test]
fn every_flipped_bit_is_an_error() {
    let mut file = small_file();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(Model::parse(&file).is_err(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
}

#[test]
fn every_other_length_is_an_error() {
    let mut file = small_file();
    for len in 0..file.len() {
        assert!(Model::parse(&file[..len]).is_err(), "length {len}");
        // Even with length and checksum made right.
        let mut short = file[..len].to_vec();
        if len >= 32 {
            fix_up(&mut short);
            assert!(Model::parse(&short).is_err(), "length {len}");
        }
    }
    file.extend([0; ALIGN]);
    assert_eq!(Model::parse(&file), Err(Error::Trailing { bytes: 16 }));
    fix_up(&mut file);
    assert_eq!(Model::parse(&file), Err(Error::Trailing { bytes: 16 }));
}

#[test]
fn writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new(None).unwrap();
    let one = Dense::F32(&[1.0]);
    assert!(writer.dense("", &[1], one).is_err());
    assert!(writer.dense(&"n".repeat(513), &[1], one).is_err());
    assert!(writer.dense("a", &[1; 7], one).is_err());
    assert!(writer.dense("a", &[2], one).is_err());
    writer.dense("a", &[1], one).unwrap();
    assert_eq!(writer.dense("a", &[1], one), Err(Error::DuplicateName { tensor: 1 }));
    for i in 1..MAX_TENSORS {
        writer.dense(&std::format!("{i}"), &[1], one).unwrap();
    }
    assert!(matches!(writer.dense("b", &[1], one), Err(Error::Range { .. })));
    let file = writer.finish();
    assert_eq!(Model::parse(&file).unwrap().tensors().len(), 4096);
}

#[test]
fn reader_refuses_names_that_repeat_or_are_no_text() {
    let mut writer = Writer::new(None).unwrap();
    writer.dense("a", &[], Dense::F32(&[1.0])).unwrap();
    writer.dense("b", &[], Dense::F32(&[1.0])).unwrap();
    let mut file = writer.finish();
    let at = file.iter().rposition(|&byte| byte == b'b').unwrap();
    for (byte, error) in
        [(b'a', Error::DuplicateName { tensor: 1 }), (0xff, Error::NotUtf8 { tensor: 1 })]
    {
        file[at] = byte;
        fix_up(&mut file);
        assert_eq!(Model::parse(&file), Err(error));
    }
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
        Just(Granularity::Tensor)
    ];
    let levels = prop_oneof![Just(Levels::F32), Just(Levels::F16)];
    let scheme = prop::sample::select(&Scheme::ALL[..]);
    (shape, scheme, 1_u8..=8, granularity, levels).prop_flat_map(
        |(shape, scheme, bits, granularity, levels)| {
            let n = shape.iter().product::<usize>();
            prop::collection::vec(-3.0_f32..3.0, n).prop_map(move |weights| {
                let options = Options { scheme, bits, granularity, levels };
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
        with_net in any::<bool>(),
    ) {
        let net = with_net.then(example);
        let mut writer = Writer::new(net.as_ref()).unwrap();
        let name = |i: usize| std::format!("tensor.{i}");
        for (i, (weights, tensor)) in tensors.iter().enumerate() {
            writer.quantized(&name(i), tensor).unwrap();
            writer.dense(&(name(i) + ".raw"), tensor.shape(), Dense::F32(weights)).unwrap();
        }
        let file = writer.finish();
        let model = Model::parse(&file).unwrap();
        prop_assert_eq!(model.net(), net.as_ref());
        prop_assert_eq!(read_everything(&model), Ok(file.len()));
        for (i, (weights, tensor)) in tensors.iter().enumerate() {
            for (name, expected) in [(name(i), tensor.dequantized()), (name(i) + ".raw", weights.clone())] {
                let read = model.tensor(&name).unwrap();
                prop_assert_eq!(read.shape(), tensor.shape());
                let mut values = vec![0.0; read.numel()];
                for row in 0..read.rows() {
                    let at = row * read.row_len();
                    read.decode_row(row, &mut values[at..at + read.row_len()]).unwrap();
                }
                let as_bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(as_bits(&values), as_bits(&expected));
            }
            let read = model.tensor(&name(i)).unwrap();
            prop_assert_eq!(read.data_bytes(), tensor.data_bytes());
        }
    }

    /// The parser meets contradictions that no checksum hides, and what it accepts can be read.
    #[test]
    fn damage_behind_a_right_checksum_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut file = small_file();
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
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), net in any::<bool>()) {
        prop_assert!(Model::parse(&bytes).is_err());
        if bytes.len() >= 32 {
            bytes[..12].copy_from_slice(b"fmq\x1a\0\0\0\0\0\0\0\0");
            bytes[8] = u8::from(net);
            bytes[24..32].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
            fix_up(&mut bytes);
            prop_assert!(Model::parse(&bytes).is_err());
        }
    }
}

/// Each single byte of a small file set to each value, with the checksum made right.
#[test]
fn every_byte_of_every_value_is_read_without_panic() {
    let file = small_file();
    for at in 0..file.len() {
        for byte in [0, 1, 2, 5, 6, 7, 8, 9, 15, 16, 63, 64, 127, 128, 254, 255] {
            let mut damaged = file.clone();
            damaged[at] = byte;
            fix_up(&mut damaged);
            if let Ok(model) = Model::parse(&damaged) {
                assert_eq!(read_everything(&model), Ok(file.len()), "byte {at} = {byte}");
            }
        }
    }
    let name: String = "ot".into();
    assert!(Model::parse(&file).unwrap().tensor(&name).is_some());
}
