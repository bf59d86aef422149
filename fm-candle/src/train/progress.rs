//! The progress of a run.

use serde::{Deserialize, Serialize};

/// The progress of a run, in epochs, batches and images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainProgress {
    /// Finished epochs.
    pub epoch: u64,
    /// Batches done in the epoch under way.
    pub batch: u64,
    /// Batches done since the start of the run.
    pub batches: u64,
    /// Images in them, over all processes.
    pub examples: u64,
    /// Sum of the losses of the batches done in the epoch under way.
    pub loss_sum: f64,
    /// Mean loss of the last finished epoch; none before, and in files that do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

impl TrainProgress {
    /// Mean loss of the batches done in the epoch under way.
    pub fn mean_loss(&self) -> f64 {
        self.loss_sum / self.batch.max(1) as f64
    }
}
