//! A net's parameters straight from a file: packed weights stay packed.

use core::ops::Range;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use quant_core::matrix::QuantizedMatrix;

use super::source::Source;
use crate::error::{Error, Result};
use crate::model::{BEYOND_F16, Init, Weight, WeightLoader, checked};
use crate::ops::{ConvArithmetic, QuantizedWeight, WeightSource, is_finite};

/// Constant parameters that are read as the net is built, one tensor at a time.
///
/// The weights of convolutions and linear layers of a packed file are not decoded. In f32 on the
/// CPU the layers hold on to the file's map and decode the rows that they need when they need
/// them; elsewhere the codes are copied to the device, and a layer decodes all of its own when it
/// runs.
pub struct FileWeights {
    source: Arc<Source>,
    /// Index of each tensor that was not taken yet, by name.
    left: HashMap<String, usize>,
    device: Device,
    dtype: DType,
    arithmetic: ConvArithmetic,
}

impl FileWeights {
    /// The weights of a file for a net on `device` that computes in `dtype`.
    pub fn new(source: Source, device: &Device, dtype: DType) -> Self {
        let names = source.tensors().iter().map(|info| info.name.clone());
        let left = names.zip(0..).collect();
        Self {
            source: Arc::new(source),
            left,
            device: device.clone(),
            dtype,
            arithmetic: ConvArithmetic::Float,
        }
    }

    /// The weights for a net whose layers on the CPU compute in `arithmetic`.
    #[must_use]
    pub fn with_arithmetic(self, arithmetic: ConvArithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// Checks that the net took every tensor.
    ///
    /// # Errors
    /// A tensor that the net has no place for.
    pub fn finish(self) -> Result<()> {
        match self.left.into_keys().min() {
            Some(name) => Err(Error::tensor(&name, "the net has no such parameter")),
            None => Ok(()),
        }
    }

    /// The place of a tensor in the source.
    fn find(&mut self, name: &str, shape: &[usize]) -> Result<usize> {
        self.left.remove(name).ok_or_else(|| {
            Error::tensor(name, format!("missing; the net needs it with shape {shape:?}"))
        })
    }

    fn read(&self, index: usize, name: &str, shape: &[usize]) -> Result<Tensor> {
        checked(name, &self.source.read(index)?, shape, &self.device, self.dtype)
    }

    /// A weight that stays packed on the device; what it holds was checked with the file.
    fn coded(&self, name: &str, rows: QuantizedMatrix<'_>, shape: &[usize]) -> Result<Weight> {
        let weight = QuantizedWeight::new(rows, shape, self.dtype, &self.device)?;
        if self.dtype == DType::F16 && !is_finite(&weight.dense()?)? {
            return Err(Error::tensor(name, BEYOND_F16));
        }
        Ok(Weight::Quantized(weight))
    }
}

impl WeightLoader for FileWeights {
    fn take(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor> {
        let index = self.find(name, shape)?;
        self.read(index, name, shape)
    }

    fn take_weight(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Weight> {
        let index = self.find(name, shape)?;
        let packed = self.source.packed(index).filter(|tensor| tensor.shape() == shape);
        if packed.is_some() && self.device.is_cpu() && self.dtype == DType::F32 {
            let rows = PackedRows { source: self.source.clone(), index };
            rows.check(name, shape)?;
            return Ok(Weight::Source(Arc::new(rows), self.arithmetic));
        }
        if let Some(rows) = packed.and_then(quant_core::format::Tensor::quantized) {
            return self.coded(name, rows, shape);
        }
        Weight::constant(&self.read(index, name, shape)?, self.arithmetic)
    }
}

/// A weight in a packed file.
struct PackedRows {
    source: Arc<Source>,
    index: usize,
}

impl PackedRows {
    /// Decodes every row once.
    ///
    /// # Errors
    /// A tensor that is not of numbers.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let tensor = self.source.packed(self.index);
        let tensor = tensor.ok_or_else(|| Error::tensor(name, "is not packed"))?;
        let mut row = vec![0.0; shape[1..].iter().product()];
        for index in 0..shape[0] {
            tensor.decode_row(index, &mut row).map_err(|e| Error::tensor(name, e.to_string()))?;
            if !row.iter().all(|value: &f32| value.is_finite()) {
                return Err(Error::tensor(name, "holds NaN or infinite weights"));
            }
        }
        Ok(())
    }
}

impl WeightSource for PackedRows {
    fn rows<'a>(&'a self, channels: Range<usize>, buffer: &'a mut [f32]) -> &'a [f32] {
        if let Some(tensor) = self.source.packed(self.index) {
            let rows = buffer.chunks_exact_mut(tensor.row_len().max(1));
            for (channel, row) in channels.zip(rows) {
                // It was decoded once before: `check`.
                let decoded = tensor.decode_row(channel, row);
                debug_assert!(decoded.is_ok(), "{decoded:?}");
            }
        }
        buffer
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::quantize::QuantizeOptions;
    use quant_core::scheme::Scheme;

    use super::*;
    use crate::model::half_precision::assert_near;
    use crate::model::{Mode, RandomInit, UNet, UNetConfig};
    use crate::quantize::{TensorPolicy, quantize_in_memory};

    /// A packed file of a small net, at 3 bits.
    fn packed(config: &UNetConfig, scale: f64) -> Vec<u8> {
        let mut initial = RandomInit::new(1, &Device::Cpu);
        UNet::new(config, &mut initial).unwrap();
        // Weights that start at zero would hide all before them.
        let tensors = initial.vars.iter().map(|(name, var)| {
            (name.clone(), ((var.as_tensor() + 0.01).unwrap() * scale).unwrap())
        });
        let policy = |_: &str, shape: &[usize]| match shape {
            [_] => TensorPolicy::F32,
            _ => TensorPolicy::Quantize(QuantizeOptions::new(
                Scheme::EqualMass,
                Bits::new(3).unwrap(),
            )),
        };
        let tensors: Vec<_> = tensors.collect();
        quantize_in_memory(&tensors, Some(config), policy).unwrap().0
    }

    #[test]
    fn packed_weights_stay_packed_in_every_type() {
        let config = UNetConfig {
            model_channels: 32,
            channel_mult: [1.0, 2.0].into(),
            num_res_blocks: 1,
            attention_resolutions: [2].into(),
            ..UNetConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let open = |scale| {
            let path = folder.path().join("net.fmq");
            std::fs::write(&path, packed(&config, scale)).unwrap();
            Source::open(&path, false).unwrap()
        };
        let (x, t) = (
            Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu).unwrap(),
            Tensor::new(&[0.25f32, 0.5], &Device::Cpu).unwrap(),
        );
        let velocity = |dtype| {
            let mut weights = FileWeights::new(open(1.0), &Device::Cpu, dtype);
            let net = UNet::new(&config, &mut weights).unwrap();
            weights.finish().unwrap();
            assert_eq!(net.dtype(), dtype);
            net.forward(&x, &t, None, None, Mode::Eval).unwrap()
        };
        let single = velocity(DType::F32);
        for dtype in [DType::F16, DType::BF16] {
            assert_near(dtype, &velocity(dtype), &single);
        }
        let (name, shape) = ("input_blocks.0.0.weight", [32, 3, 3, 3]);
        let take = |scale, dtype| {
            let mut weights = FileWeights::new(open(scale), &Device::Cpu, dtype);
            weights.take_weight(name, &shape, Init::Zeros)
        };
        assert!(matches!(take(1.0, DType::F32), Ok(Weight::Source(..))));
        let Ok(Weight::Quantized(weight)) = take(1.0, DType::F16) else {
            panic!("weights of a packed file stay packed")
        };
        assert!(weight.size_in_bytes() < 32 * (8 * 4 + 27 + 4));
        let error = take(1e6, DType::F16).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("beyond f16"), "{error}");
    }
}
