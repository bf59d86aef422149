//! The arguments of `fmq train`, and the names of its files.

use std::path::PathBuf;

use fm_candle::data::Dataset;
use fm_candle::solver::Method;

use super::launcher::Launcher;
use crate::args::command_line::with_dashes_too;
use crate::args::numbers::finite;
use crate::args::ode::{OdeOptions, Steps};

/// Train a flow-matching U-Net (upstream's flags, in snake_case or kebab-case)
#[derive(clap::Args, Clone)]
#[command(rename_all = "snake_case", args_override_self = true, mut_args(with_dashes_too))]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches, one to one")]
pub(crate) struct Args {
    /// Images per batch
    #[arg(long, default_value_t = 32)]
    pub(super) batch_size: usize,
    /// Passes over the data
    #[arg(long, default_value_t = 921)]
    pub(super) epochs: u64,
    /// Batches per update
    #[arg(long, default_value_t = 1)]
    pub(super) accum_iter: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-4)]
    pub(super) lr: f64,
    /// AdamW's two decays
    #[arg(long, num_args = 2, default_values_t = [0.9, 0.95])]
    pub(super) optimizer_betas: Vec<f64>,
    /// Let the learning rate fall linearly to 1e-8
    #[arg(long)]
    pub(super) decay_lr: bool,
    /// Probability that a batch is trained without labels
    #[arg(long, default_value_t = 0.2)]
    pub(super) class_drop_prob: f64,
    /// Draw times from the skewed distribution
    #[arg(long)]
    pub(super) skewed_timesteps: bool,
    /// Sample on the EDM time grid (nfe in --ode_options)
    #[arg(long)]
    pub(super) edm_schedule: bool,
    /// Keep a moving average of the weights and evaluate with it
    #[arg(long)]
    pub(super) use_ema: bool,
    /// imagenet, cifar10, celeba, mnist or fashionmnist; imagenet is any folder of class folders,
    /// celeba any folder of images
    #[arg(long, default_value_t = Dataset::ImageNet)]
    pub(super) dataset: Dataset,
    /// Folder of the data set
    #[arg(long, default_value = "./data/image_generation")]
    pub(super) data_path: PathBuf,
    /// Folder for everything written
    #[arg(long, default_value = "./output_dir")]
    pub(super) output_dir: PathBuf,
    /// Solver of the snapshots, as `fmq sample` knows them
    #[arg(long, default_value_t = Method::Midpoint)]
    pub(super) ode_method: Method,
    #[command(flatten)]
    pub(super) count: Steps,
    /// JSON: step_size; with --edm_schedule nfe, while step_size has no effect; the solver's own, as `fmq
    /// sample` knows them
    #[arg(long, default_value = r#"{"step_size": 0.01}"#)]
    pub(super) ode_options: OdeOptions,
    /// Guidance of the snapshots
    #[arg(long, default_value = "0.2", value_parser = finite)]
    pub(super) cfg_scale: f64,
    /// Go on from a checkpoint, ours or upstream's (checkpoint.pth, checkpoint-N.pth), or with
    /// "auto" from the one in --output_dir; from a file with weights alone, start from them
    #[arg(long, default_value = "")]
    pub(super) resume: String,
    /// Epochs between evaluations and checkpoints; 0 leaves those at the end alone
    #[arg(long, default_value_t = 50)]
    pub(super) eval_frequency: u64,
    /// Train on the batches of one update, and evaluate on one batch
    #[arg(long)]
    pub(super) test_run: bool,
    /// Only evaluate the file of --resume, with the net and the average that it holds: write these
    /// weights and a snapshot
    #[arg(long)]
    pub(super) eval_only: bool,
    /// Measure FID against the training set at every evaluation
    #[arg(long)]
    pub(super) compute_fid: bool,
    /// Samples for it, at most one for each training image
    #[arg(long, default_value_t = 50_000)]
    pub(super) fid_samples: usize,
    /// Keep these samples as PNGs in fid_samples/
    #[arg(long)]
    pub(super) save_fid_samples: bool,
    /// Weights of the Inception network [default: those that `fmq data fetch inception` has put into
    /// --data_path]
    #[arg(long, value_name = "FILE")]
    pub(super) weights: Option<PathBuf>,
    /// Not supported
    #[arg(long, hide = true)]
    pub(super) discrete_flow_matching: bool,
    /// First epoch; a resumed run knows its own
    #[arg(long, hide = true)]
    pub(super) start_epoch: Option<u64>,
    #[command(flatten)]
    pub(super) launcher: Launcher,
    /// The net: a preset or a JSON file with upstream's fields [default: the data set's]
    #[arg(long)]
    pub(super) arch: Option<String>,
    /// Side to which the images of a folder are resized [default: their own]
    #[arg(long = "image-size")]
    pub(super) image_size: Option<usize>,
    /// Pass over files that are no images, links to nothing and pipes instead of ending with an error
    #[arg(long = "skip-bad")]
    pub(super) skip_bad: bool,
    /// Memory for decoded images of a folder, in MiB
    #[arg(long = "cache-mib", default_value_t = 4096)]
    pub(super) cache_mib: u64,
    /// Do not flip images left to right
    #[arg(long = "no-flip")]
    pub(super) no_flip: bool,
    /// What the net computes in; weights and optimizer stay f32
    #[arg(long, default_value = "f32", value_parser = ["f32", "tf32", "bf16", "f16"])]
    pub(super) precision: String,
    /// Compute each block again when its gradient is due, instead of keeping what it computed
    #[arg(long = "gradient-checkpointing")]
    pub(super) gradient_checkpointing: bool,
    /// Seconds between saves of the run inside an epoch
    #[arg(long = "save-seconds", default_value_t = 120)]
    pub(super) save_seconds: u64,
}

/// File names in the output folder.
pub(super) const RUN: &str = "checkpoint.pth";
pub(super) const MODEL: &str = "model.safetensors";
