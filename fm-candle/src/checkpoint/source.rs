//! An opened checkpoint whose tensors are read one by one.

use core::fmt::Display;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde_json::Value as Json;

use super::elements::{Elements, dtype_of};
use super::pth::Part;
use super::select::select;
use super::{Checkpoint, Entry, Kind, Store, count, net, packed, pth, safetensors};
use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// Most bytes that tensors may unfold to per byte of their file; 1 for what torch writes, 2 for
/// tied weights, more only for views that repeat elements and for compressed archives.
const MAX_UNFOLDING: u64 = 64;
/// What even the smallest file may unfold to.
const MIN_BUDGET: u64 = 64 << 20;

/// An opened checkpoint of any kind.
///
/// The file is mapped, not read: a tensor that lies in it as it is needs no memory, any other
/// only while it is held. The file must not be cut short meanwhile; see [`crate::mapped`].
///
/// ```no_run
/// # fn main() -> fm_candle::Result<()> {
/// let source = fm_candle::checkpoint::Source::open("net.pth".as_ref(), false)?;
/// for (index, info) in source.tensors().iter().enumerate() {
///     let elements = source.elements(index)?;
///     assert_eq!((elements.len(), elements.dtype()), (info.count(), info.dtype));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
    store: Box<dyn Store>,
    tensors: Vec<TensorInfo>,
    /// What the net calls each of `tensors`.
    net_names: Vec<String>,
    /// Where in the store's entries each of `tensors` is.
    picks: Vec<usize>,
    ema: bool,
}

/// What a source says of a tensor before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the net's state dict.
    pub name: String,
    /// What the elements are once read: an integer or floating type of whole bytes.
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

/// The name of each tensor that is taken, and its index in the store's entries.
type Picks = Vec<(String, usize)>;

impl Source {
    /// Opens the file at `path` for the weights to evaluate.
    ///
    /// Upstream's training layout keeps the state dict under `model`. With EMA that dict holds
    /// the raw weights and the averaged ones. The latter are taken, under the parameters' names,
    /// unless `raw_weights` is set. Buffers, which have no average, come as they are.
    ///
    /// What the file says about the tensors taken is checked here, and that they unfold to no
    /// more than 64 times the file (or 64 MiB): this stops zip bombs, expanded views and
    /// storages shared too often.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened; [`Error::File`], naming the tensor where
    /// there is one, for a file that is none of the known kinds, damaged, hostile, without
    /// tensors, or whose averages do not fit its parameters.
    pub fn open(path: &Path, raw_weights: bool) -> Result<Self> {
        Self::with(path, Part::Net, |kind, store| {
            if kind == Kind::Packed {
                let names = store.entries().iter().map(|entry| entry.name.clone());
                return Ok((names.zip(0..).collect(), None, false));
            }
            let (named, ema) = select(store.entries(), raw_weights)?;
            Ok((named, None, ema))
        })
    }

    /// Opens the file at `path` for all tensors of its state dict, under the file's own names:
    /// with EMA the raw weights, the shadows and their counter.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); shadows that fit no parameters are no error here.
    pub fn open_whole(path: &Path) -> Result<Self> {
        Self::with(path, Part::Net, |_, store| {
            let entries = store.entries();
            let mut net_names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
            let named: Picks = net_names.iter().cloned().zip(0..).collect();
            let averaged = select(entries, false).ok();
            let ema = averaged.as_ref().is_some_and(|(_, ema)| *ema);
            for (name, index) in
                averaged.into_iter().chain([select(entries, true)?]).flat_map(|(picks, _)| picks)
            {
                net_names[index] = name;
            }
            Ok((named, Some(net_names), ema))
        })
    }

    /// Opens the file at `path` for the optimizer's tensors of upstream's training layout, under names
    /// such as `state.0.exp_avg`, and gives all beside tensors that the file holds, as JSON: a
    /// namespace as an object, a tuple as a list, a tensor as null. None for any other file.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_training(path: &Path) -> Result<Option<(Self, Json)>> {
        let source = Self::with(path, Part::Training, |_, store| {
            let names = store.entries().iter().map(|entry| entry.name.clone());
            Ok((names.zip(0..).collect(), None, false))
        })?;
        let rest = source.torch().map_or(Json::Null, |archive| archive.rest().clone());
        Ok((!rest.is_null()).then_some((source, rest)))
    }

    /// Opens the file at `path` for the tensors that `pick` finds.
    fn with(
        path: &Path,
        part: Part,
        pick: impl FnOnce(Kind, &dyn Store) -> Result<(Picks, Option<Vec<String>>, bool), String>,
    ) -> Result<Self> {
        let file = Mapped::open(path)?;
        let budget = (file.len() as u64).saturating_mul(MAX_UNFOLDING).max(MIN_BUDGET);
        let bad = |reason| Error::file(path, reason);
        let (kind, store) = store(file, part).map_err(bad)?;
        let (named, net_names, ema) = pick(kind, &*store).map_err(bad)?;
        let own_names = || named.iter().map(|(name, _)| name.clone()).collect();
        let net_names = net_names.unwrap_or_else(own_names);
        let picks = named.iter().map(|&(_, index)| index).collect();
        let path = path.to_path_buf();
        let mut source = Self { path, kind, store, tensors: Vec::new(), net_names, picks, ema };
        source.tensors = source.admit(named, budget)?;
        Ok(source)
    }

    /// What is known of the tensors taken, unless all together cost more than the budget.
    fn admit(&self, named: Picks, mut budget: u64) -> Result<Vec<TensorInfo>> {
        let admit = |(name, index): (String, usize)| {
            let Entry { dtype, shape, .. } = &self.store.entries()[index];
            let dtype = dtype_of(*dtype).map_err(self.of_tensor(index))?;
            if count(shape).is_none() {
                return Err(self.of_tensor(index)(format!("shape {shape:?} overflows")));
            }
            let cost = self.store.cost(index).map_err(self.of_tensor(index))?;
            budget = budget
                .checked_sub(cost)
                .ok_or("with it the tensors unfold to far more than the file holds")
                .map_err(self.of_tensor(index))?;
            Ok(TensorInfo { name, dtype, shape: shape.clone() })
        };
        named.into_iter().map(admit).collect()
    }

    /// What the file is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the tensors are the shadows of an exponential moving average.
    pub const fn ema(&self) -> bool {
        self.ema
    }

    /// The file's metadata, in its order; of torch files only those of our training have any.
    pub fn metadata(&self) -> &[(String, String)] {
        self.store.metadata()
    }

    /// The net's configuration, as JSON, if the file carries it.
    pub fn net(&self) -> Option<&str> {
        net(self.metadata())
    }

    /// The tensors in the order of the state dict.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the net calls each of [`tensors`](Self::tensors): their own names, but those of the
    /// parameters for what [`open_whole`](Self::open_whole) finds as `model.NAME` and
    /// `shadow_params.N`.
    pub fn net_names(&self) -> &[String] {
        &self.net_names
    }

    /// All tensors, and what else is known.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub fn load(&self) -> Result<Checkpoint> {
        let read = |(index, info): (usize, &TensorInfo)| Ok((info.name.clone(), self.read(index)?));
        Ok(Checkpoint {
            kind: self.kind,
            tensors: self.tensors.iter().enumerate().map(read).collect::<Result<_>>()?,
            ema: self.ema,
            metadata: self.metadata().to_vec(),
        })
    }

    /// The elements of the tensor at `index` in [`tensors`](Self::tensors).
    ///
    /// They are borrowed from the map where the file stores them plainly, and owned where they
    /// must be gathered, unpacked, swapped or widened.
    ///
    /// # Errors
    ///
    /// [`Error::File`], naming the tensor, where its bytes are damaged.
    ///
    /// # Panics
    ///
    /// If there is no such tensor.
    pub fn elements(&self, index: usize) -> Result<Elements<'_>> {
        let index = self.picks[index];
        let Entry { dtype, shape, .. } = &self.store.entries()[index];
        let bytes = self.store.bytes(index);
        let elements = bytes.and_then(|bytes| Elements::new(*dtype, shape, bytes));
        elements.map_err(self.of_tensor(index))
    }

    /// The tensor at `index` in [`tensors`](Self::tensors), on the CPU.
    ///
    /// # Errors
    ///
    /// Those of [`Source::elements`].
    ///
    /// # Panics
    ///
    /// If there is no such tensor.
    pub fn read(&self, index: usize) -> Result<Tensor> {
        let tensor = self.elements(index)?.tensor(&self.tensors[index].shape);
        tensor.map_err(self.of_tensor(self.picks[index]))
    }

    /// The packed tensor at `index`, if the file is a packed one.
    pub(super) fn packed(&self, index: usize) -> Option<&quant_core::format::Tensor<'_>> {
        self.store.packed()?.tensor(self.picks[index])
    }

    /// The torch file that is read, if it is one.
    pub(super) fn torch(&self) -> Option<&pth::Archive> {
        self.store.torch()
    }

    /// Where in the store's entries the tensor at `index` is.
    pub(super) fn entry(&self, index: usize) -> usize {
        self.picks[index]
    }

    /// Makes a reason the error of the entry at `index`, under the file's own name for it.
    pub(super) fn of_tensor<R: Display>(&self, index: usize) -> impl Fn(R) -> Error {
        let name = &self.store.entries()[index].name;
        move |reason| Error::file(&self.path, format!("tensor `{name}`: {reason}"))
    }
}

impl Kind {
    /// The kind of a file that begins so, told by its first 64 bytes; none for other files.
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(&quant_core::format::MAGIC) {
            Some(Self::Packed)
        } else if head.starts_with(b"PK") {
            Some(Self::Torch)
        } else if pth::is_legacy(&head[..head.len().min(64)]) {
            Some(Self::TorchLegacy)
        } else if head.get(8) == Some(&b'{') {
            Some(Self::Safetensors)
        } else {
            None
        }
    }
}

/// Opens a file as what its first bytes say.
fn store(file: Mapped, part: Part) -> Result<(Kind, Box<dyn Store>), String> {
    let Some(kind) = Kind::of(&file) else {
        return Err(
            "is no torch checkpoint (.pth, .pt), no .safetensors and no packed .fmq file".into()
        );
    };
    let store: Box<dyn Store> = match kind {
        Kind::Packed => Box::new(packed::Packed::open(file)?),
        Kind::Torch => Box::new(pth::Archive::open_zip(file, part)?),
        Kind::TorchLegacy => Box::new(pth::Archive::open_legacy(file, part)?),
        Kind::Safetensors => Box::new(safetensors::Reader::open(file)?),
    };
    Ok((kind, store))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ::safetensors::Dtype;
    use ::safetensors::tensor::View;
    use candle_core::Device;
    use quant_core::quantize::Options;
    use quant_core::scheme::Scheme;

    use super::*;
    use crate::quantize::{Packed, Treatment, quantize};

    /// Tensors of four bytes that cost what is said.
    #[derive(Debug)]
    struct Costly(Vec<Entry>, Vec<u64>);

    impl Store for Costly {
        fn entries(&self) -> &[Entry] {
            &self.0
        }

        fn cost(&self, index: usize) -> Result<u64, String> {
            Ok(self.1[index])
        }

        fn bytes(&self, _index: usize) -> Result<Cow<'_, [u8]>, String> {
            Ok(Cow::Borrowed(&[0; 4]))
        }
    }

    #[test]
    fn all_tensors_together_must_keep_to_the_budget() {
        let admit = |costs: &[u64]| {
            let entry = |name| Entry { name, dtype: Dtype::F32, shape: vec![1] };
            let names = (0..costs.len()).map(|index| index.to_string());
            let store = Box::new(Costly(names.clone().map(entry).collect(), costs.to_vec()));
            let (path, kind, ema) = ("net".into(), Kind::Torch, false);
            let picks = (0..costs.len()).collect();
            let (tensors, net_names) = (Vec::new(), Vec::new());
            let source = Source { path, kind, store, tensors, net_names, picks, ema };
            source.admit(names.zip(0..).collect(), 10)
        };
        assert_eq!(admit(&[6, 4]).unwrap().len(), 2);
        for costs in [[6, 5], [10, 1], [1, u64::MAX]] {
            let error = admit(&costs).unwrap_err().to_string();
            assert!(error.contains("tensor `1`: with it the tensors unfold"), "{error}");
        }
    }

    /// Opens a file with this content.
    fn open(bytes: &[u8]) -> Result<Source> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net");
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path, false)
    }

    #[test]
    fn a_packed_file_gives_its_decoded_tensors() {
        let weights = Tensor::new(&[[0.5_f32, -1.0, 2.0], [3.0, 0.25, -0.5]], &Device::Cpu);
        let tensors = [
            ("coded".to_string(), weights.unwrap()),
            ("kept".to_string(), Tensor::new(&[1.5_f32, -0.0], &Device::Cpu).unwrap()),
            ("steps".to_string(), Tensor::new(-7_i64, &Device::Cpu).unwrap()),
            ("empty".to_string(), Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap()),
        ];
        let treat = |name: &str, _: &[usize]| match name {
            "coded" => Treatment::Quantize(Options::new(Scheme::Uniform, 2)),
            _ => Treatment::F32,
        };
        let mut expected = Vec::new();
        let packed =
            quantize(&tensors[..], &[0, 1, 2, 3], None, Vec::new(), treat, |info, treated| {
                expected.push((info.name.clone(), treated.tensor(&info.shape)?));
                Ok(())
            });
        let Packed { mut sink, head, .. } = packed.unwrap();
        sink[..head.len()].copy_from_slice(&head);
        let source = open(&sink).unwrap();
        assert_eq!((source.kind(), source.ema(), source.net()), (Kind::Packed, false, None));
        assert_eq!(source.tensors().len(), expected.len());
        for (index, (info, (name, tensor))) in source.tensors().iter().zip(&expected).enumerate() {
            let TensorInfo { dtype, shape, .. } = info;
            assert_eq!((&info.name, *dtype, &shape[..]), (name, tensor.dtype(), tensor.dims()));
            assert_eq!(View::data(&source.read(index).unwrap()), View::data(tensor), "{name}");
            let elements = source.elements(index).unwrap();
            assert_eq!(elements.bytes(), &View::data(tensor), "{name}");
            assert_eq!(elements.i64s().is_some(), name == "steps");
        }
    }

    #[test]
    fn files_of_no_known_kind_are_refused() {
        for bytes in [&b""[..], b"P", b"\x80", b"        ", b"hello, world"] {
            let error = open(bytes).unwrap_err().to_string();
            assert!(error.contains("is no torch checkpoint"), "{error}");
        }
    }

    #[test]
    fn threads_may_share_a_source() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Source>();
    }
}
