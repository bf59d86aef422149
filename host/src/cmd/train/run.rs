//! The epochs of a run: training, saving, evaluating.

use core::time::Duration;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use fm_candle::checkpoint::Catalogue;
use fm_candle::device::Device;
use fm_candle::model::{UNet, config};
use fm_candle::sample::{start_noise, to_pixels};
use fm_candle::train::{Loader, Trainer};
use fm_candle::{DType, Tensor, atomic, checkpoint};
use serde_json::{Map, Value};

use super::args::{MODEL, RUN};
use super::fid::{self, Fid};
use super::journal::{EpochLog, Journal};
use super::setup::Setup;
use crate::args::net;
use crate::report::grid;

/// A run and what belongs to it.
pub(super) struct TrainRun<'a> {
    pub(super) setup: Setup<'a>,
    pub(super) trainer: Trainer,
    /// The command line as upstream's checkpoints keep it.
    pub(super) namespace: Map<String, Value>,
    /// The first process's alone, which writes all files.
    pub(super) journal: Option<Journal>,
    /// With `--compute_fid`.
    pub(super) fid: Option<Fid>,
    /// With `--eval_only`: what the file says of its weights.
    pub(super) evaluated: Option<Catalogue>,
    /// Bad files that have been named.
    pub(super) skipped: BTreeSet<PathBuf>,
}

impl TrainRun<'_> {
    /// Trains to the last epoch, or until a signal comes; a run that was cut before an evaluation
    /// begins with it.
    pub(super) fn train(&mut self) -> Result<()> {
        self.tell_skipped();
        let first = self.trainer.progress().epoch;
        let epochs = self.trainer.config().epochs;
        let last = if self.setup.args.test_run { epochs.min(first + 1) } else { epochs };
        // What the first process sees in the folder counts.
        let owes = self.journal.is_some() && self.owes_evaluation(last);
        let mut evaluate = self.setup.group.any(owes)?;
        loop {
            if evaluate && !self.evaluate()? {
                self.tell_stopped();
                return Ok(());
            }
            let at = self.trainer.progress().epoch;
            if at >= last {
                return Ok(());
            }
            if !self.epoch(last)? {
                self.tell_stopped();
                return Ok(());
            }
            evaluate = self.setup.args.test_run || at + 1 >= last || self.is_milestone();
        }
    }

    /// The facts about the weights that are evaluated.
    fn catalogue(&self) -> Catalogue {
        let own = || self.trainer.catalogue(Some(self.setup.args.dataset.name()));
        self.evaluated.clone().unwrap_or_else(own)
    }

    /// Names the bad files that were passed over since the last time.
    fn tell_skipped(&mut self) {
        const NAMED: usize = 8;
        let mut new = self.setup.data.skipped();
        new.retain(|path| self.skipped.insert(path.clone()));
        if new.is_empty() {
            return;
        }
        let names = new.iter().take(NAMED).map(|path| format!("`{}`", path.display()));
        let names = names.collect::<Vec<_>>().join(", ");
        let more = if new.len() > NAMED { ", ..." } else { "" };
        self.setup
            .progress
            .line(&format!("warning: passed over {} bad file(s): {names}{more}", new.len()));
    }

    fn tell_stopped(&self) {
        self.setup.progress.line(&format!(
            "stopped by a signal, saved; go on with --resume auto --output_dir {}",
            self.setup.args.output_dir.display()
        ));
    }

    /// Returns true if the last finished epoch is one after which upstream saves and evaluates.
    fn is_milestone(&self) -> bool {
        let frequency = self.setup.args.eval_frequency;
        frequency > 0 && self.trainer.progress().epoch.is_multiple_of(frequency)
    }

    /// Returns true if the last finished epoch has still to be evaluated.
    fn owes_evaluation(&self, last: u64) -> bool {
        let (at, dir) = (self.trainer.progress(), &self.setup.args.output_dir);
        let due = at.epoch >= last || at.epoch > 0 && at.batch == 0 && self.is_milestone();
        due && !(dir.join(self.snapshot()).exists() && dir.join(MODEL).exists())
    }

    /// Name of the grid of samples after the last finished epoch.
    fn snapshot(&self) -> String {
        let at = self.trainer.progress();
        format!("snapshots/{}_{}.png", at.epoch.saturating_sub(1), at.batches)
    }

    /// Writes the run to a file of the output folder, as the first process.
    fn save(&self, name: &str) -> Result<()> {
        if self.journal.is_some() {
            self.trainer.save(&self.setup.args.output_dir.join(name), &self.namespace)?;
        }
        Ok(())
    }

    /// One epoch of a run of `last`, or what is left of it; then `log.txt` gets a line and the run is
    /// saved. Whether it came to its end.
    fn epoch(&mut self, last: u64) -> Result<bool> {
        let (args, first) = (self.setup.args, self.trainer.progress());
        let mut loader = self.trainer.loader(&self.setup.data)?;
        let batches = match loader.batches() {
            // As upstream's: one update.
            batches if args.test_run => batches.min(first.batch + args.accum_iter as u64),
            batches => batches,
        };
        let (epoch, lr) = (first.epoch, self.trainer.schedule().lr(first.epoch));
        let images = (args.batch_size * self.trainer.rank().size) as u64;
        let bar = self.setup.progress.bar(&format!("epoch {epoch}"), batches * images, "img");
        bar.set_position(first.batch * images);
        bar.reset_eta();
        let (start, mut saved) = (Instant::now(), Instant::now());
        while self.trainer.progress().batch < batches {
            if !self.wait(&mut loader) {
                if self.setup.group.rank().size > 1 {
                    bail!("stopped by a signal while images were waited for; {}", self.last_good());
                }
                self.trainer.forget_pending();
                self.save(RUN)?;
                return Ok(false);
            }
            let loss = match self.trainer.next_batch(&mut loader) {
                Ok(Some(loss)) => loss,
                Ok(None) => break,
                Err(error) => bail!("{error}; {}", self.last_good()),
            };
            let (at, norm) = (self.trainer.progress(), self.trainer.grad_norm());
            bar.set_message(format!("epoch {epoch}  loss {:.4}  |g| {norm:.3}", at.mean_loss()));
            bar.inc(images);
            if !at.batch.is_multiple_of(args.accum_iter as u64) {
                continue;
            }
            if let Some(journal) = &mut self.journal {
                journal.step(self.trainer.optimizer().updates, loss, norm, lr)?;
            }
            // The processes hear of a signal at different batches, and stop at the same.
            if self.setup.group.any(self.setup.signals.asked())? {
                self.save(RUN)?;
                return Ok(false);
            }
            if saved.elapsed() > Duration::from_secs(args.save_seconds) {
                self.save(RUN)?;
                saved = Instant::now();
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let done = EpochLog {
            train_loss: self.trainer.progress().mean_loss(),
            epoch,
            seconds,
            img_per_s: ((batches - first.batch) * images) as f64 / seconds,
            lr,
            grad_norm: self.trainer.grad_norm(),
            eval_fid: None,
            eval_fid_samples: None,
        };
        self.trainer.end_epoch();
        if let Some(journal) = &mut self.journal {
            journal.epoch(self.trainer.optimizer().updates, &done)?;
        }
        if self.setup.args.test_run || self.is_milestone() {
            self.save(&format!("checkpoint-{epoch}.pth"))?;
        }
        self.save(RUN)?;
        bar.finish_and_clear();
        self.tell_skipped();
        let whole_epoch = seconds * batches as f64 / (batches - first.batch).max(1) as f64;
        self.setup.progress.line(&format!(
            "epoch {epoch}: loss {:.5}, |g| {:.3}, {seconds:.0} s, {:.0} img/s, {} to go",
            done.train_loss,
            done.grad_norm,
            done.img_per_s,
            hours(whole_epoch * (last - epoch - 1) as f64),
        ));
        Ok(true)
    }

    /// Waits for images, which may never come: until a signal comes, and among several processes, which
    /// stop together where they can, for some time more. Whether the images are there.
    fn wait(&self, loader: &mut Loader) -> bool {
        let seconds = if self.setup.group.rank().size > 1 { 10 } else { 0 };
        let mut since = None;
        loader.wait(|| {
            self.setup.signals.asked()
                && since.get_or_insert_with(Instant::now).elapsed() >= Duration::from_secs(seconds)
        })
    }

    /// The checkpoint that a run that ends by an error can resume from, in words.
    fn last_good(&self) -> String {
        let path = self.setup.args.output_dir.join(RUN);
        if path.exists() {
            format!("the last good checkpoint is `{}`", path.display())
        } else {
            "there is no checkpoint yet".into()
        }
    }

    /// Writes the evaluation weights and a grid of samples, and measures their distance; each process
    /// has its share in drawing and measuring. Not to its end where a signal comes.
    pub(super) fn evaluate(&mut self) -> Result<bool> {
        let dir = &self.setup.args.output_dir;
        let config = self.trainer.net().config();
        let weights = self.trainer.evaluation_weights()?;
        let mut metadata = vec![(checkpoint::NET_KEY, config::to_json(config))];
        metadata.extend(self.catalogue().metadata());
        let metadata: Vec<_> = metadata.iter().map(|(key, text)| (*key, text.as_str())).collect();
        if self.journal.is_some() {
            checkpoint::safetensors::save(&dir.join(MODEL), &weights, &metadata)?;
        }
        let net = net::build(config, weights, &self.setup.device, DType::F32)?;
        let [channels, height, width] = self.setup.data.shape();
        let n = 64.min(self.setup.args.batch_size * self.setup.group.rank().size);
        let images = self.samples(&net, n)?;
        let snapshot = dir.join(self.snapshot());
        let score = match &self.fid {
            Some(fid) => match self.cut_if_alone(|| fid.score(&self.setup, &net))? {
                Some(score) => Some((score, fid::samples(&self.setup))),
                None => return Ok(false),
            },
            None => None,
        };
        let Some(journal) = &mut self.journal else { return Ok(true) };
        if let Some((score, samples)) = score {
            let epoch = self.trainer.progress().epoch.saturating_sub(1);
            journal.evaluated(self.trainer.optimizer().updates, epoch, (score, samples))?;
            self.setup
                .progress
                .line(&format!("epoch {epoch}: FID {score:.3} (resize: torchmetrics)"));
        }
        let picture = grid::draw(&to_pixels(&images)?, [n, height, width, channels], 10, 2)?;
        let png = picture.png()?;
        atomic::write(&snapshot, &png)?;
        let size = [picture.width.into(), picture.height.into(), channels as u64];
        journal.samples(self.trainer.optimizer().updates, &png, size)?;
        self.setup.progress.line(&format!("wrote `{}`", dir.join(MODEL).display()));
        Ok(true)
    }

    /// Does work of an evaluation, at whose loss nothing is lost: a signal ends it at once, but for
    /// a process whose share others wait for.
    fn cut_if_alone<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.setup.group.rank().size == 1 {
            self.setup.signals.cut_anywhere(work)
        } else {
            work()
        }
    }

    /// The first `n` samples of the net, drawn by all processes together.
    fn samples(&self, net: &UNet, n: usize) -> Result<Tensor> {
        let [channels, height, width] = self.setup.data.shape();
        let shape = (channels, height, width);
        let (first, end) = self.setup.group.rank().share(n);
        let mut all = vec![0f32; n * channels * height * width];
        if first < end {
            let seed = self.setup.seed;
            let x0 = start_noise(seed, first as u64, end - first, shape, &self.setup.device)?;
            // Classes that were never seen have no meaning yet.
            let seen = u32::try_from(self.setup.data.classes())?;
            let labels = (seen > 0 && net.config().num_classes.is_some())
                .then(|| (0..seen).cycle().take(end).collect::<Vec<_>>());
            let labels = labels.as_ref().map(|labels| &labels[first..]);
            let samples =
                self.cut_if_alone(|| self.setup.sampler.run(net, &x0, labels, false, |_| {}))?;
            if let Some(warning) = &samples.warning {
                self.setup.progress.line(&format!("warning: {warning}"));
            }
            let own = samples.images.flatten_all()?.to_vec1::<f32>()?;
            let size = channels * height * width;
            all[first * size..end * size].copy_from_slice(&own);
        }
        self.setup.group.sum(&mut all)?;
        Ok(Tensor::from_vec(all, (n, channels, height, width), &Device::Cpu)?)
    }
}

/// A time for people to read.
fn hours(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}
