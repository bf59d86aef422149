//! A state dict into a sink, tensor by tensor: no more than one of them is held at a time.

use core::borrow::Borrow;

use quant_core::format::{Dense, Head, Sink, Writer};

use super::device::PackedNet;
use super::named_tensors::NamedTensors;
use super::report::{PendingReport, Report};
use super::tensor::{PackedTensor, TensorPolicy, pack};
use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};
use crate::model::UNet;

/// A packed file but for its head, whose place the sink has filled with as many zeros. The head's
/// memory plan and self-test are not known yet: they are of their length, and empty.
pub struct PackedModel<S> {
    /// Sink that took the bytes.
    pub sink: S,
    /// Bytes of the head.
    pub head: Vec<u8>,
    /// Sizes and errors.
    pub report: Report,
}

/// Quantizes a state dict into `sink`, tensor by tensor in the order of `indices`; `policy` decides
/// what is done with each floating one from its name and shape, `done` sees the result. Integer
/// tensors are kept. f16, bf16 and f64 weights are taken as f32. Channels are spread over rayon's
/// threads; the result does not depend on their number.
///
/// # Errors
/// Weights that are not finite, by tensor and index; values beyond f16 where that is asked for;
/// tensors that are not `net`'s parameters; those of reading, of the sink and of `done`.
pub fn quantize<S>(
    dict: &(impl NamedTensors + ?Sized),
    indices: &[usize],
    net: Option<PackedNet<'_>>,
    sink: S,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
    mut done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<PackedModel<S>>
where
    S: Sink,
    Error: From<S::Error>,
{
    let tensors = dict.tensors();
    let infos: Vec<&TensorInfo> = indices.iter().map(|&index| &tensors[index]).collect();
    let pack = |place: usize, info: &TensorInfo| {
        let policy = info.dtype.is_float().then(|| policy(&info.name, &info.shape));
        pack(&dict.elements(indices[place])?, info, policy)
    };
    write(&infos, net, sink, pack, |info, packed| done(info, packed))
}

/// Writes tensors that `pack` gives by their place and description into `sink`, one by one.
///
/// # Errors
/// Tensors that are not `net`'s parameters; those of `pack`, of the sink and of `done`.
pub(super) fn write<S, P>(
    infos: &[&TensorInfo],
    net: Option<PackedNet<'_>>,
    sink: S,
    mut pack: impl FnMut(usize, &TensorInfo) -> Result<(P, PendingReport)>,
    mut done: impl FnMut(&TensorInfo, &PackedTensor) -> Result<()>,
) -> Result<PackedModel<S>>
where
    S: Sink,
    P: Borrow<PackedTensor>,
    Error: From<S::Error>,
{
    let names = infos.iter().map(|info| info.name.as_str());
    // Names that follow from the net take no bytes.
    let own = net.map(|net| UNet::shapes(net.config)).transpose()?;
    let own = own.is_some_and(|own| names.clone().eq(own.iter().map(|(name, _)| name.as_str())));
    let names = if own { None } else { Some(names.collect()) };
    let sections = net.map(PackedNet::sections).transpose()?.unwrap_or_default();
    let sections = sections.iter().map(|(kind, contents)| (*kind, &contents[..])).collect();
    let net = net.map(|net| net.config);
    let mut writer = Writer::new(sink, &Head { net, names, sections })?;
    let mut reports = Vec::with_capacity(infos.len());
    for (place, &info) in infos.iter().enumerate() {
        let named = |error| match error {
            Error::Quant(error) => Error::tensor(&info.name, error.to_string()),
            other => other,
        };
        let (packed, report) = pack(place, info).map_err(named)?;
        let packed = packed.borrow();
        let written = match packed {
            PackedTensor::Quantized(tensor) => writer.quantized(tensor),
            PackedTensor::F32(values) => writer.dense(&info.shape, Dense::F32(values)),
            PackedTensor::F16(values) => writer.dense(&info.shape, Dense::F16(values)),
            PackedTensor::I64(values) => writer.dense(&info.shape, Dense::I64(values)),
        };
        written.map_err(Error::from).map_err(named)?;
        done(info, packed)?;
        reports.push(report);
    }
    let written = writer.finish()?;
    let report = Report::new(reports, &written.record_bytes, written.file_bytes);
    Ok(PackedModel { sink: written.sink, head: written.head, report })
}
