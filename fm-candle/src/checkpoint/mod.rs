//! Checkpoints: one door for every kind of file that holds a state dict.
//!
//! [`Source`] looks at the contents, never at the extension, and gives the weights one by one
//! under the net's own names, in the order of its state dict; [`load`] gives all of them. A file
//! is opened by reading its table of contents alone; tensors that are not asked for, such as the
//! optimizer's state or the raw weights behind an EMA, are never read.
//!
//! Dtypes stay as they are in the file, except for the two that candle lacks: bool becomes u8
//! and i8 becomes i16, which hold the same values.

use core::fmt::Debug;
use std::borrow::Cow;
use std::path::Path;

use ::safetensors::Dtype;
use candle_core::Tensor;

use crate::error::Result;

pub use elements::Elements;
pub(crate) use pth::METADATA_KEY;
pub use source::{Choice, NetInfo, Source, TensorInfo};
pub use weights::FileWeights;

mod elements;
mod keys;
mod packed;
mod pth;
pub mod safetensors;
mod select;
mod source;
pub mod torch;
mod weights;

/// Key of the net's configuration (JSON) in a file's metadata.
pub const NET_KEY: &str = "fmq.net";

/// The kind of a file, told by its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Torch's zip archive (1.6 and later).
    Torch,
    /// Torch's stream of pickles (before 1.6).
    TorchLegacy,
    /// Safetensors.
    Safetensors,
    /// Our packed file.
    Packed,
}

/// The weights of a net as a file holds them.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the file is.
    pub kind: Kind,
    /// Name and value of each tensor, on the CPU, in the order of the state dict.
    pub tensors: Vec<(String, Tensor)>,
    /// Whether `tensors` are the shadows of an exponential moving average.
    pub ema: bool,
    /// The file's metadata, in its order; of torch files only those of our training have any.
    pub metadata: Vec<(String, String)>,
}

impl Checkpoint {
    /// The net's configuration, as JSON, if the file carries it.
    pub fn net(&self) -> Option<&str> {
        net(&self.metadata)
    }

    /// The tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor)
    }
}

/// Reads the weights to evaluate from the file at `path`: all tensors of a [`Source`].
///
/// # Errors
///
/// Those of [`Source::open`] and [`Source::read`].
pub fn load(path: &Path, raw_weights: bool) -> Result<Checkpoint> {
    Source::open(path, raw_weights)?.load()
}

/// The net's configuration in a file's metadata.
fn net(metadata: &[(String, String)]) -> Option<&str> {
    metadata.iter().find(|(key, _)| key == NET_KEY).map(|(_, json)| json.as_str())
}

/// A tensor in a file's table of contents.
#[derive(Debug, Clone)]
struct Entry {
    /// Keys that lead to its state dict in the file, joined by dots; empty where the file is one.
    group: String,
    /// Name in that state dict.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Entry {
    /// The keys that lead to the tensor, joined by dots.
    fn path(&self) -> String {
        join(&self.group, &self.name)
    }
}

/// Two parts of a dotted name, of which either may be empty.
fn join(outer: &str, inner: &str) -> String {
    let dot = if outer.is_empty() || inner.is_empty() { "" } else { "." };
    format!("{outer}{dot}{inner}")
}

/// A tensor of a file that cannot be a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name in the file's state dict.
    pub name: String,
    /// What it is, and the way out.
    pub reason: String,
}

/// An opened file: a checked table of contents, and tensors on demand. An error is a reason,
/// without the names of file and tensor.
trait Store: Debug + Send + Sync {
    /// The tensors, in the order of the state dict.
    fn entries(&self) -> &[Entry];

    /// The file's metadata, in its order.
    fn metadata(&self) -> &[(String, String)] {
        &[]
    }

    /// Tensors of the state dicts that cannot be weights.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// Bytes to read and to make for the tensor of the entry at `index`, found without reading
    /// them; 0 where the file's table of contents bounds them by its length.
    fn cost(&self, _index: usize) -> Result<u64, String> {
        Ok(0)
    }

    /// The elements of the entry at `index`, which is below the number of entries:
    /// little-endian, row-major, as many as its shape says.
    fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>, String>;

    /// The store, if its file is a packed one.
    fn packed(&self) -> Option<&packed::Packed> {
        None
    }

    /// The store, if its file is one of torch.
    fn torch(&self) -> Option<&pth::Archive> {
        None
    }
}

/// Bytes of one element.
fn size_of(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Elements in a tensor of this shape, or `None` where any product of its sizes overflows
/// (also beside a size of zero: strides are such products).
fn count(shape: &[usize]) -> Option<usize> {
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
