//! Training a velocity net on images, as upstream's `train_one_epoch` does.
//!
//! Every random number is a function of the seed and of the place where it is used (epoch,
//! batch, example), so a run that was cut goes on exactly as if it had not been.

mod batch;
mod config;
mod layout;
mod loader;
mod moments;
mod optimizer;
mod order;
mod progress;
mod regression;
mod scaler;
mod schedule;
mod state;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::model::{Init, Masks, RandomInit, StateDict, UNet, UNetConfig, WeightLoader};
use crate::path::cond_ot;
use crate::process_group::{self, ProcessGroup, Rank, SingleProcess};

pub use batch::Batch;
pub use config::{TrainConfig, TrainPrecision};
pub use loader::Loader;
pub use moments::AdamMoments;
pub use optimizer::{AdamW, AdamWConfig, add_gradients, norm, of_parameters};
pub use order::EpochOrder;
pub use progress::TrainProgress;
pub use regression::{Points, Regression};
pub use scaler::Scaler;
pub use schedule::Schedule;

/// A net under training, with all that a resumed run needs.
pub struct Trainer {
    config: TrainConfig,
    /// The net, its parameters, and the gradients of the batches since the last update.
    regression: Regression,
    optimizer: AdamW,
    schedule: Schedule,
    progress: TrainProgress,
    /// The progress before the first batch whose gradients are pending.
    updated: TrainProgress,
    scaler: Scaler,
    group: Arc<dyn ProcessGroup>,
    grad_norm: f64,
    device: Device,
}

impl Trainer {
    /// A fresh run.
    ///
    /// # Errors
    /// Settings that cannot train.
    pub fn new(arch: &UNetConfig, config: &TrainConfig, device: &Device) -> Result<Self> {
        config.check()?;
        let mut initial = RandomInit::new(config.seed, device);
        let net = UNet::new(arch, &mut initial)?;
        let vars = initial.vars;
        let adam = AdamWConfig {
            betas: config.optimizer_betas,
            ema_decay: config.use_ema.then_some(0.999),
            ..AdamWConfig::default()
        };
        Ok(Self {
            optimizer: AdamW::new(adam, &vars)?,
            schedule: Schedule::new(config),
            regression: Regression::new(net, vars, config.precision, config.recompute, device),
            config: config.clone(),
            progress: TrainProgress::default(),
            updated: TrainProgress::default(),
            scaler: Scaler::default(),
            group: Arc::new(SingleProcess),
            grad_norm: 0.0,
            device: device.clone(),
        })
    }

    /// This run as one process of several, which together make the batches `size` times larger.
    ///
    /// # Errors
    /// Settings for another number of processes; processes that are not all of one run and at the
    /// same place in it.
    pub fn with_group(self, group: Arc<dyn ProcessGroup>) -> Result<Self> {
        let (size, expected) = (group.rank().size, self.config.world_size);
        if size != expected {
            let reason = format!("{size} processes train, the settings are for {expected}");
            return Err(Error::Config(reason));
        }
        let (config, at, updates) = (&self.config, self.progress, self.optimizer.updates);
        let on_cpu = self.device.is_cpu();
        if !group.all_equal(&format!("{config:?} {at:?} {updates} {on_cpu}"))? {
            return Err(Error::Config(format!(
                "the {size} processes do not all train the same run from the same place; this one \
                 is at epoch {}, batch {}: give all the same arguments and files, and a GPU or none",
                at.epoch, at.batch
            )));
        }
        Ok(Self { group, ..self })
    }

    /// This process among those that train together.
    pub fn rank(&self) -> Rank {
        self.group.rank()
    }

    /// The net, with the weights under training.
    pub fn net(&self) -> &UNet {
        &self.regression.net
    }

    /// The settings of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The optimizer and its state.
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// The learning rate over the epochs.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The progress of the run.
    pub fn progress(&self) -> TrainProgress {
        self.progress
    }

    /// Euclidean norm of the gradient of the last update, over all parameters.
    pub fn grad_norm(&self) -> f64 {
        self.grad_norm
    }

    /// The weights to evaluate with, the moving average where one is kept, in state-dict order.
    ///
    /// # Errors
    /// An allocation that fails on the device.
    pub fn evaluation_weights(&self) -> Result<Vec<(String, Tensor)>> {
        let vars = self.regression.vars.iter().zip(self.optimizer.moments());
        vars.map(|((name, var), state)| {
            let tensor = if self.config.use_ema {
                Tensor::from_slice(&state?.average, var.shape(), &self.device)?
            } else {
                var.as_tensor().detach().copy()?
            };
            Ok((name.clone(), tensor))
        })
        .collect()
    }

    /// Starts from these weights instead of random ones; the moving average starts there too.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub fn set_weights(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        let mut stored = StateDict::new(tensors.iter().cloned(), &self.device);
        for (index, (name, var)) in self.regression.vars.iter().enumerate() {
            let value = stored.take(name, var.dims(), Init::Zeros)?;
            if self.config.use_ema {
                let average = value.flatten_all()?.to_vec1()?;
                self.optimizer.set_average(index, average, var)?;
            }
            var.set(&value)?;
        }
        stored.finish()
    }

    /// Parameters that got no gradient since the last update.
    pub fn without_gradient(&self) -> Vec<&str> {
        let missing = self
            .regression
            .vars
            .iter()
            .zip(&self.regression.pending)
            .filter(|(_, grad)| grad.is_none());
        missing.map(|((name, _), _)| name.as_str()).collect()
    }

    /// The rest of the epoch under way, for [`next_batch`](Self::next_batch).
    ///
    /// # Errors
    /// Data of which no epoch makes an update, as of [`TrainConfig::batches`]; no thread to read ahead.
    pub fn loader(&self, data: &Arc<dyn ImageSet>) -> Result<Loader> {
        self.config.batches(data.len())?;
        let TrainConfig { seed, batch_size, .. } = self.config;
        let order = EpochOrder::new(data.len(), seed, self.progress.epoch, self.group.rank());
        Loader::new(data, order, &self.progress, batch_size)
    }

    /// Trains on the next batch and returns its loss, the mean over all processes; none after the
    /// epoch's last batch, until [`end_epoch`](Self::end_epoch) is called.
    ///
    /// # Errors
    /// An image that cannot be read; a loss that is not finite, with the images that made it.
    pub fn next_batch(&mut self, loader: &mut Loader) -> Result<Option<f64>> {
        let Some(mut pixels) = loader.next()? else { return Ok(None) };
        if self.regression.net.config().num_classes.is_none() {
            // Upstream's net without classes does not look at them.
            pixels.labels = None;
        }
        if self.regression.pending.iter().all(Option::is_none) {
            self.updated = self.progress;
        }
        let rank = self.group.rank();
        let batch = Batch::draw(&pixels, &self.config, &self.progress, rank, &self.device)?;
        let own = self.accumulate(&batch)?;
        let value = process_group::mean(&self.group, own)?;
        if !value.is_finite() {
            let TrainProgress { epoch, batch, batches, .. } = self.progress;
            let images = if own.is_finite() {
                // The one that has them says which, and ends the others.
                self.group.any(false)?;
                "of another process".into()
            } else {
                format!("{:?}", pixels.images)
            };
            return Err(Error::Config(format!(
                "the loss is {value} in epoch {epoch}, batch {batch} (batch {batches} of the run, \
                 images {images}); a lower --lr may help"
            )));
        }
        self.progress.batch += 1;
        self.progress.batches += 1;
        self.progress.examples += self.config.global_batch();
        self.progress.loss_sum += value;
        if self.progress.batch.is_multiple_of(self.config.accum_iter as u64) {
            self.update()?;
        }
        Ok(Some(value))
    }

    /// Forgets the batches whose gradients wait for an update, as if they had still to come.
    pub fn forget_pending(&mut self) {
        if self.regression.pending.iter().any(Option::is_some) {
            self.progress = self.updated;
            self.regression.pending.fill(None);
        }
    }

    /// Counts the epoch under way as finished; gradients that wait for an update are dropped.
    pub fn end_epoch(&mut self) {
        self.regression.pending.fill(None);
        let TrainProgress { epoch, batches, examples, .. } = self.progress;
        let (epoch, loss) = (epoch + 1, Some(self.progress.mean_loss()));
        self.progress =
            TrainProgress { epoch, batches, examples, loss, ..TrainProgress::default() };
    }

    /// Adds the gradients of one batch, as [`Regression::accumulate`] does; returns its loss.
    ///
    /// # Errors
    /// Tensors that do not fit the net.
    pub fn accumulate(&mut self, batch: &Batch) -> Result<f64> {
        let (x, u) = cond_ot(&batch.x0, &batch.x1, &batch.t)?;
        let points = Points { x, t: batch.t.clone(), label: batch.label.clone(), u };
        let scale = self.loss_scale() / self.config.accum_iter as f64;
        let Rank { index, size } = self.group.rank();
        let (seed, number) = (self.config.seed, self.progress.batches);
        let masks = |first| Some(Masks::new(seed, number, (first * size + index, size)));
        self.regression.accumulate(&points, scale, masks)
    }

    /// The factor by which the gradients are multiplied while they are computed.
    fn loss_scale(&self) -> f64 {
        if self.config.precision == TrainPrecision::F16 { self.scaler.scale } else { 1.0 }
    }

    /// Updates the weights by the gradients gathered since the last update, at the epoch's
    /// learning rate; in half precision not where a gradient has overflown.
    ///
    /// # Errors
    /// An allocation that fails on the device.
    pub fn update(&mut self) -> Result<()> {
        self.update_with(self.schedule.lr(self.progress.epoch))
    }

    /// Updates the weights as [`update`](Self::update) does, at the learning rate `lr`.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_with(&mut self, lr: f64) -> Result<()> {
        process_group::average(&self.group, &self.regression.vars, &mut self.regression.pending)?;
        let half = self.config.precision == TrainPrecision::F16;
        if half {
            for grad in self.regression.pending.iter_mut().flatten() {
                *grad = (&*grad / self.scaler.scale)?;
            }
        }
        self.grad_norm = norm(&self.regression.pending)?;
        if half && !self.scaler.accepts(self.grad_norm) {
            self.optimizer.skip(&self.regression.vars)?;
        } else {
            self.optimizer.step(&self.regression.vars, &self.regression.pending, lr)?;
        }
        self.regression.pending.fill(None);
        Ok(())
    }
}
