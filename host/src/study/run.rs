//! From a study to its rows, one after another.

use core::ops::Range;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fm_candle::eval::comparison::FullPrecision;
use fm_candle::eval::estimate::Estimate;
use fm_candle::eval::sample_sets::{PairedScores, SampleSet, frechet};
use fm_candle::fid::{Statistics, fid};
use fm_candle::model::UNet;
use fm_candle::process_group::{ImageParts, ProcessGroup, Rank, SingleProcess};
use fm_candle::sample::{BatchSampler, Samples, start_noise, to_pixels};
use fm_candle::{Tensor, atomic, fingerprint};
use indicatif::ProgressBar;
use quant_core::rate::Rate;
use serde_json::Value;

use super::folder::ROWS;
use super::{SHOWN, Study, classes_in_turn, pack, settings};
use crate::args::label::class_cycle;
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net::{build, image_shape};
use crate::images;
use crate::progress::Reporter;
use crate::report::{Row, SCHEMA, Summary, grid};
use crate::sample_parts::SampleParts;

/// Images in a line of the picture that compares bits.
const LINE: usize = 10;

impl Study {
    /// Runs what is not in the folder yet and writes tables, plots, grids and the report; the results, in
    /// the first process alone. The processes of `group` share out the images of full precision, and then
    /// the rows.
    pub(crate) fn run(
        &self,
        progress: Reporter,
        group: &dyn ProcessGroup,
    ) -> Result<Option<(Summary, Vec<Row>)>> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
        let note = self.policy.check(&tensors.collect::<Vec<_>>())?;
        let settings = settings::of(self)?;
        ensure!(
            group.all_equal(&Value::from(settings.clone()).to_string())?,
            "the processes were not started with the same arguments"
        );
        let known = self.known(&settings)?;
        for line in self.found.iter().map(String::as_str).chain(note) {
            progress.line(line);
        }
        for folder in ["packed", "grids", ROWS] {
            let path = self.dir.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("creating `{}`", path.display()))?;
        }
        let cells: Vec<(QuantizeMethod, Rate)> = self
            .methods
            .iter()
            .flat_map(|&method| self.bits.iter().map(move |&bits| (method, bits)))
            .collect();
        let missing: Vec<(QuantizeMethod, Rate)> =
            cells.iter().copied().filter(|&cell| row_of(&known, cell).is_none()).collect();
        // Nobody adds a row before all have looked.
        group.any(false)?;
        let Rank { index, size } = group.rank();
        let own: Vec<(QuantizeMethod, Rate)> =
            missing.into_iter().skip(index).step_by(size).collect();
        let total = (own.len() + 1) * self.n * self.seeds;
        let bar = progress.bar("full precision", total as u64, "img");

        let noise = self.noise()?;
        let dtype = self.dtype.on(&self.device)?;
        let net = build(&self.config, self.tensors.clone(), &self.device, dtype)?;
        let weights = &settings["weights"];
        let samples = self.sample_all(&net, ("full", weights), &noise, &bar, progress, group)?;
        if index == 0 {
            atomic::write(&self.dir.join("grids/full.png"), &shown(&samples[0].images)?)?;
        }
        let inputs = self.analyses.then(|| self.comparison_inputs(&noise[0])).transpose()?;
        let analyses = inputs.map(|inputs| FullPrecision::new(inputs, &net, &self.tensors));
        let analyses = analyses.transpose().context("analyses")?;
        let full = Full { noise, samples, analyses };
        // The first process alone writes results.
        let summary = (index == 0).then(|| self.summary(&full)).transpose()?;
        let save = |rows: &[Row]| -> Result<()> {
            summary.as_ref().map_or(Ok(()), |summary| self.save(&settings, summary, rows))
        };
        save(&known)?;
        for (method, bits) in own {
            bar.set_message(format!("{method}, {bits} bits"));
            let row = self.row(method, bits, &full, &bar, progress)?;
            self.save_row(&settings, &row)?;
            save(&self.known(&settings)?)?;
        }
        bar.finish_and_clear();
        group.any(false)?;
        let Some(summary) = summary else { return Ok(None) };
        let mut others = self.known(&settings)?;
        let rows: Vec<Row> =
            cells.iter().filter_map(|&cell| row_of(&others, cell).cloned()).collect();
        others.retain(|row| !row.method().is_ok_and(|method| cells.contains(&(method, row.bits))));
        self.save(&settings, &summary, &[&rows[..], &others].concat())?;
        for &method in &self.methods {
            self.compare_bits(method, &full, progress)?;
        }
        self.write_report(&summary, &rows)?;
        self.remove_parts()?;
        Ok(Some((summary, rows)))
    }

    /// A picture with a line of samples at full precision, then one for each number of bits.
    fn compare_bits(
        &self,
        method: QuantizeMethod,
        full: &Full<'_>,
        progress: Reporter,
    ) -> Result<()> {
        let count = LINE.min(self.n);
        let noise = full.noise[0].narrow(0, 0, count)?;
        let mut bits = self.bits.clone();
        bits.sort_unstable_by(|a, b| b.cmp(a));
        let mut lines = vec![full.samples[0].images.narrow(0, 0, count)?];
        for bits in bits {
            let net = self.packed_net(method, bits)?;
            lines.push(self.sample(&net, &noise, 0, &ProgressBar::hidden(), progress)?.images);
        }
        let all = Tensor::cat(&lines, 0)?;
        let (n, c, h, w) = all.dims4()?;
        let png = grid::png(&to_pixels(&all)?, [n, h, w, c], count, 2)?;
        Ok(atomic::write(&self.dir.join(format!("grids/bits_{method}.png")), &png)?)
    }

    /// Quantizes, packs, samples from the packed file, and scores.
    fn row(
        &self,
        method: QuantizeMethod,
        bits: Rate,
        full: &Full<'_>,
        bar: &ProgressBar,
        progress: Reporter,
    ) -> Result<Row> {
        let start = Instant::now();
        let report = self.pack(method, bits, bar)?;
        let net = self.packed_net(method, bits)?;
        let weights = fingerprint::of_file(&self.packed_path(method, bits))?.into();
        let of = (&*format!("{method}_{bits}"), &weights);
        let samples = self.sample_all(&net, of, &full.noise, bar, progress, &SingleProcess)?;
        atomic::write(&self.grid_path(method, bits), &shown(&samples[0].images)?)?;
        let weights = self.weight_change(&self.packed_path(method, bits))?;
        let analyses = full.analyses.as_ref();
        let measured = analyses.map(|full| full.compare(&net, weights));
        let measured = measured.transpose().context("analyses")?;
        let measured = measured.as_ref();
        let paired = PairedScores::measure(&samples, &full.samples, self.features.dim())?;
        let fid = self.fid(&samples)?;
        Ok(Row {
            scheme: method.to_string(),
            bits,
            tune_steps: self.steps_of(method, bits),
            sqnr_db: report.sqnr_db.unwrap_or(f64::INFINITY),
            mse: report.mse,
            bits_per_weight: report.bits_per_weight,
            packed_bytes: report.packed_bytes,
            ratio: report.ratio,
            psnr_db: paired.psnr_db.mean,
            psnr_error: paired.psnr_db.error,
            mean_psnr_db: paired.mean_psnr_db,
            ssim: paired.ssim,
            feature_distance: Some(paired.feature_distance),
            fid: fid.mean,
            fid_error: fid.error,
            velocity_psnr_db: measured.and_then(|it| it.velocity.psnr_db),
            velocity_ssim: measured.and_then(|it| it.velocity.ssim),
            latent: measured.map(|it| it.latent),
            inversion: measured.and_then(|it| it.inversion),
            divergence: measured.map_or_else(Vec::new, |it| it.divergence.clone()),
            bounds: measured.map(|it| it.bounds),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The start noise of each set of samples.
    fn noise(&self) -> Result<Vec<Tensor>> {
        let shape = image_shape(&self.config)?;
        let seeds = (0..self.seeds as u64).map(|set| self.seed.wrapping_add(set));
        seeds.map(|seed| Ok(start_noise(seed, 0, self.n, shape, &self.device)?)).collect()
    }

    /// A set of samples from each set of noise, by the net of a name with these weights. Large sets are
    /// drawn in parts, which a run that is cut leaves on disk; the processes of `group` share them out.
    fn sample_all(
        &self,
        net: &UNet,
        (name, weights): (&str, &Value),
        noise: &[Tensor],
        bar: &ProgressBar,
        progress: Reporter,
        group: &dyn ProcessGroup,
    ) -> Result<Vec<SampleSet>> {
        let set = |(number, noise): (usize, &Tensor)| {
            let images = if self.n <= ImageParts::LARGEST && group.rank().size == 1 {
                self.sample(net, noise, 0, bar, progress)?.images
            } else {
                let settings = [
                    ("weights".to_string(), weights.clone()),
                    ("n".into(), self.n.into()),
                    ("seed".into(), self.seed.wrapping_add(number as u64).into()),
                    ("sampler".into(), format!("{:?}", self.sampler).into()),
                    ("dtype".into(), self.dtype.name().into()),
                ];
                let (output, together) = (self.parts(name, number), self.sampler.batch_size);
                let settings = settings.into_iter().collect();
                let parts = SampleParts::open(&output, &settings, (self.n, together), group)?;
                bar.inc((self.n - parts.missing()) as u64);
                parts.draw(|Range { start, end }| {
                    let noise = noise.narrow(0, start, end - start)?;
                    self.sample(net, &noise, start, bar, progress)
                })?;
                let all = parts.all().map(|part| Ok(part?.images));
                Tensor::cat(&all.collect::<Result<Vec<_>>>()?, 0)?.to_device(&self.device)?
            };
            let features = self.features.rows(&images::of_samples(&images)?)?;
            Ok(SampleSet { images, features })
        };
        noise.iter().enumerate().map(set).collect()
    }

    /// Samples with classes in turn, the first of which has the number `first`: the same for every row,
    /// and each class as often as the others.
    fn sample(
        &self,
        net: &UNet,
        noise: &Tensor,
        first: usize,
        bar: &ProgressBar,
        progress: Reporter,
    ) -> Result<Samples> {
        let labels = class_cycle(&self.config, first + noise.dim(0)?)?;
        let labels = labels.as_ref().map(|labels| &labels[first..]);
        let done = |n: usize| bar.inc(n as u64);
        let samples = self.sampler.run(net, noise, labels, false, done)?;
        if let Some(warning) = &samples.warning {
            bar.suspend(|| progress.line(&format!("warning: {warning}")));
        }
        Ok(samples)
    }

    /// The distance of sets of samples to the reference.
    fn fid(&self, samples: &[SampleSet]) -> Result<Estimate> {
        // The samples of a set have their classes in turn.
        let strata = class_cycle(&self.config, self.n)?.unwrap_or_default();
        Ok(frechet(samples, &self.reference.statistics, &strata, self.seed)?)
    }

    fn summary(&self, full: &Full<'_>) -> Result<Summary> {
        let parameters = self.parameters();
        let real = classes_in_turn(&self.real, self.n);
        let fid_full = self.fid(&full.samples)?;
        let features = self.features.rows(&self.real.subset(&real)?)?;
        let statistics = Statistics::of_rows(&features, self.features.dim())?;
        let mut notes = vec![
            "PSNR and SSIM (11 x 11 box window) compare samples with pixels in [0, 1].".to_string(),
        ];
        notes.extend(self.policy.differences().map(|it| format!("All rows with {it}.")));
        if self.methods.iter().any(|method| method.refinement == Some(Refinement::Tune)) {
            notes.push(pack::TUNED_ROWS.into());
        }
        let analyses = full.analyses.as_ref();
        Ok(Summary {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            command: self.command.clone(),
            model: self.model.clone(),
            parameters,
            dense_bytes: 4 * parameters,
            n: self.n,
            sampler: described(&self.sampler),
            seed: self.seed,
            seeds: self.seeds,
            fid_label: self.fid_label.clone(),
            fid_reference: self.reference.name.clone(),
            fid_full: fid_full.mean,
            fid_full_error: fid_full.error,
            n_real: real.len(),
            fid_real: fid(&statistics, &self.reference.statistics)?,
            latent: analyses.map(|analyses| analyses.latent),
            inversion: analyses.and_then(|analyses| analyses.inversion),
            times: analyses.map_or_else(Vec::new, |_| self.sampler.grid.clone()),
            lipschitz: analyses.map(|analyses| analyses.lipschitz.clone()),
            notes,
        })
    }
}

/// The samples and analyses of full precision, to compare the rows with.
struct Full<'a> {
    /// The start noise of each set of samples.
    noise: Vec<Tensor>,
    /// The samples from it.
    samples: Vec<SampleSet>,
    analyses: Option<FullPrecision<'a>>,
}

/// The row of a scheme at some bits among these.
fn row_of(rows: &[Row], (method, bits): (QuantizeMethod, Rate)) -> Option<&Row> {
    let name = method.to_string();
    rows.iter().find(|row| row.scheme == name && row.bits == bits)
}

/// The grid of the first samples.
fn shown(samples: &Tensor) -> Result<Vec<u8>> {
    let samples = samples.narrow(0, 0, SHOWN.0.min(samples.dim(0)?))?;
    let (n, c, h, w) = samples.dims4()?;
    grid::png(&to_pixels(&samples)?, [n, h, w, c], SHOWN.1, 2)
}

/// A sampler in words: its method, its cost or what that follows from, and its guidance if it has one.
fn described(sampler: &BatchSampler) -> String {
    let (method, control) = (sampler.method, &sampler.options.control);
    let steps = sampler.grid.len() - 1;
    let solver = match sampler.nfe() {
        Some(nfe) => format!("{method}, {steps} steps, {nfe} evaluations"),
        None if method.is_adaptive() => {
            format!("{method}, atol {}, rtol {}", control.atol, control.rtol)
        }
        None => format!("{method}, {steps} steps"),
    };
    match sampler.cfg_scale {
        0.0 => solver,
        scale => format!("{solver}, guidance {scale}"),
    }
}
