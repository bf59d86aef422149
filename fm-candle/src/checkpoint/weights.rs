//! A net's parameters straight from a file: packed weights stay packed.

use core::ops::Range;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Source;
use crate::error::{Error, Result};
use crate::model::{Init, Weight, Weights, checked};
use crate::ops::{Arithmetic, Rows};

/// Constant parameters that are read as the net is built, one tensor at a time.
///
/// In f32 on the CPU the weights of convolutions and linear layers of a packed file are not
/// decoded: the layers hold on to the file's map and decode the rows that they need when they
/// need them.
pub struct FileWeights {
    source: Arc<Source>,
    /// Where the tensors are that were not taken yet.
    left: HashMap<String, usize>,
    device: Device,
    dtype: DType,
    arithmetic: Arithmetic,
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
            arithmetic: Arithmetic::Float,
        }
    }

    /// The same for a net whose layers on the CPU multiply so.
    #[must_use]
    pub fn with_arithmetic(self, arithmetic: Arithmetic) -> Self {
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
}

impl Weights for FileWeights {
    fn take(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor> {
        let index = self.find(name, shape)?;
        self.read(index, name, shape)
    }

    fn take_weight(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Weight> {
        let index = self.find(name, shape)?;
        let packed = self.source.packed(index).filter(|tensor| tensor.shape() == shape);
        match packed {
            Some(_) if self.device.is_cpu() && self.dtype == DType::F32 => {
                let rows = PackedRows { source: self.source.clone(), index };
                rows.check(name, shape)?;
                Ok(Weight::Rows(Arc::new(rows), self.arithmetic))
            }
            _ => Weight::constant(&self.read(index, name, shape)?, self.arithmetic),
        }
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

impl Rows for PackedRows {
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
