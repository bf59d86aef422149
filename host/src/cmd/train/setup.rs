//! What a run is made with and on.

use std::sync::Arc;

use fm_candle::data::ImageSet;
use fm_candle::device::Device;
use fm_candle::process_group::ProcessGroup;
use fm_candle::sample::Sampler;

use super::args::Args;
use super::signals::Signals;
use crate::progress::Progress;

/// What stays the same from the start of a run to its end.
pub(super) struct Setup<'a> {
    pub(super) args: &'a Args,
    /// Seed of everything random.
    pub(super) seed: u64,
    pub(super) group: Arc<dyn ProcessGroup>,
    pub(super) data: Arc<dyn ImageSet>,
    pub(super) sampler: Sampler,
    pub(super) device: Device,
    pub(super) progress: Progress,
    pub(super) signals: Signals,
}
