//! The settings of a run.

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
    /// Decay the learning rate linearly to 1e-8 over all epochs.
    pub decay_lr: bool,
    /// Probability that a whole batch is trained without its labels.
    pub class_drop_prob: f64,
    /// Draw times from the skewed distribution.
    pub skewed_timesteps: bool,
    /// Keep a moving average of the weights (decay at most 0.999).
    pub use_ema: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Flip images left to right with probability 1/2.
    pub flip: bool,
    /// The type that the net computes in.
    pub precision: TrainPrecision,
    /// Compute maps inside blocks again for their gradients, instead of keeping them.
    pub recompute: bool,
    /// Processes that train together, each on batches of its own.
    pub world_size: usize,
}

/// The type that a net under training computes in; its weights, their gradients and the optimizer
/// are f32 in all cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
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
            precision: TrainPrecision::F32,
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
        for (name, value) in [
            ("--batch_size", self.batch_size as u64),
            ("--accum_iter", self.accum_iter as u64),
            ("--epochs", self.epochs),
            ("world_size", self.world_size as u64),
        ] {
            if value == 0 {
                return fault(format!("{name} 0: must be at least 1"));
            }
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fault(format!("--lr {}: must be a number above 0", self.lr));
        }
        if !(0.0..=1.0).contains(&self.class_drop_prob) {
            return fault(format!(
                "--class_drop_prob {}: must lie in [0, 1]",
                self.class_drop_prob
            ));
        }
        let (b1, b2) = self.optimizer_betas;
        if !((0.0..1.0).contains(&b1) && (0.0..1.0).contains(&b2)) {
            return fault(format!("--optimizer_betas {b1} {b2}: must lie in [0, 1)"));
        }
        Ok(())
    }

    /// Full batches of an epoch of `images` images, in each process. As upstream does, the last of
    /// them make no update where `accum_iter` does not divide their number.
    ///
    /// # Errors
    /// Too few images for a batch, or too few batches for an update; settings that cannot train.
    pub fn batches(&self, images: usize) -> Result<u64> {
        self.check()?;
        let Self { batch_size, accum_iter, world_size, .. } = *self;
        // As `EpochOrder` shares them out.
        let share = images.div_ceil(world_size);
        let shared = match world_size {
            1 => String::new(),
            _ => format!(" for {world_size} processes"),
        };
        let batches = share / batch_size;
        if batches == 0 {
            return Err(Error::Config(format!(
                "--batch_size {batch_size}: the data set has only {images} images{shared}; at most \
                 {share} is right"
            )));
        }
        if batches < accum_iter {
            return Err(Error::Config(format!(
                "--accum_iter {accum_iter}: an epoch of {images} images{shared} has {batches} batches \
                 of {batch_size}, so there would be no update at all; at most {batches} is right"
            )));
        }
        Ok(batches as u64)
    }

    /// Images in the batches of all processes together.
    pub fn global_batch(&self) -> u64 {
        (self.batch_size * self.world_size) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::EpochOrder;
    use super::*;
    use crate::process_group::Rank;

    #[test]
    fn an_epoch_has_the_batches_of_its_order() {
        for (images, batch_size, world_size) in [(7, 3, 1), (7, 2, 2), (9, 1, 4), (64, 8, 1)] {
            let config = TrainConfig { batch_size, world_size, ..TrainConfig::default() };
            let order =
                EpochOrder::new(images, 5, 1, Rank { index: world_size - 1, size: world_size });
            assert_eq!(config.batches(images).unwrap(), order.batches(batch_size));
        }
    }

    #[test]
    fn an_epoch_without_an_update_is_refused() {
        let config = TrainConfig { batch_size: 8, accum_iter: 8, ..TrainConfig::default() };
        assert_eq!(config.batches(64).unwrap(), 8);
        let refused = |config: TrainConfig, images| config.batches(images).unwrap_err().to_string();
        let error = refused(config.clone(), 63);
        assert!(error.contains("--accum_iter 8: an epoch of 63 images has 7 batches"), "{error}");
        let error = refused(TrainConfig { world_size: 2, ..config.clone() }, 64);
        assert!(error.contains("for 2 processes has 4 batches of 8"), "{error}");
        assert!(error.contains("at most 4 is right"), "{error}");
        let error = refused(config, 7);
        assert!(error.contains("--batch_size 8") && error.contains("at most 7"), "{error}");
        let error = refused(TrainConfig::default(), 0);
        assert!(error.contains("at most 0"), "{error}");
    }

    #[test]
    fn a_setting_of_0_is_named() {
        let none = TrainConfig { epochs: 0, ..TrainConfig::default() };
        assert_eq!(none.check().unwrap_err().to_string(), "--epochs 0: must be at least 1");
    }
}
