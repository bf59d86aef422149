//! All weights of a file at once.

use std::path::Path;

use candle_core::Tensor;

use super::entry::TensorInfo;
use super::identify::order;
use super::metadata::net;
use super::source::Source;
use super::store::FileKind;
use crate::error::Result;
use crate::model::UNetConfig;

/// The weights of a net as a file holds them.
#[derive(Debug)]
pub struct Checkpoint {
    /// The format of the file.
    pub kind: FileKind,
    /// Name and value of each tensor, on the CPU, in the order of the state dict.
    pub tensors: Vec<(String, Tensor)>,
    /// True if `tensors` are the shadows of an exponential moving average.
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

impl Source {
    /// All tensors, and what else is known.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub fn load(&self) -> Result<Checkpoint> {
        let read = |(index, info): (usize, &TensorInfo)| Ok((info.name.clone(), self.read(index)?));
        Ok(Checkpoint {
            kind: self.kind(),
            tensors: self.tensors().iter().enumerate().map(read).collect::<Result<_>>()?,
            ema: self.ema(),
            metadata: self.metadata().to_vec(),
        })
    }

    /// Names and values of the parameters of `net`, in its order, whatever the file's.
    ///
    /// # Errors
    /// Those of [`order`] and [`read`](Self::read).
    pub fn parameters(&self, net: &UNetConfig) -> Result<Vec<(String, Tensor)>> {
        let places = order(net, self.tensors())?;
        let read = |place: usize| Ok((self.tensors()[place].name.clone(), self.read(place)?));
        places.into_iter().map(read).collect()
    }
}
