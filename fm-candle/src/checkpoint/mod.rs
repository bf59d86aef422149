//! Checkpoints: one door for every kind of file that holds a state dict.
//!
//! [`load`] looks at the contents, never at the extension, and gives the weights under the
//! net's own names, in the order of its state dict. A file is opened by reading its table of
//! contents alone; tensors that are not asked for, such as the optimizer's state or the raw
//! weights behind an EMA, are never read.
//!
//! Dtypes stay as they are in the file, except for the two that candle lacks: bool becomes u8
//! and i8 becomes i16, which hold the same values.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::safetensors::Dtype;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

mod packed;
mod pth;
pub mod safetensors;

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
    /// The file's metadata, in its order; torch files have none.
    pub metadata: Vec<(String, String)>,
}

impl Checkpoint {
    /// The net's configuration, as JSON, if the file carries it.
    pub fn net(&self) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == NET_KEY).map(|(_, json)| json.as_str())
    }
}

/// Reads the weights to evaluate from the file at `path`.
///
/// Upstream's training layout keeps the state dict under `model`. With EMA that dict holds
/// `num_updates`, the raw weights as `model.NAME` and the averaged ones as `shadow_params.N`,
/// numbered in the order of the parameters. The shadows are taken, under the parameters'
/// names, unless `raw_weights` is set. Buffers, which have no shadow, come as they are.
///
/// Source: `examples/image/training/load_and_save.py` and `examples/image/models/ema.py` of
/// `facebookresearch/flow_matching`.
///
/// # Errors
///
/// [`Error::Io`] where the file cannot be read; [`Error::File`], naming the tensor where there
/// is one, for a file that is none of the known kinds, damaged, hostile, without tensors, or
/// whose shadows do not fit its parameters.
pub fn load(path: &Path, raw_weights: bool) -> Result<Checkpoint> {
    let kind = kind(path)?;
    let (mut store, metadata): (Box<dyn Store>, _) = match kind {
        Kind::Packed => return packed::load(path),
        Kind::Torch => (Box::new(pth::Archive::open_zip(path)?), Vec::new()),
        Kind::TorchLegacy => (Box::new(pth::Archive::open_legacy(path)?), Vec::new()),
        Kind::Safetensors => {
            let file = safetensors::Reader::open(path)?;
            let metadata = file.metadata.clone();
            (Box::new(file), metadata)
        }
    };
    let (picks, ema) =
        select(store.entries(), raw_weights).map_err(|reason| Error::file(path, reason))?;
    let read = |(name, index)| Ok((name, store.read(index)?));
    let tensors = picks.into_iter().map(read).collect::<Result<_>>()?;
    Ok(Checkpoint { kind, tensors, ema, metadata })
}

/// Tells what the file at `path` is from its first bytes.
fn kind(path: &Path) -> Result<Kind> {
    let io = |source| Error::io(path, source);
    let mut head = Vec::new();
    File::open(path).map_err(io)?.take(64).read_to_end(&mut head).map_err(io)?;
    if head.starts_with(&quant_core::format::MAGIC) {
        Ok(Kind::Packed)
    } else if head.starts_with(b"PK") {
        Ok(Kind::Torch)
    } else if pth::is_legacy(&head) {
        Ok(Kind::TorchLegacy)
    } else if head.get(8) == Some(&b'{') {
        Ok(Kind::Safetensors)
    } else {
        Err(Error::file(
            path,
            "is no torch checkpoint (.pth, .pt), no .safetensors and no packed .fmq file",
        ))
    }
}

/// A tensor in a file's table of contents.
#[derive(Debug, Clone)]
struct Entry {
    /// Name in the file's state dict.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// An opened file: a checked table of contents, and tensors on demand.
trait Store {
    /// The tensors, in the order of the state dict.
    fn entries(&self) -> &[Entry];

    /// Reads the tensor of the entry at `index`, which is below the number of entries.
    fn read(&mut self, index: usize) -> Result<Tensor>;
}

/// The tensors to evaluate, as the net's name and the index into `entries`, and whether
/// shadows of an EMA are among them.
fn select(entries: &[Entry], raw_weights: bool) -> Result<(Vec<(String, usize)>, bool), String> {
    let shadows = shadows(entries)?;
    let prefix = if shadows.is_empty() { "" } else { "model." };
    let own = |(index, entry): (usize, &Entry)| {
        entry.name.strip_prefix(prefix).map(|name| (name.to_string(), index))
    };
    let mut picks: Vec<_> = entries.iter().enumerate().filter_map(own).collect();
    if picks.is_empty() {
        return Err("holds no tensors of a net".into());
    }
    let mut seen = HashSet::new();
    if let Some((twice, _)) = picks.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(format!("tensor `{twice}` appears twice"));
    }
    let ema = !shadows.is_empty() && !raw_weights;
    if ema {
        average(entries, &mut picks, &shadows)?;
    }
    Ok((picks, ema))
}

/// The indices of the EMA shadows, in the order of their numbers, which must run from 0.
fn shadows(entries: &[Entry]) -> Result<Vec<usize>, String> {
    let mut shadows = Vec::new();
    for (index, Entry { name, .. }) in entries.iter().enumerate() {
        if let Some(number) = name.strip_prefix("shadow_params.") {
            let number: usize = number.parse().map_err(|_| format!("`{name}` has no number"))?;
            shadows.push((number, index));
        }
    }
    shadows.sort_unstable();
    match shadows.iter().enumerate().find(|&(expected, &(number, _))| number != expected) {
        Some((missing, _)) => Err(format!("`shadow_params.{missing}` is missing")),
        None => Ok(shadows.into_iter().map(|(_, index)| index).collect()),
    }
}

/// Puts the `shadows` in the place of the parameters, which are the floating tensors.
fn average(
    entries: &[Entry],
    picks: &mut [(String, usize)],
    shadows: &[usize],
) -> Result<(), String> {
    let is_float = |(_, index): &&mut (String, usize)| {
        matches!(entries[*index].dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    };
    let parameters: Vec<_> = picks.iter_mut().filter(is_float).collect();
    if parameters.len() != shadows.len() {
        let (n, m) = (shadows.len(), parameters.len());
        return Err(format!(
            "{n} EMA shadows for {m} parameters: only its raw weights can be used"
        ));
    }
    for ((name, index), &shadow) in parameters.into_iter().zip(shadows) {
        let (Entry { name: from, shape: have, .. }, need) =
            (&entries[shadow], &entries[*index].shape);
        if have != need {
            return Err(format!(
                "`{from}` has shape {have:?}, but its parameter `{name}` {need:?}"
            ));
        }
        *index = shadow;
    }
    Ok(())
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

/// A CPU tensor from little-endian elements in row-major order.
fn tensor(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
    if count(shape).and_then(|n| n.checked_mul(size_of(dtype))) != Some(bytes.len()) {
        return Err(format!("{} bytes do not fill {dtype:?} {shape:?}", bytes.len()));
    }
    let build = |dtype, bytes: &[u8]| {
        Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)
            .map_err(|error| error.to_string())
    };
    match dtype {
        Dtype::I8 => {
            let wide: Vec<u8> = bytes
                .iter()
                .flat_map(|&byte| i16::from(byte.cast_signed()).to_ne_bytes())
                .collect();
            build(DType::I16, &wide)
        }
        Dtype::BOOL | Dtype::U8 => build(DType::U8, bytes),
        Dtype::I16 => build(DType::I16, bytes),
        Dtype::I32 => build(DType::I32, bytes),
        Dtype::U32 => build(DType::U32, bytes),
        Dtype::I64 => build(DType::I64, bytes),
        Dtype::F16 => build(DType::F16, bytes),
        Dtype::BF16 => build(DType::BF16, bytes),
        Dtype::F32 => build(DType::F32, bytes),
        Dtype::F64 => build(DType::F64, bytes),
        other => Err(format!("dtype {other:?} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: Dtype, shape: &[usize]) -> Entry {
        Entry { name: name.into(), dtype, shape: shape.into() }
    }

    /// A net of two parameters around a counter, and its shadows in a shuffled order.
    fn averaged() -> Vec<Entry> {
        vec![
            entry("num_updates", Dtype::I64, &[]),
            entry("model.a", Dtype::F32, &[2]),
            entry("model.steps", Dtype::I64, &[]),
            entry("model.b", Dtype::F32, &[3]),
            entry("shadow_params.1", Dtype::F32, &[3]),
            entry("shadow_params.0", Dtype::F32, &[2]),
        ]
    }

    fn picks(entries: &[Entry], raw_weights: bool) -> Vec<(String, usize)> {
        select(entries, raw_weights).unwrap().0
    }

    #[test]
    fn shadows_map_to_parameters_by_number_and_leave_buffers() {
        let expected = [("a".into(), 5), ("steps".into(), 2), ("b".into(), 4)];
        assert_eq!(picks(&averaged(), false), expected);
        assert!(select(&averaged(), false).unwrap().1);
    }

    #[test]
    fn raw_weights_ignore_the_shadows() {
        let expected = [("a".into(), 1), ("steps".into(), 2), ("b".into(), 3)];
        assert_eq!(picks(&averaged(), true), expected);
        assert!(!select(&averaged(), true).unwrap().1);
    }

    #[test]
    fn bare_names_stay() {
        let bare = [entry("model.a", Dtype::F32, &[2]), entry("b", Dtype::U8, &[])];
        assert_eq!(picks(&bare, false), [("model.a".into(), 0), ("b".into(), 1)]);
    }

    #[test]
    fn rejects_shadows_that_do_not_fit() {
        for (at, changed, reason) in [
            (4, entry("shadow_params.1", Dtype::F32, &[4]), "shape [4], but its parameter `b` [3]"),
            (4, entry("shadow_params.7", Dtype::F32, &[3]), "`shadow_params.1` is missing"),
            (4, entry("shadow_params.x", Dtype::F32, &[3]), "`shadow_params.x` has no number"),
            (4, entry("other", Dtype::F32, &[3]), "1 EMA shadows for 2 parameters"),
            (3, entry("model.a", Dtype::F32, &[3]), "`a` appears twice"),
        ] {
            let mut entries = averaged();
            entries[at] = changed;
            let error = select(&entries, false).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn rejects_a_file_without_tensors() {
        assert!(select(&[], false).is_err());
    }

    #[test]
    fn counts_without_overflow() {
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[2, 0, 3]), Some(0));
        assert_eq!(count(&[usize::MAX, 2, 0]), None);
        assert_eq!(count(&[0, usize::MAX, 2]), None);
    }

    #[test]
    fn widens_what_candle_lacks() {
        let bytes = tensor(Dtype::I8, &[2], &[0xff, 0x7f]).unwrap();
        assert_eq!(bytes.to_vec1::<i16>().unwrap(), [-1, 127]);
        let flags = tensor(Dtype::BOOL, &[2], &[0, 1]).unwrap();
        assert_eq!(flags.to_vec1::<u8>().unwrap(), [0, 1]);
        assert!(tensor(Dtype::F8_E4M3, &[1], &[0]).is_err());
    }
}
