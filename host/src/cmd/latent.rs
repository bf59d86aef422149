//! `fmq latent`: the latent analyses alone.

use core::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fm_candle::atomic;
use fm_candle::data::Dataset;
use fm_candle::eval::inversion::Inversion;
use fm_candle::eval::latent::Latent;
use fm_candle::eval::real_images::RealImages;
use fm_candle::sample::{BatchSampler, batch_size};
use serde::Serialize;

use crate::args::common::Common;
use crate::args::net::{NetArgs, check_images};
use crate::args::numbers::at_least_2;
use crate::args::ode::{self, COARSE_STEP, OdeArgs};
use crate::images;
use crate::output::folder;

/// Analyse the latents of real images: the bottleneck's at t = 0, and the noise they come from
#[derive(clap::Args)]
#[command(
    after_help = "The bottleneck's latents are what the middle block gives for the images \
    themselves at t = 0, without a label, as the paper has it: variances along 20 principal \
    components, fitted to this net (own) and to the net of --against (common). The noise of images is \
    what the ODE run backward finds; of an exact flow it is standard normal.",
    mut_arg("ode_options", ode::coarse)
)]
pub(crate) struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Data set whose test half is looked at
    #[arg(long)]
    data: Dataset,
    /// Folder of the data set; 512 test images of mnist are built in
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// The full-precision net, for the common components and the drift [default: CKPT itself]
    #[arg(long, value_name = "CKPT")]
    against: Option<PathBuf>,
    /// Images whose latents are taken, at most
    #[arg(short, default_value_t = 2000, value_parser = at_least_2)]
    n: usize,
    /// Images whose noise is sought, at most; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 256)]
    invert: usize,
    #[command(flatten)]
    ode: OdeArgs,
    /// Take latents of images in [0, 1], as the paper's code does with nets of [-1, 1]
    #[arg(long)]
    unit_range: bool,
    /// Folder for latent.json and variances.csv
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print one JSON object: what latent.json holds
    #[arg(long)]
    json: bool,
}

/// The results of the command.
#[derive(Serialize)]
struct Analysis {
    /// Images whose latents were taken.
    n: usize,
    /// Images whose noise was sought.
    n_inverted: usize,
    latent: Latent,
    /// Variances along the components of this net.
    variances_own: Vec<f64>,
    /// Variances along those of `--against`.
    variances_common: Vec<f64>,
    inversion: Option<Inversion>,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    args.output.as_deref().map_or(Ok(()), folder::check_place)?;
    let (grid, options) = args.ode.steps(COARSE_STEP)?;
    let device = common.device()?;
    let net = args.net.build(&device, common.progress())?;
    let full = args
        .against
        .as_ref()
        .map(|path| NetArgs::plain(path).build(&device, common.progress()))
        .transpose()?;
    let (dir, n) = (args.data_path.as_deref(), args.n.max(args.invert));
    let (real, summary) = images::test_half(args.data, dir, n)?;
    let shape = [real.channels, real.height, real.width];
    check_images(&args.net.path, net.config(), args.data, shape)?;
    if let (Some(path), Some(full)) = (&args.against, &full) {
        check_images(path, full.config(), args.data, shape)?;
    }
    common.progress().line(&summary);
    let (method, batch_size) = (args.ode.solver.ode_method, batch_size(&device));
    let sampler = BatchSampler { method, grid, options, cfg_scale: 0.0, batch_size };
    let inverted = (args.invert > 0).then_some((args.invert, &sampler));
    let images = RealImages::new(&real, args.n, args.unit_range, inverted, &device)?;
    let full = full.map(|full| images.measure(&full, None)).transpose()?;
    let (scores, own) = images.measure(&net, full.as_ref().map(|(_, encoding)| encoding))?;
    let analysis = Analysis {
        n: args.n.min(real.n),
        n_inverted: args.invert.min(real.n),
        latent: scores.latent,
        variances_common: scores.variances_common,
        variances_own: own.components.variances,
        inversion: scores.inversion,
    };
    if let Some(dir) = &args.output {
        fs::create_dir_all(dir).with_context(|| format!("creating `{}`", dir.display()))?;
        atomic::write(&dir.join("latent.json"), &serde_json::to_vec_pretty(&analysis)?)?;
        atomic::write(&dir.join("variances.csv"), analysis.csv().as_bytes())?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&analysis)?)?;
    } else {
        write!(out, "{}", analysis.text())?;
    }
    Ok(())
}

impl Analysis {
    /// The variances, a line for each component.
    fn csv(&self) -> String {
        let mut csv = String::from("component,own,common\r\n");
        let pairs = self.variances_own.iter().zip(&self.variances_common);
        for (at, (own, common)) in pairs.enumerate() {
            let _ = write!(csv, "{},{own},{common}\r\n", at + 1);
        }
        csv
    }

    /// The measures, for people.
    fn text(&self) -> String {
        let Latent { own, common, units, dead, constant } = self.latent;
        let mut text = format!(
            "latents of {} images, {units} units: {dead} dead, {constant} constant\n",
            self.n
        );
        for (name, spread) in [("own", own), ("common", common)] {
            let _ = writeln!(
                text,
                "  variance along {} {name} components: mean {:.4}, deviation {:.4}, {} collapsed",
                self.variances_own.len(),
                spread.mean,
                spread.std,
                spread.collapsed
            );
        }
        if let Some(noise) = self.inversion {
            let _ = writeln!(
                text,
                "noise of {} images: mean {:.4}, variance {:.4}, kurtosis {:.3}, distance to the \
                 normal {:.4},\n  {:.1} % of coordinates rejected as normal at 5 %, back again with \
                 {:.2} dB, drift {:.4}",
                self.n_inverted,
                noise.mean,
                noise.variance,
                noise.kurtosis,
                noise.ks,
                100.0 * noise.rejected,
                noise.round_trip_psnr_db,
                noise.drift
            );
        }
        text
    }
}
