//! `fmq fid`: the Fréchet distance between two sets of images, and the measures beside it.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use fm_candle::atomic;
use fm_candle::fid::bootstrap::{Z95, standard_error};
use fm_candle::fid::inception_score::{inception_score, order};
use fm_candle::fid::kid::{MeanStd, Subsets, kid};
use fm_candle::fid::prdc::prdc;
use fm_candle::fid::{self, Features, npz};
use fm_candle::process_group::ProcessGroup;
use serde_json::{Map, Value, json};

pub(crate) use self::args::Args;
use self::image_set_stats::{FeatureExtractor, ImageSetStats, KeptValues, Origin};
use crate::args::common::Common;

mod args;
mod image_set_stats;
mod image_source;

/// The run of one process among those that share the images out; the first alone writes.
pub(crate) fn run(
    args: &Args,
    common: &Common,
    group: &dyn ProcessGroup,
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(path) = &args.save_stats {
        atomic::check_target(path)?;
    }
    let (is_first, progress) = (group.rank().index == 0, common.progress_of(group.rank()));
    let judge = FeatureExtractor::new(args, common, group)?;
    let both = args.kid.then_some("--kid").or(args.prdc.then_some("--prdc"));
    let rows = both.or(args.bootstrap.is_some().then_some("--bootstrap"));
    let a = judge.side(&args.a, KeptValues { rows, logits: args.is }).context("A")?;
    if let Some(path) = args.save_stats.as_ref().filter(|_| is_first) {
        npz::write_statistics_about(path, &a.statistics, &a.about)?;
        progress.line(&format!("wrote `{}`", path.display()));
    }
    let b = args.b.as_ref().map(|name| {
        let side = judge.side(name, KeptValues { rows: both, logits: false }).context("B")?;
        Ok::<_, anyhow::Error>((name.as_str(), side))
    });
    let b = b.transpose()?;
    if !is_first {
        return Ok(());
    }
    let mut report = FidReport::new(args, &a, b.as_ref());
    if b.is_some() || args.save_stats.is_some() {
        report.warnings.extend(a.warning("A"));
    }
    if let Some((name, b)) = &b {
        report.warnings.extend(b.warning("B"));
        report.warnings.extend(agreement(&a, b)?);
        report.compare(args, common.seed, &a, (name, b))?;
    }
    if args.is {
        report.score(args, common.seed, &a)?;
    }
    for warning in &report.warnings {
        progress.line(&format!("warning: {warning}"));
    }
    if let Some((name, ImageSetStats { origin: origin @ (Origin::BuiltIn | Origin::Cached), .. })) =
        &b
    {
        progress.line(&format!("B: the statistics of {name} are {}", origin.name()));
    }
    if args.json {
        writeln!(out, "{}", report.json())?;
    } else {
        report.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

/// Refuses sets of different features; warns where one does not say which it has.
fn agreement(a: &ImageSetStats, b: &ImageSetStats) -> Result<Option<String>> {
    let net = |side: &ImageSetStats| {
        let how = side.about.resize.as_ref().map(|how| format!(", resize {how}"));
        side.about.net.as_ref().map(|net| format!("{net}{}", how.unwrap_or_default()))
    };
    Ok(match (net(a), net(b)) {
        (Some(a), Some(b)) if a != b => {
            bail!("A has features of {a}, but B of {b}; both need the same ones")
        }
        (Some(net), None) => Some(format!("B does not say what its features are of; A's: {net}")),
        (None, Some(net)) => Some(format!("A does not say what its features are of; B's: {net}")),
        _ => None,
    })
}

/// The results, for people and as JSON.
struct FidReport {
    values: Map<String, Value>,
    lines: Vec<String>,
    warnings: Vec<String>,
    /// The suffix of a measure's name: ` (LeNet features)`.
    features: String,
    /// The sets, their numbers of images, and the resize filter.
    sets: String,
}

impl FidReport {
    fn new(args: &Args, a: &ImageSetStats, b: Option<&(&str, ImageSetStats)>) -> Self {
        let sides = || [Some(a), b.map(|(_, b)| b)].into_iter().flatten();
        let features = sides().find_map(ImageSetStats::features);
        let resize = sides().find_map(|side| side.about.resize.clone());
        let title = match features {
            Some(features) => features.title(),
            None => format!("FID ({} given features)", a.statistics.dim()),
        };
        let sets = [
            Some(format!("A: {}", a.title(&args.a))),
            b.map(|(name, b)| format!("B: {}", b.title(name))),
            resize.as_ref().map(|how| format!("resize: {how}")),
        ];
        let fields = [
            ("fid", Value::Null),
            ("n_a", json!(a.statistics.n)),
            ("n_b", json!(b.and_then(|(_, b)| b.statistics.n))),
            ("features", json!(features.map_or("given", Features::name))),
            ("resize", json!(resize)),
            ("a", json!(a.about.images.as_ref().unwrap_or(&args.a))),
            ("b", json!(b.map(|(name, b)| b.about.images.as_deref().unwrap_or(name)))),
            ("reference", json!(b.map(|(_, b)| b.origin.name()))),
        ];
        Self {
            values: fields.map(|(key, value)| (key.to_string(), value)).into_iter().collect(),
            lines: Vec::new(),
            warnings: Vec::new(),
            features: title.strip_prefix("FID").unwrap_or_default().to_string(),
            sets: sets.into_iter().flatten().collect::<Vec<_>>().join("; "),
        }
    }

    /// The measures of A beside B.
    fn compare(
        &mut self,
        args: &Args,
        seed: u64,
        a: &ImageSetStats,
        (name, b): (&str, &ImageSetStats),
    ) -> Result<()> {
        let (d, d_b) = (a.statistics.dim(), b.statistics.dim());
        ensure!(
            d == d_b,
            "A (`{}`) has {d} features, but B (`{name}`) has {d_b}; both need the same ones",
            args.a
        );
        let distance = fid::fid(&a.statistics, &b.statistics)?;
        self.set("fid", distance);
        let mut interval = String::new();
        if let Some(resamples) = args.bootstrap {
            let error = Z95 * standard_error(&a.rows, &b.statistics, &[], resamples, seed)?;
            self.set("fid_error", error);
            interval = format!(" ± {error:.4}");
        }
        self.line("FID", &format!("{distance:.4}{interval}  ({})", self.sets));
        if args.kid {
            let fewest = a.rows.len().min(b.rows.len()) / d;
            let Subsets { size, .. } = Subsets::default();
            let size = args.kid_subset_size.unwrap_or(size.min(fewest));
            let subsets = Subsets { count: args.kid_subsets, size, seed };
            let MeanStd { mean, std } =
                kid(&a.rows, &b.rows, d, &subsets).context("--kid-subset-size")?;
            self.set("kid_mean", mean);
            self.set("kid_std", std);
            let subsets = format!("{} subsets of {size}", args.kid_subsets);
            self.line("KID", &format!("{mean:.6} ± {std:.6}  ({subsets})"));
        }
        if args.prdc {
            let k = args.prdc_k;
            let found = prdc(&a.rows, &b.rows, d, k).context("--prdc-k")?;
            let measures = [
                ("precision", found.precision),
                ("recall", found.recall),
                ("density", found.density),
                ("coverage", found.coverage),
            ];
            for (name, value) in measures {
                self.set(name, value);
                self.line(name, &format!("{value:.4}  (k = {k})"));
            }
        }
        Ok(())
    }

    /// The inception score of A.
    fn score(&mut self, args: &Args, seed: u64, a: &ImageSetStats) -> Result<()> {
        let (logits, classes) = &a.logits;
        let splits = args.is_splits;
        let order = order(logits.len() / (*classes).max(1), seed);
        let MeanStd { mean, std } =
            inception_score(logits, *classes, &order, splits).context("--is-splits")?;
        self.set("is_mean", mean);
        self.set("is_std", std);
        self.line("IS", &format!("{mean:.4} ± {std:.4}  ({splits} splits of A)"));
        Ok(())
    }

    fn set(&mut self, key: &str, value: f64) {
        self.values.insert(key.to_string(), json!(value));
    }

    fn line(&mut self, name: &str, text: &str) {
        self.lines.push(format!("{name}{} = {text}", self.features));
    }

    fn json(&self) -> Value {
        let mut values = self.values.clone();
        values.insert("warnings".to_string(), json!(self.warnings));
        Value::Object(values)
    }
}
