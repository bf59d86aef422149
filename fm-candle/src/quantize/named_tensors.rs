//! Named tensors, one by one.

use candle_core::Tensor;

use crate::checkpoint::{Elements, Source, TensorInfo};
use crate::error::Result;

/// Named tensors that can be read one by one.
pub trait NamedTensors {
    /// Name, dtype and shape of each tensor, in order.
    fn tensors(&self) -> Vec<TensorInfo>;

    /// The elements of the tensor at an index below their number.
    ///
    /// # Errors
    /// Those of reading it.
    fn elements(&self, index: usize) -> Result<Elements<'_>>;
}

impl NamedTensors for Source {
    fn tensors(&self) -> Vec<TensorInfo> {
        Self::tensors(self).to_vec()
    }

    fn elements(&self, index: usize) -> Result<Elements<'_>> {
        self.elements(index)
    }
}

impl NamedTensors for [(String, Tensor)] {
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
