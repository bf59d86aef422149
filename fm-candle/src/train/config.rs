//! What a run is asked to do.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of a run that change its numbers; names and defaults are upstream's flags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches, one to one")]
pub struct TrainConfig {
    /// Images per batch.
    pub batch_size: usize,
    /// Passes over the data.
    pub epochs: u64,
    /// Batches whose gradients are averaged for one update.
    pub accum_iter: usize,
    /// Learning rate.
    pub lr: f64,
    /// AdamW's decays.
    pub optimizer_betas: (f64, f64),
    /// Whether the learning rate falls linearly to 1e-8 over all epochs.
    pub decay_lr: bool,
    /// Probability that a whole batch is trained without its labels.
    pub class_drop_prob: f64,
    /// Whether times follow the skewed distribution.
    pub skewed_timesteps: bool,
    /// Whether a moving average of the weights is kept (decay at most 0.999).
    pub use_ema: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether images are flipped left to right with probability 1/2.
    pub flip: bool,
    /// What the net computes in.
    pub precision: Precision,
    /// Whether maps inside blocks are computed again for their gradients, not kept.
    pub recompute: bool,
    /// Processes that train together, each on batches of its own.
    pub world_size: usize,
}

/// The type that a net under training computes in; its weights, their gradients and the optimizer
/// are f32 in all cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// The upper half of single precision.
    Bf16,
    /// Half precision, whose gradients are scaled up so that small ones do not vanish.
    F16,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 32,
            epochs: 921,
            accum_iter: 1,
            lr: 1e-4,
            optimizer_betas: (0.9, 0.95),
            decay_lr: false,
            class_drop_prob: 0.2,
            skewed_timesteps: false,
            use_ema: false,
            seed: 0,
            flip: true,
            precision: Precision::F32,
            recompute: false,
            world_size: 1,
        }
    }
}

impl TrainConfig {
    /// Refuses settings that cannot train.
    ///
    /// # Errors
    /// The setting, its value, and what would be right.
    pub fn check(&self) -> Result<()> {
        let fault = |what: String| Err(Error::Config(what));
        if [self.batch_size, self.accum_iter, self.world_size].contains(&0) || self.epochs == 0 {
            return fault("batch_size, accum_iter, epochs, world_size must be at least 1".into());
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fault(format!("lr {} must be a positive number", self.lr));
        }
        if !(0.0..=1.0).contains(&self.class_drop_prob) {
            return fault(format!("class_drop_prob {} must lie in [0, 1]", self.class_drop_prob));
        }
        let (b1, b2) = self.optimizer_betas;
        if !((0.0..1.0).contains(&b1) && (0.0..1.0).contains(&b2)) {
            return fault(format!("optimizer_betas {b1} {b2} must lie in [0, 1)"));
        }
        Ok(())
    }

    /// Images in the batches of all processes together.
    pub fn global_batch(&self) -> u64 {
        (self.batch_size * self.world_size) as u64
    }
}
