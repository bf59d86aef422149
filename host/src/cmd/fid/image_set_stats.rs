//! The set that A or B names: images that are read, or drawn, and turned into features chunk by
//! chunk.

use core::cell::OnceCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fm_candle::checkpoint;
use fm_candle::data::folder::{self, Hidden};
use fm_candle::data::{Dataset, ImageSet, Split};
use fm_candle::device::Device;
use fm_candle::fid::npz::Provenance;
use fm_candle::fid::{self, Features, Statistics, npz, pickled};
use fm_candle::fingerprint;
use fm_candle::process_group::ProcessGroup;

use super::args::Args;
use super::image_source::{ImageSource, SampleSource};
use crate::args::common::Common;
use crate::args::net::NetArgs;
use crate::drawing::Drawing;
use crate::embedded;
use crate::features::NamedFeatureNet;
use crate::images::{self, PathKind};
use crate::processes;
use crate::progress::Reporter;

/// The kinds of input that may stand for a set.
const NEEDED: &str = "needed is a folder of images, an .npz of images (arr_0) or statistics (mu, sigma), \
     a pickle of statistics, a .safetensors of samples or features, a data set (mnist:test) or a \
     checkpoint";

/// The values kept of a set beside its statistics.
#[derive(Clone, Copy)]
pub(super) struct KeptValues {
    /// The option that needs the features of each image, if one does.
    pub(super) rows: Option<&'static str>,
    /// True if the classes' logits of each image are needed.
    pub(super) logits: bool,
}

/// The origin of statistics.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    BuiltIn,
    /// From the folder `--cache`.
    Cached,
    /// From a file that was named.
    Given,
    Computed,
}

impl Origin {
    /// Name for people and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built in",
            Self::Cached => "cached",
            Self::Given => "given",
            Self::Computed => "computed",
        }
    }
}

/// One set, as its statistics and what else was wanted of it.
pub(super) struct ImageSetStats {
    pub(super) statistics: Statistics,
    pub(super) origin: Origin,
    /// The origin of the statistics: images, net, filter and program.
    pub(super) about: Provenance,
    /// Features, `[n, d]`, where they were wanted.
    pub(super) rows: Vec<f32>,
    /// Logits, `[n, classes]`, and the number of classes, where they were wanted.
    pub(super) logits: (Vec<f32>, usize),
}

impl ImageSetStats {
    /// Statistics or features that are there already.
    fn there(origin: Origin, statistics: Statistics, about: Provenance, rows: Vec<f32>) -> Self {
        Self { statistics, origin, about, rows, logits: (Vec::new(), 0) }
    }

    /// The kind of the features, where it is known.
    pub(super) fn features(&self) -> Option<Features> {
        self.about.net.as_ref()?.split(',').next()?.parse().ok()
    }

    /// The images and their number, for people.
    pub(super) fn title(&self, argument: &str) -> String {
        let of = match &self.about.images {
            Some(images) if images != argument => format!("{argument} of {images}"),
            _ => argument.to_string(),
        };
        match self.statistics.n {
            Some(n) => format!("{of}, {n} images"),
            None => format!("{of}, statistics"),
        }
    }

    /// A warning where there are too few images; `side` is A or B.
    pub(super) fn warning(&self, side: &str) -> Option<String> {
        let d = self.statistics.dim();
        let n = self.statistics.n.filter(|&n| n <= d as u64)?;
        Some(format!(
            "{side}: {n} images for {d} features have a singular covariance; the distance comes out \
             too large and compares only with others of {n} images"
        ))
    }
}

/// Turns what A or B names into statistics.
pub(super) struct FeatureExtractor<'a> {
    args: &'a Args,
    common: &'a Common,
    progress: Reporter,
    /// The processes that share the images out.
    group: &'a dyn ProcessGroup,
    /// The features' net, once it is needed.
    net: OnceCell<NamedFeatureNet>,
}

impl<'a> FeatureExtractor<'a> {
    pub(super) fn new(
        args: &'a Args,
        common: &'a Common,
        group: &'a dyn ProcessGroup,
    ) -> Result<Self> {
        args.features.resize()?;
        let progress = common.progress_of(group.rank());
        Ok(Self { args, common, progress, group, net: OnceCell::new() })
    }

    /// The device of this process.
    fn device(&self) -> Result<Device> {
        self.common.device_for(processes::local())
    }

    /// The features' net.
    fn net(&self) -> Result<&NamedFeatureNet> {
        if let Some(net) = self.net.get() {
            return Ok(net);
        }
        let (args, device) = (self.args, self.device()?);
        let net = NamedFeatureNet::open(&args.features, args.data_path.as_deref(), &device)?;
        Ok(self.net.get_or_init(|| net))
    }

    /// The set that `name` names; its contents tell what a file is.
    pub(super) fn side(&self, name: &str, wanted: KeptValues) -> Result<ImageSetStats> {
        self.read(name, wanted).map_err(|error| images::named(name, error))
    }

    fn read(&self, name: &str, wanted: KeptValues) -> Result<ImageSetStats> {
        let path = Path::new(name);
        let source = match PathKind::of(name)? {
            PathKind::DataSet(dataset, split) => {
                return self.data_set(name, dataset, split, wanted);
            }
            PathKind::Folder => {
                let (files, hidden) = files(path)?;
                images::tell_hidden(&hidden, self.progress);
                ImageSource::Files(files)
            }
            PathKind::Npz => match npz::read(path)? {
                npz::Content::Statistics(statistics) => {
                    return Self::statistics(statistics, npz::read_about(path)?, wanted);
                }
                npz::Content::Images(images) => ImageSource::Set(Box::new(images)),
            },
            PathKind::Safetensors => {
                let file = checkpoint::Source::open(path, true)?;
                let at = |name| file.tensors().iter().position(|tensor| tensor.name == name);
                match (at("features"), at("samples")) {
                    (Some(features), _) => {
                        return self.features(&file.read(features)?, name, wanted);
                    }
                    (None, Some(samples)) => {
                        ImageSource::Tensor(Box::new(SampleSource::new(file, samples)?))
                    }
                    (None, None) => self.drawing(path)?,
                }
            }
            PathKind::Pickle => {
                return Self::statistics(pickled::read(path)?, Provenance::default(), wanted);
            }
            PathKind::Checkpoint => self.drawing(path)?,
            PathKind::Foreign(what) => bail!("{what}; {NEEDED}"),
        };
        self.judge(&source, name, wanted)
    }

    /// Half of a data set, or what the binary or the cache knows of it.
    fn data_set(
        &self,
        name: &str,
        dataset: Dataset,
        split: Split,
        wanted: KeptValues,
    ) -> Result<ImageSetStats> {
        let args = self.args;
        let (dir, size) = (args.data_path.as_deref(), args.image_size.map(usize::from));
        if let Some(size) = size
            && !matches!(dataset, Dataset::ImageNet | Dataset::CelebA)
        {
            bail!(
                "--image-size {size} is for imagenet and celeba; {dataset}'s images have one size"
            );
        }
        if let Some(set) = images::data_set(dataset, split, dir, args.n, size)? {
            images::tell_hidden(&set.hidden(), self.progress);
            let name = match size {
                Some(size) => format!("{name} at {size} x {size}"),
                None => name.into(),
            };
            return self.cached(set, &name, wanted);
        }
        // A checkpoint as the other set needs -n, so -n must not ask for the images here.
        if (dataset, split) == (Dataset::Mnist, Split::Train)
            && args.features.are_built_in()
            && wanted.rows.is_none()
            && !wanted.logits
        {
            let about = Provenance::ours(name.into(), embedded::LENET.into(), None);
            let statistics = embedded::lenet_mnist_train()?;
            return Ok(ImageSetStats::there(Origin::BuiltIn, statistics, about, Vec::new()));
        }
        bail!(
            "needs --data-path DIR; built in are the statistics of mnist:train on the built-in \
             lenet, and the first 512 images of mnist:test (-n 512 or less)"
        )
    }

    /// The statistics of a data set from the folder `--cache`, or into it, by the set's name and the
    /// fingerprints of its images and of the net.
    fn cached(
        &self,
        set: Box<dyn ImageSet>,
        name: &str,
        wanted: KeptValues,
    ) -> Result<ImageSetStats> {
        let Some(dir) =
            self.args.cache.as_ref().filter(|_| wanted.rows.is_none() && !wanted.logits)
        else {
            return self.judge(&ImageSource::Set(set), name, wanted);
        };
        let n = set.len().min(self.args.n.unwrap_or(usize::MAX));
        let bar = self.progress.bar("fingerprint", n as u64, "img");
        let images = fingerprint::of_images(&*set, n, |n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        let about = Provenance { fingerprint: Some(images), ..self.net()?.about(name) };
        let words = [Some(name), about.net.as_deref(), about.fingerprint.as_deref()];
        let words = words.into_iter().chain([about.resize.as_deref()]);
        let key = words.flatten().collect::<Vec<_>>().join("-");
        let key = key.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
        let path = dir.join(format!("{key}-{n}.npz"));
        // What the first process sees counts.
        let is_first = self.group.rank().index == 0;
        let is_there = is_first && path.is_file() && npz::read_about(&path)? == about;
        if self.group.any(is_there)? {
            let statistics = npz::read_statistics(&path)?;
            return Ok(ImageSetStats::there(Origin::Cached, statistics, about, Vec::new()));
        }
        let side = ImageSetStats { about, ..self.judge(&ImageSource::Set(set), name, wanted)? };
        if !is_first {
            return Ok(side);
        }
        std::fs::create_dir_all(dir).with_context(|| format!("creating `{}`", dir.display()))?;
        npz::write_statistics_about(&path, &side.statistics, &side.about)?;
        self.progress.line(&format!("wrote `{}`", path.display()));
        Ok(side)
    }

    /// Statistics in a file.
    fn statistics(
        statistics: Statistics,
        about: Provenance,
        wanted: KeptValues,
    ) -> Result<ImageSetStats> {
        if let Some(option) = wanted.rows {
            bail!("holds statistics alone, but {option} needs the features of each image");
        }
        ensure!(!wanted.logits, "holds statistics alone, but --is needs images");
        Ok(ImageSetStats::there(Origin::Given, statistics, about, Vec::new()))
    }

    /// Features in a file, or the first `-n` of them.
    fn features(
        &self,
        features: &fm_candle::Tensor,
        name: &str,
        wanted: KeptValues,
    ) -> Result<ImageSetStats> {
        ensure!(!wanted.logits, "holds features, but --is needs images");
        let (mut rows, d) = fid::rows(features)?;
        rows.truncate(self.args.n.unwrap_or(usize::MAX).saturating_mul(d));
        let statistics = Statistics::of_rows(&rows, d)?;
        let about = Provenance { images: Some(name.into()), ..Provenance::default() };
        Ok(ImageSetStats::there(Origin::Given, statistics, about, rows))
    }

    /// Images to be sampled from a checkpoint, once it is known to hold a net.
    fn drawing(&self, path: &Path) -> Result<ImageSource> {
        let file = checkpoint::Source::open(path, false)?;
        let net = NetArgs::plain(path).open(Reporter::silent());
        if file.net().is_none() && net.is_err() {
            let tensors = match file.tensors() {
                [] => "no tensors".into(),
                [one] => format!("one tensor, `{}`", one.name),
                all @ [first, ..] => format!("{} tensors, from `{}` on", all.len(), first.name),
            };
            bail!(
                "holds {tensors}: neither `features` nor `samples`, and no net that it names or that is a \
                 preset's; `fmq sample CKPT --arch NET -o samples.npz` draws from other nets"
            );
        }
        net?;
        let Some(n) = self.args.n else {
            bail!("-n N is needed to sample from a checkpoint");
        };
        let drawing =
            Drawing::by_default(path, n, self.common.seed, self.device()?, self.progress)?;
        Ok(ImageSource::Net(Box::new(drawing), n))
    }

    /// The net's features of the images, or of the first `-n` of them.
    fn judge(&self, source: &ImageSource, name: &str, wanted: KeptValues) -> Result<ImageSetStats> {
        let n = source.len().min(self.args.n.unwrap_or(usize::MAX));
        ensure!(n >= 2, "at least 2 images are needed, but there is {n}");
        let features = self.net()?;
        let bar = self.progress.bar("features", n as u64, "img");
        let (mut rows, mut logits) = (Vec::new(), (Vec::new(), 0));
        let take = |more: &[f32]| {
            if wanted.logits {
                let (more, classes) = features.net.logits(more).context("--is")?;
                logits.0.extend(more);
                logits.1 = classes;
            }
            if wanted.rows.is_some() {
                rows.extend(more);
            }
            Ok(())
        };
        let statistics =
            features.statistics(self.group, n, |range| source.read(range), &bar, take)?;
        let (origin, about) = (Origin::Computed, features.about(name));
        Ok(ImageSetStats { statistics, origin, about, rows, logits })
    }
}

/// The images that lie in a folder itself, and what was passed over.
fn files(dir: &Path) -> Result<(Vec<PathBuf>, Hidden)> {
    let listed = folder::list(dir);
    if listed.is_err()
        && let Ok(entries) = dir.read_dir()
        && let names = entries.flatten().map(|entry| entry.file_name())
        && let Some(first) =
            names.filter(|name| !folder::is_hidden(name) && dir.join(name).is_dir()).min()
    {
        bail!(
            "holds no images itself, but folders (`{}`, ...); give one of them, or name a data set \
             (imagenet:train --data-path DIR)",
            first.display()
        );
    }
    Ok(listed?)
}
