//! `--compute_fid`: how far samples are from the training set, as upstream's evaluation has it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::catalog::INCEPTION;
use fm_candle::device::Device;
use fm_candle::fid::inception::Layer;
use fm_candle::fid::resize::Resize;
use fm_candle::fid::{FeatureNet, Features, Gathering, Statistics, fid, npz};
use fm_candle::model::UNet;
use fm_candle::sample::{start_noise, to_pixels};
use fm_candle::train::{Order, Rank};

use super::Args;
use super::run::Run;
use crate::cmd::sample::images;
use crate::report::grid;

/// Images sampled, resized and turned into features at a time.
const CHUNK: usize = 64;

/// Inception, and where the training set's statistics are kept from one evaluation to the next.
pub(super) struct Fid {
    features: Box<dyn FeatureNet>,
    reference: PathBuf,
}

impl Fid {
    /// Opens the weights of `--weights`, or those that `fmq data fetch inception` has put beside the
    /// data; none without `--compute_fid`.
    pub(super) fn open(args: &Args, device: &Device) -> Result<Option<Self>> {
        if !args.compute_fid {
            return Ok(None);
        }
        let fetched = args.data_path.join(INCEPTION);
        let weights = match &args.weights {
            Some(path) => path.clone(),
            None if fetched.is_file() => fetched,
            None => bail!(
                "--compute_fid needs the weights of the Inception network: `fmq data fetch inception \
                 --data-path {}` brings them, or --weights FILE names them",
                args.data_path.display()
            ),
        };
        let inception = Features::Inception(Layer::D2048);
        let features = inception.open(&weights, Resize::default(), device)?;
        let reference = args.output_dir.join("fid_reference.npz");
        Ok(Some(Self { features, reference }))
    }

    /// The distance between samples of `net`, under the labels of training images, and the training
    /// set.
    pub(super) fn score(&self, run: &Run<'_>, net: &UNet) -> Result<f64> {
        let real = self.reference(run)?;
        let made = self.samples(run, net)?;
        Ok(fid(&made, &real)?)
    }

    /// Statistics of the training set, gathered once in a run.
    fn reference(&self, run: &Run<'_>) -> Result<Statistics> {
        if self.reference.is_file() {
            return Ok(npz::read_statistics(&self.reference)?);
        }
        let n = if run.args.test_run { run.args.batch_size } else { run.data.len() };
        let bar = run.progress.bar("training set", n as u64, "img");
        let mut gathering = Gathering::new(&*self.features);
        for first in (0..n).step_by(CHUNK) {
            gathering.add_set(&*run.data, first..n.min(first + CHUNK))?;
            bar.inc(CHUNK.min(n - first) as u64);
        }
        bar.finish_and_clear();
        let statistics = gathering.finish()?.try_into()?;
        if !run.args.test_run {
            npz::write_statistics(&self.reference, &statistics)?;
        }
        Ok(statistics)
    }

    /// Statistics of samples, as many as asked for, at most one for each training image.
    fn samples(&self, run: &Run<'_>, net: &UNet) -> Result<Statistics> {
        let args = run.args;
        let most = if args.test_run { args.batch_size } else { run.data.len() };
        let n = args.fid_samples.min(most);
        let seed = run.trainer.config().seed;
        let order = Order::new(run.data.len(), seed, 0, Rank::default());
        let folder = args.output_dir.join("fid_samples");
        if args.save_fid_samples {
            fs::create_dir_all(&folder)
                .with_context(|| format!("creating `{}`", folder.display()))?;
        }
        let [channels, height, width] = run.data.shape();
        let bar = run.progress.bar("samples", n as u64, "img");
        let mut gathering = Gathering::new(&*self.features);
        for first in (0..n).step_by(CHUNK) {
            let count = CHUNK.min(n - first);
            let x0 =
                start_noise(seed, first as u64, count, (channels, height, width), &run.device)?;
            let of = &order.images()[first..first + count];
            let labels: Option<Vec<u32>> =
                of.iter().map(|&image| run.data.label(image as usize)).collect();
            let labels = labels.filter(|_| net.config().num_classes.is_some());
            let drawn = run.sampler.run(net, &x0, labels.as_deref(), false, |_| {})?;
            if args.save_fid_samples {
                let pixels = to_pixels(&drawn.images)?;
                let size = channels * height * width;
                for (image, pixels) in (first..).zip(pixels.chunks_exact(size)) {
                    let png = grid::png(pixels, [1, height, width, channels], 1, 1)?;
                    atomic::write(&folder.join(format!("{image}.png")), &png)?;
                }
            }
            gathering.add(&images(&drawn.images)?)?;
            bar.inc(count as u64);
        }
        bar.finish_and_clear();
        Ok(gathering.finish()?.try_into()?)
    }
}
