//! The study behind `sweep` and `demo`: schemes times bits, each packed, sampled and scored.
//!
//! Every row is sampled from the packed file it wrote, from the same noise and labels. Results
//! are saved after each row, and a study that was cut goes on where it stopped.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use crc::{CRC_64_XZ, Crc};
use fm_candle::analysis::paired;
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::fid::lenet::{self, LeNet};
use fm_candle::fid::{Statistics, fid};
use fm_candle::model::{UNet, UNetConfig};
use fm_candle::quantize::quantize_in_memory;
use fm_candle::sample::{Sampler, start_noise, to_pixels};
use fm_candle::{DType, Tensor, atomic};
use indicatif::ProgressBar;
use quant_core::scheme::Scheme;
use serde::{Deserialize, Serialize};

use crate::cmd::label::class_cycle;
use crate::cmd::net::{NetArgs, build};
use crate::cmd::sample::{image_shape, images};
use crate::cmd::treatment::TreatmentArgs;
use crate::progress::Progress;
use crate::report::{Row, SCHEMA, Summary, grid, html, plots, tables};

/// Images in a sample grid of the report, and its columns.
const SHOWN: (usize, usize) = (16, 4);
/// Images in a line of the picture that compares bits.
const LINE: usize = 10;

/// What is studied, and how.
pub(crate) struct Study {
    /// Name of the model, for people.
    pub(crate) model: String,
    /// Its configuration.
    pub(crate) config: UNetConfig,
    /// Its weights in full precision.
    pub(crate) tensors: Vec<(String, Tensor)>,
    /// Schemes, in the report's order.
    pub(crate) schemes: Vec<Scheme>,
    /// Bits of the codes.
    pub(crate) bits: Vec<u8>,
    /// How tensors are described.
    pub(crate) treatment: TreatmentArgs,
    /// Images sampled per row.
    pub(crate) n: usize,
    /// How they are sampled.
    pub(crate) sampler: Sampler,
    /// Seed of the noise.
    pub(crate) seed: u64,
    /// The features of the Fréchet distance.
    pub(crate) lenet: LeNet,
    /// What samples are compared with.
    pub(crate) reference: Statistics,
    /// The reference's name, for people.
    pub(crate) reference_name: String,
    /// Real images that are not in the reference.
    pub(crate) real: Images,
    /// Folder for everything written.
    pub(crate) dir: PathBuf,
    /// Where to compute.
    pub(crate) device: Device,
}

/// The contents of `results.json`.
#[derive(Serialize, Deserialize)]
struct Results {
    /// Tells studies apart: weights, noise, sampler.
    fingerprint: String,
    #[serde(flatten)]
    summary: Summary,
    rows: Vec<Row>,
}

impl Study {
    /// Runs what is not in the folder yet and writes tables, plots, grids and the report.
    pub(crate) fn run(&self, progress: Progress) -> Result<(Summary, Vec<Row>)> {
        let shape = image_shape(&self.config)?;
        if shape != (1, lenet::SIDE, lenet::SIDE) {
            bail!("the net draws {shape:?} images, the LeNet features are for (1, 28, 28)");
        }
        let names: Vec<_> = self.tensors.iter().map(|(name, _)| name.clone()).collect();
        self.treatment.check_globs(&names)?;
        for folder in ["packed", "grids"] {
            let path = self.dir.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("creating `{}`", path.display()))?;
        }
        let cells: Vec<(Scheme, u8)> = self
            .schemes
            .iter()
            .flat_map(|&scheme| self.bits.iter().map(move |&bits| (scheme, bits)))
            .collect();
        let fingerprint = self.fingerprint()?;
        let known = self.known(&fingerprint);
        let is_known = |&(scheme, bits): &(Scheme, u8)| {
            known.iter().any(|row| row.scheme == scheme.name() && row.bits == bits)
        };
        let missing = cells.iter().filter(|cell| !is_known(cell)).count();
        let bar = progress.bar("full precision", ((missing + 1) * self.n) as u64, "img");

        let noise = self.noise()?;
        let net = build(&self.config, self.tensors.clone(), &self.device, DType::F32)?;
        let full = self.sample(&net, &noise, &bar, progress)?;
        atomic::write(&self.dir.join("grids/full.png"), &shown(&full)?)?;
        let summary = self.summary(&full)?;

        let mut rows = Vec::with_capacity(cells.len());
        for (scheme, bits) in cells {
            bar.set_message(format!("{scheme}, {bits} bits"));
            let found = known.iter().find(|row| row.scheme == scheme.name() && row.bits == bits);
            rows.push(match found {
                Some(row) => row.clone(),
                None => self.row(scheme, bits, &noise, &full, &bar, progress)?,
            });
            self.save(&fingerprint, &summary, &rows, &known)?;
        }
        bar.finish_and_clear();
        for &scheme in &self.schemes {
            self.compare_bits(scheme, &noise, &full, progress)?;
        }
        self.write_report(&summary, &rows)?;
        Ok((summary, rows))
    }

    /// A picture with a line of samples at full precision, then one for each number of bits.
    fn compare_bits(
        &self,
        scheme: Scheme,
        noise: &Tensor,
        full: &Tensor,
        progress: Progress,
    ) -> Result<()> {
        let count = LINE.min(self.n);
        let noise = noise.narrow(0, 0, count)?;
        let mut bits = self.bits.clone();
        bits.sort_unstable_by(|a, b| b.cmp(a));
        let mut lines = vec![full.narrow(0, 0, count)?];
        for bits in bits {
            let net = NetArgs::plain(&self.packed_path(scheme, bits)).build(&self.device)?;
            lines.push(self.sample(&net, &noise, &ProgressBar::hidden(), progress)?);
        }
        let all = Tensor::cat(&lines, 0)?;
        let (n, c, h, w) = all.dims4()?;
        let png = grid::png(&to_pixels(&all)?, [n, h, w, c], count, 2)?;
        Ok(atomic::write(&self.dir.join(format!("grids/bits_{scheme}.png")), &png)?)
    }

    /// Writes `results.json`: the rows so far, and those of earlier runs that are not among them.
    fn save(
        &self,
        fingerprint: &str,
        summary: &Summary,
        rows: &[Row],
        known: &[Row],
    ) -> Result<()> {
        let is_new =
            |old: &&Row| !rows.iter().any(|r| (&r.scheme, r.bits) == (&old.scheme, old.bits));
        let rows = rows.iter().chain(known.iter().filter(is_new)).cloned().collect();
        let results =
            Results { fingerprint: fingerprint.to_string(), summary: summary.clone(), rows };
        let json = serde_json::to_vec_pretty(&results)?;
        Ok(atomic::write(&self.dir.join("results.json"), &json)?)
    }

    /// Quantizes, packs, samples from the packed file, and scores.
    fn row(
        &self,
        scheme: Scheme,
        bits: u8,
        noise: &Tensor,
        full: &Tensor,
        bar: &ProgressBar,
        progress: Progress,
    ) -> Result<Row> {
        let start = Instant::now();
        let net = self.config.to_packed()?;
        let treat = |name: &str, shape: &[usize]| self.treatment.treat(scheme, bits, name, shape);
        let (packed, report) = quantize_in_memory(&self.tensors, Some(&net), treat)?;
        let path = self.packed_path(scheme, bits);
        atomic::write(&path, &packed)?;
        let net = NetArgs::plain(&path).build(&self.device)?;
        let samples = self.sample(&net, noise, bar, progress)?;
        atomic::write(&self.grid_path(scheme, bits), &shown(&samples)?)?;
        Ok(Row {
            scheme: scheme.name().into(),
            bits,
            sqnr_db: report.sqnr_db.unwrap_or(f64::INFINITY),
            mse: report.mse,
            bits_per_weight: report.bits_per_weight,
            packed_bytes: report.packed_bytes,
            ratio: report.ratio,
            psnr_db: paired::psnr(&samples, full)?,
            psnr_error: None,
            ssim: paired::ssim(&samples, full)?,
            feature_distance: None,
            fid: self.fid(&images(&samples)?)?,
            fid_error: None,
            velocity_psnr_db: None,
            velocity_ssim: None,
            latent: None,
            inversion: None,
            divergence: Vec::new(),
            bounds: None,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn noise(&self) -> Result<Tensor> {
        Ok(start_noise(self.seed, 0, self.n, image_shape(&self.config)?, &self.device)?)
    }

    /// Samples with classes in turn: the same for every row, and each as often as the others.
    fn sample(
        &self,
        net: &UNet,
        noise: &Tensor,
        bar: &ProgressBar,
        progress: Progress,
    ) -> Result<Tensor> {
        let n = noise.dim(0)?;
        let labels = class_cycle(&self.config, n)?;
        let done = |n: usize| bar.inc(n as u64);
        let samples = self.sampler.run(net, noise, labels.as_deref(), false, done)?;
        if let Some(warning) = &samples.warning {
            bar.suspend(|| progress.line(&format!("warning: {warning}")));
        }
        Ok(samples.images)
    }

    fn fid(&self, images: &Images) -> Result<f64> {
        Ok(fid(&self.lenet.statistics(images)?, &self.reference)?)
    }

    fn summary(&self, full: &Tensor) -> Result<Summary> {
        let parameters = self.tensors.iter().map(|(_, t)| t.elem_count() as u64).sum::<u64>();
        let real = classes_in_turn(&self.real.labels, self.n);
        let mut notes = vec![
            "PSNR and SSIM (11 x 11 box window) compare samples with pixels in [0, 1].".to_string(),
        ];
        notes.extend(self.treatment.differences().map(|it| format!("All rows with {it}.")));
        Ok(Summary {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            command: env::args().collect(),
            model: self.model.clone(),
            parameters,
            dense_bytes: 4 * parameters,
            n: self.n,
            sampler: described(&self.sampler),
            seed: self.seed,
            seeds: 1,
            fid_label: "FID (LeNet features)".into(),
            fid_reference: self.reference_name.clone(),
            fid_full: self.fid(&images(full)?)?,
            fid_full_error: None,
            n_real: real.len(),
            fid_real: self.fid(&self.real.subset(&real)?)?,
            latent: None,
            inversion: None,
            times: Vec::new(),
            lipschitz: None,
            notes,
        })
    }

    /// Rows of an earlier run of the same study in the same folder.
    fn known(&self, fingerprint: &str) -> Vec<Row> {
        let results = fs::read(self.dir.join("results.json"))
            .ok()
            .and_then(|json| serde_json::from_slice::<Results>(&json).ok())
            .filter(|results| results.fingerprint == fingerprint);
        let has_files = |row: &Row| {
            row.scheme.parse().is_ok_and(|scheme| {
                self.grid_path(scheme, row.bits).exists()
                    && self.packed_path(scheme, row.bits).exists()
            })
        };
        results.map_or(Vec::new(), |results| results.rows.into_iter().filter(has_files).collect())
    }

    fn fingerprint(&self) -> Result<String> {
        let crc = Crc::<u64>::new(&CRC_64_XZ);
        let mut digest = crc.digest();
        let settings = format!(
            "{} {:?} {} {} {} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            quant_core::format::VERSION,
            self.config.to_json(),
            self.n,
            self.seed,
            self.sampler,
            self.reference_name
        ) + &self.treatment.differences().unwrap_or_default();
        digest.update(settings.as_bytes());
        for (name, tensor) in &self.tensors {
            digest.update(name.as_bytes());
            for value in tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()? {
                digest.update(&value.to_le_bytes());
            }
        }
        Ok(format!("{:016x}", digest.finalize()))
    }

    fn packed_path(&self, scheme: Scheme, bits: u8) -> PathBuf {
        self.dir.join(format!("packed/{scheme}_{bits}.fmq"))
    }

    fn grid_path(&self, scheme: Scheme, bits: u8) -> PathBuf {
        self.dir.join(format!("grids/{scheme}_{bits}.png"))
    }

    fn write_report(&self, summary: &Summary, rows: &[Row]) -> Result<()> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("reading `{}`", path.display()));
        let grids = rows
            .iter()
            .map(|row| read(&self.grid_path(row.scheme.parse()?, row.bits)))
            .collect::<Result<Vec<_>>>()?;
        let full = read(&self.dir.join("grids/full.png"))?;
        let real = classes_in_turn(&self.real.labels, SHOWN.0);
        let real = self.real.subset(&real)?;
        // One channel: the order of the pixels is the same in both layouts.
        let real = grid::png(&real.pixels, [real.n, real.height, real.width, 1], SHOWN.1, 2)?;
        let pictures =
            html::Pictures { full: &full, real: Some(&real), rows: &grids, levels: None };
        let mut files = plots::files(summary, rows, pictures.levels);
        files.push(("results.csv".into(), tables::csv(rows)));
        files.push(("report.html".into(), html::page(summary, rows, &pictures)));
        for (name, text) in files {
            atomic::write(&self.dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}

/// The indices of at most `n` images whose classes come in turn, as those of the samples do: with
/// another mix of classes the distances could not be compared.
fn classes_in_turn(labels: &[u32], n: usize) -> Vec<usize> {
    let mut by_class: BTreeMap<u32, VecDeque<usize>> = BTreeMap::new();
    for (i, &label) in labels.iter().enumerate() {
        by_class.entry(label).or_default().push_back(i);
    }
    let mut indices = Vec::new();
    // The rarest class ends the turns; without labels there are none.
    let full = |by_class: &BTreeMap<u32, VecDeque<usize>>| by_class.values().all(|c| !c.is_empty());
    while !by_class.is_empty() && full(&by_class) && indices.len() < n {
        indices.extend(by_class.values_mut().filter_map(VecDeque::pop_front));
    }
    indices.truncate(n);
    indices
}

/// The grid of the first samples.
fn shown(samples: &Tensor) -> Result<Vec<u8>> {
    let samples = samples.narrow(0, 0, SHOWN.0.min(samples.dim(0)?))?;
    let (n, c, h, w) = samples.dims4()?;
    grid::png(&to_pixels(&samples)?, [n, h, w, c], SHOWN.1, 2)
}

/// A sampler in words: its method, and its cost or what that follows from.
fn described(sampler: &Sampler) -> String {
    let (method, control) = (sampler.method, &sampler.options.control);
    let steps = sampler.grid.len() - 1;
    match sampler.nfe() {
        Some(nfe) => format!("{method}, {steps} steps, {nfe} evaluations"),
        None if method.is_adaptive() => {
            format!("{method}, atol {}, rtol {}", control.atol, control.rtol)
        }
        None => format!("{method}, {steps} steps"),
    }
}

#[cfg(test)]
mod tests {
    use super::classes_in_turn;

    #[test]
    fn real_images_have_the_samples_mix_of_classes() {
        let labels = [1, 1, 0, 2, 0, 1, 2, 2, 2, 0];
        assert_eq!(classes_in_turn(&labels, 7), [2, 0, 3, 4, 1, 6, 9]);
        assert_eq!(classes_in_turn(&labels, 100), [2, 0, 3, 4, 1, 6, 9, 5, 7]);
        assert!(classes_in_turn(&[], 3).is_empty());
    }
}
