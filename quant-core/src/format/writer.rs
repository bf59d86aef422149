//! Writing a packed file as a stream: the payload first, the head when everything is known.

use super::header::{
    CRC, HEADER_LEN, Header, MAX_HEAD_LEN, MAX_SECTIONS, MAX_TENSORS, Running, VERSION,
};
use super::record::{Encoding, Record, Shape};
use super::record_placement::RecordPlacement;
use super::section::{ENTRY_LEN, Names, SectionKind, emit_entry};
use crate::error::{Error, Result, check_length, check_range};
use crate::matrix::{Parts, QuantLayout, QuantizedMatrix};
use crate::net::UNetConfig;
use crate::num::{u32_of, u64_of};
use crate::quantize::{QuantizedTensor, Storage};
use alloc::vec;
use alloc::vec::Vec;
use half::f16;

/// Sink for the bytes of a file, in order.
pub trait Sink {
    /// Reason why bytes cannot be taken.
    type Error: From<Error>;

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The sink's own.
    fn put(&mut self, bytes: &[u8]) -> core::result::Result<(), Self::Error>;
}

impl Sink for Vec<u8> {
    type Error = Error;

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Contents of a file besides its tensors' data, known before the first of them.
#[derive(Clone, Debug, Default)]
pub struct Head<'a> {
    /// The net, whose parameters the tensors must then be.
    pub net: Option<&'a UNetConfig>,
    /// The name of each tensor, in order; `None` for those of the net's parameters.
    pub names: Option<Vec<&'a str>>,
    /// Contents of other sections, of ascending kinds above [`SectionKind::NAMES`].
    pub sections: Vec<(SectionKind, &'a [u8])>,
}

/// Elements of a dense tensor, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dense<'a> {
    /// Stored as f32, any bits.
    F32(&'a [f32]),
    /// Stored as f16, any bits.
    F16(&'a [f16]),
    /// Stored as i64.
    I64(&'a [i64]),
}

/// Place of the records in the files that are written.
const PLACEMENT: RecordPlacement = RecordPlacement::Inline;

/// A file that is complete but for its head.
#[derive(Clone, Debug)]
pub struct Written<S> {
    /// Sink that took the bytes.
    pub sink: S,
    /// The head, to be put in the place of as many zeros at the start.
    pub head: Vec<u8>,
    /// Bytes of each tensor in the file, as [`super::Tensor::record_bytes`] counts them.
    pub record_bytes: Vec<usize>,
    /// Bytes of the file.
    pub file_bytes: usize,
}

/// Writes a packed file of version 1.1, tensor by tensor in order.
///
/// The sink first takes zeros in the place of the head, then the payload; [`Writer::finish`] gives
/// the head, which the caller puts at the start.
pub struct Writer<S> {
    sink: S,
    /// The head but for its header.
    head: Vec<u8>,
    sections: usize,
    shapes: Option<vec::IntoIter<Vec<usize>>>,
    /// Bytes of each tensor: of its name, and of all of it once it is added.
    record_bytes: Vec<usize>,
    added: usize,
    /// Bytes given to the sink.
    written: usize,
    crc: Running,
}

impl<S: Sink> Writer<S> {
    /// A file without tensors yet.
    ///
    /// # Errors
    /// Those of [`UNetConfig::emit`]; [`Error::Range`] for a name that is empty or longer than 512
    /// bytes, more than 4096 tensors, kinds of sections that do not ascend, or a head longer than
    /// 2^24 bytes; [`Error::DuplicateName`]; [`Error::NotOfTheNet`] if the net has another number
    /// of parameters; the sink's own.
    pub fn new(mut sink: S, head: &Head<'_>) -> core::result::Result<Self, S::Error> {
        let shapes = head.net.map(UNetConfig::shapes);
        let named = head.names.as_ref().map(Vec::len);
        let tensors = named.or(shapes.as_ref().map(Vec::len)).unwrap_or(0);
        check_range("number of tensors", u64_of(tensors), 0, MAX_TENSORS.into())?;
        if let Some(shapes) = shapes.as_ref().filter(|shapes| shapes.len() != tensors) {
            return Err(Error::NotOfTheNet { tensor: shapes.len().min(tensors) }.into());
        }
        // The net and the names are the head's own fields.
        for (kind, _) in &head.sections {
            let least = SectionKind::NAMES.0 + 1;
            check_range("kind of a section", kind.0.into(), least.into(), u32::MAX.into())?;
        }
        let names = head.names.as_deref().map(Names::emit).transpose()?;
        let net = head.net.map(UNetConfig::emit).transpose()?;
        let mut sections: Vec<(SectionKind, &[u8])> = Vec::new();
        sections.extend(net.as_ref().map(|net| (SectionKind::NET, &net[..])));
        sections.extend(names.as_ref().map(|names| (SectionKind::NAMES, &names[..])));
        sections.extend(&head.sections);
        let names = head.names.as_deref().unwrap_or(&[]);
        let mut record_bytes: Vec<usize> = names.iter().map(|name| 2 + name.len()).collect();
        record_bytes.resize(tensors, 0);
        let bytes = build_head(&sections)?;
        sink.put(&vec![0; bytes.len()])?;
        Ok(Self {
            sink,
            sections: sections.len(),
            shapes: shapes.map(Vec::into_iter),
            record_bytes,
            added: 0,
            written: bytes.len(),
            head: bytes,
            crc: CRC.digest(),
        })
    }

    /// Adds a dense tensor.
    ///
    /// # Errors
    /// [`Error::Range`] for a rank above 6, 2^32 elements or more, or more tensors than the head says;
    /// [`Error::Length`] if there are not as many elements as the shape says;
    /// [`Error::NotOfTheNet`] for another shape than the net's parameter has; the sink's own.
    pub fn dense(
        &mut self,
        shape: &[usize],
        elements: Dense<'_>,
    ) -> core::result::Result<(), S::Error> {
        let (encoding, count) = match elements {
            Dense::F32(x) => (Encoding::F32, x.len()),
            Dense::F16(x) => (Encoding::F16, x.len()),
            Dense::I64(x) => (Encoding::I64, x.len()),
        };
        let shape = Shape::new(shape.iter().copied())?;
        check_length("elements of a dense tensor", shape.numel(), count)?;
        self.start(shape, encoding)?;
        match elements {
            Dense::F32(x) => self.put_all(x, |x| x.to_le_bytes()),
            Dense::F16(x) => self.put_all(x, |x| x.to_le_bytes()),
            Dense::I64(x) => self.put_all(x, |x| x.to_le_bytes()),
        }
    }

    /// Adds a dense tensor by its stored bytes, which are as many as its shape says.
    pub(super) fn stored(
        &mut self,
        shape: &[usize],
        encoding: Encoding,
        data: &[u8],
    ) -> core::result::Result<(), S::Error> {
        self.start(Shape::new(shape.iter().copied())?, encoding)?;
        self.put(data)
    }

    /// Adds a quantized matrix.
    ///
    /// # Errors
    /// As [`Writer::dense`], and [`Error::Length`] for a part of another length than
    /// [`QuantLayout::byte_lens`] tells.
    pub fn matrix(
        &mut self,
        shape: &[usize],
        layout: QuantLayout,
        parts: Parts<&[u8]>,
    ) -> core::result::Result<(), S::Error> {
        let shape = Shape::new(shape.iter().copied())?;
        QuantizedMatrix::new(layout, shape.rows, shape.row_len, parts)?;
        self.start(shape, Encoding::Quantized(layout))?;
        self.put(parts.codebooks)?;
        self.put(parts.scales)?;
        // The data start at a multiple of it, too.
        self.put(&[0; 4][..PLACEMENT.inner_padding(self.written)])?;
        self.put(parts.codes)
    }

    /// Adds a quantized tensor.
    ///
    /// # Errors
    /// As [`Writer::dense`].
    pub fn quantized(&mut self, tensor: &QuantizedTensor) -> core::result::Result<(), S::Error> {
        match tensor.storage() {
            Storage::Dense(values) => self.dense(tensor.shape(), Dense::F32(values)),
            Storage::Half(values) => self.dense(tensor.shape(), Dense::F16(values)),
            Storage::Quantized { layout, parts } => {
                self.matrix(tensor.shape(), *layout, parts.as_slices())
            }
        }
    }

    /// Ends the payload.
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer tensors than the head says.
    pub fn finish(mut self) -> Result<Written<S>> {
        check_length("tensors", self.record_bytes.len(), self.added)?;
        let header = Header {
            version: VERSION,
            placement: PLACEMENT,
            head_len: self.head.len(),
            tensors: self.added,
            sections: self.sections,
        };
        header.emit(&mut self.head, u64_of(self.written), self.crc.finalize());
        let Self { sink, head, record_bytes, written: file_bytes, .. } = self;
        Ok(Written { sink, head, record_bytes, file_bytes })
    }

    /// Writes the record of the next tensor and the padding after it.
    fn start(&mut self, shape: Shape, encoding: Encoding) -> core::result::Result<(), S::Error> {
        check_range(
            "number of tensors",
            u64_of(self.added) + 1,
            1,
            u64_of(self.record_bytes.len()),
        )?;
        if let Some(expected) = self.shapes.as_mut().and_then(Iterator::next)
            && shape.dims() != expected
        {
            return Err(Error::NotOfTheNet { tensor: self.added }.into());
        }
        let (_, record) = Record::emit(shape, encoding, self.written)?;
        self.added += 1;
        self.put(&record)
    }

    fn put(&mut self, bytes: &[u8]) -> core::result::Result<(), S::Error> {
        self.crc.update(bytes);
        self.written += bytes.len();
        let tensor = self.added.checked_sub(1).and_then(|last| self.record_bytes.get_mut(last));
        if let Some(size) = tensor {
            *size += bytes.len();
        }
        self.sink.put(bytes)
    }

    /// Writes numbers in pieces, so that no copy of the whole is made.
    fn put_all<T, const N: usize>(
        &mut self,
        elements: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) -> core::result::Result<(), S::Error> {
        let mut piece = Vec::new();
        for elements in elements.chunks(4096) {
            piece.clear();
            piece.extend(elements.iter().flat_map(&bytes));
            self.put(&piece)?;
        }
        Ok(())
    }
}

impl Writer<Vec<u8>> {
    /// The complete file, for a file in memory.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn into_file(self) -> Result<Vec<u8>> {
        let Written { sink: mut file, head, .. } = self.finish()?;
        file[..head.len()].copy_from_slice(&head);
        Ok(file)
    }
}

/// A head whose header is still zero.
fn build_head(sections: &[(SectionKind, &[u8])]) -> Result<Vec<u8>> {
    let mut head = vec![0; HEADER_LEN + ENTRY_LEN * sections.len()];
    for (i, (kind, contents)) in sections.iter().enumerate() {
        let least =
            i.checked_sub(1).and_then(|i| sections.get(i)).map_or(1, |(kind, _)| kind.0 + 1);
        check_range("kind of a section", kind.0.into(), least.into(), u32::MAX.into())?;
        head.resize(head.len() + PLACEMENT.inner_padding(head.len()), 0);
        let entry = emit_entry(*kind, u32_of(head.len()), u32_of(contents.len()));
        let at = HEADER_LEN + ENTRY_LEN * i;
        head[at..at + ENTRY_LEN].copy_from_slice(&entry);
        head.extend(*contents);
        check_range("length of the head", u64_of(head.len()), 0, MAX_HEAD_LEN.into())?;
    }
    check_range("number of sections", u64_of(sections.len()), 0, MAX_SECTIONS.into())?;
    head.resize(head.len() + PLACEMENT.padding(head.len()), 0);
    Ok(head)
}
