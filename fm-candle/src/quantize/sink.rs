//! Sinks of packed files: to disk, into memory, or nowhere.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::Tensor;
use quant_core::format::Sink;
use quant_core::net::UNetConfig;

use super::device::{self, PackedNet};
use super::named_tensors::NamedTensors;
use super::report::Report;
use super::stream::{PackedModel, quantize};
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
pub(super) struct FileSink<'a, 'f> {
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

/// Writes a packed file by `write`, then its head; that of a net is filled from the tensors.
pub(super) fn to_file(
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
