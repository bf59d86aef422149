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

use super::{SHOWN, Study, channel_levels, classes_in_turn};
use crate::args::method::{QuantizeMethod, Refinement};
use crate::args::net::NetArgs;
use crate::progress::Reporter;
use crate::report::{Row, Summary, grid, html, plots, tables};
use crate::sample_parts;
use crate::settings::difference;

/// Folder in the folder of a study for what its processes have done so far: `SCHEME_BITS.json` for a row,
/// and parts of samples. A study that is done has none.
pub(super) const ROWS: &str = "rows";

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

/// A row that is not in `results.json` yet.
#[derive(Serialize, Deserialize)]
struct RowResult {
    settings: Map<String, Value>,
    row: Row,
}

impl Study {
    /// Rows of the same study that are in the folder.
    pub(super) fn known(&self, settings: &Map<String, Value>) -> Result<Vec<Row>> {
        let mut rows = self.results(settings)?;
        let is_new = |rows: &[Row], new: &Row| {
            !rows.iter().any(|r| (&r.scheme, r.bits) == (&new.scheme, new.bits))
        };
        for row in self.single_rows(settings)? {
            if is_new(&rows, &row) {
                rows.push(row);
            }
        }
        rows.retain(|row| self.has_files(row));
        Ok(rows)
    }

    /// Rows that stand in files of their own, in the order of their names.
    fn single_rows(&self, settings: &Map<String, Value>) -> Result<Vec<Row>> {
        let dir = self.dir.join(ROWS);
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let reading = |path: &Path| format!("reading `{}`", path.display());
        let entries = fs::read_dir(&dir).with_context(|| reading(&dir))?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .filter(|path| {
                path.as_ref().map_or(true, |p| p.extension().is_some_and(|e| e == "json"))
            })
            .collect::<Result<Vec<_>>>()?;
        paths.sort();
        let mut rows = Vec::new();
        for path in paths {
            let json = fs::read(&path).with_context(|| reading(&path))?;
            // What is of another study or version is drawn again, and written over.
            if let Ok(found) = serde_json::from_slice::<RowResult>(&json)
                && difference(&found.settings, settings).is_none()
                && self.tuned_otherwise(core::slice::from_ref(&found.row)).is_none()
            {
                rows.push(found.row);
            }
        }
        Ok(rows)
    }

    /// Writes a row into a file of its own.
    pub(super) fn save_row(&self, settings: &Map<String, Value>, row: &Row) -> Result<()> {
        let path = self.dir.join(ROWS).join(format!("{}_{}.json", row.scheme, row.bits));
        let result = RowResult { settings: settings.clone(), row: row.clone() };
        atomic::write(&path, &serde_json::to_vec(&result)?)?;
        for set in 0..self.seeds {
            let parts =
                sample_parts::folder_of(&self.parts(&format!("{}_{}", row.scheme, row.bits), set));
            if parts.exists() {
                fs::remove_dir_all(&parts)
                    .with_context(|| format!("removing `{}`", parts.display()))?;
            }
        }
        Ok(())
    }

    /// The name that the parts of a set of samples go by.
    pub(super) fn parts(&self, name: &str, set: usize) -> PathBuf {
        self.dir.join(ROWS).join(format!("{name}_{set}"))
    }

    /// Removes what is not needed once all rows are in `results.json`.
    pub(super) fn remove_parts(&self) -> Result<()> {
        let dir = self.dir.join(ROWS);
        fs::remove_dir_all(&dir).with_context(|| format!("removing `{}`", dir.display()))
    }

    /// The rows of `results.json`.
    fn results(&self, settings: &Map<String, Value>) -> Result<Vec<Row>> {
        let path = self.dir.join("results.json");
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("reading `{}`", path.display())),
        };
        let there = match serde_json::from_slice::<Results>(&json) {
            Ok(results) => match difference(&results.settings, settings) {
                None => match self.tuned_otherwise(&results.rows) {
                    None => return Ok(results.rows),
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

    /// Writes `results.json`.
    pub(super) fn save(
        &self,
        settings: &Map<String, Value>,
        summary: &Summary,
        rows: &[Row],
    ) -> Result<()> {
        let (settings, summary, rows) = (settings.clone(), summary.clone(), rows.to_vec());
        let json = serde_json::to_vec_pretty(&Results { settings, summary, rows })?;
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
