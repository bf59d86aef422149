//! `fmq train-lenet`: the classifier whose features `fmq fid` compares digits with.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::builder::{PathBufValueParser, TypedValueParser};
use fm_candle::data::{Dataset, Split};
use fm_candle::fid::lenet::{self, LeNet, LeNetTraining};
use fm_candle::fid::npz::Provenance;
use fm_candle::fid::{Features, npz};
use fm_candle::{atomic, checkpoint, fingerprint};

use crate::args::command_line::with_dashes_too;
use crate::args::common::Common;
use crate::args::numbers::{above_0, at_least_1};
use crate::{images, output};

/// Train the small classifier behind `fmq fid --features lenet`
#[derive(clap::Args)]
#[command(mut_args(with_dashes_too))]
pub(crate) struct Args {
    /// mnist or fashionmnist
    #[arg(long, default_value_t = Dataset::Mnist)]
    dataset: Dataset,
    /// Folder of the data set
    #[arg(long = "data_path", default_value = "./data/image_generation")]
    data_path: PathBuf,
    /// Passes over the data
    #[arg(long, default_value_t = LeNetTraining::default().epochs, value_parser = at_least_1::<u64>)]
    epochs: u64,
    /// Images per update
    #[arg(
        long = "batch_size",
        default_value_t = LeNetTraining::default().batch_size,
        value_parser = at_least_1::<usize>
    )]
    batch_size: usize,
    /// Learning rate at the start; it falls linearly to 0
    #[arg(long, default_value_t = LeNetTraining::default().lr, value_parser = above_0)]
    lr: f64,
    /// Largest random shift of an image, in pixels
    #[arg(long, default_value_t = LeNetTraining::default().shift)]
    shift: u8,
    /// Output: .safetensors with the weights
    #[arg(
        short,
        long,
        default_value = "lenet.safetensors",
        value_name = "OUT.safetensors",
        value_parser = PathBufValueParser::new().try_map(output::safetensors)
    )]
    output: PathBuf,
    /// Write the statistics of the features of the training images
    #[arg(
        long,
        value_name = "OUT.npz",
        value_parser = PathBufValueParser::new().try_map(output::npz)
    )]
    save_stats: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    let (device, progress) = (common.device()?, common.progress());
    ensure!(args.shift < 28, "--shift {}: must be below 28, the side of the images", args.shift);
    for path in [Some(&args.output), args.save_stats.as_ref()].into_iter().flatten() {
        atomic::check_target(path)?;
    }
    let dataset = args.dataset;
    let train = dataset.load(&args.data_path, Split::Train)?;
    let test = dataset.load(&args.data_path, Split::Test)?;
    progress.line(&images::summary(&train, &format!("{dataset}:{}", Split::Train)));
    let config = LeNetTraining {
        epochs: args.epochs,
        batch_size: args.batch_size,
        lr: args.lr,
        shift: args.shift,
        seed: common.seed,
    };
    let (mut accuracy, mut start) = (0.0, Instant::now());
    let weights = lenet::train(&train, &config, &device, |epoch, loss, net| {
        accuracy = net.accuracy(&test)?;
        let seconds = start.elapsed().as_secs_f64();
        progress.line(&format!(
            "epoch {epoch}/{}: loss {loss:.4}, test accuracy {:.2} %, {seconds:.0} s",
            config.epochs,
            100.0 * accuracy
        ));
        start = Instant::now();
        Ok(())
    })?;
    let text = |value: &dyn ToString| value.to_string();
    let metadata = [
        ("fmq.classifier", text(&"lenet")),
        ("dataset", text(&dataset)),
        ("epochs", text(&config.epochs)),
        ("batch_size", text(&config.batch_size)),
        ("lr", text(&config.lr)),
        ("shift", text(&config.shift)),
        ("seed", text(&config.seed)),
        ("test_accuracy", text(&accuracy)),
    ];
    let metadata = metadata.each_ref().map(|(key, value)| (*key, value.as_str()));
    checkpoint::safetensors::save(&args.output, &weights, &metadata)?;
    progress.line(&format!("wrote `{}`", args.output.display()));
    if let Some(path) = &args.save_stats {
        let statistics = LeNet::load(weights, &device)?.statistics(&train)?;
        let net = format!("{}, weights {}", Features::LeNet, fingerprint::of_file(&args.output)?);
        let about = Provenance::ours(format!("{dataset}:train"), net, None);
        npz::write_statistics_about(path, &statistics, &about)?;
        progress.line(&format!("wrote `{}`", path.display()));
    }
    Ok(())
}
