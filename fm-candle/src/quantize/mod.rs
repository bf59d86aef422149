//! A state dict into its quantized form, tensor by tensor: packed bytes, values, and the error
//! made. No more than one tensor is held at a time.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use half::f16;
use quant_core::format::{Dense, Head, Sink, Writer};
use quant_core::net::UNetConfig;
use quant_core::quantize::{
    Distortion, Options, ParallelMap, QuantizedTensor, Weights, quantize_on,
};
use rayon::prelude::*;

use crate::checkpoint::{Elements, Source, TensorInfo};
use crate::error::{Error, Result};

mod abs_histogram;
mod calibrate;
mod device;

mod recommended;
mod report;
mod sink;
mod torch;

pub use calibrate::{Calibration, calibrate};
pub use device::PackedNet;
pub use recommended::is_sensitive;
pub use report::{Report, TensorReport};
pub use sink::{Discard, quantize_to_file};
pub use torch::quantize_to_torch;

/// What a packed file holds of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TensorPolicy {
    /// Fitted and coded.
    Quantize(Options),
    /// Rounded to f16.
    F16,
    /// Kept as f32, infinities and NaN included; f64 is rounded.
    F32,
}

/// Named tensors that can be read one by one.
pub trait StateDict {
    /// What is known of each tensor, in order.
    fn tensors(&self) -> Vec<TensorInfo>;

    /// The elements of the tensor at an index below their number.
    ///
    /// # Errors
    /// Those of reading it.
    fn elements(&self, index: usize) -> Result<Elements<'_>>;
}

impl StateDict for Source {
    fn tensors(&self) -> Vec<TensorInfo> {
        Self::tensors(self).to_vec()
    }

    fn elements(&self, index: usize) -> Result<Elements<'_>> {
        self.elements(index)
    }
}

impl StateDict for [(String, Tensor)] {
    fn tensors(&self) -> Vec<TensorInfo> {
        let info = |(name, tensor): &(String, Tensor)| TensorInfo {
            name: name.clone(),
            dtype: tensor.dtype(),
            shape: tensor.dims().to_vec(),
        };
        self.iter().map(info).collect()
    }

    fn elements(&self, index: usize) -> Result<Elements<'_>> {
        Elements::of(&self[index].1)
    }
}

/// A tensor as the packed file holds it.
#[derive(Debug)]
pub enum PackedTensor {
    /// Fitted, in its stored form.
    Quantized(QuantizedTensor),
    /// Kept.
    F32(Vec<f32>),
    /// Rounded.
    F16(Vec<f16>),
    /// Integers, kept.
    I64(Vec<i64>),
}

impl PackedTensor {
    /// The values as the packed file decodes to them, f32 (integers: i64).
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        let values = match self {
            Self::Quantized(tensor) => tensor.dequantized(),
            Self::F32(values) => values.clone(),
            Self::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::I64(values) => return Ok(Tensor::from_slice(values, shape, &Device::Cpu)?),
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// A packed file but for its head, whose place the sink has filled with as many zeros. The head's
/// memory plan and golden pair are not known yet: they are of their length, and empty.
pub struct Packed<S> {
    /// What took the bytes.
    pub sink: S,
    /// The head.
    pub head: Vec<u8>,
    /// Sizes and errors.
    pub report: Report,
}

/// Quantizes a state dict into `sink`, tensor by tensor in the order of `indices`; `policy` decides
/// what is done with each floating one from its name and shape, `done` sees the result. Integer
/// tensors are kept. f16, bf16 and f64 weights are taken as f32. Channels are spread over rayon's
/// threads; the result does not depend on their number.
///
/// # Errors
/// Weights that are not finite, by tensor and index; values beyond f16 where that is asked for;
/// tensors that are not `net`'s parameters; those of reading, of the sink and of `done`.
pub fn quantize<S>(
    dict: &(impl StateDict + ?Sized),
    indices: &[usize],
    net: Option<PackedNet<'_>>,
    sink: S,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    mut done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<Packed<S>>
where
    S: Sink,
    Error: From<S::Error>,
{
    let tensors = dict.tensors();
    let names = indices.iter().map(|&index| tensors[index].name.as_str()).collect();
    let sections = net.map(PackedNet::sections).transpose()?.unwrap_or_default();
    let sections = sections.iter().map(|(kind, contents)| (*kind, &contents[..])).collect();
    let net = net.map(|net| net.config);
    let mut writer = Writer::new(sink, &Head { net, names, sections })?;
    let mut reports = Vec::with_capacity(indices.len());
    for &index in indices {
        let info = &tensors[index];
        let named = |error| match error {
            Error::Quant(error) => Error::tensor(&info.name, error.to_string()),
            other => other,
        };
        let policy = info.dtype.is_float().then(|| policy(&info.name, &info.shape));
        let (packed, report) = pack(&dict.elements(index)?, info, policy).map_err(named)?;
        let written = match &packed {
            PackedTensor::Quantized(tensor) => writer.quantized(tensor),
            PackedTensor::F32(values) => writer.dense(&info.shape, Dense::F32(values)),
            PackedTensor::F16(values) => writer.dense(&info.shape, Dense::F16(values)),
            PackedTensor::I64(values) => writer.dense(&info.shape, Dense::I64(values)),
        };
        written.map_err(Error::from).map_err(named)?;
        done(info, &packed)?;
        reports.push(report);
    }
    let written = writer.finish()?;
    let report = Report::new(reports, &written.record_bytes, written.file_bytes);
    Ok(Packed { sink: written.sink, head: written.head, report })
}

/// Quantizes a state dict in memory: the packed file, and sizes and errors.
///
/// # Errors
/// Those of [`quantize`].
pub fn quantize_in_memory(
    tensors: &[(String, Tensor)],
    net: Option<&UNetConfig>,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
) -> Result<(Vec<u8>, Report)> {
    let all: Vec<usize> = (0..tensors.len()).collect();
    let packed = quantize(tensors, &all, net.map(Into::into), Vec::new(), policy, |_, _| Ok(()))?;
    let Packed { mut sink, mut head, report } = packed;
    sink[..head.len()].copy_from_slice(&head);
    device::fill(&sink, &mut head)?;
    sink[..head.len()].copy_from_slice(&head);
    Ok((sink, report))
}

/// Packs one tensor; without a policy its integers are kept.
fn pack(
    elements: &Elements<'_>,
    info: &TensorInfo,
    policy: Option<TensorPolicy>,
) -> Result<(PackedTensor, report::Entry)> {
    let entry = |scheme, bits, coded, kept| {
        let (name, shape) = (info.name.clone(), info.shape.clone());
        report::Entry { name, shape, scheme, bits, coded, kept }
    };
    let Some(policy) = policy else {
        let integers = elements.i64s().unwrap_or_default();
        return Ok((PackedTensor::I64(integers), entry("i64", 64, None, None)));
    };
    if let TensorPolicy::Quantize(options) = policy {
        let tensor = quantize_on(&Threads, elements, &info.shape, &options)
            .map_err(|error| not_finite(error, elements, info))?;
        let distortion = *tensor.distortion();
        let entry = entry(options.scheme.name(), options.bits.get(), Some(distortion), None);
        return Ok((PackedTensor::Quantized(tensor), entry));
    }
    let mut weights = vec![0.0; elements.len()];
    elements.fill_f32(0..elements.len(), &mut weights);
    if policy == TensorPolicy::F32 {
        return Ok((PackedTensor::F32(weights), entry("f32", 32, None, None)));
    }
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        let error = quant_core::Error::NonFinite { what: "weight", index };
        return Err(not_finite(error, elements, info));
    }
    let values: Vec<f16> = weights.iter().map(|&w| f16::from_f32(w)).collect();
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        let reason =
            format!("weight {index} is {}, beyond f16; keep it at 32 bits", weights[index]);
        return Err(Error::tensor(&info.name, reason));
    }
    let mut distortion = Distortion { count: weights.len(), ..Distortion::default() };
    for (&w, value) in weights.iter().zip(&values) {
        let error = f64::from(w) - f64::from(value.to_f32());
        distortion.signal += f64::from(w) * f64::from(w);
        distortion.noise += error * error;
    }
    Ok((PackedTensor::F16(values), entry("f16", 16, None, Some(distortion))))
}

/// Says which weight is not finite, and its value.
fn not_finite(error: quant_core::Error, elements: &Elements<'_>, info: &TensorInfo) -> Error {
    match error {
        quant_core::Error::NonFinite { index, .. } => {
            let value = elements.f64_at(index);
            let reason =
                format!("weight {index} is {value:e}; all must be finite and fit into f32");
            Error::tensor(&info.name, reason)
        }
        other => other.into(),
    }
}

impl Weights for Elements<'_> {
    fn count(&self) -> usize {
        self.len()
    }

    fn range(&self, range: core::ops::Range<usize>) -> Cow<'_, [f32]> {
        let mut weights = vec![0.0; range.len()];
        self.fill_f32(range, &mut weights);
        weights.into()
    }
}

/// rayon's threads.
struct Threads;

impl ParallelMap for Threads {
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        (0..count).into_par_iter().map(&work).collect()
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::format::Model;
    use quant_core::scheme::Scheme;

    use super::*;

    fn state_dict() -> Vec<(String, Tensor)> {
        let ramp: Vec<f32> = (0..72).map(|i| (i as f32 * 0.7).sin()).collect();
        let weight = Tensor::from_vec(ramp, (4, 2, 3, 3), &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.5f32, -0.25, 0.125, 3.0], &Device::Cpu).unwrap();
        let steps = Tensor::new(&[7i64], &Device::Cpu).unwrap();
        vec![("a.weight".into(), weight), ("a.bias".into(), bias), ("steps".into(), steps)]
    }

    fn options(bits: u8) -> TensorPolicy {
        TensorPolicy::Quantize(Options::new(Scheme::LloydMax, Bits::new(bits).unwrap()))
    }

    #[test]
    fn the_packed_file_holds_the_values_that_are_reported() {
        let dict = state_dict();
        let mut seen = Vec::new();
        let packed = quantize(
            &dict[..],
            &[1, 0, 2],
            None,
            Vec::new(),
            |name, _| if name == "a.bias" { TensorPolicy::F16 } else { options(2) },
            |info, packed| {
                seen.push((info.name.clone(), packed.tensor(&info.shape)?));
                Ok(())
            },
        )
        .unwrap();
        let Packed { mut sink, head, report } = packed;
        sink[..head.len()].copy_from_slice(&head);
        let model = Model::parse(&sink).unwrap();
        for ((name, tensor), stored) in seen.iter().zip(model.tensors()) {
            assert_eq!(stored.name(), name);
            if name == "steps" {
                assert_eq!(stored.integers().unwrap().collect::<Vec<_>>(), [7]);
                continue;
            }
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (row, expected) in values.chunks(stored.row_len()).enumerate() {
                let mut read = vec![0.0; expected.len()];
                stored.decode_row(row, &mut read).unwrap();
                assert_eq!(read, expected);
            }
        }
        assert_eq!((report.parameters, report.quantized_parameters), (76, 72));
        assert!(report.sqnr_db.unwrap() > 6.0 && report.tensors[2].scheme == "i64");
        assert!(report.entropy_bits.unwrap() <= 2.0 && report.tensors[0].entropy_bits.is_none());
    }

    #[test]
    fn sizes_are_those_of_the_file() {
        let (file, report) = quantize_in_memory(&state_dict(), None, |_, _| options(3)).unwrap();
        let model = Model::parse(&file).unwrap();
        let mut sum = model.header_bytes();
        for (row, stored) in report.tensors.iter().zip(model.tensors()) {
            let bits = 8.0 * stored.record_bytes() as f64 / stored.numel() as f64;
            assert!((row.bits_per_weight - bits).abs() < 1e-12, "{}", row.name);
            sum += stored.record_bytes();
        }
        assert_eq!((sum, report.packed_bytes), (file.len(), file.len() as u64));
    }

    #[test]
    fn more_bits_mean_less_error() {
        let sqnr = |bits| {
            let (_, report) =
                quantize_in_memory(&state_dict(), None, |_, _| options(bits)).unwrap();
            report.sqnr_db.unwrap()
        };
        assert!(sqnr(2) < sqnr(3) && sqnr(3) < sqnr(4));
    }

    #[test]
    fn a_nan_is_refused_by_tensor_and_index() {
        let mut tensors = state_dict();
        tensors[1].1 = Tensor::new(&[0.0, f32::NAN], &Device::Cpu).unwrap();
        for policy in [options(4), TensorPolicy::F16] {
            let error = quantize_in_memory(&tensors, None, |_, _| policy).err().unwrap();
            let error = error.to_string();
            assert!(error.contains("a.bias") && error.contains("weight 1 is NaN"), "{error}");
        }
        // What is not quantized is copied.
        let (file, _) = quantize_in_memory(&tensors, None, |_, _| TensorPolicy::F32).unwrap();
        let mut row = [0.0];
        let model = Model::parse(&file).unwrap();
        model.tensors().nth(1).unwrap().decode_row(1, &mut row).unwrap();
        assert!(row[0].is_nan());
    }
}
