//! Reading a packed file in place: no copy, no heap, no panic.

use super::activations::Activations;
use super::header::{HEADER_LEN, Header};
use super::memory_plan::MemoryPlan;
use super::record::{Encoding, Record};
use super::record_placement::{RECORD_LEN, RecordPlacement};
use super::section::{ENTRY_LEN, Names, SectionKind, Sections};
use super::self_test::SelfTestVector;
use super::self_test_checksum::SelfTestChecksum;
use super::table;
use crate::error::{Error, Result, check_length};
use crate::matrix::{QuantizedMatrix, check_part, part, row_out_of_range};
use crate::net::UNetConfig;
use crate::num::{f64_of, u64_of};
use half::f16;

/// A packed file that has been checked from end to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Model<'a> {
    version: (u16, u16),
    net: Option<UNetConfig>,
    plan: Option<MemoryPlan>,
    self_test: Option<SelfTestVector<'a>>,
    checksum: Option<SelfTestChecksum>,
    activations: Option<Activations<'a>>,
    sections: Sections<'a>,
    tensors: Tensors<'a>,
    header_bytes: usize,
}

impl<'a> Model<'a> {
    /// Checks a file and makes its contents accessible.
    ///
    /// Time is linear in the file, and quadratic in the number of names, which is at most 4096.
    ///
    /// # Errors
    /// Whatever [`mod@crate::format`] forbids, by name.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let header = Header::parse(file)?;
        let (head, _) = file.split_at_checked(header.head_len).unwrap_or((file, &[]));
        let table_end = HEADER_LEN + ENTRY_LEN * header.sections;
        let placement = header.placement;
        let records_end = table_end + placement.record_in_head() * header.tensors;
        let table = head.get(HEADER_LEN..table_end).unwrap_or(&[]);
        let sections = Sections::parse(placement, head, table, records_end)?;
        let net = sections.get(SectionKind::NET).map(UNetConfig::parse).transpose()?;
        let plan = sections.get(SectionKind::MEMORY_PLAN).map(MemoryPlan::parse).transpose()?;
        let self_test =
            sections.get(SectionKind::SELF_TEST).map(SelfTestVector::parse).transpose()?;
        let checksum = sections.get(SectionKind::SELF_TEST_CHECKSUM).map(SelfTestChecksum::parse);
        let checksum = checksum.transpose()?;
        let activations = sections.get(SectionKind::ACTIVATION_SCALES).map(Activations::parse);
        let activations = activations.transpose()?;
        let names = sections.get(SectionKind::NAMES);
        if names.is_some() {
            Names::new(names).check(header.tensors)?;
        }
        let records = head.get(table_end..records_end).unwrap_or(&[]).as_chunks().0;
        let names = Names::new(names);
        let (end, left) = (header.head_len, header.tensors);
        let tensors = Tensors { file, placement, records, names, end, left };
        tensors.check()?;
        if let Some(net) = &net {
            tensors.check_shapes(net)?;
        }
        let described: usize = tensors.clone().map(|tensor| tensor.described_bytes()).sum();
        let header_bytes = header.head_len.saturating_sub(described);
        let version = header.version;
        Ok(Self {
            version,
            net,
            plan,
            self_test,
            checksum,
            activations,
            sections,
            tensors,
            header_bytes,
        })
    }

    /// Major and minor version of the file.
    pub const fn version(&self) -> (u16, u16) {
        self.version
    }

    /// The net's configuration, if the file has one.
    pub const fn net(&self) -> Option<&UNetConfig> {
        self.net.as_ref()
    }

    /// The memory plan, if the file has one.
    pub const fn memory_plan(&self) -> Option<MemoryPlan> {
        self.plan
    }

    /// The self-test vector, if the file has one.
    pub const fn self_test_vector(&self) -> Option<&SelfTestVector<'a>> {
        self.self_test.as_ref()
    }

    /// The self-test checksum, if the file has one.
    pub const fn self_test_checksum(&self) -> Option<SelfTestChecksum> {
        self.checksum
    }

    /// Whether the file holds something to test a device with: a vector, a checksum or both.
    pub const fn has_self_test(&self) -> bool {
        self.self_test.is_some() || self.checksum.is_some()
    }

    /// The activation scales, if the file has them.
    pub const fn activations(&self) -> Option<Activations<'a>> {
        self.activations
    }

    /// Kind and contents of each section, also of those that this code does not know.
    pub fn sections(&self) -> impl Iterator<Item = (SectionKind, &'a [u8])> {
        self.sections.iter().map(|section| (section.kind, section.contents))
    }

    /// The tensors in the order of the file, which is that of the state dict.
    pub fn tensors(&self) -> Tensors<'a> {
        self.tensors.clone()
    }

    /// The tensor of a name; looks through all of them.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'a>> {
        self.tensors().find(|tensor| tensor.name == name)
    }

    /// The bytes of header and sections, less the names; with every [`Tensor::record_bytes`] they
    /// sum to the file.
    pub const fn header_bytes(&self) -> usize {
        self.header_bytes
    }
}

/// Iterator over the tensors of a packed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors<'a> {
    file: &'a [u8],
    placement: RecordPlacement,
    /// The records of the tensors left, where they stand in a table.
    records: &'a [[u8; RECORD_LEN]],
    names: Names<'a>,
    /// Where the tensor before the first of them ends in the file.
    end: usize,
    /// Their number.
    left: usize,
}

impl Tensors<'_> {
    /// Checks every record, its data, the paddings and the end of the file.
    fn check(&self) -> Result<()> {
        let mut tensors = self.clone();
        for _ in 0..self.left {
            let record = tensors.next_record()?;
            record.check_data(self.file)?;
        }
        match self.file.len().saturating_sub(tensors.end) {
            0 => Ok(()),
            bytes => Err(Error::Trailing { bytes: u64_of(bytes) }),
        }
    }

    /// Goes on to the next tensor, of which there is one.
    fn next_record(&mut self) -> Result<Record> {
        let record = match (self.placement, self.records) {
            (RecordPlacement::Table, [record, records @ ..]) => {
                self.records = records;
                table::parse(record, self.end, self.file.len())?
            }
            _ => Record::parse(self.file, self.end)?,
        };
        self.end = record.end;
        self.left = self.left.saturating_sub(1);
        Ok(record)
    }

    /// Fails unless the tensors are the parameters of a net.
    fn check_shapes(&self, net: &UNetConfig) -> Result<()> {
        let mut tensors = self.clone();
        let mut count = 0;
        net.parameters(&mut |shape| {
            let found = tensors.next();
            let fits = found.is_some_and(|tensor| tensor.shape() == shape);
            count += 1;
            if fits { Ok(()) } else { Err(Error::NotOfTheNet { tensor: count - 1 }) }
        })?;
        let left = tensors.len();
        if left == 0 { Ok(()) } else { Err(Error::NotOfTheNet { tensor: count }) }
    }
}

impl<'a> Iterator for Tensors<'a> {
    type Item = Tensor<'a>;

    fn next(&mut self) -> Option<Tensor<'a>> {
        if self.left == 0 {
            return None;
        }
        let record = self.next_record().ok()?;
        let data = self.file.get(record.start..record.end)?;
        let name = self.names.next()?;
        Some(Tensor { name, record, data })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Tensors<'_> {}

/// Tensor of a packed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    name: &'a str,
    record: Record,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The stored name in the state dict; empty in a file without names, whose net knows them.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The shape, of rank 0 to 6.
    pub fn shape(&self) -> &[usize] {
        self.record.shape.dims()
    }

    /// The number of elements.
    pub const fn numel(&self) -> usize {
        self.record.shape.numel()
    }

    /// The rows of the matrix that the tensor is: `shape[0]`, or 1 below rank 2.
    pub const fn rows(&self) -> usize {
        self.record.shape.rows
    }

    /// The elements of a row.
    pub const fn row_len(&self) -> usize {
        self.record.shape.row_len
    }

    /// Type of the elements.
    pub const fn encoding(&self) -> Encoding {
        self.record.encoding
    }

    /// The quantized matrix, `None` if the tensor is dense.
    pub fn quantized(&self) -> Option<QuantizedMatrix<'a>> {
        self.record.matrix(self.data)
    }

    /// The stored bytes: codebooks, scales and codes, or little-endian numbers if dense.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The integers of a dense i64 tensor, `None` for another.
    pub fn integers(&self) -> Option<impl ExactSizeIterator<Item = i64> + 'a> {
        let elements = self.data.as_chunks().0;
        (self.record.encoding == Encoding::I64)
            .then(|| elements.iter().map(|&bytes| i64::from_le_bytes(bytes)))
    }

    /// Writes the values of a row.
    ///
    /// # Shapes
    /// `out`: `[row_len]`.
    ///
    /// # Errors
    /// [`Error::Length`] for an `out` of another length; [`Error::Range`] after the last row;
    /// [`Error::Encoding`] for integers, see [`Tensor::integers`].
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        check_length("row to decode into", self.row_len(), out.len())?;
        self.decode_part(row, 0, out)
    }

    /// Writes as many values of a row as `out` holds, from `start` on.
    ///
    /// # Errors
    /// [`Error::Range`] after the last row, after its end, or for a `start` in codes that is no
    /// multiple of 8; [`Error::Encoding`] for integers.
    pub fn decode_part(&self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        check_part(self.row_len(), start, out.len())?;
        if row >= self.rows() {
            return Err(row_out_of_range(row, self.rows()));
        }
        let bytes = |size| {
            let row = part(self.data, row, self.row_len() * size).unwrap_or(&[]);
            row.get(start * size..).unwrap_or(&[])
        };
        match self.record.encoding {
            Encoding::F32 => fill(out, bytes(4), f32::from_le_bytes),
            Encoding::F16 => fill(out, bytes(2), |b| f16::from_le_bytes(b).to_f32()),
            Encoding::I64 => return Err(Error::Encoding { needed: "floating point" }),
            Encoding::Quantized(_) => {
                let matrix = self.quantized().ok_or(Error::Encoding { needed: "codes" })?;
                matrix.decode_part(row, start, out)?;
            }
        }
        Ok(())
    }

    /// All bytes that the tensor takes in the file: its record, stored name, data, and the padding
    /// before them.
    pub fn record_bytes(&self) -> usize {
        self.described_bytes() + self.record.bytes()
    }

    /// Bits per element of [`Tensor::record_bytes`]; 0 for a tensor without elements.
    pub fn bits_per_weight(&self) -> f64 {
        match self.numel() {
            0 => 0.0,
            n => 8.0 * f64_of(self.record_bytes()) / f64_of(n),
        }
    }

    /// The bytes of the head that describe the tensor.
    const fn described_bytes(&self) -> usize {
        let name = if self.name.is_empty() { 0 } else { 2 + self.name.len() };
        self.record.placement.record_in_head() + name
    }
}

fn fill<const N: usize>(out: &mut [f32], bytes: &[u8], value: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = value(bytes));
}
