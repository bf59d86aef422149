//! An opened checkpoint whose tensors are read one by one.

use core::fmt::Display;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use candle_core::Tensor;
use serde_json::Value as Json;

use super::choice::{Choice, NetInfo, nets, wanted};
use super::elements::{Elements, dtype_of};
use super::entry::{LeftOut, TensorEntry, TensorInfo, count};
use super::folder;
use super::metadata::{NET_KEY, net};
use super::pth;
use super::pth::RecordPart;
use super::select::{self, NetCandidate};
use super::store::{FileKind, Store};
use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// Most bytes that tensors may unfold to per byte of their file; 1 for what torch writes, 2 for
/// tied weights, more only for views that repeat elements and for compressed archives.
const MAX_UNFOLDING: u64 = 64;
/// Bytes that even the smallest file may unfold to.
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
    store: Store,
    metadata: Vec<(String, String)>,
    tensors: Vec<TensorInfo>,
    /// The net's name of each of `tensors`.
    net_names: Vec<String>,
    /// Index of each of `tensors` in the store's entries.
    picks: Vec<usize>,
    ema: bool,
    nets: Vec<NetInfo>,
    left_out: Vec<LeftOut>,
    prefix: String,
}

/// The tensors taken from an opened file, and its nets.
#[derive(Default)]
struct Taken {
    /// The name of each tensor, the net's name of it, and its index in the store's entries.
    picks: Vec<(String, String, usize)>,
    ema: bool,
    nets: Vec<NetInfo>,
    prefix: String,
}

impl Taken {
    /// All tensors of a file that holds nothing else.
    fn all(store: &Store) -> Self {
        let names = store.entries().iter().map(|entry| entry.name.clone()).zip(0..);
        let picks = names.map(|(name, index)| (name.clone(), name, index)).collect();
        Self { picks, ..Self::default() }
    }
}

impl Source {
    /// Opens the file at `path` for the weights to evaluate: those of [`open_net`](Self::open_net),
    /// if no net is known.
    ///
    /// # Errors
    ///
    /// Those of [`open_net`](Self::open_net).
    pub fn open(path: &Path, raw_weights: bool) -> Result<Self> {
        Self::open_net(path, &Choice { raw_weights, ..Choice::default() })
    }

    /// Opens the file at `path`, or that in a folder ([`folder`]), for the weights of one net.
    ///
    /// Training programs keep several in a file, under keys such as `model` and `ema_model` or as
    /// prefixes of the names. The chosen one is taken; else the first that is known, averages first
    /// unless `raw_weights` is set; else, where all have the same tensors, the first; else all
    /// together. [`nets`](Self::nets) says what there is. Wrappers' prefixes (`module.`,
    /// `_orig_mod.`, `model.`) that all names share are left off. The states of optimizers are never
    /// weights. In upstream's layout, the averages come under the parameters' names; buffers, which
    /// have none, as they are.
    ///
    /// The descriptions of the tensors taken are checked here, and that they unfold to no more than
    /// 64 times the file (or 64 MiB): this stops zip bombs, expanded views and storages shared too
    /// often. Tensors that cannot be weights, such as sparse ones, are
    /// [`left_out`](Self::left_out).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened; [`Error::File`], naming the tensor where
    /// there is one, for a file that is none of the known kinds, damaged, hostile, without
    /// tensors, without the chosen net, or whose averages do not fit its parameters.
    pub fn open_net(path: &Path, choice: &Choice<'_>) -> Result<Self> {
        Self::with(path, RecordPart::Net, |kind, store| {
            if kind == FileKind::Packed {
                return Ok(Taken::all(store));
            }
            let nets = nets(store)?;
            let selected = select::select(store.entries(), &nets, &wanted(store, choice))?;
            let (key, prefix) = selected.net.unzip();
            let info = |net: &NetCandidate| NetInfo {
                key: net.key.clone(),
                average: net.average,
                tensors: net.picks.as_ref().ok().map(Vec::len),
                taken: key.as_ref().is_none_or(|key| *key == net.key),
            };
            let picks = selected.picks.into_iter();
            Ok(Taken {
                picks: picks.map(|(name, index)| (name.clone(), name, index)).collect(),
                ema: selected.average,
                nets: nets.iter().map(info).collect(),
                prefix: prefix.unwrap_or_default(),
            })
        })
    }

    /// Opens the file at `path` for all tensors of all its nets, under the file's own names: with
    /// EMA the raw weights, the shadows and their counter. `choice` only says which names are the
    /// net's.
    ///
    /// # Errors
    ///
    /// Those of [`open_net`](Self::open_net); shadows that fit no parameters are no error here.
    pub fn open_whole(path: &Path, choice: &Choice<'_>) -> Result<Self> {
        Self::with(path, RecordPart::Net, |_, store| {
            let entries = store.entries();
            let nets = nets(store)?;
            let mut net_names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
            let chosen = select::select(entries, &nets, &wanted(store, choice)).ok();
            let chosen = chosen.filter(|chosen| chosen.net.is_some()).map(|chosen| chosen.picks);
            let found = nets.iter().filter_map(|net| net.picks.as_ref().ok());
            for (name, index) in found.chain(&chosen).flatten() {
                net_names[*index].clone_from(name);
            }
            let several = entries.iter().any(|entry| entry.group != entries[0].group);
            let own = |entry: &TensorEntry| if several { entry.path() } else { entry.name.clone() };
            let all = entries.iter().zip(net_names).zip(0..);
            let weights = all.filter(|((entry, _), _)| !select::is_moment(&entry.name));
            let picks = weights.map(|((entry, net_name), index)| (own(entry), net_name, index));
            let ema = nets.iter().any(|net| net.average && net.picks.is_ok());
            Ok(Taken { picks: picks.collect(), ema, ..Taken::default() })
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
        let source = Self::with(path, RecordPart::Training, |_, store| Ok(Taken::all(store)))?;
        let rest = source.torch().map_or(Json::Null, |archive| archive.rest().clone());
        Ok((!rest.is_null()).then_some((source, rest)))
    }

    /// Opens the file at `path` for the tensors that `take` finds.
    fn with(
        path: &Path,
        part: RecordPart,
        take: impl FnOnce(FileKind, &Store) -> Result<Taken, String>,
    ) -> Result<Self> {
        let given = path;
        let path = &*folder::weights(given)?;
        let file = Mapped::open(path)?;
        let budget = (file.len() as u64).saturating_mul(MAX_UNFOLDING).max(MIN_BUDGET);
        let bad = |reason| Error::file(path, reason);
        let store = Store::open(file, part).map_err(bad)?;
        let kind = store.kind();
        let Taken { picks, ema, nets, prefix } = take(kind, &store).map_err(bad)?;
        let mut metadata = store.metadata().to_vec();
        if net(&metadata).is_none() {
            metadata.extend(folder::config(given)?.map(|json| (NET_KEY.into(), json)));
        }
        let (tensors, left_out) = (Vec::with_capacity(picks.len()), store.left_out().to_vec());
        let mut source = Self {
            path: path.to_path_buf(),
            store,
            metadata,
            tensors,
            net_names: Vec::new(),
            picks: Vec::new(),
            ema,
            nets,
            left_out,
            prefix,
        };
        source.admit(picks, budget)?;
        Ok(source)
    }

    /// Takes in what is known of the tensors `picks`, unless all together cost more than the budget;
    /// those that cannot be weights are left out.
    fn admit(&mut self, picks: Vec<(String, String, usize)>, mut budget: u64) -> Result<()> {
        for (name, net_name, index) in picks {
            let TensorEntry { dtype, shape, .. } = &self.store.entries()[index];
            let shape = shape.clone();
            let dtype = match dtype_of(*dtype) {
                Ok(dtype) => dtype,
                Err(reason) => {
                    self.left_out.push(LeftOut { name, reason });
                    continue;
                }
            };
            if count(&shape).is_none() {
                return Err(self.of_tensor(index)(format!("shape {shape:?} overflows")));
            }
            let cost = self.store.cost(index).map_err(self.of_tensor(index))?;
            spend(&mut budget, cost).map_err(self.of_tensor(index))?;
            self.tensors.push(TensorInfo { name, dtype, shape });
            self.net_names.push(net_name);
            self.picks.push(index);
        }
        match self.left_out.first() {
            Some(LeftOut { name, reason }) if self.tensors.is_empty() => {
                Err(Error::file(&self.path, format!("holds no weights; tensor `{name}` {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// The file that is read: of a folder its weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of the file.
    pub const fn kind(&self) -> FileKind {
        self.store.kind()
    }

    /// The nets in the file, in its order, and which was taken; none for a packed file.
    pub fn nets(&self) -> &[NetInfo] {
        &self.nets
    }

    /// Tensors of the file's state dicts that cannot be weights.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The prefix of all names in the file's state dict that is left off, such as `module`; empty
    /// where there is none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns true if the tensor at `index` in [`tensors`](Self::tensors) is stored in the dtype
    /// that it is read in.
    pub(crate) fn is_plain(&self, index: usize) -> bool {
        Dtype::from(self.tensors[index].dtype) == self.store.entries()[self.picks[index]].dtype
    }

    /// Returns true if the tensors are the shadows of an exponential moving average.
    pub const fn ema(&self) -> bool {
        self.ema
    }

    /// The file's metadata, in its order; of torch files only those of our training have any. In a
    /// folder the configuration beside the weights counts among them, where they say none themselves.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The net's configuration, as JSON, if the file carries it.
    pub fn net(&self) -> Option<&str> {
        net(self.metadata())
    }

    /// The tensors in the order of the state dict.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The net's name of each of [`tensors`](Self::tensors): their own names, but those of the
    /// parameters for what [`open_whole`](Self::open_whole) finds as `model.NAME` and
    /// `shadow_params.N`.
    pub fn net_names(&self) -> &[String] {
        &self.net_names
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
        let TensorEntry { dtype, shape, .. } = &self.store.entries()[index];
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
    pub(super) fn torch(&self) -> Option<&pth::TorchArchive> {
        self.store.torch()
    }

    /// The index of the tensor at `index` in the store's entries.
    pub(super) fn entry(&self, index: usize) -> usize {
        self.picks[index]
    }

    /// Makes a reason the error of the entry at `index`, under the file's own name for it.
    pub(super) fn of_tensor<R: Display>(&self, index: usize) -> impl Fn(R) -> Error {
        let name = &self.store.entries()[index].name;
        move |reason| Error::file(&self.path, format!("tensor `{name}`: {reason}"))
    }
}

/// Takes the cost of a tensor from what all together may unfold to.
fn spend(budget: &mut u64, cost: u64) -> Result<(), &'static str> {
    let left = budget.checked_sub(cost);
    *budget = left.ok_or("with it the tensors unfold to far more than the file holds")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::safetensors::tensor::View;
    use candle_core::{DType, Device};
    use quant_core::bits::Bits;
    use quant_core::quantize::QuantizeOptions;
    use quant_core::scheme::Scheme;

    use super::*;
    use crate::quantize::{PackedModel, TensorPolicy, quantize};

    #[test]
    fn all_tensors_together_must_keep_to_the_budget() {
        let spent = |costs: [u64; 2]| {
            let mut budget = 10;
            costs.map(|cost| spend(&mut budget, cost).is_ok())
        };
        assert_eq!(spent([6, 4]), [true, true]);
        for costs in [[6, 5], [10, 1], [1, u64::MAX]] {
            assert_eq!(spent(costs), [true, false], "{costs:?}");
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
        let policy = |name: &str, _: &[usize]| match name {
            "coded" => {
                TensorPolicy::Quantize(QuantizeOptions::new(Scheme::Uniform, Bits::new(2).unwrap()))
            }
            _ => TensorPolicy::F32,
        };
        let mut expected = Vec::new();
        let packed =
            quantize(&tensors[..], &[0, 1, 2, 3], None, Vec::new(), policy, |info, packed| {
                expected.push((info.name.clone(), packed.tensor(&info.shape)?));
                Ok(())
            });
        let PackedModel { mut sink, head, .. } = packed.unwrap();
        sink[..head.len()].copy_from_slice(&head);
        let source = open(&sink).unwrap();
        assert_eq!((source.kind(), source.ema(), source.net()), (FileKind::Packed, false, None));
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
