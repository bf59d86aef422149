//! The logs of a run: `log.txt`, TensorBoard's events, the curve of the loss.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use fm_candle::atomic;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::report::{events, plots};

/// One epoch: a line of `log.txt`, with upstream's keys first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochLog {
    /// Mean loss.
    pub(super) train_loss: f64,
    /// Its number, from 0.
    pub(super) epoch: u64,
    /// Seconds that this process spent on it.
    pub(super) seconds: f64,
    /// Images per second, over all processes.
    pub(super) img_per_s: f64,
    /// Learning rate.
    pub(super) lr: f64,
    /// Norm of its last gradient.
    pub(super) grad_norm: f64,
    /// FID after it, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) eval_fid: Option<f64>,
    /// Number of samples that it was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) eval_fid_samples: Option<usize>,
}

/// The files of a run that grow.
pub(super) struct Journal {
    log: PathBuf,
    curve: PathBuf,
    events: File,
    events_path: PathBuf,
    /// Held as long as the run goes on.
    _lock: File,
}

impl Journal {
    /// The journal of a run; of one that goes on with an epoch, after so many updates, what it says
    /// of later ones was lost with the process that wrote it.
    pub(super) fn open(dir: &Path, goes_on: Option<(u64, u64)>) -> Result<Self> {
        let lock = lock(dir)?;
        let log = dir.join("log.txt");
        if let (Some((epoch, _)), Ok(text)) = (goes_on, fs::read_to_string(&log)) {
            let kept: String = text
                .lines()
                .filter(|line| is_before(line, epoch))
                .flat_map(|l| [l, "\n"])
                .collect();
            if kept != text {
                atomic::write(&log, kept.as_bytes())?;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let name = format!("events.out.tfevents.{now}.fmq.{}", std::process::id());
        let events_path = dir.join(name);
        let events = OpenOptions::new().create(true).append(true).open(&events_path);
        let events = events.with_context(|| format!("writing `{}`", events_path.display()))?;
        let mut journal =
            Self { log, curve: dir.join("loss.svg"), events, events_path, _lock: lock };
        journal.put(&events::version())?;
        if let Some((_, step)) = goes_on {
            journal.put(&events::start(step))?;
        }
        Ok(journal)
    }

    /// An update of the weights.
    pub(super) fn step(&mut self, step: u64, loss: f64, grad_norm: f64, lr: f64) -> Result<()> {
        let values = [("train/loss", loss), ("train/grad_norm", grad_norm), ("train/lr", lr)];
        self.put(&events::scalars(step, &values))
    }

    /// A finished epoch.
    pub(super) fn epoch(&mut self, step: u64, entry: &EpochLog) -> Result<()> {
        let line = serde_json::to_string(entry)?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .and_then(|mut log| writeln!(log, "{line}"))
            .with_context(|| format!("writing `{}`", self.log.display()))?;
        let values = [("epoch/loss", entry.train_loss), ("epoch/img_per_s", entry.img_per_s)];
        self.put(&events::scalars(step, &values))?;
        let log = fs::read_to_string(&self.log)
            .with_context(|| format!("reading `{}`", self.log.display()))?;
        let entries = log.lines().filter_map(|line| serde_json::from_str::<EpochLog>(line).ok());
        let points: Vec<_> = entries.map(|entry| (entry.epoch as f64, entry.train_loss)).collect();
        Ok(atomic::write(&self.curve, plots::loss(&points).as_bytes())?)
    }

    /// The FID measured after an epoch and its number of samples, which its line in the log is told; a log without one, as of a
    /// folder that a run of another is evaluated in, gets upstream's line of an evaluation.
    pub(super) fn evaluated(
        &mut self,
        step: u64,
        epoch: u64,
        (fid, samples): (f64, usize),
    ) -> Result<()> {
        let text = match fs::read_to_string(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("reading `{}`", self.log.display()))?,
        };
        let (mut lines, mut told) = (String::new(), false);
        for line in text.lines() {
            match serde_json::from_str::<EpochLog>(line) {
                Ok(entry) if entry.epoch == epoch => {
                    let entry =
                        EpochLog { eval_fid: Some(fid), eval_fid_samples: Some(samples), ..entry };
                    lines.push_str(&serde_json::to_string(&entry)?);
                    told = true;
                }
                _ => lines.push_str(line),
            }
            lines.push('\n');
        }
        if !told {
            let entry = json!({ "epoch": epoch, "eval_fid": fid, "eval_fid_samples": samples });
            lines.push_str(&entry.to_string());
            lines.push('\n');
        }
        atomic::write(&self.log, lines.as_bytes())?;
        self.put(&events::scalars(step, &[("eval/fid", fid)]))
    }

    /// A grid of samples: its PNG, width, height and channels.
    pub(super) fn samples(&mut self, step: u64, png: &[u8], size: [u64; 3]) -> Result<()> {
        self.put(&events::image(step, "samples", png, size))
    }

    fn put(&mut self, record: &[u8]) -> Result<()> {
        self.events
            .write_all(record)
            .with_context(|| format!("writing `{}`", self.events_path.display()))
    }
}

/// Makes sure that no other process writes the same run; the system unlocks when this one ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("run.lock");
    let file = File::create(&path).with_context(|| format!("writing `{}`", path.display()))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("`{}`: another process is training in this folder", dir.display())
        }
        // Some file systems have no locks.
        _ => Ok(file),
    }
}

/// Returns true if a line of the log is of an epoch before this one.
fn is_before(line: &str, epoch: u64) -> bool {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    value["epoch"].as_u64().is_some_and(|of| of < epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: u64) -> EpochLog {
        EpochLog {
            train_loss: 0.5,
            epoch,
            seconds: 1.0,
            img_per_s: 2.0,
            lr: 1e-4,
            grad_norm: 3.0,
            eval_fid: None,
            eval_fid_samples: None,
        }
    }

    #[test]
    fn an_evaluation_in_another_folder_has_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), None).unwrap();
        journal.evaluated(30, 4, (9.5, 7)).unwrap();
        let text = fs::read_to_string(dir.path().join("log.txt")).unwrap();
        assert_eq!(text, "{\"epoch\":4,\"eval_fid\":9.5,\"eval_fid_samples\":7}\n");
    }

    #[test]
    fn what_a_lost_process_wrote_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.txt");
        let mut journal = Journal::open(dir.path(), Some((0, 0))).unwrap();
        for i in 0..3 {
            journal.epoch(i, &entry(i)).unwrap();
        }
        fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"{\"train_l").unwrap();
        assert!(Journal::open(dir.path(), None).is_err(), "the run is still going on");
        drop(journal);
        let mut journal = Journal::open(dir.path(), Some((2, 20))).unwrap();
        journal.epoch(30, &entry(2)).unwrap();
        journal.evaluated(30, 1, (9.5, 7)).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        let entries: Vec<EpochLog> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let judged = EpochLog { eval_fid: Some(9.5), eval_fid_samples: Some(7), ..entry(1) };
        assert_eq!(entries, [entry(0), judged, entry(2)]);
        assert!(text.starts_with(r#"{"train_loss":0.5,"epoch":0"#), "{text}");
        assert!(fs::read_to_string(dir.path().join("loss.svg")).unwrap().contains("<polyline"));
    }
}
