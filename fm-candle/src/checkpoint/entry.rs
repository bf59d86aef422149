//! A tensor in a file's table of contents, as the file has it and as it is read.

use ::safetensors::Dtype;
use candle_core::DType;

/// A tensor in a file's table of contents.
#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    /// Keys that lead to its state dict in the file, joined by dots; empty where the file is one.
    pub(super) group: String,
    /// Name in that state dict.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl TensorEntry {
    /// The keys that lead to the tensor, joined by dots.
    pub(super) fn path(&self) -> String {
        join(&self.group, &self.name)
    }
}

/// Name, type and shape of a tensor, known before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the net's state dict.
    pub name: String,
    /// Type of the elements once read: an integer or floating type of whole bytes.
    pub dtype: DType,
    /// The sizes of its axes; their product fits.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Two parts of a dotted name, of which either may be empty.
pub(super) fn join(outer: &str, inner: &str) -> String {
    let dot = if outer.is_empty() || inner.is_empty() { "" } else { "." };
    format!("{outer}{dot}{inner}")
}

/// A tensor of a file that cannot be a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name in the file's state dict.
    pub name: String,
    /// The reason, and a remedy.
    pub reason: String,
}

/// Bytes of one element.
pub(super) fn size_of(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Elements in a tensor of this shape, or `None` where any product of its sizes overflows
/// (also beside a size of zero: strides are such products).
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    let product =
        shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size.max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_overflow() {
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[2, 0, 3]), Some(0));
        assert_eq!(count(&[usize::MAX, 2, 0]), None);
        assert_eq!(count(&[0, usize::MAX, 2]), None);
    }
}
