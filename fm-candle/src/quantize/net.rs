//! A quantized net: all its parameters as a packed file holds them.

use std::path::Path;

use candle_core::{DType, Tensor};
use half::f16;
use quant_core::format::{Encoding, Model, Sink};
use quant_core::net::UNetConfig;
use quant_core::quantize::{Distortion, QuantizedTensor};

use super::device::{PackedNet, SelfTestForm};
use super::report::Report;
use super::sink::{Discard, to_file};
use super::stream::{PackedModel, write};
use super::tensor::{PackedTensor, TensorPolicy, pack_tensor};
use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};

/// A net with all its parameters as a packed file holds them.
#[derive(Debug)]
pub struct QuantizedNet {
    config: UNetConfig,
    scheme: &'static str,
    infos: Vec<TensorInfo>,
    /// Each with the error of what is kept as floats.
    tensors: Vec<(PackedTensor, Option<Distortion>)>,
    /// For each tensor the weights that were rounded to its codes, where those are not the originals.
    targets: Vec<Option<Vec<f32>>>,
}

impl QuantizedNet {
    /// The net of `originals`, which are its parameters in order, quantized to `packed`, by rounding
    /// `targets` where they are not the originals; the report calls the codes after `scheme`.
    pub(crate) fn new(
        config: &UNetConfig,
        originals: &[(String, Tensor)],
        packed: Vec<PackedTensor>,
        targets: Vec<Option<Vec<f32>>>,
        scheme: &'static str,
    ) -> Result<Self> {
        let infos = originals.iter().map(|(name, tensor)| TensorInfo {
            name: name.clone(),
            dtype: DType::F32,
            shape: tensor.dims().to_vec(),
        });
        let infos: Vec<TensorInfo> = infos.collect();
        let kept = |(packed, (_, original)): (PackedTensor, &(String, Tensor))| -> Result<_> {
            let values: Vec<f32> = match &packed {
                PackedTensor::F32(values) => values.clone(),
                PackedTensor::F16(values) => values.iter().copied().map(f16::to_f32).collect(),
                _ => return Ok((packed, None)),
            };
            let original = original.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            Ok((packed, Some(error(&original, &values))))
        };
        let tensors = packed.into_iter().zip(originals).map(kept).collect::<Result<_>>()?;
        Ok(Self { config: config.clone(), scheme, infos, tensors, targets })
    }

    /// Quantizes `tensors`, which are the net's parameters in order, each by its `policy`.
    ///
    /// # Errors
    /// Values that are not finite, or beyond f16 where that is asked for.
    pub fn nearest(
        config: &UNetConfig,
        tensors: &[(String, Tensor)],
        scheme: &'static str,
        policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    ) -> Result<Self> {
        let pack = |(name, tensor): &(String, Tensor)| {
            pack_tensor(&tensor.to_dtype(DType::F32)?, name, policy(name, tensor.dims()))
        };
        let packed = tensors.iter().map(pack).collect::<Result<_>>()?;
        Self::new(config, tensors, packed, vec![None; tensors.len()], scheme)
    }

    /// The net of a packed file; `originals` are its parameters in full precision, in order.
    ///
    /// # Errors
    /// A damaged file, or one whose tensors are not quantized from these.
    pub fn of_packed(
        file: &[u8],
        originals: &[(String, Tensor)],
        scheme: &'static str,
    ) -> Result<Self> {
        let model = Model::parse(file)?;
        let missing = || Error::Config("the packed file does not say which net it holds".into());
        let config = model.net().ok_or_else(missing)?;
        let count = model.tensors().count();
        if count != originals.len() {
            let expected = originals.len();
            let reason = format!("the packed file holds {count} tensors, not {expected}");
            return Err(Error::Config(reason));
        }
        let tensors = model.tensors().zip(originals).map(|(stored, (name, original))| {
            if stored.shape() != original.dims() {
                let (found, expected) = (stored.shape(), original.dims());
                let reason = format!("has shape {found:?} in the packed file, not {expected:?}");
                return Err(Error::tensor(name, reason));
            }
            if let Some(matrix) = stored.quantized() {
                let original = original.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                let tensor = QuantizedTensor::of_matrix(stored.shape(), matrix, &original)?;
                return Ok(PackedTensor::Quantized(tensor));
            }
            if let Some(integers) = stored.integers() {
                return Ok(PackedTensor::I64(integers.collect()));
            }
            let mut values = vec![0f32; stored.numel()];
            for (row, values) in values.chunks_mut(stored.row_len().max(1)).enumerate() {
                stored.decode_row(row, values)?;
            }
            Ok(if stored.encoding() == Encoding::F16 {
                PackedTensor::F16(values.into_iter().map(f16::from_f32).collect())
            } else {
                PackedTensor::F32(values)
            })
        });
        let none = vec![None; count];
        Self::new(config, originals, tensors.collect::<Result<_>>()?, none, scheme)
    }

    /// Writes the net to the packed file at `path`, whole or not at all; with a self-test where asked for.
    ///
    /// # Errors
    /// Those of [`quantize_to_file`](super::quantize_to_file).
    pub fn write(&self, path: &Path, self_test: Option<SelfTestForm>) -> Result<Report> {
        to_file(path, true, |sink| self.pack(PackedNet { config: &self.config, self_test }, sink))
    }

    /// Sizes and errors of the packed file that [`write`](Self::write) makes.
    ///
    /// # Errors
    /// Tensors that are not the net's parameters.
    pub fn report(&self) -> Result<Report> {
        Ok(self.pack((&self.config).into(), Discard)?.report)
    }

    fn pack<S>(&self, net: PackedNet<'_>, sink: S) -> Result<PackedModel<S>>
    where
        S: Sink,
        Error: From<S::Error>,
    {
        let infos: Vec<&TensorInfo> = self.infos.iter().collect();
        let pack = |place: usize, info: &TensorInfo| {
            let (packed, kept) = &self.tensors[place];
            Ok((packed, packed.report(info, self.scheme, *kept)))
        };
        write(&infos, Some(net), sink, pack, |_, _| Ok(()))
    }

    /// The weights as the packed file decodes to them, in state-dict order.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn weights(&self) -> Result<Vec<(String, Tensor)>> {
        let tensors = self.infos.iter().zip(&self.tensors);
        tensors
            .map(|(info, (packed, _))| Ok((info.name.clone(), packed.tensor(&info.shape)?)))
            .collect()
    }

    /// The configuration of the net.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Name of the scheme of its codes.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The parameters as they are packed, in order, each with the weights that were rounded to its codes
    /// where those are not the originals.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&PackedTensor, Option<&[f32]>)> {
        let tensors = self.tensors.iter().zip(&self.targets);
        tensors.map(|((packed, _), targets)| (packed, targets.as_deref()))
    }
}

/// The error of values that are kept as floats.
fn error(originals: &[f32], values: &[f32]) -> Distortion {
    let mut sum = Distortion { count: values.len(), ..Distortion::default() };
    for (original, value) in originals.iter().zip(values) {
        let error = f64::from(*original) - f64::from(*value);
        sum.signal += f64::from(*original).powi(2);
        sum.noise += error * error;
    }
    sum
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use quant_core::bits::Bits;
    use quant_core::quantize::QuantizeOptions;
    use quant_core::scheme::Scheme;

    use super::super::quantize_in_memory;
    use super::*;
    use crate::model::config::tiny;
    use crate::model::{RandomInit, UNet};

    #[test]
    fn a_packed_file_is_read_as_it_was_written() {
        let config = tiny();
        let mut weights = RandomInit::new(1, &Device::Cpu);
        UNet::new(&config, &mut weights).unwrap();
        let tensors: Vec<(String, Tensor)> = weights
            .vars
            .iter()
            .map(|(name, var)| (name.clone(), (var.as_tensor().detach() + 0.01).unwrap()))
            .collect();
        let policy = |name: &str, shape: &[usize]| match shape.len() {
            1 if name.starts_with("out") => TensorPolicy::F32,
            1 => TensorPolicy::F16,
            _ => {
                let bits = Bits::new(3).unwrap();
                TensorPolicy::Quantize(QuantizeOptions::new(Scheme::LloydMax, bits))
            }
        };
        let (file, report) = quantize_in_memory(&tensors, Some(&config), policy).unwrap();
        let net = QuantizedNet::of_packed(&file, &tensors, "lloyd-max").unwrap();
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("again.fmq");
        let again = net.write(&path, None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), file);
        let json = |report: &Report| serde_json::to_value(report).unwrap();
        assert_eq!(json(&again)["packed_bytes"], json(&report)["packed_bytes"]);
        assert!((again.mse - report.mse).abs() < 1e-12);

        let error = QuantizedNet::of_packed(&file, &tensors[1..], "x").unwrap_err().to_string();
        assert!(error.contains("tensors, not"), "{error}");
        assert!(QuantizedNet::of_packed(&file[..99], &tensors, "x").is_err());
    }
}
