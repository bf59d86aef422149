//! `fmq fid`: the Fréchet distance between two sets of images.

use core::cell::OnceCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fm_candle::checkpoint;
use fm_candle::data::{Dataset, Images, Split};
use fm_candle::fid::inception::Layer;
use fm_candle::fid::resize::Resize;
use fm_candle::fid::{self, FeatureNet, Features, Gathering, Statistics, npz};
use serde_json::json;

use crate::cli::Common;
use crate::cmd::images::{self, Kind};
use crate::cmd::sample;
use crate::embedded;

/// Fréchet distance between two sets of images
#[derive(clap::Args)]
#[command(after_help = "A, B: a folder of PNG images, .npz of images (arr_0) or statistics (mu, \
    sigma), .safetensors with `features` or `samples`, a data set (mnist:train, mnist:test, ...), \
    or a checkpoint to sample -n images from")]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent")]
pub(crate) struct Args {
    /// One set
    #[arg(value_name = "A")]
    a: String,
    /// The other set; not needed where A's statistics are only saved
    #[arg(value_name = "B", required_unless_present = "save_stats")]
    b: Option<String>,
    /// Use the first N images of each set; statistics, mnist:train's built-in ones too, stay whole
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Folder of the data sets
    #[arg(long = "data-path", alias = "data_path", value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// What is compared: inception (2048 features; inception-768, -192 and -64 are earlier ones), or
    /// lenet, a small classifier of digits [default: inception with --weights, else lenet]
    #[arg(long, value_name = "NAME")]
    features: Option<String>,
    /// Weights of the features' net: torch-fidelity's or pytorch-fid's file for inception (`fmq data
    /// fetch inception` brings it), one of `fmq train-lenet` for lenet [default: lenet's are built in]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How images are resized for inception: torchmetrics (today's), tf1 (torch-fidelity's) or
    /// pytorch-fid [default: torchmetrics]
    #[arg(long, value_name = "HOW")]
    resize: Option<Resize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write A's statistics
    #[arg(long = "save-stats", alias = "save_stats", value_name = "OUT.npz")]
    save_stats: Option<PathBuf>,
    /// Kernel distance (not in this version)
    #[arg(long, hide = true)]
    kid: bool,
    /// Inception score (not in this version)
    #[arg(long, hide = true)]
    is: bool,
    /// Precision, recall, density, coverage (not in this version)
    #[arg(long, hide = true)]
    prdc: bool,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    refuse_what_is_missing(args)?;
    let judge = Judge::new(args, common)?;
    let a = judge.side(&args.a)?;
    let mut warnings: Vec<String> = a.warning("A").into_iter().collect();
    if let Some(path) = &args.save_stats {
        npz::write_statistics(path, &a.statistics)?;
        common.progress().line(&format!("wrote `{}`", path.display()));
    }
    let Some(b) = &args.b else {
        warn(common, &warnings);
        if args.json {
            let result = json!({
                "fid": null,
                "n_a": a.statistics.n,
                "n_b": null,
                "features": a.name(&judge),
                "resize": a.resize(&judge),
                "warnings": warnings,
            });
            writeln!(out, "{result}")?;
        }
        return Ok(());
    };
    let b = judge.side(b)?;
    warnings.extend(b.warning("B"));
    let (d_a, d_b) = (a.statistics.dim(), b.statistics.dim());
    ensure!(
        d_a == d_b,
        "A (`{}`) has {d_a} features, but B (`{}`) has {d_b}; both need the same ones",
        args.a,
        args.b.as_deref().unwrap_or_default()
    );
    let distance = fid::fid(&a.statistics, &b.statistics)?;
    warn(common, &warnings);
    let judged = if a.judged { &a } else { &b };
    if args.json {
        let result = json!({
            "fid": distance,
            "n_a": a.statistics.n,
            "n_b": b.statistics.n,
            "features": judged.name(&judge),
            "resize": judged.resize(&judge),
            "warnings": warnings,
        });
        writeln!(out, "{result}")?;
    } else {
        let count = |side: &Side| match side.statistics.n {
            Some(n) => format!("{n} images"),
            None => "statistics".into(),
        };
        let title = judged.title(&judge);
        let how = judged.resize(&judge).map_or(String::new(), |how| format!(", resize: {how}"));
        writeln!(out, "{title} = {distance:.4}  (A: {}, B: {}{how})", count(&a), count(&b))?;
    }
    Ok(())
}

/// Tells people what `warnings` say.
fn warn(common: &Common, warnings: &[String]) {
    for warning in warnings {
        common.progress().line(&format!("warning: {warning}"));
    }
}

/// Refuses options that are not in this version.
fn refuse_what_is_missing(args: &Args) -> Result<()> {
    let measures = [("--kid", args.kid), ("--is", args.is), ("--prdc", args.prdc)];
    if let Some((flag, _)) = measures.iter().find(|(_, given)| *given) {
        bail!("{flag} is not in this version, which has the Fréchet distance alone");
    }
    Ok(())
}

/// Images between two steps of the progress bar.
const CHUNK: usize = 64;

/// One set, as its statistics.
struct Side {
    statistics: Statistics,
    /// Whether our net computed the features; else they came with the file.
    judged: bool,
}

impl Side {
    fn given(statistics: Statistics) -> Self {
        Self { statistics, judged: false }
    }

    fn name(&self, judge: &Judge<'_>) -> &'static str {
        if self.judged { judge.features.name() } else { "given" }
    }

    /// How our net's images were resized, if they were.
    fn resize(&self, judge: &Judge<'_>) -> Option<&'static str> {
        let resized = self.judged && judge.features != Features::LeNet;
        resized.then(|| judge.resize.name())
    }

    fn title(&self, judge: &Judge<'_>) -> String {
        if self.judged {
            judge.features.title()
        } else {
            format!("FID ({} given features)", self.statistics.dim())
        }
    }

    /// What is wrong with few images; `side` is A or B.
    fn warning(&self, side: &str) -> Option<String> {
        let d = self.statistics.dim();
        let n = self.statistics.n.filter(|&n| n <= d as u64)?;
        Some(format!(
            "{side}: {n} images for {d} features have a singular covariance; the distance comes out \
             too large and compares only with others of {n} images"
        ))
    }
}

/// Turns what A or B names into statistics.
struct Judge<'a> {
    args: &'a Args,
    common: &'a Common,
    features: Features,
    resize: Resize,
    /// The features' net, once it is needed.
    net: OnceCell<Box<dyn FeatureNet>>,
}

impl<'a> Judge<'a> {
    fn new(args: &'a Args, common: &'a Common) -> Result<Self> {
        let features = match &args.features {
            Some(name) => name.parse().context("--features")?,
            None if args.weights.is_some() => Features::Inception(Layer::D2048),
            None => Features::LeNet,
        };
        if features == Features::LeNet
            && let Some(how) = args.resize
        {
            bail!("--resize {how} is about inception's features; lenet takes 28 x 28 as they are");
        }
        let resize = args.resize.unwrap_or_default();
        Ok(Self { args, common, features, resize, net: OnceCell::new() })
    }

    /// The features' net.
    fn net(&self) -> Result<&dyn FeatureNet> {
        if let Some(net) = self.net.get() {
            return Ok(&**net);
        }
        let net = match (self.features, &self.args.weights) {
            (Features::LeNet, None) => Box::new(embedded::lenet()?),
            (features, Some(path)) => {
                let net = features.open(path, self.resize, &self.common.device()?);
                net.context(format!("--weights for {features}"))?
            }
            (features, None) => bail!(
                "--features {features} needs --weights FILE, torch-fidelity's or pytorch-fid's; \
                 `fmq data fetch inception` brings the former"
            ),
        };
        Ok(&**self.net.get_or_init(|| net))
    }

    /// The statistics of the set that `name` names; its contents tell what a file is.
    fn side(&self, name: &str) -> Result<Side> {
        self.read(name).map_err(|error| images::named(name, error))
    }

    fn read(&self, name: &str) -> Result<Side> {
        let path = Path::new(name);
        match Kind::of(name)? {
            Kind::DataSet(dataset, split) => self.data_set(dataset, split),
            Kind::Folder => self.judge(images::folder(path, self.args.n)?),
            Kind::Npz => match npz::read(path)? {
                npz::Content::Statistics(statistics) => Ok(Side::given(statistics)),
                npz::Content::Images(images) => self.judge(images),
            },
            Kind::Safetensors => self.safetensors(path),
            Kind::Other => self.sampled(path),
        }
    }

    /// Half of a data set, or what the binary knows of it.
    fn data_set(&self, dataset: Dataset, split: Split) -> Result<Side> {
        let args = self.args;
        if let Some(images) = images::data_set(dataset, split, args.data_path.as_deref(), args.n)? {
            return self.judge(images);
        }
        // A checkpoint as the other set needs -n, so -n must not ask for the images here.
        let embedded = self.features == Features::LeNet && args.weights.is_none();
        if (dataset, split) == (Dataset::Mnist, Split::Train) && embedded {
            return Ok(Side { statistics: embedded::lenet_mnist_train()?, judged: true });
        }
        bail!(
            "needs --data-path DIR; built in are the statistics of mnist:train on the built-in \
             lenet, and the first 512 images of mnist:test (-n 512 or less)"
        )
    }

    fn safetensors(&self, path: &Path) -> Result<Side> {
        let file = checkpoint::load(path, true)?;
        if let Some(features) = file.tensor("features") {
            let (mut rows, d) = fid::rows(features)?;
            rows.truncate(self.args.n.unwrap_or(usize::MAX).saturating_mul(d));
            return Ok(Side::given(Statistics::of_rows(&rows, d)?));
        }
        match file.tensor("samples") {
            Some(samples) => self.judge(sample::images(samples)?),
            None => self.sampled(path),
        }
    }

    /// Images sampled from a checkpoint.
    fn sampled(&self, path: &Path) -> Result<Side> {
        let Some(n) = self.args.n else {
            bail!("-n N is needed to sample from a checkpoint");
        };
        ensure!(n >= 2, "-n {n}: at least 2 images are needed");
        self.judge(sample::images(&sample::draw(path, n, self.common)?)?)
    }

    /// The statistics of the net's features on the images, or the first `-n` of them.
    fn judge(&self, mut images: Images) -> Result<Side> {
        images.truncate(self.args.n.unwrap_or(usize::MAX));
        ensure!(images.n >= 2, "at least 2 images are needed, but there is {}", images.n);
        let net = self.net()?;
        let bar = self.common.progress().bar("features", images.n as u64, "img");
        let mut gathering = Gathering::new(net);
        for first in (0..images.n).step_by(CHUNK) {
            let range = first..(first + CHUNK).min(images.n);
            bar.inc(range.len() as u64);
            gathering.add_set(&images, range)?;
        }
        bar.finish_and_clear();
        Ok(Side { statistics: gathering.finish()?.try_into()?, judged: true })
    }
}
