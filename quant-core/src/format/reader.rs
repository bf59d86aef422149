//! Reading a packed file in place: no copy, no heap, no panic.

use super::header::{HEADER_LEN, Header};
use super::record::{Encoding, Record};
use crate::bits::Codes;
use crate::codebook::Codebook;
use crate::coded::{CodedRows, part, row_out_of_range};
use crate::error::{Error, Result, check_length};
use crate::net::{NetConfig, RECORD_LEN};
use crate::num::{f64_of, index};
use half::f16;

/// A packed file that has been checked from end to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Model<'a> {
    net: Option<NetConfig>,
    tensors: Tensors<'a>,
    header_bytes: usize,
}

impl<'a> Model<'a> {
    /// Checks a file and makes its contents accessible.
    ///
    /// Time is linear in the file, and quadratic in the number of tensors, which is at most 4096.
    ///
    /// # Errors
    /// Whatever [`mod@crate::format`] forbids, by name.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let header = Header::parse(file)?;
        let (_, mut left) = file.split_at(HEADER_LEN);
        let mut net = None;
        if header.has_net {
            let truncated = Error::Truncated {
                what: "net record",
                needed: super::header::wide(RECORD_LEN),
                left: super::header::wide(left.len()),
            };
            let (record, behind) = left.split_at_checked(RECORD_LEN).ok_or(truncated)?;
            net = Some(NetConfig::parse(record)?);
            left = behind;
        }
        let tensors = Tensors { left, count: index(header.tensors) };
        let header_bytes = file.len() - left.len();
        for i in 0..tensors.count {
            let (record, behind) = Record::parse(left)?;
            let tensor = Tensor::new(record).ok_or(Error::NotUtf8 { tensor: i })?;
            if tensors.clone().take(i).any(|other| other.name == tensor.name) {
                return Err(Error::DuplicateName { tensor: i });
            }
            if let Some(coded) = tensor.coded() {
                coded.check()?;
            }
            left = behind;
        }
        if !left.is_empty() {
            return Err(Error::Trailing { bytes: super::header::wide(left.len()) });
        }
        Ok(Self { net, tensors, header_bytes })
    }

    /// The net's configuration, if the file has one.
    pub const fn net(&self) -> Option<&NetConfig> {
        self.net.as_ref()
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> Tensors<'a> {
        self.tensors.clone()
    }

    /// The tensor of a name; looks through all of them.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'a>> {
        self.tensors().find(|tensor| tensor.name == name)
    }

    /// The bytes before the first tensor; with every [`Tensor::record_bytes`] they sum to the file.
    pub const fn header_bytes(&self) -> usize {
        self.header_bytes
    }
}

/// The tensors of a file in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors<'a> {
    left: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Tensors<'a> {
    type Item = Tensor<'a>;

    fn next(&mut self) -> Option<Tensor<'a>> {
        self.count = self.count.checked_sub(1)?;
        let (record, left) = Record::parse(self.left).ok()?;
        self.left = left;
        Tensor::new(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Tensors<'_> {}

/// One tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    name: &'a str,
    record: Record<'a>,
}

impl<'a> Tensor<'a> {
    /// `None` if the name is not UTF-8.
    fn new(record: Record<'a>) -> Option<Self> {
        let name = core::str::from_utf8(record.name).ok()?;
        Some(Self { name, record })
    }

    /// The name in the state dict.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The shape, of rank 0 to 6.
    pub fn shape(&self) -> &[usize] {
        self.record.shape.dims()
    }

    /// The number of elements.
    pub const fn numel(&self) -> usize {
        self.record.shape.rows * self.record.shape.row_len
    }

    /// The rows of the matrix that the tensor is: `shape[0]`, or 1 below rank 2.
    pub const fn rows(&self) -> usize {
        self.record.shape.rows
    }

    /// The elements of a row.
    pub const fn row_len(&self) -> usize {
        self.record.shape.row_len
    }

    /// What the elements are.
    pub const fn encoding(&self) -> Encoding {
        self.record.encoding
    }

    /// The coded rows, `None` if the tensor is dense.
    pub fn coded(&self) -> Option<CodedRows<'a>> {
        let Encoding::Coded(coding) = self.record.encoding else { return None };
        let Record { codebooks, elements, .. } = self.record;
        CodedRows::new(coding, self.rows(), self.row_len(), codebooks, elements).ok()
    }

    /// The codebook of a row, `None` if the tensor is dense or has no such row.
    pub fn codebook(&self, row: usize) -> Option<Codebook<'a>> {
        self.coded()?.codebook(row)
    }

    /// The codes of a row, `None` if the tensor is dense or has no such row.
    pub fn codes(&self, row: usize) -> Option<Codes<'a>> {
        self.coded()?.codes(row)
    }

    /// The stored elements: little-endian numbers if dense, else packed codes.
    pub const fn element_bytes(&self) -> &'a [u8] {
        self.record.elements
    }

    /// The integers of a dense i64 tensor, `None` for another.
    pub fn integers(&self) -> Option<impl ExactSizeIterator<Item = i64> + 'a> {
        let elements = self.record.elements.as_chunks().0;
        (self.record.encoding == Encoding::I64)
            .then(|| elements.iter().map(|&bytes| i64::from_le_bytes(bytes)))
    }

    /// Writes the values of a row.
    ///
    /// # Shapes
    /// `out`: `[row_len]`.
    ///
    /// # Errors
    /// [`Error::Length`] for an `out` of another length; [`Error::Range`] behind the last row;
    /// [`Error::Encoding`] for integers, see [`Tensor::integers`].
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        check_length("row to decode into", self.row_len(), out.len())?;
        if row >= self.rows() {
            return Err(row_out_of_range(row, self.rows()));
        }
        let bytes = |size| part(self.record.elements, row, self.row_len() * size).unwrap_or(&[]);
        match self.record.encoding {
            Encoding::F32 => fill(out, bytes(4), f32::from_le_bytes),
            Encoding::F16 => fill(out, bytes(2), |b| f16::from_le_bytes(b).to_f32()),
            Encoding::I64 => return Err(Error::Encoding { needed: "floating point" }),
            Encoding::Coded(_) => {
                let coded = self.coded().ok_or(Error::Encoding { needed: "codes" })?;
                coded.decode_row(row, out)?;
            }
        }
        Ok(())
    }

    /// All bytes that the tensor takes in the file: its record with name, data and padding.
    pub const fn record_bytes(&self) -> usize {
        self.record.len
    }

    /// The bytes of codebooks and codes, or of dense elements, without padding.
    pub const fn data_bytes(&self) -> usize {
        self.record.codebooks.len() + self.record.elements.len()
    }

    /// Bits per element, codebooks included; 0 for a tensor without elements.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * f64_of(self.data_bytes()) / f64_of(self.numel().max(1))
    }
}

fn fill<const N: usize>(out: &mut [f32], bytes: &[u8], value: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = value(bytes));
}
