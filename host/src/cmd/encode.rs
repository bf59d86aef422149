//! `fmq encode`: from images back to the noise that they come from.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PathBufValueParser, TypedValueParser};
use fm_candle::eval::inversion::mean_and_std;
use fm_candle::eval::round_trip::Reconstruction;
use fm_candle::fid::npz;
use fm_candle::model::UNetConfig;
use fm_candle::ops::is_finite;
use fm_candle::sample::{BatchSampler, Samples, batch_size, from_pixels};
use fm_candle::{DType, Tensor, atomic, checkpoint, data};
use serde_json::json;

use crate::args::common::Common;
use crate::args::label::{self, Label};
use crate::args::net::NetArgs;
use crate::args::numbers::{at_least_1, finite};
use crate::args::ode::{OdeArgs, STEP};
use crate::images::{self, PathKind};
use crate::output::{self, samples};
use crate::progress::Reporter;

/// Find the noise of images: the ODE backward, from t = 1 to 0
#[derive(clap::Args)]
#[command(
    after_help = "IMAGES: a folder of images (PNG, JPEG, ...), .npz of images (arr_0), .safetensors with \
    `samples` (n, c, h, w; from -1 to 1, as `fmq sample` writes) and where wanted `label` (n), or \
    a data set (mnist:train, mnist:test, ...). A net of one channel takes RGB images whose \
    channels are equal.\n\n\
    The default solver holds its error to a tolerance: the noise then is the flow's own, and leads \
    back to the images whatever solves forward. A step of the fixed-step methods has no exact \
    inverse, so that what they encode is off by as much as their samples are. With --edm-schedule \
    x0 is the state at its first time, 0.0123, as `fmq sample --edm-schedule` takes it.",
    mut_arg("ode_method", |arg| arg.default_value("dopri5"))
)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// The images
    #[arg(value_name = "IMAGES")]
    images: String,
    /// Output: .safetensors with x0 (n, c, h, w), and of a net with classes label (n, i64)
    ///
    /// `fmq sample --x0` goes on from it. The label of an image without a class is the number of
    /// classes.
    #[arg(
        short,
        long,
        value_name = "OUT.safetensors",
        value_parser = PathBufValueParser::new().try_map(output::safetensors),
    )]
    output: PathBuf,
    /// Encode the first N images, or all where there are fewer [default: all]
    #[arg(short, value_name = "N", value_parser = at_least_1::<usize>)]
    n: Option<usize>,
    /// Folder of the data sets; without it there are the first 512 images of mnist:test
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// Also solve forward again, by the same method, and compare
    ///
    /// Writes reconstruction (n, c, h, w) and psnr (n), in dB: 10 log10(4 / mean squared error),
    /// the peak of 2 being that of images from -1 to 1; nothing is clamped.
    #[arg(long)]
    round_trip: bool,
    /// Class of the images: a number, `all` (0, 1, 2, ... in turn), `random` or `none` [default: the
    /// classes that come with the images, else none]
    #[arg(long, value_name = "L|all|random|none")]
    label: Option<Label>,
    /// Guidance; 0 is off
    #[arg(long, default_value = "0", value_name = "S", value_parser = finite)]
    cfg_scale: f64,
    #[command(flatten)]
    ode: OdeArgs,
    /// Images in one tensor [default: 8 on the CPU, 256 on a GPU]; the result does not depend on it, but
    /// for an adaptive solver's steps
    #[arg(long, value_parser = at_least_1::<usize>)]
    batch_size: Option<usize>,
    /// Print one JSON object: n, method, nfe, mean and std of x0 (near 0 and 1 where the net knows
    /// such images); of a round trip nfe_reconstruction, mse, and psnr_db, the mean over the images
    /// (null where one comes back exactly)
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    atomic::check_target(&args.output)?;
    let (grid, options) = args.ode.steps(STEP)?;
    let method = args.ode.solver.ode_method;
    let device = common.device()?;
    let net = args.net.build(&device, common.progress())?;
    let set = EncodedSet::read(args, net.config(), common.progress());
    let set = set.map_err(|error| images::named(&args.images, error))?;
    let x1 = set.images.to_device(&device)?;
    let n = x1.dim(0)?;
    let labels = match (args.label, set.labels, net.config().num_classes) {
        (None, Some(labels), Some(_)) => Some(labels),
        (wanted, ..) => label::labels(wanted.or(Some(Label::None)), n, common.seed, net.config())?,
    };

    let sampler = BatchSampler {
        method,
        grid,
        options,
        cfg_scale: args.cfg_scale,
        batch_size: args.batch_size.unwrap_or_else(|| batch_size(&device)),
    };
    let solve = |sampler: &BatchSampler, what: &str, from: &Tensor| -> Result<Samples> {
        let bar = common.progress().bar(what, n as u64, "img");
        let result = sampler
            .run(&net, from, labels.as_deref(), false, |n| bar.inc(n as u64))
            .with_context(|| format!("`{}`", args.images))?;
        bar.finish_and_clear();
        if let Some(warning) = &result.warning {
            common.progress().line(&format!("warning: {what}: {warning}"));
        }
        Ok(result)
    };
    let encoded = solve(&sampler.reversed(), "encoding", &x1)?;
    let x0 = encoded.images;
    let mut tensors = vec![("x0".to_string(), x0.clone())];
    if let Some(labels) = &labels {
        tensors.push(("label".into(), samples::label_tensor(labels)?));
    }
    let again = if args.round_trip {
        let decoded = solve(&sampler, "decoding", &x0)?;
        let error = Reconstruction::measure(&decoded.images, &x1)?;
        tensors.push(("reconstruction".into(), decoded.images));
        tensors.push(("psnr".into(), error.psnr.to_dtype(DType::F32)?));
        Some((decoded.nfe, error))
    } else {
        None
    };
    checkpoint::safetensors::save(&args.output, &tensors, &[])?;

    let (center, std) = mean_and_std(&x0)?;
    let (nfe, error) = again.as_ref().map(|(nfe, error)| (nfe, error)).unzip();
    if args.json {
        let result = json!({
            "n": n,
            "method": method.to_string(),
            "nfe": encoded.nfe,
            "mean": center,
            "std": std,
            "nfe_reconstruction": nfe,
            "mse": error.map(|error| error.mse),
            "psnr_db": error.map(|error| error.psnr_db),
        });
        writeln!(out, "{result}")?;
    }
    let back = error.map_or_else(String::new, |error| {
        format!(", back again with {:.2} dB (peak 2)", error.psnr_db)
    });
    common.progress().line(&format!(
        "{n} images, {} evaluations each, x0 of mean {center:.3} and deviation {std:.3}{back}: `{}`",
        encoded.nfe,
        args.output.display()
    ));
    Ok(())
}

/// Images as the net takes them.
struct EncodedSet {
    /// `[n, c, h, w]`, f32, in `[-1, 1]`.
    images: Tensor,
    /// The classes that came with them.
    labels: Option<Vec<u32>>,
}

/// The error for other files.
const NO_IMAGES: &str = "no set of images: neither a folder, .npz nor .safetensors of images";

impl EncodedSet {
    /// Reads the images that the arguments name, and checks that they fit the net.
    fn read(args: &Args, config: &UNetConfig, progress: Reporter) -> Result<Self> {
        let (name, n) = (&args.images, args.n);
        let path = Path::new(name);
        let set = match PathKind::of(name)? {
            PathKind::DataSet(dataset, split) => {
                let dir = args.data_path.as_deref();
                let set = images::data_set(dataset, split, dir, n, None)?.context(
                    "needs --data-path DIR; built in are the first 512 images of mnist:test (-n \
                     512 or less)",
                )?;
                images::tell_hidden(&set.hidden(), progress);
                Self::of(data::Images::gather(&*set, n.unwrap_or(usize::MAX))?, n, config)?
            }
            // Weights that lie among the pictures are none.
            PathKind::Folder | PathKind::Checkpoint if path.is_dir() => {
                Self::of(images::folder(path, n, progress)?, n, config)?
            }
            PathKind::Npz => match npz::read(path)? {
                npz::Content::Images(images) => {
                    Self::of(data::Images::gather(&images, n.unwrap_or(usize::MAX))?, n, config)?
                }
                npz::Content::Statistics(_) => bail!("holds statistics; images are needed"),
            },
            PathKind::Safetensors => Self::given(path, n, config)?,
            PathKind::Folder | PathKind::Checkpoint | PathKind::Pickle => bail!("is {NO_IMAGES}"),
            PathKind::Foreign(what) => bail!("{what}, {NO_IMAGES}"),
        };
        let (n, c, h, w) = set.images.dims4()?;
        ensure!(n > 0, "holds no images");
        let wanted = config.out_channels;
        ensure!(c == wanted, "the images have {c} channel(s), the net's have {wanted}");
        if let Some(side) = config.image_size {
            ensure!((h, w) == (side, side), "the images are {h} x {w}, the net's {side} x {side}");
        }
        Ok(set)
    }

    /// Images of 8 bits.
    fn of(mut images: data::Images, n: Option<usize>, config: &UNetConfig) -> Result<Self> {
        images.truncate(n.unwrap_or(usize::MAX));
        if config.out_channels == 1 && images.channels > 1 {
            images = images.grey().context("the images have colours, but the net is grey")?;
        }
        let labels = (!images.labels.is_empty()).then(|| images.labels.clone());
        Ok(Self { images: from_pixels(&images, &fm_candle::device::Device::Cpu)?, labels })
    }

    /// Samples in a file of tensors.
    fn given(path: &Path, n: Option<usize>, config: &UNetConfig) -> Result<Self> {
        let file = checkpoint::load(path, true)?;
        let samples = file.tensor("samples").context("no tensor samples (n, c, h, w)")?;
        ensure!(
            samples.rank() == 4 && samples.dtype().is_float(),
            "samples is {:?} {:?}, needed is F32 [n, c, h, w]",
            samples.dtype(),
            samples.dims()
        );
        ensure!(is_finite(samples)?, "samples holds values that are not finite");
        let labels = match config.num_classes {
            Some(_) => label::in_file(&file, samples.dim(0)?, config)?,
            None => None,
        };
        let n = n.unwrap_or(usize::MAX).min(samples.dim(0)?);
        let images = samples.narrow(0, 0, n)?.to_dtype(DType::F32)?;
        let labels = labels.map(|mut labels| {
            labels.truncate(n);
            labels
        });
        Ok(Self { images, labels })
    }
}
