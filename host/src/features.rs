//! Features of images, and statistics of sets of them.

use core::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::fid::npz::Provenance;
use fm_candle::fid::resize::Resize;
use fm_candle::fid::{FeatureAccumulator, FeatureNet, Statistics, distributed};
use fm_candle::fingerprint;
use fm_candle::process_group::ProcessGroup;
use indicatif::ProgressBar;

use crate::args::features::FeaturesArgs;
use crate::embedded;

/// A net that gives images their features.
pub(crate) struct NamedFeatureNet {
    pub(crate) net: Box<dyn FeatureNet>,
    /// Its name, with the fingerprint of its weights.
    pub(crate) name: String,
    resize: Option<Resize>,
}

impl NamedFeatureNet {
    /// The net that the arguments name; `data` is the folder of the data sets.
    ///
    /// # Errors
    ///
    /// Weights that are needed and not given, or are of another net.
    pub(crate) fn open(args: &FeaturesArgs, data: Option<&Path>, device: &Device) -> Result<Self> {
        let (kind, resize) = (args.kind(), args.resize()?);
        let (net, name): (Box<dyn FeatureNet>, _) = match args.weights(data) {
            None if args.are_built_in() => (Box::new(embedded::lenet()?), embedded::LENET.into()),
            None => bail!(
                "--features {kind} needs --weights FILE, torch-fidelity's or pytorch-fid's, or the \
                 --data-path into which `fmq data fetch inception` has put the former"
            ),
            Some(path) => {
                let net = kind.open(&path, resize.unwrap_or_default(), device);
                let net = net.with_context(|| format!("--weights for {kind}"))?;
                (net, format!("{kind}, weights {}", fingerprint::of_file(&path)?))
            }
        };
        Ok(Self { net, name, resize })
    }

    /// The origin of the net's features of `images`.
    pub(crate) fn about(&self, images: &str) -> Provenance {
        Provenance::ours(images.into(), self.name.clone(), self.resize.map(Resize::name))
    }

    /// Statistics of the features of `n` images, which `read` gives by number, in groups of one size;
    /// `take` is given their features in order, `[images, features]`. The processes of `group` share the
    /// images out, and each has all features.
    ///
    /// # Errors
    ///
    /// Those of `read`, the net, `take` and the group.
    pub(crate) fn statistics(
        &self,
        group: &dyn ProcessGroup,
        n: usize,
        read: impl Fn(Range<usize>) -> Result<Vec<Images>>,
        bar: &ProgressBar,
        mut take: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<Statistics> {
        let d = self.net.dim();
        let mut gathering = FeatureAccumulator::new(d);
        let features = |range: Range<usize>| {
            let mut rows = Vec::with_capacity(range.len() * d);
            for images in read(range)? {
                rows.extend(self.net.rows(&images)?);
            }
            anyhow::Ok(rows)
        };
        let take = |rows: &[f32]| {
            bar.inc((rows.len() / d.max(1)) as u64);
            gathering.add(rows)?;
            take(rows)
        };
        distributed::rows(group, (n, d), features, take, || false)?;
        bar.finish_and_clear();
        Ok(gathering.finish()?)
    }
}
