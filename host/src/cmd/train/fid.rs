//! `--compute_fid`: how far samples are from the training set, as upstream's evaluation has it.

use core::cell::OnceCell;
use core::ops::Range;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fm_candle::atomic;
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::fid::inception::FeatureLayer;
use fm_candle::fid::npz::Provenance;
use fm_candle::fid::resize::Resize;
use fm_candle::fid::{
    self, FeatureAccumulator, FeatureNet, Features, Statistics, distributed, npz,
};
use fm_candle::fingerprint;
use fm_candle::model::UNet;
use fm_candle::process_group::Rank;
use fm_candle::sample::{start_noise, to_pixels};
use fm_candle::train::EpochOrder;

use super::args::Args;
use super::setup::Setup;
use crate::args::features::inception_in;
use crate::images;
use crate::report::grid;

/// Number of samples: as many as asked for, at most one for each training image.
pub(super) fn samples(setup: &Setup<'_>) -> usize {
    let args = setup.args;
    let most = if args.test_run { args.batch_size } else { setup.data.len() };
    args.fid_samples.min(most)
}

/// Inception, and where the training set's statistics are kept from one evaluation to the next.
pub(super) struct Fid {
    features: Box<dyn FeatureNet>,
    reference: PathBuf,
    /// The origin that the statistics there must have, but for the fingerprint of the images.
    about: Provenance,
    /// The fingerprint of the images, once it is needed.
    images: OnceCell<String>,
}

impl Fid {
    /// Opens the weights of `--weights`, or those that `fmq data fetch inception` has put beside the
    /// data; none without `--compute_fid`.
    pub(super) fn open(args: &Args, device: &Device) -> Result<Option<Self>> {
        if !args.compute_fid {
            return Ok(None);
        }
        let weights = args.weights.clone().or_else(|| inception_in(&args.data_path));
        let weights = weights.with_context(|| {
            format!(
                "--compute_fid needs the weights of the Inception network: `fmq data fetch inception \
                 --data-path {}` brings them, or --weights FILE names them",
                args.data_path.display()
            )
        })?;
        let inception = Features::Inception(FeatureLayer::D2048);
        let resize = Resize::default();
        let features = inception.open(&weights, resize, device)?;
        let reference = args.output_dir.join("fid_reference.npz");
        let net = format!("{inception}, weights {}", fingerprint::of_file(&weights)?);
        let about = Provenance::ours(format!("{}:train", args.dataset), net, Some(resize.name()));
        Ok(Some(Self { features, reference, about, images: OnceCell::new() }))
    }

    /// The distance between samples of `net`, under the labels of training images, and the training
    /// set, the same in all processes, which share the images out; none where a signal has come.
    pub(super) fn score(&self, setup: &Setup<'_>, net: &UNet) -> Result<Option<f64>> {
        let first = setup.group.rank().index == 0;
        // What the first process sees in the folder counts; it alone needs the statistics.
        let real = if setup.group.any(first && self.is_kept(setup)?)? {
            first.then(|| npz::read_statistics(&self.reference)).transpose()?
        } else {
            let Some(statistics) = self.training_set(setup)? else { return Ok(None) };
            if first && !setup.args.test_run {
                let about = self.about(setup)?;
                npz::write_statistics_about(&self.reference, &statistics, &about)?;
            }
            first.then_some(statistics)
        };
        let Some(made) = self.samples(setup, net)? else { return Ok(None) };
        let mut score = [0.0];
        if let Some(real) = real {
            score = [fid::fid(&made, &real)?];
        }
        setup.group.broadcast(0, &mut score)?;
        Ok(Some(score[0]))
    }

    /// Returns true if the folder has the statistics of this training set on these features.
    fn is_kept(&self, setup: &Setup<'_>) -> Result<bool> {
        if !self.reference.is_file() {
            return Ok(false);
        }
        let kept = npz::read_about(&self.reference)? == self.about(setup)?;
        if !kept {
            setup.progress.line(&format!(
                "`{}` is of other images, weights or another version; it is computed anew",
                self.reference.display()
            ));
        }
        Ok(kept)
    }

    /// The origin of the training set's statistics. Its images are read once to find out, as a
    /// resumed run may have others.
    fn about(&self, setup: &Setup<'_>) -> Result<Provenance> {
        if self.images.get().is_none() {
            let n = setup.data.len();
            let bar = setup.progress.bar("fingerprint of the training set", n as u64, "img");
            let images = fingerprint::of_images(&*setup.data, n, |n| bar.inc(n as u64))?;
            bar.finish_and_clear();
            self.images.get_or_init(|| images);
        }
        Ok(Provenance { fingerprint: self.images.get().cloned(), ..self.about.clone() })
    }

    /// Statistics of the training set.
    fn training_set(&self, setup: &Setup<'_>) -> Result<Option<Statistics>> {
        let n = if setup.args.test_run { setup.args.batch_size } else { setup.data.len() };
        self.statistics(setup, n, "training set", |range| {
            Ok(self.features.rows(&Images::read(&*setup.data, range)?)?)
        })
    }

    /// Statistics of [`samples`].
    fn samples(&self, setup: &Setup<'_>, net: &UNet) -> Result<Option<Statistics>> {
        let args = setup.args;
        let n = samples(setup);
        let seed = setup.seed;
        let order = EpochOrder::new(setup.data.len(), seed, 0, Rank::default());
        let folder = args.output_dir.join("fid_samples");
        if args.save_fid_samples {
            fs::create_dir_all(&folder)
                .with_context(|| format!("creating `{}`", folder.display()))?;
            // An earlier evaluation may have had more: of other weights, they would count with these.
            let beyond = (n..).map(|image| folder.join(format!("{image}.png")));
            for path in beyond.take_while(|path| setup.group.rank().index == 0 && path.is_file()) {
                fs::remove_file(&path).with_context(|| format!("removing `{}`", path.display()))?;
            }
        }
        let [channels, height, width] = setup.data.shape();
        self.statistics(setup, n, "samples", |range| {
            let shape = (channels, height, width);
            let x0 = start_noise(seed, range.start as u64, range.len(), shape, &setup.device)?;
            let of = &order.images()[range.clone()];
            let labels: Option<Vec<u32>> =
                of.iter().map(|&image| setup.data.label(image as usize)).collect();
            let labels = labels.filter(|_| net.config().num_classes.is_some());
            let drawn = setup.sampler.run(net, &x0, labels.as_deref(), false, |_| {})?;
            if args.save_fid_samples {
                let pixels = to_pixels(&drawn.images)?;
                let size = channels * height * width;
                for (image, pixels) in range.zip(pixels.chunks_exact(size)) {
                    let png = grid::png(pixels, [1, height, width, channels], 1, 1)?;
                    atomic::write(&folder.join(format!("{image}.png")), &png)?;
                }
            }
            Ok(self.features.rows(&images::of_samples(&drawn.images)?)?)
        })
    }

    /// Statistics of `n` images, of which `features` computes those of a range; none where a signal has
    /// come.
    fn statistics(
        &self,
        setup: &Setup<'_>,
        n: usize,
        what: &str,
        features: impl Fn(Range<usize>) -> Result<Vec<f32>>,
    ) -> Result<Option<Statistics>> {
        let bar = setup.progress.bar(what, n as u64, "img");
        let d = self.features.dim();
        let mut gathering = FeatureAccumulator::new(d);
        let take = |rows: &[f32]| {
            bar.inc((rows.len() / d.max(1)) as u64);
            Ok(gathering.add(rows)?)
        };
        let stop = || setup.signals.asked();
        let whole = distributed::rows(&*setup.group, (n, d), features, take, stop)?;
        bar.finish_and_clear();
        whole.then(|| Ok(gathering.finish()?)).transpose()
    }
}
