//! The distances that a sweep has measured, from its `results.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fm_candle::checkpoint::MeasuredFid;
use fm_candle::json;

use crate::report::Summary;
use crate::study::{Results, packed_path};

/// The results of a sweep, and where they lie.
pub(crate) struct SweepResults {
    path: PathBuf,
    results: Results,
}

impl SweepResults {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = json::read(path)?;
        let results = serde_json::from_str(&text)
            .with_context(|| format!("`{}`: is no results.json of a sweep", path.display()))?;
        Ok(Self { path: path.to_path_buf(), results })
    }

    /// The distance of the net in full precision, whose weights have this fingerprint.
    ///
    /// # Errors
    /// A sweep of other weights.
    pub(crate) fn of_weights(&self, fingerprint: &str) -> Result<MeasuredFid> {
        let own = self.setting("weights");
        if own != fingerprint {
            bail!(
                "`{}`: is of weights with the fingerprint {own}, those given have {fingerprint}",
                self.path.display()
            );
        }
        let Summary { fid_full, fid_full_error, .. } = self.results.summary;
        Ok(self.fid(fid_full, fid_full_error))
    }

    /// The distance of a packed file: that of the row whose own file has the same bytes, if there is one.
    pub(crate) fn of_packed(&self, file: &[u8]) -> Option<MeasuredFid> {
        let dir = self.path.parent()?;
        let mut rows = self.results.rows.iter();
        let row = rows.find(|row| {
            let path = row.method().map(|method| packed_path(dir, method, row.bits));
            row.packed_bytes == file.len() as u64
                && path.is_ok_and(|path| fs::read(path).is_ok_and(|bytes| bytes == file))
        })?;
        Some(self.fid(row.fid, row.fid_error))
    }

    fn fid(&self, value: f64, error: Option<f64>) -> MeasuredFid {
        let Summary { fid_label, fid_reference, n, seeds, sampler, .. } = &self.results.summary;
        // The label ends with the filter, which is the features'; the reference with a folder of its user.
        let (name, resize) = fid_label.split_once(", ").unwrap_or((fid_label, ""));
        let (reference, _) = fid_reference.split_once(" in `").unwrap_or((fid_reference, ""));
        let features = [self.setting("features"), resize];
        let features = features.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let sampler = match seeds {
            1 => sampler.clone(),
            seeds => format!("{sampler}, mean over {seeds} seeds"),
        };
        MeasuredFid {
            name: name.into(),
            value,
            error,
            features: features.join(", "),
            samples: u64::try_from(*n).ok(),
            reference: reference.into(),
            sampler,
        }
    }

    fn setting(&self, name: &str) -> &str {
        self.results.settings.get(name).and_then(|value| value.as_str()).unwrap_or_default()
    }
}
