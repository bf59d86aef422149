//! A torch file of our own: a state dict and nothing else, in the layout of `torch.save`.
//!
//! The pickle is an `OrderedDict` from names to calls of `torch._utils._rebuild_tensor_v2` over
//! one storage per tensor, on the CPU, in protocol 2. `torch.load(weights_only=True)` takes it.
//! The records are stored, their data at multiples of 64 bytes, as torch has them.
//!
//! Source: `PyTorch`, `torch/serialization.py` (`_save`) and `torch/_utils.py`.

use std::collections::HashSet;
use std::io::{self, Seek, Write};

use candle_core::DType;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};

/// The folder in the archive, when torch is given a buffer instead of a path.
const FOLDER: &str = "archive";
/// At which multiples of bytes the records' data lie.
const ALIGNMENT: u16 = 64;
/// Longest record without the 64-bit extension of the format.
const MAX_SMALL: u64 = 0xffff_ffff;

/// A file under construction.
pub(in crate::checkpoint) struct Fresh<W: Write + Seek> {
    archive: ZipWriter<W>,
    storages: usize,
}

impl<W: Write + Seek> Fresh<W> {
    /// Writes what comes before the storages of these tensors; `tensors` is their
    /// [`pickle`].
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn start(out: W, tensors: &[u8]) -> io::Result<Self> {
        let mut fresh = Self { archive: ZipWriter::new(out), storages: 0 };
        fresh.record("data.pkl", tensors)?;
        fresh.record("byteorder", b"little")?;
        Ok(fresh)
    }

    /// Writes the elements of the next tensor, little-endian, in row-major order.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.record(&format!("data/{}", self.storages), bytes)?;
        self.storages += 1;
        Ok(())
    }

    /// Writes what comes behind the storages.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(in crate::checkpoint) fn finish(mut self) -> io::Result<()> {
        self.record("version", b"3\n")?;
        self.archive.finish()?;
        Ok(())
    }

    fn record(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(bytes.len() as u64 > MAX_SMALL)
            .with_alignment(ALIGNMENT);
        self.archive.start_file(format!("{FOLDER}/{name}"), options)?;
        self.archive.write_all(bytes)
    }
}

/// The pickle of a state dict of `tensors`, whose storages are numbered in their order.
///
/// # Errors
///
/// [`Error::Tensor`] for a name used twice and a dtype that torch has no storage for.
pub(in crate::checkpoint) fn pickle<'a>(
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Vec<u8>> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec(); // PROTO .. REDUCE MARK
    let mut seen = HashSet::new();
    for (key, info) in tensors.into_iter().enumerate() {
        let bad = |reason: String| Error::tensor(&info.name, reason);
        if !seen.insert(&info.name) {
            return Err(bad("the name is already taken in the file".into()));
        }
        let storage = storage(info.dtype)
            .ok_or_else(|| bad(format!("dtype {:?} cannot be written", info.dtype)))?;
        text(&mut out, &info.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(("); // GLOBAL MARK MARK
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{storage}\n").bytes()); // GLOBAL
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        number(&mut out, info.count());
        out.extend(b"tQ"); // TUPLE BINPERSID
        number(&mut out, 0);
        numbers(&mut out, &info.shape);
        numbers(&mut out, &strides(&info.shape));
        // Needs no gradient, has no hooks: NEWFALSE, an empty dictionary, TUPLE REDUCE.
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u."); // SETITEMS STOP
    Ok(out)
}

/// Torch's storage class for a dtype.
fn storage(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::U8 => "ByteStorage",
        DType::I16 => "ShortStorage",
        DType::I32 => "IntStorage",
        DType::I64 => "LongStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::F32 => "FloatStorage",
        DType::F64 => "DoubleStorage",
        _ => return None,
    })
}

/// Row-major strides, in elements; torch counts an empty axis as one element.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// BINUNICODE; names are far shorter than 4 GiB.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(text.bytes());
}

/// BININT1, BININT or LONG1.
fn number(out: &mut Vec<u8>, number: usize) {
    if let Ok(byte) = u8::try_from(number) {
        out.extend([b'K', byte]);
    } else if let Ok(int) = i32::try_from(number) {
        out.push(b'J');
        out.extend(int.to_le_bytes());
    } else {
        out.extend([0x8a, 8]);
        out.extend((number as u64).to_le_bytes());
    }
}

/// MARK, the numbers, TUPLE.
fn numbers(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    for &value in values {
        number(out, value);
    }
    out.push(b't');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_those_of_torch() {
        assert!(strides(&[]).is_empty());
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(strides(&[2, 0, 4]), [4, 4, 1]);
    }

    #[test]
    fn numbers_of_every_width() {
        let written = |value| {
            let mut out = Vec::new();
            number(&mut out, value);
            out
        };
        assert_eq!(written(255), b"K\xff");
        assert_eq!(written(256), b"J\x00\x01\0\0");
        assert_eq!(written(1 << 31), b"\x8a\x08\0\0\0\x80\0\0\0\0");
    }

    #[test]
    fn refuses_names_twice_and_dtypes_without_a_storage() {
        let info = |name: &str, dtype| TensorInfo { name: name.into(), dtype, shape: vec![2] };
        let twice = [info("w", DType::F32), info("w", DType::F32)];
        assert!(pickle(&twice).unwrap_err().to_string().contains("`w`: the name"));
        assert!(pickle(&[info("w", DType::U32)]).unwrap_err().to_string().contains("`w`: dtype"));
    }
}
