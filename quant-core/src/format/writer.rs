//! Writing a packed file.

use super::header::{HEADER_LEN, Header, MAX_TENSORS, wide};
use super::record::{Encoding, MAX_NAME_LEN, Record, Shape};
use crate::coded::check_range;
use crate::error::{Error, Result, check_length};
use crate::net::NetConfig;
use crate::num::u32_of;
use crate::quantize::{Contents, QuantizedTensor};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// The elements of a dense tensor, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dense<'a> {
    /// Stored as f32, any bits.
    F32(&'a [f32]),
    /// Stored as f16, any bits.
    F16(&'a [f16]),
    /// Stored as i64.
    I64(&'a [i64]),
}

/// Builds a packed file in memory, tensor by tensor in the order of the state dict.
///
/// A call that fails leaves the file as it was.
#[derive(Clone, Debug)]
pub struct Writer {
    file: Vec<u8>,
    has_net: bool,
    names: BTreeSet<String>,
}

impl Writer {
    /// A file without tensors.
    ///
    /// # Errors
    /// Those of [`NetConfig::emit`].
    pub fn new(net: Option<&NetConfig>) -> Result<Self> {
        let mut file = vec![0; HEADER_LEN];
        if let Some(net) = net {
            file.extend(net.emit()?);
        }
        Ok(Self { file, has_net: net.is_some(), names: BTreeSet::new() })
    }

    /// Adds a dense tensor.
    ///
    /// # Errors
    /// [`Error::Range`] for a rank above 6, 2^32 elements or more, a name that is empty or longer
    /// than 512 bytes, or more than 4096 tensors; [`Error::DuplicateName`]; [`Error::Length`] if
    /// there are not as many elements as the shape says.
    pub fn dense(&mut self, name: &str, shape: &[usize], elements: Dense<'_>) -> Result<()> {
        let (encoding, count, bytes): (_, _, Vec<u8>) = match elements {
            Dense::F32(x) => {
                (Encoding::F32, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            Dense::F16(x) => {
                (Encoding::F16, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            Dense::I64(x) => {
                (Encoding::I64, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        };
        let shape = Shape::new(shape.iter().copied())?;
        check_length("elements of a dense tensor", shape.rows * shape.row_len, count)?;
        self.add(name, shape, encoding, &[], &bytes)
    }

    /// Adds a quantized tensor.
    ///
    /// # Errors
    /// As [`Writer::dense`].
    pub fn quantized(&mut self, name: &str, tensor: &QuantizedTensor) -> Result<()> {
        match tensor.contents() {
            Contents::Dense(values) => self.dense(name, tensor.shape(), Dense::F32(values)),
            Contents::Coded { coding, codebooks, codes } => {
                let shape = Shape::new(tensor.shape().iter().copied())?;
                self.add(name, shape, Encoding::Coded(coding), codebooks, codes)
            }
        }
    }

    /// The complete file.
    pub fn finish(mut self) -> Vec<u8> {
        let tensors = u32_of(self.names.len());
        Header { has_net: self.has_net, tensors }.emit(&mut self.file);
        self.file
    }

    fn add(
        &mut self,
        name: &str,
        shape: Shape,
        encoding: Encoding,
        codebooks: &[u8],
        elements: &[u8],
    ) -> Result<()> {
        check_range("length of a tensor name", wide(name.len()), 1, wide(MAX_NAME_LEN))?;
        let tensor = self.names.len();
        check_range("number of tensors", wide(tensor) + 1, 1, u64::from(MAX_TENSORS))?;
        if !self.names.insert(name.into()) {
            return Err(Error::DuplicateName { tensor });
        }
        let name = name.as_bytes();
        Record { name, shape, encoding, codebooks, elements, len: 0 }.emit(&mut self.file);
        Ok(())
    }
}
