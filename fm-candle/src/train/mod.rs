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
mod scaler;
mod schedule;
mod state;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::model::{
    BlockInputs, Cast, Init, Masks, Mode, RandomInit, StateDict, UNet, UNetConfig, WeightLoader,
};
use crate::path::{cond_ot, loss};
use crate::process_group::{self, ProcessGroup, Rank, SingleProcess};

pub use batch::Batch;
pub use config::{TrainConfig, TrainPrecision};
pub use loader::Loader;
pub use moments::AdamMoments;
pub use optimizer::{AdamW, AdamWConfig, add_gradients, norm, of_parameters};
pub use order::EpochOrder;
pub use progress::TrainProgress;
pub use scaler::Scaler;
pub use schedule::Schedule;

/// Images of a shard; see [`Trainer::accumulate`].
const SHARD: usize = 8;
/// Parameters from which on a batch is not cut: summing the gradients would cost too much.
const SMALL_NET: usize = 4_000_000;

/// A net under training, with all that a resumed run needs.
pub struct Trainer {
    config: TrainConfig,
    net: UNet,
    vars: Vec<(String, Var)>,
    optimizer: AdamW,
    schedule: Schedule,
    progress: TrainProgress,
    /// The progress before the first batch whose gradients are pending.
    updated: TrainProgress,
    /// Gradients of the batches since the last update.
    pending: Vec<Option<Tensor>>,
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
            pending: vec![None; vars.len()],
            config: config.clone(),
            net,
            vars,
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
        &self.net
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
        let vars = self.vars.iter().zip(self.optimizer.moments());
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
        for (index, (name, var)) in self.vars.iter().enumerate() {
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
        let missing = self.vars.iter().zip(&self.pending).filter(|(_, grad)| grad.is_none());
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
        if self.net.config().num_classes.is_none() {
            // Upstream's net without classes does not look at them.
            pixels.labels = None;
        }
        if self.pending.iter().all(Option::is_none) {
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
        if self.pending.iter().any(Option::is_some) {
            self.progress = self.updated;
            self.pending.fill(None);
        }
    }

    /// Counts the epoch under way as finished; gradients that wait for an update are dropped.
    pub fn end_epoch(&mut self) {
        self.pending.fill(None);
        let TrainProgress { epoch, batches, examples, .. } = self.progress;
        self.progress =
            TrainProgress { epoch: epoch + 1, batches, examples, ..TrainProgress::default() };
    }

    /// Adds the gradients of one batch; returns its loss.
    ///
    /// The batch of a small net is cut into shards of a few images, each with a graph of its
    /// own: they run side by side and their activations stay in the caches.
    ///
    /// # Errors
    /// Tensors that do not fit the net.
    pub fn accumulate(&mut self, batch: &Batch) -> Result<f64> {
        let n = batch.len()?;
        let small = self.vars.iter().map(|(_, var)| var.elem_count()).sum::<usize>() < SMALL_NET;
        let shard = if small && self.device.is_cpu() { SHARD } else { n };
        let firsts: Vec<usize> = (0..n).step_by(shard).collect();
        let cast = self.cast()?;
        let net = cast.as_ref().unwrap_or(&self.net);
        let part = |first: usize| {
            self.gradients(net, &batch.narrow(first, shard.min(n - first))?, first, n)
        };
        let parts: Vec<(f64, Vec<Option<Tensor>>)> = match firsts[..] {
            // On this thread, which holds the handles of a GPU's libraries.
            [first] => vec![part(first)?],
            _ => firsts.into_par_iter().map(part).collect::<Result<_>>()?,
        };
        let mut value = 0.0;
        for (part, grads) in parts {
            value += part;
            add_gradients(&mut self.pending, grads)?;
        }
        Ok(value)
    }

    /// The net in the type to compute in, where that is not the parameters' own.
    fn cast(&self) -> Result<Option<UNet>> {
        let dtype = match self.config.precision {
            TrainPrecision::F32 => return Ok(None),
            TrainPrecision::Bf16 => DType::BF16,
            TrainPrecision::F16 => DType::F16,
        };
        Ok(Some(UNet::new(self.net.config(), &mut Cast::new(&self.vars, dtype))?))
    }

    /// Loss and gradients of a shard, images `first..` of a batch of `n`, as its part of the
    /// batch's mean.
    fn gradients(
        &self,
        net: &UNet,
        shard: &Batch,
        first: usize,
        n: usize,
    ) -> Result<(f64, Vec<Option<Tensor>>)> {
        let (x_t, u) = cond_ot(&shard.x0, &shard.x1, &shard.t)?;
        let Rank { index, size } = self.group.rank();
        let images = (first * size + index, size);
        let masks = Masks::new(self.config.seed, self.progress.batches, images);
        let part = shard.len()? as f64 / n as f64;
        let scale = self.loss_scale() / self.config.accum_iter as f64;
        let loss = |v: &Tensor| -> Result<Tensor> { Ok((loss(v, &u)? * (part * scale))?) };
        let inputs = BlockInputs { x: &x_t, t: &shard.t, label: shard.label.as_ref() };
        let mut grads = vec![None; self.vars.len()];
        // A store also holds gradients of what is constant, as large as maps.
        let mut keep = |store| add_gradients(&mut grads, of_parameters(&self.vars, store));
        let loss = if self.config.recompute {
            net.backward_by_blocks(inputs, &masks, loss, keep)?
        } else {
            let BlockInputs { x, t, label } = inputs;
            let loss = loss(&net.forward(x, t, label, None, Mode::Train(&masks))?)?;
            keep(loss.backward()?)?;
            loss
        };
        Ok((f64::from(loss.to_scalar::<f32>()?) / scale, grads))
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
        process_group::average(&self.group, &self.vars, &mut self.pending)?;
        let half = self.config.precision == TrainPrecision::F16;
        if half {
            for grad in self.pending.iter_mut().flatten() {
                *grad = (&*grad / self.scaler.scale)?;
            }
        }
        self.grad_norm = norm(&self.pending)?;
        if half && !self.scaler.accepts(self.grad_norm) {
            self.optimizer.skip(&self.vars)?;
        } else {
            self.optimizer.step(&self.vars, &self.pending, lr)?;
        }
        self.pending.fill(None);
        Ok(())
    }
}
