//! The folder of a study: what it holds of earlier runs, and the files that are written into it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use fm_candle::data::Images;
use fm_candle::model::UNet;
use quant_core::rate::Rate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SHOWN, Study, channel_levels, classes_in_turn, settings};
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net::NetArgs;
use crate::progress::Reporter;
use crate::report::{Row, Summary, grid, html, plots, tables};

/// The contents of `results.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    /// The settings that the rows were made with.
    pub(crate) settings: Map<String, Value>,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    pub(crate) rows: Vec<Row>,
}

/// The packed file of a row in the folder of a study.
pub(crate) fn packed_path(dir: &Path, method: QuantizeMethod, bits: Rate) -> PathBuf {
    dir.join(format!("packed/{method}_{bits}.fmq"))
}

impl Study {
    /// Rows of an earlier run of the same study in the same folder.
    pub(super) fn known(&self, settings: &Map<String, Value>) -> Result<Vec<Row>> {
        let path = self.dir.join("results.json");
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("reading `{}`", path.display())),
        };
        let there = match serde_json::from_slice::<Results>(&json) {
            Ok(results) => match settings::difference(&results.settings, settings) {
                None => match self.tuned_otherwise(&results.rows) {
                    None => {
                        let rows = results.rows.into_iter();
                        return Ok(rows.filter(|row| self.has_files(row)).collect());
                    }
                    Some(steps) => {
                        let wanted = self.tune_steps;
                        format!("holds rows tuned in {steps} steps, not {wanted}")
                    }
                },
                Some(difference) => format!("holds another study: {difference}"),
            },
            Err(error) => format!("is not of this version's studies: {error}"),
        };
        if self.replace {
            return Ok(Vec::new());
        }
        bail!("`{}` {there}; choose another -o, or remove that folder", path.display())
    }

    /// Steps of a row that this study would tune in others.
    fn tuned_otherwise(&self, rows: &[Row]) -> Option<u64> {
        let tunes = |method: &QuantizeMethod| method.refinement == Some(Refinement::Tune);
        if !self.methods.iter().any(tunes) {
            return None;
        }
        rows.iter().filter_map(|row| row.tune_steps).find(|&steps| steps != self.tune_steps)
    }

    fn has_files(&self, row: &Row) -> bool {
        row.scheme.parse().is_ok_and(|method| {
            self.grid_path(method, row.bits).exists() && self.packed_path(method, row.bits).exists()
        })
    }

    /// The packed file of a row.
    pub(super) fn packed_path(&self, method: QuantizeMethod, bits: Rate) -> PathBuf {
        packed_path(&self.dir, method, bits)
    }

    /// The net in it.
    pub(super) fn packed_net(&self, method: QuantizeMethod, bits: Rate) -> Result<UNet> {
        let path = self.packed_path(method, bits);
        NetArgs::plain(&path).with_dtype(self.dtype).build(&self.device, Reporter::silent())
    }

    pub(super) fn grid_path(&self, method: QuantizeMethod, bits: Rate) -> PathBuf {
        self.dir.join(format!("grids/{method}_{bits}.png"))
    }

    pub(super) fn write_report(&self, summary: &Summary, rows: &[Row]) -> Result<()> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("reading `{}`", path.display()));
        let grids = rows
            .iter()
            .map(|row| read(&self.grid_path(row.method()?, row.bits)))
            .collect::<Result<Vec<_>>>()?;
        let full = read(&self.dir.join("grids/full.png"))?;
        let real = classes_in_turn(&self.real, SHOWN.0);
        let real = self.real.subset(&real)?;
        let shape = [real.n, real.height, real.width, real.channels];
        let real = grid::png(&interleaved(&real), shape, SHOWN.1, 2)?;
        let levels = channel_levels::of(self, rows)?;
        let pictures = html::Pictures {
            full: &full,
            real: Some(&real),
            rows: &grids,
            levels: levels.as_ref(),
        };
        let mut files = plots::files(summary, rows, pictures.levels);
        files.push(("results.csv".into(), tables::csv(rows)));
        files.push(("report.html".into(), html::page(summary, rows, &pictures)));
        for (name, text) in files {
            atomic::write(&self.dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes `results.json`: the rows so far, and those of earlier runs that are not among them.
    pub(super) fn save(
        &self,
        settings: &Map<String, Value>,
        summary: &Summary,
        rows: &[Row],
        known: &[Row],
    ) -> Result<()> {
        let is_new =
            |old: &&Row| !rows.iter().any(|r| (&r.scheme, r.bits) == (&old.scheme, old.bits));
        let rows = rows.iter().chain(known.iter().filter(is_new)).cloned().collect();
        let results = Results { settings: settings.clone(), summary: summary.clone(), rows };
        let json = serde_json::to_vec_pretty(&results)?;
        Ok(atomic::write(&self.dir.join("results.json"), &json)?)
    }
}

/// Planes, `[n, c, h, w]`, as pixels of all channels, `[n, h, w, c]`.
fn interleaved(images: &Images) -> Vec<u8> {
    let area = images.height * images.width;
    let planes = images.pixels.chunks_exact((images.channels * area).max(1));
    planes
        .flat_map(|image| (0..area).flat_map(|at| image.iter().skip(at).step_by(area)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let images = Images::new([3, 1, 2], (1..=12).collect(), vec![0, 0]).unwrap();
        assert_eq!(interleaved(&images), [1, 3, 5, 2, 4, 6, 7, 9, 11, 8, 10, 12]);
    }
}
