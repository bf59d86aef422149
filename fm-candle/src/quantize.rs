//! A state dict into its quantized form: packed bytes, dequantized tensors, and the error made.

use candle_core::{DType, Device, Tensor};
use half::f16;
use quant_core::format::{Dense, Model, Writer};
use quant_core::net::NetConfig;
use quant_core::quantize::{Options, QuantizedTensor, quantize_tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};

/// What is done with one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// Fitted and coded.
    Quantize(Options),
    /// Rounded to f16.
    F16,
    /// Kept as f32.
    F32,
}

/// A state dict after quantization.
pub struct Quantized {
    tensors: Vec<Entry>,
    packed: Vec<u8>,
    report: Report,
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    form: Form,
    /// How the report calls what was done.
    scheme: &'static str,
    bits: u8,
    error: ErrorSums,
}

enum Form {
    Coded(QuantizedTensor),
    F32(Vec<f32>),
    F16(Vec<f16>),
    I64(Vec<i64>),
}

/// Sums over the quantized weights.
#[derive(Clone, Copy, Default)]
struct ErrorSums {
    count: u64,
    signal: f64,
    noise: f64,
}

/// Size and error of one tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Name in the state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The scheme, or `f16`, `f32`, `i64` where it was kept.
    pub scheme: String,
    /// Nominal bits per weight.
    pub bits: u8,
    /// Mean squared error; 0 where it was kept as it is.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - q)^2)`; none for an exact copy.
    pub sqnr_db: Option<f64>,
    /// Bits per weight of all that the file holds of this tensor, its codebooks and name included.
    pub bits_per_weight: f64,
}

/// Size and error of the whole; errors are over all quantized weights.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Weights in all floating tensors.
    pub parameters: u64,
    /// Weights that were quantized.
    pub quantized_parameters: u64,
    /// Mean squared error.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - q)^2)`; none for an exact copy.
    pub sqnr_db: Option<f64>,
    /// `-10 log10 mse`; none for an exact copy.
    pub psnr_db: Option<f64>,
    /// 2-Wasserstein distance between weights and levels under the coding, `sqrt(mse)`.
    pub w2: f64,
    /// Eight times the packed file's bytes over the parameters: everything included.
    pub bits_per_weight: f64,
    /// Bytes of the packed file.
    pub packed_bytes: u64,
    /// Four bytes per parameter.
    pub dense_bytes: u64,
    /// `dense_bytes / packed_bytes`.
    pub ratio: f64,
    /// Each tensor, in the order of the state dict.
    pub tensors: Vec<TensorReport>,
}

impl ErrorSums {
    fn of(weights: &[f32], values: &[f32]) -> Self {
        let mut sums = Self { count: weights.len() as u64, ..Self::default() };
        for (&w, &q) in weights.iter().zip(values) {
            let (w, q) = (f64::from(w), f64::from(q));
            sums.signal += w * w;
            sums.noise += (w - q) * (w - q);
        }
        sums
    }

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            signal: self.signal + other.signal,
            noise: self.noise + other.noise,
        }
    }

    fn mse(self) -> f64 {
        self.noise / self.count.max(1) as f64
    }

    fn sqnr_db(self) -> Option<f64> {
        (self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// Quantizes a state dict, tensor by tensor; `treat` decides what is done with each floating
/// one from its name and shape. Integer tensors are kept. f16, bf16 and f64 weights are taken as f32.
///
/// # Errors
/// Weights that are not finite, by tensor and index; values beyond f16 where that is asked for.
pub fn quantize(
    tensors: &[(String, Tensor)],
    net: Option<&NetConfig>,
    treat: impl Fn(&str, &[usize]) -> Treatment + Sync,
) -> Result<Quantized> {
    let entries = tensors
        .par_iter()
        .map(|(name, tensor)| entry(name, tensor, &treat))
        .collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::new(net)?;
    for Entry { name, shape, form, .. } in &entries {
        match form {
            Form::Coded(tensor) => writer.quantized(name, tensor),
            Form::F32(values) => writer.dense(name, shape, Dense::F32(values)),
            Form::F16(values) => writer.dense(name, shape, Dense::F16(values)),
            Form::I64(values) => writer.dense(name, shape, Dense::I64(values)),
        }
        .map_err(|e| Error::tensor(name, e.to_string()))?;
    }
    let packed = writer.finish();
    let report = report(&entries, &packed)?;
    Ok(Quantized { tensors: entries, packed, report })
}

fn entry(
    name: &str,
    tensor: &Tensor,
    treat: &(impl Fn(&str, &[usize]) -> Treatment + Sync),
) -> Result<Entry> {
    let kept = |form, scheme, bits, error| Entry {
        name: name.to_string(),
        shape: tensor.dims().to_vec(),
        form,
        scheme,
        bits,
        error,
    };
    if !tensor.dtype().is_float() {
        let values = tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
        return Ok(kept(Form::I64(values), "i64", 64, ErrorSums::default()));
    }
    let weights = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        let value = tensor.to_dtype(DType::F64)?.flatten_all()?.get(index)?.to_scalar::<f64>()?;
        let reason = format!("weight {index} is {value:e}; all must be finite and fit into f32");
        return Err(Error::tensor(name, reason));
    }
    Ok(match treat(name, tensor.dims()) {
        Treatment::F32 => kept(Form::F32(weights), "f32", 32, ErrorSums::default()),
        Treatment::F16 => {
            let values: Vec<f16> = weights.iter().map(|&w| f16::from_f32(w)).collect();
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                let value = weights[index];
                let reason = format!("weight {index} is {value}, beyond f16; keep it at 32 bits");
                return Err(Error::tensor(name, reason));
            }
            let rounded: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
            let error = ErrorSums::of(&weights, &rounded);
            kept(Form::F16(values), "f16", 16, error)
        }
        Treatment::Quantize(options) => {
            let coded = quantize_tensor(&weights, tensor.dims(), &options)
                .map_err(|e| Error::tensor(name, e.to_string()))?;
            let error = ErrorSums::of(&weights, &coded.dequantized());
            kept(Form::Coded(coded), options.scheme.name(), options.bits, error)
        }
    })
}

fn report(entries: &[Entry], packed: &[u8]) -> Result<Report> {
    let model = Model::parse(packed)?;
    let tensors = entries.iter().zip(model.tensors()).map(|(entry, stored)| TensorReport {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        scheme: entry.scheme.to_string(),
        bits: entry.bits,
        mse: entry.error.mse(),
        sqnr_db: entry.error.sqnr_db(),
        bits_per_weight: 8.0 * stored.record_bytes() as f64 / stored.numel().max(1) as f64,
    });
    let tensors = tensors.collect();
    let coded = entries.iter().filter(|entry| matches!(entry.form, Form::Coded(_)));
    let sums = coded.fold(ErrorSums::default(), |sums, entry| sums.add(entry.error));
    let floating = entries.iter().filter(|entry| !matches!(entry.form, Form::I64(_)));
    let parameters =
        floating.map(|entry| entry.shape.iter().product::<usize>() as u64).sum::<u64>();
    let (packed_bytes, dense_bytes) = (packed.len() as u64, 4 * parameters);
    Ok(Report {
        parameters,
        quantized_parameters: sums.count,
        mse: sums.mse(),
        sqnr_db: sums.sqnr_db(),
        psnr_db: (sums.noise > 0.0).then(|| -10.0 * sums.mse().log10()),
        w2: sums.mse().sqrt(),
        bits_per_weight: 8.0 * packed_bytes as f64 / parameters.max(1) as f64,
        packed_bytes,
        dense_bytes,
        ratio: dense_bytes as f64 / packed_bytes as f64,
        tensors,
    })
}

impl Quantized {
    /// The packed file.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Sizes and errors.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The tensors that the packed file decodes to, f32 (integers: i64), in order.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn dequantized(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |entry: &Entry| -> Result<Tensor> {
            let shape = entry.shape.as_slice();
            let values = match &entry.form {
                Form::Coded(coded) => coded.dequantized(),
                Form::F32(values) => values.clone(),
                Form::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
                Form::I64(values) => return Ok(Tensor::from_slice(values, shape, &Device::Cpu)?),
            };
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        };
        self.tensors.iter().map(|entry| Ok((entry.name.clone(), tensor(entry)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use quant_core::scheme::Scheme;

    use super::*;

    fn state_dict() -> Vec<(String, Tensor)> {
        let ramp: Vec<f32> = (0..72).map(|i| (i as f32 * 0.7).sin()).collect();
        let weight = Tensor::from_vec(ramp, (4, 2, 3, 3), &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.5f32, -0.25, 0.125, 3.0], &Device::Cpu).unwrap();
        let steps = Tensor::new(&[7i64], &Device::Cpu).unwrap();
        vec![("a.weight".into(), weight), ("a.bias".into(), bias), ("steps".into(), steps)]
    }

    fn options(bits: u8) -> Treatment {
        Treatment::Quantize(Options::new(Scheme::LloydMax, bits))
    }

    #[test]
    fn the_packed_file_holds_what_dequantized_gives() {
        let quantized = quantize(&state_dict(), None, |name, _| {
            if name == "a.bias" { Treatment::F16 } else { options(2) }
        })
        .unwrap();
        let model = Model::parse(quantized.packed()).unwrap();
        for ((name, tensor), stored) in quantized.dequantized().unwrap().iter().zip(model.tensors())
        {
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
        let report = quantized.report();
        assert_eq!((report.parameters, report.quantized_parameters), (76, 72));
        assert_eq!(report.packed_bytes, quantized.packed().len() as u64);
        assert!(report.sqnr_db.unwrap() > 6.0 && report.tensors[2].scheme == "i64");
    }

    #[test]
    fn more_bits_mean_less_error() {
        let sqnr = |bits| {
            quantize(&state_dict(), None, |_, _| options(bits)).unwrap().report().sqnr_db.unwrap()
        };
        assert!(sqnr(2) < sqnr(3) && sqnr(3) < sqnr(4));
    }

    #[test]
    fn a_nan_is_refused_by_tensor_and_index() {
        let mut tensors = state_dict();
        tensors[1].1 = Tensor::new(&[0.0, f32::NAN], &Device::Cpu).unwrap();
        let error = quantize(&tensors, None, |_, _| options(4)).err().unwrap().to_string();
        assert!(error.contains("a.bias") && error.contains("weight 1 is NaN"), "{error}");
    }
}
