//! One tensor packed as its policy says.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use half::f16;
use quant_core::bits::Bits;
use quant_core::codebook::CodebookFormat;
use quant_core::quantize::{
    Distortion, Granularity, ParallelMap, QuantizeOptions, QuantizedTensor, Storage, WeightSlices,
    quantize_on,
};
use quant_core::scheme::Scheme;
use rayon::prelude::*;

use super::named_tensors::NamedTensors;
use super::report;
use crate::checkpoint::{Elements, TensorInfo};
use crate::error::{Error, Result};

/// Policy for one tensor: its form in the packed file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TensorPolicy {
    /// Codes with codebooks, by these options.
    Quantize(QuantizeOptions),
    /// Values rounded to f16.
    F16,
    /// Kept as f32, infinities and NaN included; f64 is rounded.
    F32,
}

impl TensorPolicy {
    /// Codes of `bits` bits by the scheme `uniform`, with one codebook of 8 bytes for the whole tensor: how
    /// norms and biases are quantized.
    pub fn uniform(bits: Bits) -> Self {
        Self::Quantize(QuantizeOptions {
            granularity: Granularity::Tensor,
            ..QuantizeOptions::new(Scheme::Uniform, bits)
        })
    }
}

/// Tensor as the packed file holds it.
#[derive(Debug)]
pub enum PackedTensor {
    /// Quantized as the file stores it.
    Quantized(QuantizedTensor),
    /// Floats, kept.
    F32(Vec<f32>),
    /// Floats rounded to f16.
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

impl PackedTensor {
    /// The policy of a tensor that is tuned value by value: floats, and vectors of 8-bit uniform codes;
    /// `None` for other codes, which are tuned with their codebooks.
    pub(crate) fn value_encoding(&self) -> Option<TensorPolicy> {
        match self {
            Self::F16(_) => Some(TensorPolicy::F16),
            Self::Quantized(tensor) => {
                let Storage::Quantized { layout, .. } = tensor.storage() else { return None };
                let is_uniform = layout.codebook == CodebookFormat::Affine;
                (is_uniform && layout.bits == Bits::MAX && tensor.shape().len() < 2)
                    .then(|| TensorPolicy::uniform(layout.bits))
            }
            _ => Some(TensorPolicy::F32),
        }
    }

    /// The facts of the tensor, whose codes are called after `scheme`; `kept` is the error of floats.
    pub(super) fn report(
        &self,
        info: &TensorInfo,
        scheme: &'static str,
        kept: Option<Distortion>,
    ) -> report::PendingReport {
        let scheme = match self.value_encoding() {
            Some(TensorPolicy::Quantize(options)) => options.scheme.name(),
            _ => scheme,
        };
        let (scheme, bits, coded) = match self {
            Self::Quantized(tensor) => match tensor.storage() {
                Storage::Quantized { layout, .. } => {
                    (scheme, layout.bits.get(), Some(*tensor.distortion()))
                }
                _ => (scheme, 32, Some(*tensor.distortion())),
            },
            Self::F32(_) => ("f32", 32, None),
            Self::F16(_) => ("f16", 16, None),
            Self::I64(_) => ("i64", 64, None),
        };
        let (name, shape) = (info.name.clone(), info.shape.clone());
        report::PendingReport { name, shape, scheme, bits, coded, kept }
    }
}

/// Packs one tensor of floats.
///
/// # Errors
/// Values that are not finite, or beyond f16 where that is asked for.
pub(crate) fn pack_tensor(
    tensor: &Tensor,
    name: &str,
    policy: TensorPolicy,
) -> Result<PackedTensor> {
    let dict = [(name.to_string(), tensor.clone())];
    let info = &dict[..].tensors()[0];
    Ok(pack(&dict[..].elements(0)?, info, Some(policy))?.0)
}

/// Packs one tensor; without a policy its integers are kept.
pub(super) fn pack(
    elements: &Elements<'_>,
    info: &TensorInfo,
    policy: Option<TensorPolicy>,
) -> Result<(PackedTensor, report::PendingReport)> {
    let entry = |scheme, bits, coded, kept| {
        let (name, shape) = (info.name.clone(), info.shape.clone());
        report::PendingReport { name, shape, scheme, bits, coded, kept }
    };
    let Some(policy) = policy else {
        let integers = elements.i64s().unwrap_or_default();
        return Ok((PackedTensor::I64(integers), entry("i64", 64, None, None)));
    };
    if let TensorPolicy::Quantize(options) = policy {
        let tensor = quantize_on(&Threads, elements, &info.shape, &options)
            .map_err(|error| not_finite(error, elements, info))?;
        let distortion = *tensor.distortion();
        let entry =
            entry(options.scheme.name(), options.rate.code_bits().get(), Some(distortion), None);
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

impl WeightSlices for Elements<'_> {
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
