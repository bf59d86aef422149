//! `fmq sample`: images from a net.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fm_candle::checkpoint;
use fm_candle::device::Device;
use fm_candle::fid::{npz, planar};
use fm_candle::model::UNetConfig;
use fm_candle::sample::{Sampler, Samples, random_labels, start_noise, to_pixels};
use fm_candle::solver::{Method, Options, uniform_grid};
use fm_candle::{DType, Tensor};
use fm_candle::{atomic, data::Images};

use crate::cli::Common;
use crate::cmd::net::NetArgs;
use crate::cmd::ode::OdeArgs;
use crate::report::grid;

/// Draw images from a net, packed or not
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Number of images [default: as many as --x0 holds, else 64]
    #[arg(short, value_parser = at_least_1)]
    n: Option<usize>,
    /// Output: .png (a grid), .npz, .safetensors, or a folder for one PNG per image
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Start noise: a safetensors file with x0 and optionally label
    #[arg(long, value_name = "IN.safetensors")]
    x0: Option<PathBuf>,
    /// Class of the images: a number, `all` (0, 1, 2, ... in turn) or `random` [default: random]
    #[arg(long, value_name = "L|all|random")]
    label: Option<String>,
    /// Guidance; 0 is off
    #[arg(long = "cfg-scale", alias = "cfg_scale", default_value_t = 0.0)]
    cfg_scale: f64,
    #[command(flatten)]
    ode: OdeArgs,
    /// Images in one tensor; the images do not depend on it, but for an adaptive solver's steps
    #[arg(long = "batch-size", alias = "batch_size", default_value = "8", value_parser = at_least_1)]
    batch_size: usize,
    /// Also keep the states at every time (.safetensors only)
    #[arg(long)]
    trajectory: bool,
}

pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    let kind = OutputKind::of(&args.output, args.trajectory)?;
    atomic::check_target(&args.output)?;
    let (grid, options) = args.ode.steps(0.05)?;
    let sampler = Sampler {
        method: args.ode.ode_method,
        grid,
        options,
        cfg_scale: args.cfg_scale,
        batch_size: args.batch_size,
    };
    let device = common.device()?;
    let net = args.net.build(&device)?;
    let (x0, labels) = if let Some(path) = &args.x0 {
        given_noise(path, args, common.seed, net.config(), &device)?
    } else {
        let n = args.n.unwrap_or(64);
        let x0 = start_noise(common.seed, 0, n, image_shape(net.config())?, &device)?;
        (x0, labels(args.label.as_deref(), n, common.seed, net.config())?)
    };
    let bar = common.progress().bar("sampling", x0.dim(0)? as u64, "img");
    let samples =
        sampler.run(&net, &x0, labels.as_deref(), args.trajectory, |n| bar.inc(n as u64))?;
    bar.finish_and_clear();
    kind.write(&args.output, &samples)?;
    if let Some(warning) = &samples.warning {
        common.progress().line(&format!("warning: {warning}"));
    }
    let (n, nfe) = (x0.dim(0)?, samples.nfe);
    let text = format!("{n} images, {nfe} evaluations each: `{}`", args.output.display());
    common.progress().line(&text);
    Ok(())
}

/// `n` samples of the net in the file at `path`, drawn by the command's defaults:
/// `[n, c, h, w]`, about `[-1, 1]`.
pub(crate) fn draw(path: &Path, n: usize, common: &Common) -> Result<Tensor> {
    let device = common.device()?;
    let net = NetArgs::plain(path).build(&device)?;
    let grid = uniform_grid(0.05)?;
    let (method, options) = (Method::Midpoint, Options::default());
    let sampler = Sampler { method, grid, options, cfg_scale: 0.0, batch_size: 8 };
    let x0 = start_noise(common.seed, 0, n, image_shape(net.config())?, &device)?;
    let labels = labels(None, n, common.seed, net.config())?;
    let bar = common.progress().bar("sampling", n as u64, "img");
    let samples = sampler.run(&net, &x0, labels.as_deref(), false, |n| bar.inc(n as u64))?;
    bar.finish_and_clear();
    Ok(samples.images)
}

/// Channels, height and width of the net's images.
pub(crate) fn image_shape(config: &UNetConfig) -> Result<(usize, usize, usize)> {
    let side = config.side().context(
        "the net's configuration has no image_size; give --image-size, or the noise with --x0",
    )?;
    Ok((config.out_channels, side, side))
}

/// The labels that `--label` names; none for a net without classes.
fn labels(
    text: Option<&str>,
    n: usize,
    seed: u64,
    config: &UNetConfig,
) -> Result<Option<Vec<u32>>> {
    let Some(classes) = config.num_classes else {
        return match text {
            None => Ok(None),
            Some(text) => bail!("--label {text}: the net has no classes"),
        };
    };
    let classes = u32::try_from(classes)?;
    Ok(Some(match text.unwrap_or("random") {
        "random" => random_labels(seed, 0, n, classes),
        "all" => return class_cycle(config, n),
        number => match number.parse() {
            Ok(label) if label < classes => vec![label; n],
            _ => bail!("--label {number}: use 0 to {}, all or random", classes - 1),
        },
    }))
}

/// The classes 0, 1, 2, ... in turn for `n` images; none for a net without classes.
pub(crate) fn class_cycle(config: &UNetConfig, n: usize) -> Result<Option<Vec<u32>>> {
    let Some(classes) = config.num_classes else { return Ok(None) };
    Ok(Some((0..u32::try_from(classes)?).cycle().take(n).collect()))
}

/// Noise, and labels if there are any, from a safetensors file.
fn given_noise(
    path: &Path,
    args: &Args,
    seed: u64,
    config: &UNetConfig,
    device: &Device,
) -> Result<(Tensor, Option<Vec<u32>>)> {
    let file = checkpoint::load(path, true)?;
    let find = |name: &str| file.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t);
    let named = || format!("`{}`", path.display());
    let x0 = find("x0").with_context(|| format!("{}: no tensor x0", named()))?;
    if x0.rank() != 4 || x0.dim(1)? != config.out_channels || !x0.dtype().is_float() {
        let (dtype, shape, c) = (x0.dtype(), x0.dims(), config.out_channels);
        bail!("{}: x0 is {dtype:?} {shape:?}, the net needs F32 [n, {c}, h, w]", named());
    }
    let n = args.n.unwrap_or(x0.dim(0)?);
    if n > x0.dim(0)? {
        bail!("{}: x0 holds {} images, -n asks for {n}", named(), x0.dim(0)?);
    }
    let labels = match (find("label"), &args.label) {
        (Some(_), Some(text)) => bail!("--label {text}: {} holds labels already", named()),
        (Some(labels), None) => {
            if labels.dtype() != DType::I64 || labels.dims() != [x0.dim(0)?] {
                let (dtype, shape, count) = (labels.dtype(), labels.dims(), x0.dim(0)?);
                bail!("{}: label is {dtype:?} {shape:?}, not I64 [{count}]", named());
            }
            let values = labels.to_vec1::<i64>()?;
            if let Some(label) = values.iter().find(|&&label| label < 0) {
                bail!("{}: label {label} is no class", named());
            }
            Some(values.into_iter().take(n).map(u32::try_from).collect::<Result<_, _>>()?)
        }
        (None, text) => labels(text.as_deref(), n, seed, config)?,
    };
    Ok((x0.narrow(0, 0, n)?.to_device(device)?, labels))
}

/// A count of at least 1.
fn at_least_1(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(n) => Ok(n),
    }
}

/// What is written, by the output's extension.
enum OutputKind {
    Grid,
    Npz,
    Safetensors,
    Folder,
}

impl OutputKind {
    fn of(path: &Path, trajectory: bool) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let kind = match extension.map(str::to_ascii_lowercase).as_deref() {
            _ if path.is_dir() => Self::Folder,
            Some("png") => Self::Grid,
            Some("npz") => Self::Npz,
            Some("safetensors") => Self::Safetensors,
            None => Self::Folder,
            Some(_) => bail!(
                "`{}`: the output must end in .png, .npz or .safetensors, or be a folder",
                path.display()
            ),
        };
        if trajectory && !matches!(kind, Self::Safetensors) {
            bail!("--trajectory needs an output that ends in .safetensors");
        }
        Ok(kind)
    }

    fn write(&self, path: &Path, samples: &Samples) -> Result<()> {
        let images = &samples.images;
        let (n, c, h, w) = images.dims4()?;
        match self {
            Self::Safetensors => {
                let nfe = Tensor::new(&[i64::try_from(samples.nfe)?], images.device())?;
                let mut tensors = vec![("samples".to_string(), images.clone())];
                tensors.push(("nfe".into(), nfe));
                if let Some(trajectory) = &samples.trajectory {
                    tensors.push(("trajectory".into(), trajectory.clone()));
                }
                checkpoint::safetensors::save(path, &tensors, &[])?;
            }
            Self::Grid => {
                let columns = (1..=n).find(|k| k * k >= n).unwrap_or(1).max(1);
                atomic::write(path, &grid::png(&to_pixels(images)?, [n, h, w, c], columns, 2)?)?;
            }
            Self::Npz => npz::write_images(path, &to_pixels(images)?, [n, h, w, c])?,
            Self::Folder => {
                fs::create_dir_all(path)
                    .with_context(|| format!("creating `{}`", path.display()))?;
                let pixels = to_pixels(images)?;
                for (i, image) in pixels.chunks_exact((h * w * c).max(1)).enumerate() {
                    let png = grid::png(image, [1, h, w, c], 1, 1)?;
                    atomic::write(&path.join(format!("{i:06}.png")), &png)?;
                }
            }
        }
        Ok(())
    }
}

/// The pixels of samples as an image set without labels.
pub(crate) fn images(samples: &Tensor) -> Result<Images> {
    let (n, c, h, w) = samples.dims4()?;
    Ok(Images::new([c, h, w], planar(&to_pixels(samples)?, c, h * w), vec![0; n])?)
}
