//! The arguments of `fmq fid`.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use fm_candle::fid::inception_score::SPLITS;
use fm_candle::fid::prdc::NEIGHBOURS;

use crate::args::features::FeaturesArgs;
use crate::args::numbers::{at_least_1, at_least_2};
use crate::output;

/// Fréchet distance between two sets of images, and other measures
///
/// A is the set that is judged (generated images), B what it is judged by (real ones). The distance
/// is the same either way round; precision, recall, density, coverage and the inception score are not.
#[derive(clap::Args)]
#[command(
    after_help = "A, B: a folder of images (JPEG, PNG, WebP, BMP, PPM, PGM, TIFF; any sizes for inception), .npz of \
    images (arr_0) or statistics (mu, sigma), a pickle of statistics (EDM's), .safetensors with \
    `features` or `samples`, a data set (mnist:train, mnist:test, ...), or a checkpoint to sample -n \
    images from"
)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent")]
pub(crate) struct Args {
    /// The set to judge: generated images
    #[arg(value_name = "A")]
    pub(super) a: String,
    /// What to judge it by: real images; not needed where A's statistics are only saved, or for --is
    #[arg(value_name = "B", required_unless_present_any = ["save_stats", "is"])]
    pub(super) b: Option<String>,
    /// Use the first N images of each set; statistics, mnist:train's built-in ones too, stay whole
    #[arg(short, value_name = "N", value_parser = at_least_2)]
    pub(super) n: Option<usize>,
    /// Folder of the data sets
    #[arg(long, value_name = "DIR")]
    pub(super) data_path: Option<PathBuf>,
    /// Side to which images of imagenet and celeba are brought first, as in training
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16384))]
    pub(super) image_size: Option<u16>,
    #[command(flatten)]
    pub(super) features: FeaturesArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Write A's statistics, and which images, net and resize they are of; pytorch-fid reads the file
    #[arg(
        long,
        value_name = "OUT.npz",
        value_parser = PathBufValueParser::new().try_map(output::npz)
    )]
    pub(super) save_stats: Option<PathBuf>,
    /// Keep data sets' statistics in this folder, and take them from there the next time, for the same
    /// images (by their contents), net and resize
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
    /// Half of the distance's 95 % interval, from N resamples of A's images (200, say)
    #[arg(long, value_name = "N", requires = "b", value_parser = at_least_2)]
    pub(super) bootstrap: Option<usize>,
    /// Kernel distance, mean and standard deviation over subsets
    #[arg(long, requires = "b")]
    pub(super) kid: bool,
    /// Subsets of the kernel distance
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_1::<usize>)]
    pub(super) kid_subsets: usize,
    /// Images of each set in a subset [default: 1000, or all of the smaller set]
    #[arg(long, value_name = "N", value_parser = at_least_2)]
    pub(super) kid_subset_size: Option<usize>,
    /// Inception score of A, mean and standard deviation over parts
    #[arg(long)]
    pub(super) is: bool,
    /// Parts of the inception score
    #[arg(long, value_name = "N", default_value_t = SPLITS, value_parser = at_least_1::<usize>)]
    pub(super) is_splits: usize,
    /// Precision, recall, density and coverage
    #[arg(long, requires = "b")]
    pub(super) prdc: bool,
    /// Neighbours that make a ball for --prdc; the authors of density and coverage take 5
    #[arg(long, value_name = "K", default_value_t = NEIGHBOURS, value_parser = at_least_1::<usize>)]
    pub(super) prdc_k: usize,
}
