//! Where packed files go: to disk, or nowhere.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use quant_core::format::Sink;

use super::{Packed, PackedNet, PackedTensor, Report, StateDict, TensorPolicy, device, quantize};
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
    dict: &(impl StateDict + ?Sized),
    indices: &[usize],
    net: Option<PackedNet<'_>>,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<Report> {
    atomic::write_through(path, |out| {
        let sink = FileSink { out, path };
        let Packed { sink, mut head, report } = quantize(dict, indices, net, sink, policy, done)?;
        let io = |cause| Error::io(path, cause);
        let put_head = |out: &mut atomic::Writer<'_>, head: &[u8]| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(head)?;
            out.flush()
        };
        put_head(sink.out, &head).map_err(io)?;
        if net.is_some() {
            device::fill(&Mapped::of(sink.out.get_ref()).map_err(io)?, &mut head)?;
            put_head(sink.out, &head).map_err(io)?;
        }
        Ok(report)
    })
}
