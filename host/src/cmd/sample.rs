//! `fmq sample`: images from a net.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PathBufValueParser, TypedValueParser};
use fm_candle::model::{UNetConfig, config};
use fm_candle::ops::is_finite;
use fm_candle::process_group::{ImageParts, ProcessGroup};
use fm_candle::sample::BatchSampler;
use fm_candle::{Tensor, checkpoint, fingerprint};
use serde_json::{Map, Value, json};

use crate::args::common::Common;
use crate::args::label::{self, Label};
use crate::args::net::{NetArgs, image_shape};
use crate::args::numbers::{at_least_1, finite};
use crate::args::ode::{OdeArgs, STEP};
use crate::drawing::{Drawing, StartNoise};
use crate::output::samples::OutputFile;
use crate::processes;
use crate::progress::Reporter;
use crate::sample_parts::SampleParts;

/// Draw images from a net, packed or not
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Number of images [default: as many as --x0 holds, else 64]
    #[arg(short, value_parser = at_least_1::<usize>)]
    n: Option<usize>,
    /// Output: .png (a grid), .npz, .safetensors, or a folder for one PNG per image
    ///
    /// PNGs are RGB, three equal channels for a net of one; .npz keeps the net's channels.
    /// .safetensors holds samples (n, c, h, w; about -1 to 1, not clamped), nfe, and of a net with
    /// classes label (n). A folder must be new, empty, or of an earlier run, whose pictures are
    /// replaced: those in excess go once all new ones are written.
    #[arg(
        short,
        long,
        value_name = "OUT",
        value_parser = PathBufValueParser::new().try_map(OutputFile::of),
    )]
    output: OutputFile,
    /// Start noise: a safetensors file with x0 and optionally label
    #[arg(long, value_name = "IN.safetensors")]
    x0: Option<PathBuf>,
    /// Class of the images: a number, `all` (0, 1, 2, ... in turn), `random` or `none` [default: those of
    /// --x0, else random]
    #[arg(long, value_name = "L|all|random|none")]
    label: Option<Label>,
    /// Guidance; 0 is off
    #[arg(long, default_value = "0", value_name = "S", value_parser = finite)]
    cfg_scale: f64,
    #[command(flatten)]
    ode: OdeArgs,
    /// Images in one tensor [default: 8 on the CPU, 256 on a GPU]; the images do not depend on it, but
    /// for an adaptive solver's steps
    #[arg(long, value_parser = at_least_1::<usize>)]
    batch_size: Option<usize>,
    /// Also write the way from noise to images
    ///
    /// OUT.png: OUT.trajectory.png, the grid (of at most 100 images) as an animated PNG. A folder:
    /// frames/0000.png ... and the animation frames/trajectory.png. Both show at most 50 of the
    /// times, evenly chosen, and rest on the last. .safetensors: trajectory (times, n, c, h, w) and
    /// times (f64), all of them. Not with .npz.
    #[arg(long)]
    trajectory: bool,
}

/// The run of one process among those that draw together; the first tells.
pub(crate) fn run(args: &Args, common: &Common, group: &dyn ProcessGroup) -> Result<()> {
    if args.trajectory && args.output.is_npz() {
        let kind = clap::error::ErrorKind::ArgumentConflict;
        let reason = "--trajectory: .npz holds finished images alone; take .safetensors for the \
                      states, .png or a folder for pictures of them\n";
        clap::Error::raw(kind, reason).exit();
    }
    args.output.check()?;
    let (grid, options) = args.ode.steps(STEP)?;
    let device = common.device_for(processes::local())?;
    let progress = common.progress_of(group.rank());
    let default = BatchSampler::new(args.ode.solver.ode_method, grid, &device);
    let batch_size = args.batch_size.unwrap_or(default.batch_size);
    let sampler = BatchSampler { options, cfg_scale: args.cfg_scale, batch_size, ..default };
    let net = args.net.build(&device, progress)?;
    let (noise, labels, n) = if let Some(path) = &args.x0 {
        let (x0, labels) = given_noise(path, args, common.seed, net.config())?;
        let n = x0.dim(0)?;
        (StartNoise::Given(x0), labels, n)
    } else {
        let n = args.n.unwrap_or(64);
        args.check_room(n, image_shape(net.config())?)?;
        let labels = label::labels(args.label, n, common.seed, net.config())?;
        (StartNoise::Seed(common.seed), labels, n)
    };
    let drawing = Drawing { net, sampler, noise, labels, device };
    let start = Instant::now();
    let (drawn, nfe) = if group.rank().size == 1 && (args.trajectory || n <= ImageParts::LARGEST) {
        (n, args.draw_at_once(&drawing, n, progress)?)
    } else if args.trajectory {
        bail!("--trajectory: is drawn by one process");
    } else {
        args.draw_in_parts(&drawing, n, common, group)?
    };
    let rate = drawn as f64 / start.elapsed().as_secs_f64();
    let memory = peak_memory().map(|mb| format!(", {mb} MB of memory at most")).unwrap_or_default();
    progress.line(&format!(
        "{n} images, {nfe} evaluations each, {rate:.3} img/s{memory}: {}",
        args.output
    ));
    Ok(())
}

impl Args {
    /// Refuses more images than the memory can hold: their labels alone where they go to disk part by
    /// part.
    fn check_room(&self, n: usize, (c, h, w): (usize, usize, usize)) -> Result<()> {
        let values =
            if self.output.is_written_in_parts() { Some(n) } else { n.checked_mul(c * h * w) };
        let room = values.is_some_and(|n| Vec::<f32>::new().try_reserve_exact(n).is_ok());
        ensure!(room, "{n} images of {c} x {h} x {w} do not fit into memory");
        Ok(())
    }

    /// Draws all images and writes them; the evaluations of each.
    fn draw_at_once(&self, drawing: &Drawing, n: usize, progress: Reporter) -> Result<usize> {
        let bar = progress.bar("sampling", n as u64, "img");
        let samples = drawing.samples(0..n, self.trajectory, |n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        self.output.write(&samples, drawing.labels.as_deref(), &drawing.sampler.grid)?;
        if let Some(warning) = &samples.warning {
            progress.line(&format!("warning: {warning}"));
        }
        Ok(samples.nfe)
    }

    /// Draws the images in parts, each to disk, then writes them; the number of those that were not
    /// there yet, and the evaluations of each.
    fn draw_in_parts(
        &self,
        drawing: &Drawing,
        n: usize,
        common: &Common,
        group: &dyn ProcessGroup,
    ) -> Result<(usize, usize)> {
        let progress = common.progress_of(group.rank());
        let settings = self.settings(drawing, n, common.seed)?;
        let together = (n, drawing.sampler.batch_size);
        let parts = SampleParts::open(self.output.path(), &settings, together, group)?;
        let missing = parts.missing();
        if missing < n {
            progress.line(&format!("{} of {n} images were drawn before", n - missing));
        }
        let bar = progress.bar("sampling", n as u64, "img");
        bar.set_position((n - missing) as u64);
        bar.reset_eta();
        let size = group.rank().size;
        parts.draw(|range| {
            let samples = drawing.samples(range, false, |n| bar.inc((n * size) as u64))?;
            if let Some(warning) = &samples.warning {
                bar.suspend(|| common.progress().line(&format!("warning: {warning}")));
            }
            Ok(samples)
        })?;
        bar.finish_and_clear();
        let nfe = self.output.write_parts(&parts, drawing.labels.as_deref())?;
        if parts.is_first() {
            parts.remove()?;
        }
        Ok((missing, nfe))
    }

    /// All that the images depend on.
    fn settings(&self, drawing: &Drawing, n: usize, seed: u64) -> Result<Map<String, Value>> {
        let x0 = self.x0.as_deref().map(fingerprint::of_file).transpose()?;
        let settings = json!({
            "fmq": env!("CARGO_PKG_VERSION"),
            "net": serde_json::from_str::<Value>(&config::to_json(drawing.net.config()))?,
            "weights": self.net.fingerprint()?,
            "dtype": self.net.dtype.name(),
            "device": if drawing.device.is_cpu() { "cpu" } else { "cuda" },
            "n": n,
            "seed": seed,
            "noise": x0,
            "label": self.label.map(|label| label.to_string()),
            "sampler": format!("{:?}", drawing.sampler),
        });
        match settings {
            Value::Object(settings) => Ok(settings),
            _ => Ok(Map::new()),
        }
    }
}

/// The most memory that the process has held, in MB; what is mapped of files counts.
///
/// Linux says so; elsewhere nothing is known.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1000)
}

/// Noise, and labels if there are any, from a safetensors file.
fn given_noise(
    path: &Path,
    args: &Args,
    seed: u64,
    config: &UNetConfig,
) -> Result<(Tensor, Option<Vec<u32>>)> {
    let file = checkpoint::load(path, true)?;
    let named = || format!("`{}`", path.display());
    let x0 = file.tensor("x0").with_context(|| format!("{}: no tensor x0", named()))?;
    if x0.rank() != 4 || x0.dim(1)? != config.out_channels || !x0.dtype().is_float() {
        let (dtype, shape, c) = (x0.dtype(), x0.dims(), config.out_channels);
        bail!("{}: x0 is {dtype:?} {shape:?}, the net needs F32 [n, {c}, h, w]", named());
    }
    let n = args.n.unwrap_or(x0.dim(0)?);
    if n > x0.dim(0)? {
        bail!("{}: x0 holds {} images, -n asks for {n}", named(), x0.dim(0)?);
    }
    if !is_finite(x0)? {
        bail!("{}: x0 holds values that are not finite", named());
    }
    let labels = label::in_file(&file, x0.dim(0)?, config).with_context(named)?;
    let labels = match (labels, args.label) {
        (Some(_), Some(label)) => bail!("--label {label}: {} holds labels already", named()),
        (Some(mut labels), None) => {
            labels.truncate(n);
            Some(labels)
        }
        (None, label) => label::labels(label, n, seed, config)?,
    };
    Ok((x0.narrow(0, 0, n)?, labels))
}
