//! Samples that are drawn in parts, by one process or several, and kept on disk until all are there.
//!
//! ```text
//! OUT.parts/settings.json               what the samples depend on, and the size of a part
//! OUT.parts/000000-000256.safetensors   the images 0 to 255: samples (n, c, h, w), nfe
//! ```
//! A part depends on its images' numbers alone, not on who draws it. A run that was cut finds the parts
//! that were finished, whatever the number of processes was.

use core::ops::Range;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fm_candle::device::Device;
use fm_candle::process_group::{ImageParts, ProcessGroup, Rank};
use fm_candle::sample::Samples;
use fm_candle::{Error, Tensor, atomic, checkpoint};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::settings::difference;

/// The file that says what the parts are of.
const SETTINGS: &str = "settings.json";

/// The contents of that file.
#[derive(Serialize, Deserialize)]
struct PartsSettings {
    /// Images of a part.
    size: usize,
    settings: Map<String, Value>,
}

/// The parts of one set of samples.
pub(crate) struct SampleParts<'a> {
    dir: PathBuf,
    parts: ImageParts,
    /// The numbers of the parts that were not there at the start.
    missing: Vec<usize>,
    group: &'a dyn ProcessGroup,
}

impl<'a> SampleParts<'a> {
    /// Finds or makes the folder of the parts of `n` samples for `output`; they begin at multiples of
    /// `together`. All processes make this call together.
    ///
    /// # Errors
    /// A folder of samples with other settings, or one that cannot be written.
    pub(crate) fn open(
        output: &Path,
        settings: &Map<String, Value>,
        (n, together): (usize, usize),
        group: &'a dyn ProcessGroup,
    ) -> Result<Self> {
        let dir = folder_of(output);
        let Rank { index, size } = group.rank();
        ensure!(
            group.all_equal(&Value::from(settings.clone()).to_string())?,
            "the processes were not started with the same arguments"
        );
        let parts = match size {
            1 => ImageParts::of_size(n, ImageParts::LARGEST, together),
            _ => ImageParts::of(n, together),
        };
        let mut part_size = [0.0];
        if index == 0 {
            part_size[0] = prepare(&dir, settings, parts.size())? as f64;
        }
        group.broadcast(0, &mut part_size)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
        let parts = ImageParts::of_size(n, part_size[0] as usize, together);
        let mut all = Self { dir, parts, missing: Vec::new(), group };
        all.missing =
            (0..parts.count()).filter(|&number| !all.path(parts.range(number)).is_file()).collect();
        // Nobody adds a part before all have looked.
        group.any(false)?;
        Ok(all)
    }

    /// The images of the parts that are missing, in all processes.
    pub(crate) fn missing(&self) -> usize {
        self.missing.iter().map(|&number| self.parts.range(number).len()).sum()
    }

    /// Draws this process's share of the missing parts, and waits for the others'.
    pub(crate) fn draw(&self, draw: impl Fn(Range<usize>) -> Result<Samples>) -> Result<()> {
        let Rank { index, size } = self.group.rank();
        for &number in self.missing.iter().skip(index).step_by(size) {
            let range = self.parts.range(number);
            let path = self.path(range.clone());
            let Samples { images, nfe, .. } = draw(range)?;
            let nfe = Tensor::new(&[i64::try_from(nfe)?], &Device::Cpu)?;
            let tensors = [("samples".into(), images), ("nfe".into(), nfe)];
            checkpoint::safetensors::save(&path, &tensors, &[])?;
        }
        Ok(self.wait()?)
    }

    /// The samples of all parts, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = fm_candle::Result<Samples>> {
        self.parts.ranges().map(|range| self.read(range))
    }

    /// The samples of this process's share of all parts, with their numbers.
    pub(crate) fn shared(
        &self,
    ) -> impl Iterator<Item = fm_candle::Result<(Range<usize>, Samples)>> {
        let Rank { index, size } = self.group.rank();
        let own = self.parts.ranges().skip(index).step_by(size);
        own.map(|range| Ok((range.clone(), self.read(range)?)))
    }

    /// The number of images.
    pub(crate) fn n(&self) -> usize {
        self.parts.range(self.parts.count().saturating_sub(1)).end
    }

    /// Channels, height and width of the images.
    pub(crate) fn shape(&self) -> fm_candle::Result<[usize; 3]> {
        let (_, c, h, w) = self.read(self.parts.range(0))?.images.dims4()?;
        Ok([c, h, w])
    }

    /// Returns true in the first process.
    pub(crate) fn is_first(&self) -> bool {
        self.group.rank().index == 0
    }

    /// Waits until all processes are here.
    pub(crate) fn wait(&self) -> fm_candle::Result<()> {
        self.group.any(false).map(|_| ())
    }

    /// Removes the folder, once the first process is done with all of them.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("removing `{}`", self.dir.display()))
    }

    fn read(&self, range: Range<usize>) -> fm_candle::Result<Samples> {
        let path = self.path(range.clone());
        let file = checkpoint::load(&path, true)?;
        let fault =
            || Error::Config(format!("`{}`: is no part of samples; remove it", path.display()));
        let images =
            file.tensor("samples").filter(|images| images.dims().first() == Some(&range.len()));
        let nfe = file.tensor("nfe").ok_or_else(fault)?.to_vec1::<i64>()?;
        let nfe = nfe.first().and_then(|&nfe| usize::try_from(nfe).ok()).ok_or_else(fault)?;
        let images = images.ok_or_else(fault)?.clone();
        Ok(Samples { images, trajectory: None, nfe, warning: None })
    }

    fn path(&self, Range { start, end }: Range<usize>) -> PathBuf {
        self.dir.join(format!("{start:06}-{end:06}.safetensors"))
    }
}

/// The folder of the parts of this output.
pub(crate) fn folder_of(output: &Path) -> PathBuf {
    // Without the slash that a folder's name may end in.
    let mut name = output.components().collect::<PathBuf>().into_os_string();
    name.push(".parts");
    name.into()
}

/// Makes the folder, or takes up the one of a run with the same settings; the size of its parts.
fn prepare(dir: &Path, settings: &Map<String, Value>, size: usize) -> Result<usize> {
    let path = dir.join(SETTINGS);
    match fs::read(&path) {
        Ok(json) => {
            let there: PartsSettings = serde_json::from_slice(&json)
                .with_context(|| format!("`{}`: remove its folder", path.display()))?;
            if let Some(difference) = difference(&there.settings, settings) {
                bail!(
                    "`{}` holds parts of other samples: {difference}; go on with those, or remove it",
                    dir.display()
                );
            }
            atomic::remove_leftovers(dir)?;
            Ok(there.size)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(|| format!("creating `{}`", dir.display()))?;
            let contents = PartsSettings { size, settings: settings.clone() };
            atomic::write(&path, &serde_json::to_vec_pretty(&contents)?)?;
            Ok(size)
        }
        Err(error) => Err(error).context(format!("reading `{}`", path.display())),
    }
}
