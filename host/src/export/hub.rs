//! A folder as model hubs lay it out: weights, configuration, packed files, a card and a picture.
//!
//! ```text
//! DIR/config.json          the net's configuration, under upstream's field names
//! DIR/model.safetensors    the weights; configuration and facts of a catalogue in the metadata
//! DIR/NAME.fmq             packed files of the same net
//! DIR/README.md            the model card
//! DIR/samples.png          samples of these weights
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fm_candle::checkpoint::folder::{CONFIG, WEIGHTS};
use fm_candle::checkpoint::{self, Catalogue, FileKind, MeasuredFid, NET_KEY, Source};
use fm_candle::device::Device;
use fm_candle::model::{UNetConfig, config, expand_embedding};
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{Method, steps_grid};
use fm_candle::{DType, Tensor, atomic, fingerprint};
use quant_core::format::Model;

use super::model_card::{ModelCard, SAMPLES, SHOWN, STEPS};
use super::net_difference::difference;
use super::packed_size::PackedSize;
use super::sweep_results::SweepResults;
use super::training_run::TrainingRun;
use crate::args::common::Common;
use crate::args::label::class_cycle;
use crate::args::net::{NetArgs, build};
use crate::args::packed;
use crate::args::size::count;
use crate::args::weights::WeightsArgs;
use crate::drawing::{Drawing, StartNoise};
use crate::output::{new_folder, samples};
use crate::progress::Reporter;

/// Name of the model card.
const CARD: &str = "README.md";

/// The options of what else is exported.
const OTHERS: [&str; 2] = ["output", "firmware"];

/// The options of a folder for a model hub.
#[derive(clap::Args)]
#[command(
    next_help_heading = "Options of --hub",
    mut_arg("arch", |arg| arg.conflicts_with_all(OTHERS)),
    mut_arg("raw_weights", |arg| arg.conflicts_with_all(OTHERS)),
    mut_arg("checkpoint_key", |arg| arg.conflicts_with_all(OTHERS))
)]
pub(crate) struct HubArgs {
    /// A packed file of the same net, to lie in the folder too; may be given again
    #[arg(long, value_name = "FILE.fmq", conflicts_with_all = OTHERS)]
    packed: Vec<PathBuf>,
    /// results.json of a sweep of these weights, for their FID and that of its packed files
    #[arg(long, value_name = "FILE", conflicts_with_all = OTHERS)]
    results: Option<PathBuf>,
    /// Licence of the weights, by the Hub's identifier [default: that in CKPT's metadata, else none is named]
    #[arg(long, value_name = "ID", conflicts_with_all = OTHERS, value_parser = license)]
    license: Option<String>,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Side of the images, in place of what the net's configuration says
    #[arg(long, conflicts_with_all = OTHERS, value_parser = clap::value_parser!(u16).range(1..=16384))]
    image_size: Option<u16>,
}

/// A licence by an identifier such as the Hub lists.
fn license(id: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(fits) {
        Ok(id.to_string())
    } else {
        Err(
            "expected an identifier of small letters, digits, `-` and `.`, such as mit or cc-by-4.0",
        )
    }
}

/// A packed file to be copied into the folder.
struct PackedCopy {
    size: PackedSize,
    bytes: Vec<u8>,
}

/// The net that is exported.
struct ExportedNet {
    source: Source,
    config: UNetConfig,
    /// Its weights, with the projection of its embedding multiplied out.
    weights: Vec<(String, Tensor)>,
}

/// Writes the folder `dir` for the checkpoint at `path`; what was written, a line for each file.
pub(crate) fn export(
    dir: &Path,
    path: &Path,
    args: &HubArgs,
    common: &Common,
) -> Result<Vec<String>> {
    new_folder::check(dir)?;
    let (named, progress) = (|| format!("`{}`", path.display()), common.progress());
    let results = args.results.as_deref().map(SweepResults::read).transpose()?;
    let net = ExportedNet::open(path, args, progress)?;
    let packed = net.packed(&args.packed)?;
    let run = net.run(progress);
    let facts = net.facts(args, run.as_ref(), results.as_ref()).with_context(named)?;
    let picture = net.draw(&common.device()?, common.seed).with_context(named)?;

    let packed_facts: Vec<(PackedSize, Option<MeasuredFid>)> = packed
        .iter()
        .map(|it| (it.size.clone(), results.as_ref().and_then(|all| all.of_packed(&it.bytes))))
        .collect();
    let json = config::to_json(&net.config);
    let mut metadata = vec![(NET_KEY, json)];
    metadata.extend(facts.metadata());
    let metadata: Vec<_> = metadata.iter().map(|(key, text)| (*key, text.as_str())).collect();
    let name = name(dir)?;
    new_folder::write(dir, |made| {
        checkpoint::safetensors::save(&made.join(WEIGHTS), &net.weights, &metadata)?;
        let bytes = made.join(WEIGHTS).metadata().with_context(named)?.len();
        let config = serde_json::to_string_pretty(&net.config)? + "\n";
        atomic::write(&made.join(CONFIG), config.as_bytes())?;
        for PackedCopy { size, bytes } in &packed {
            atomic::write(&made.join(&size.file), bytes)?;
        }
        atomic::write(&made.join(SAMPLES), &picture)?;
        let card = ModelCard {
            name: &name,
            net: &net.config,
            parameters: count(&net.weights) as u64,
            origin: net.origin(run.as_ref()),
            facts: &facts,
            run: run.as_ref(),
            weights: (WEIGHTS, bytes),
            config: CONFIG,
            packed: &packed_facts,
            seed: common.seed,
        };
        Ok(atomic::write(&made.join(CARD), card.text().as_bytes())?)
    })?;
    let fixed = [WEIGHTS, CONFIG, CARD, SAMPLES].into_iter();
    let files = fixed.chain(packed.iter().map(|it| &*it.size.file));
    Ok(files.map(|file| format!("wrote `{}`", dir.join(file).display())).collect())
}

impl ExportedNet {
    fn open(path: &Path, args: &HubArgs, progress: Reporter) -> Result<Self> {
        let named = || format!("`{}`", path.display());
        let net = NetArgs::new(path, args.weights.clone(), args.image_size);
        let (source, config) = net.open(progress)?;
        ensure!(
            config.image_size.is_some(),
            "{}: the net's configuration has no image_size; give --image-size",
            named()
        );
        let weights = source.parameters(&config).with_context(named)?;
        let (config, weights) = expand_embedding(&config, weights).with_context(named)?;
        Ok(Self { source, config, weights })
    }

    fn is_packed(&self) -> bool {
        self.source.kind() == FileKind::Packed
    }

    /// The packed files: the checkpoint itself where it is one, and those at `paths`.
    fn packed(&self, paths: &[PathBuf]) -> Result<Vec<PackedCopy>> {
        let own = self.is_packed().then(|| self.source.path());
        let mut files: Vec<PackedCopy> = Vec::new();
        for path in own.into_iter().chain(paths.iter().map(PathBuf::as_path)) {
            let bytes = packed::read(path)?;
            let size = PackedSize::of(path, &bytes)?;
            let at = path.display();
            let model = Model::parse(&bytes).with_context(|| format!("`{at}`"))?;
            let net = model.net().with_context(|| format!("`{at}`: holds no net"))?;
            if let Some(difference) = difference(net, &self.config) {
                let of = self.source.path().display();
                bail!("`{at}`: is of another net than `{of}`: {difference}");
            }
            if path.extension().is_none_or(|end| end != "fmq") {
                bail!("`{at}`: the name of a packed file must end in .fmq");
            }
            if files.iter().any(|other| other.size.file == size.file) {
                bail!("`{at}`: the folder has a file `{}` already; rename one", size.file);
            }
            files.push(PackedCopy { size, bytes });
        }
        Ok(files)
    }

    /// The training run in whose folder the checkpoint lies.
    fn run(&self, progress: Reporter) -> Option<TrainingRun> {
        let dir = self.source.path().parent()?;
        let run = TrainingRun::open(dir)?;
        if !run.is_of(&self.config) {
            progress.line(&format!(
                "warning: `{}` is of another net; what it says is left out",
                dir.join("args.json").display()
            ));
            return None;
        }
        Some(run.up_to(Catalogue::of(self.source.metadata()).epochs))
    }

    /// The facts of a catalogue: those in the metadata, then those of the run and of the sweep.
    fn facts(
        &self,
        args: &HubArgs,
        run: Option<&TrainingRun>,
        results: Option<&SweepResults>,
    ) -> Result<Catalogue> {
        let own = Catalogue::of(self.source.metadata());
        let run = run.map(TrainingRun::catalogue).unwrap_or_default();
        // A run measures the average that it keeps, in full precision.
        let raw = args.weights.raw_weights && self.source.nets().iter().any(|net| net.average);
        let by_run = own.fid.or(run.fid).filter(|_| !raw && !self.is_packed());
        let fid = match results {
            None => by_run,
            Some(results) if self.is_packed() => {
                let fid = results.of_packed(&packed::read(self.source.path())?);
                Some(fid.context("--results: none of the sweep's packed files has these bytes")?)
            }
            Some(results) => {
                let fingerprint = fingerprint::of_weights(&self.weights)?;
                Some(results.of_weights(&fingerprint).context("--results")?)
            }
        };
        Ok(Catalogue {
            dataset: own.dataset.or(run.dataset),
            epochs: own.epochs.or(run.epochs),
            loss: own.loss.or(run.loss),
            fid,
            license: args.license.clone().or(own.license.filter(|id| license(id).is_ok())),
        })
    }

    /// The picture of samples, as `fmq sample` draws it from the folder.
    fn draw(&self, device: &Device, seed: u64) -> Result<Vec<u8>> {
        let net = build(&self.config, self.weights.clone(), device, DType::F32)?;
        let sampler = BatchSampler::new(Method::Midpoint, steps_grid(STEPS)?, device);
        let (noise, labels) = (StartNoise::Seed(seed), class_cycle(&self.config, SHOWN)?);
        let drawing = Drawing { net, sampler, noise, labels, device: device.clone() };
        samples::grid_png(&drawing.samples(0..SHOWN, false, |_| {})?.images)
    }

    /// A sentence for the card on how the weights were made from the checkpoint (dequantized, averaged); none
    /// where they are the trained weights unchanged.
    fn origin(&self, run: Option<&TrainingRun>) -> Option<String> {
        let file = self.source.path().file_name().unwrap_or_default().to_string_lossy();
        let averaged = file == WEIGHTS && run.is_some_and(TrainingRun::averages);
        if self.is_packed() {
            Some(format!("The weights are those of `{file}`, dequantized."))
        } else if self.source.ema() || averaged {
            Some("The weights are the moving average (EMA) of training.".into())
        } else {
            None
        }
    }
}

/// The name of the model: that of its folder.
fn name(dir: &Path) -> Result<String> {
    let there = if dir.exists() {
        dir.canonicalize().with_context(|| format!("`{}`", dir.display()))?
    } else {
        dir.to_path_buf()
    };
    let name = there.file_name().with_context(|| format!("`{}`: has no name", dir.display()))?;
    Ok(name.to_string_lossy().into_owned())
}
