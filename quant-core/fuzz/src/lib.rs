//! What the fuzz targets share.
//!
//! ```text
//! parse       any bytes
//! mutate      a valid file with edited bytes and right checksums
//! round_trip  any tensors: what is written is what is read
//! infer       any net and image size: the plan is exact, the velocity finite
//! capi        a drawable file with edited bytes, and the calls of C in any order, with any pointers
//! ```
//!
//! In `quant-core`, with a nightly compiler and `cargo install cargo-fuzz`:
//!
//! ```text
//! cargo +nightly fuzz run mutate fuzz/corpus/mutate fuzz/seeds/mutate
//! cargo +nightly fuzz run parse fuzz/corpus/parse fuzz/seeds/parse ../tests/data/format -- -max_len=32768
//! cargo +nightly fuzz run capi -- -max_total_time=1200
//! ```
//!
//! An input that crashes becomes a plain test in `quant-core/src`.

use arbitrary::Arbitrary;
use crc::{CRC_32_ISO_HDLC, Crc};
use quant_core::Error;
use quant_core::bits::Bits;
use quant_core::format::{Activations, Encoding, Head, SectionKind, Model, SelfTestInput, SelfTestVector, Writer, with_section};
use quant_core::infer::Plan;
use quant_core::net::UNetConfig;
use quant_core::quantize::{Granularity, CodebookDtype, QuantizeOptions, QuantizedTensor, quantize_tensor};
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Calls everything that a model offers; the bytes that it accounts for must be those of the file.
pub fn read_everything(model: &Model<'_>, file_bytes: usize) {
    let mut bytes = model.header_bytes();
    let finite = |vector: &SelfTestVector<'_>| vector.velocity().all(f32::is_finite);
    assert!(model.self_test_vector().is_none_or(finite));
    for (_, contents) in model.sections() {
        bytes += usize::from(contents.len() > file_bytes);
    }
    for tensor in model.tensors() {
        bytes += tensor.record_bytes();
        // Most names of a hostile file would make the search quadratic.
        if model.tensors().len() < 64 && !tensor.name().is_empty() {
            assert!(model.tensor(tensor.name()).is_some());
        }
        // An empty axis makes the other large without a byte in the file.
        let mut row = vec![0.0; tensor.row_len().min(1 << 20)];
        for i in (0..tensor.rows()).take(64) {
            match tensor.decode_row(i, &mut row) {
                Ok(()) => {}
                Err(Error::Encoding { .. }) => assert_eq!(tensor.encoding(), Encoding::I64),
                Err(error) => assert!(tensor.row_len() > row.len(), "{error}"),
            }
            if tensor.quantized().is_some() {
                assert!(row.iter().all(|value| value.is_finite()));
            }
        }
        assert!(tensor.decode_row(tensor.rows(), &mut row).is_err());
        assert_eq!(tensor.integers().map_or(tensor.numel(), |i| i.len()), tensor.numel());
    }
    assert_eq!(bytes, file_bytes);
}

/// Makes the lengths and the checksums of a damaged file right again, as far as it has a header.
pub fn fix_up(file: &mut [u8]) {
    if file.len() < 64 {
        return;
    }
    let len = file.len();
    file[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    let head_len = u32::from_le_bytes([file[24], file[25], file[26], file[27]]) as usize;
    let head_len = head_len.clamp(64, len);
    let crc = CRC.checksum(&file[head_len..]);
    file[40..44].copy_from_slice(&crc.to_le_bytes());
    let mut digest = CRC.digest();
    digest.update(&file[..36]);
    digest.update(&file[40..head_len]);
    file[36..40].copy_from_slice(&digest.finalize().to_le_bytes());
}

/// A tensor and how to quantize it.
#[derive(Arbitrary, Debug)]
pub struct Spec {
    dims: Vec<u8>,
    weights: Vec<u32>,
    scheme: u8,
    rate: u8,
    granularity: u8,
    levels: u8,
}

impl Spec {
    /// The quantized tensor; `None` for shapes and levels that are refused.
    pub fn quantize(&self) -> Option<QuantizedTensor> {
        let shape: Vec<usize> = self.dims.iter().take(4).map(|&d| usize::from(d % 12)).collect();
        let n = shape.iter().product();
        let finite = |bits: u32| Some(f32::from_bits(bits)).filter(|w| w.is_finite());
        let given = self.weights.iter().map(|&bits| finite(bits).unwrap_or(0.5));
        let weights: Vec<f32> = given.chain(std::iter::repeat(-0.25)).take(n).collect();
        let options = QuantizeOptions {
            scheme: Scheme::ALL[usize::from(self.scheme) % Scheme::ALL.len()],
            rate: Bits::ALL.get(usize::from(self.rate % 9)).map_or(Rate::THREE_LEVELS, |&bits| bits.into()),
            granularity: match self.granularity % 4 {
                0 => Granularity::Channel,
                1 => Granularity::Group(1 + u32::from(self.granularity / 4)),
                2 => Granularity::Tensor,
                _ => Granularity::Auto,
            },
            codebook_dtype: [CodebookDtype::F32, CodebookDtype::F16, CodebookDtype::I16, CodebookDtype::I8]
                [usize::from(self.levels % 4)],
            lambda: None,
        };
        match quantize_tensor(&weights, &shape, &options) {
            Ok(tensor) => {
                let finite = tensor.dequantized().iter().all(|value| value.is_finite());
                assert!(finite, "{shape:?}, {options:?}: {weights:?}");
                Some(tensor)
            }
            Err(Error::F16Overflow { .. }) => None,
            Err(error) => panic!("{error}: {shape:?}, {options:?}"),
        }
    }
}

/// A file of some tensors, with a section that no reader knows.
pub fn file_of(tensors: &[QuantizedTensor]) -> Vec<u8> {
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("tensor.{i}")).collect();
    let head = Head {
        net: None,
        names: Some(names.iter().map(String::as_str).collect()),
        sections: vec![(SectionKind(99), b"unknown")],
    };
    let mut writer = Writer::new(Vec::new(), &head).expect("names are right");
    for tensor in tensors {
        writer.quantized(tensor).expect("tensors are right");
    }
    writer.into_file().expect("all tensors are there")
}

/// A file that draws images of 4 x 4 with ten classes, by weights of 1 to 8 bits, in floats
/// or integers, and can test its device.
pub fn drawable() -> Vec<u8> {
    let net = UNetConfig {
        in_channels: 1,
        model_channels: 4,
        out_channels: 1,
        num_res_blocks: 1,
        attention_resolutions: [1].into(),
        channel_mult: [1.0, 2.0].into(),
        num_classes: Some(10),
        use_scale_shift_norm: true,
        use_new_attention_order: true,
        image_size: Some(4),
        ..UNetConfig::default()
    };
    let mut tensors = Vec::new();
    net.parameters(&mut |shape| {
        let n: usize = shape.iter().product();
        let weights: Vec<f32> = (0..n).map(|i| ((i * 7 % 19) as f32 - 9.0) / 40.0).collect();
        let options = QuantizeOptions::new(Scheme::LloydMax, Bits::ALL[tensors.len() % 8]);
        tensors.push(quantize_tensor(&weights, &shape, &options)?);
        Ok(())
    })
    .expect("the net is right");
    // Any velocity: a self-test that fails goes the same way.
    let input = SelfTestInput { seed: 1, t: 0.5, label: Some(3) };
    let vector = SelfTestVector::emit(input, 0.1, (4, 4), &[0.0; 16]);
    let vector = vector.expect("a right vector");
    let head = Head { net: Some(&net), names: None, sections: vec![(SectionKind::SELF_TEST, &vector)] };
    let mut writer = Writer::new(Vec::new(), &head).expect("the head is right");
    for tensor in &tensors {
        writer.quantized(tensor).expect("the tensors are the net's");
    }
    let file = writer.into_file().expect("all tensors are there");
    let model = Model::parse(&file).expect("written by the writer");
    let maps = Plan::new(&model).expect("a net that draws").maps();
    let scales = Activations::emit(2.0, &vec![2.0; maps]);
    with_section(&file, SectionKind::ACTIVATION_SCALES, &scales).expect("scales")
}
