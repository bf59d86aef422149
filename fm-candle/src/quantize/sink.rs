//! Sinks of packed files: to disk, into memory, or nowhere.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::Tensor;
use quant_core::format::Sink;
use quant_core::net::UNetConfig;
use quant_core::quantize::Distortion;

use super::device::{self, PackedNet};
use super::named_tensors::NamedTensors;
use super::report::Report;
use super::stream::{PackedModel, quantize, write};
use super::tensor::{PackedTensor, TensorPolicy};
use crate::atomic;
use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// Takes bytes and forgets them: for sizes and errors alone.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

impl Sink for Discard {
    type Error = Error;

    fn put(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A file under construction.
struct FileSink<'a, 'f> {
    out: &'a mut atomic::Writer<'f>,
    path: &'a Path,
}

impl Sink for FileSink<'_, '_> {
    type Error = Error;

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|cause| Error::io(self.path, cause))
    }
}

/// Quantizes a state dict into the packed file at `path`, whole or not at all, as [`quantize`] does.
///
/// # Errors
/// Those of [`quantize`] and of [`atomic::write_with`].
pub fn quantize_to_file(
    path: &Path,
    dict: &(impl NamedTensors + ?Sized),
    indices: &[usize],
    net: Option<PackedNet<'_>>,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<Report> {
    to_file(path, net.is_some(), |sink| quantize(dict, indices, net, sink, policy, done))
}

/// The packed tensors of a net, in state-dict order; the report calls their codes after `scheme`.
pub(crate) struct PackedTensors {
    pub(crate) scheme: &'static str,
    pub(crate) infos: Vec<TensorInfo>,
    /// Each with the error of what is kept as floats.
    pub(crate) tensors: Vec<(PackedTensor, Option<Distortion>)>,
}

impl PackedTensors {
    /// Writes the tensors to the packed file at `path`, whole or not at all.
    ///
    /// # Errors
    /// Those of [`quantize`] and of [`atomic::write_with`].
    pub(crate) fn write_to_file(self, path: &Path, net: PackedNet<'_>) -> Result<Report> {
        to_file(path, true, |sink| self.write(net, sink))
    }

    /// The report on a packed file of the tensors.
    ///
    /// # Errors
    /// Those of [`quantize`].
    pub(crate) fn report(self, net: PackedNet<'_>) -> Result<Report> {
        Ok(self.write(net, Discard)?.report)
    }

    fn write<S>(self, net: PackedNet<'_>, sink: S) -> Result<PackedModel<S>>
    where
        S: Sink,
        Error: From<S::Error>,
    {
        let infos: Vec<&TensorInfo> = self.infos.iter().collect();
        let mut tensors = self.tensors.into_iter();
        let pack = |_, info: &TensorInfo| {
            let none = || Error::tensor(&info.name, "is not there");
            let (packed, kept) = tensors.next().ok_or_else(none)?;
            let report = packed.report(info, self.scheme, kept);
            Ok((packed, report))
        };
        write(&infos, Some(net), sink, pack, |_, _| Ok(()))
    }
}

/// Writes a packed file by `write`, then its head; that of a net is filled from the tensors.
fn to_file(
    path: &Path,
    is_net: bool,
    write: impl for<'a, 'f> FnOnce(FileSink<'a, 'f>) -> Result<PackedModel<FileSink<'a, 'f>>>,
) -> Result<Report> {
    atomic::write_through(path, |out| {
        let PackedModel { sink, mut head, report } = write(FileSink { out, path })?;
        let io = |cause| Error::io(path, cause);
        let put_head = |out: &mut atomic::Writer<'_>, head: &[u8]| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(head)?;
            out.flush()
        };
        put_head(sink.out, &head).map_err(io)?;
        if is_net {
            device::fill(&Mapped::of(sink.out.get_ref()).map_err(io)?, &mut head)?;
            put_head(sink.out, &head).map_err(io)?;
        }
        Ok(report)
    })
}

/// Quantizes a state dict in memory: the packed file, and sizes and errors.
///
/// # Errors
/// Those of [`quantize`].
pub fn quantize_in_memory(
    tensors: &[(String, Tensor)],
    net: Option<&UNetConfig>,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
) -> Result<(Vec<u8>, Report)> {
    let all: Vec<usize> = (0..tensors.len()).collect();
    let packed = quantize(tensors, &all, net.map(Into::into), Vec::new(), policy, |_, _| Ok(()))?;
    let PackedModel { mut sink, mut head, report } = packed;
    sink[..head.len()].copy_from_slice(&head);
    device::fill(&sink, &mut head)?;
    sink[..head.len()].copy_from_slice(&head);
    Ok((sink, report))
}
