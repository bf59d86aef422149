//! The fixed parts of a run: arguments, data, processes and device.

use std::sync::Arc;

use fm_candle::data::ImageSet;
use fm_candle::device::Device;
use fm_candle::process_group::ProcessGroup;
use fm_candle::sample::BatchSampler;

use super::args::Args;
use crate::progress::Reporter;
use crate::signals::Signals;

/// The parts of a run that do not change from its start to its end.
pub(super) struct Setup<'a> {
    pub(super) args: &'a Args,
    /// Seed of everything random.
    pub(super) seed: u64,
    pub(super) group: Arc<dyn ProcessGroup>,
    pub(super) data: Arc<dyn ImageSet>,
    pub(super) sampler: BatchSampler,
    pub(super) device: Device,
    pub(super) progress: Reporter,
    pub(super) signals: Signals,
}
