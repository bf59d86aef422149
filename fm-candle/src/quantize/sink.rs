//! Where packed files go: to disk, or nowhere.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use quant_core::format::Sink;
use quant_core::net::NetConfig;

use super::{Packed, Report, StateDict, Treated, Treatment, quantize};
use crate::atomic;
use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};

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
    net: Option<&NetConfig>,
    treat: impl Fn(&str, &[usize]) -> Treatment,
    done: impl FnMut(&TensorInfo, &Treated) -> Result<()>,
) -> Result<Report> {
    atomic::write_through(path, |out| {
        let sink = FileSink { out, path };
        let Packed { sink, head, report } = quantize(dict, indices, net, sink, treat, done)?;
        let put_head = |out: &mut atomic::Writer<'_>| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&head)
        };
        put_head(sink.out).map_err(|cause| Error::io(path, cause))?;
        Ok(report)
    })
}
