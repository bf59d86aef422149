//! The output of samples: one picture, a folder of them, or a file of numbers, by the output's
//! name.

use core::fmt;
use std::path::{Path, PathBuf, is_separator};

use anyhow::{Context, Result};
use fm_candle::fid::npz;
use fm_candle::sample::{Samples, to_pixels};
use fm_candle::{Tensor, atomic, checkpoint};

use super::{extension, folder};
use crate::report::grid;
use crate::report::picture::{self, Picture};
use crate::sample_parts::SampleParts;

/// Most frames that show a trajectory.
const FRAMES: usize = 50;

/// Most images in a frame.
const SHOWN: usize = 100;

/// An output and what it becomes.
#[derive(Clone, Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    kind: SampleFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleFormat {
    Grid,
    Npz,
    Safetensors,
    Folder,
}

impl OutputFile {
    /// The output of this name: what it ends in decides, but for a folder, one that is there already or
    /// whose name ends as only a folder's does.
    pub(crate) fn of(path: PathBuf) -> Result<Self, &'static str> {
        let is_folder = path.is_dir() || path.to_string_lossy().ends_with(is_separator);
        let kind = match extension(&path).as_str() {
            _ if is_folder => SampleFormat::Folder,
            "png" => SampleFormat::Grid,
            "npz" => SampleFormat::Npz,
            "safetensors" => SampleFormat::Safetensors,
            "" => SampleFormat::Folder,
            _ => {
                return Err(
                    "the output must end in .png, .npz or .safetensors, or be a folder: one \
                            that exists, or a name without an extension or with a / at its end",
                );
            }
        };
        Ok(Self { path, kind })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_npz(&self) -> bool {
        self.kind == SampleFormat::Npz
    }

    /// Returns true if many images are never held in memory together.
    pub(crate) fn is_written_in_parts(&self) -> bool {
        matches!(self.kind, SampleFormat::Npz | SampleFormat::Folder)
    }

    /// Refuses, before any work, an output that cannot be written.
    pub(crate) fn check(&self) -> Result<()> {
        match self.kind {
            SampleFormat::Folder => folder::check(&self.path),
            _ => Ok(atomic::check_target(&self.path)?),
        }
    }

    /// Writes samples, their labels, and their trajectory at `times` where they have one.
    pub(crate) fn write(
        &self,
        samples: &Samples,
        labels: Option<&[u32]>,
        times: &[f64],
    ) -> Result<()> {
        let (path, images) = (&self.path, &samples.images);
        let (n, c, h, w) = images.dims4()?;
        let frames = samples.trajectory.as_ref().map(|states| Frames { states });
        match self.kind {
            SampleFormat::Safetensors => {
                let tensors = tensors(samples, labels, times)?;
                checkpoint::safetensors::save(path, &tensors, &[])?;
            }
            SampleFormat::Npz => npz::write_images(path, &to_pixels(images)?, [n, h, w, c])?,
            SampleFormat::Grid => {
                let grid = grid_png(images)?;
                let animation = frames.map(|frames| frames.animation()).transpose()?;
                atomic::write(path, &grid)?;
                if let Some(animation) = animation {
                    atomic::write(&path.with_extension("trajectory.png"), &animation)?;
                }
            }
            SampleFormat::Folder => {
                let images = pictures(images, 0)?;
                let steps = frames.iter().flat_map(|frames| {
                    let frame = move |i| Ok((folder::frame(i), frames.draw(i)?.png()?));
                    (0..frames.count()).map(frame)
                });
                let animation =
                    frames.iter().map(|frames| Ok((folder::animation(), frames.animation()?)));
                folder::write(path, images.chain(steps).chain(animation))?;
            }
        }
        Ok(())
    }

    /// Writes samples that are on disk in parts, and their labels; the evaluations of the velocity per
    /// image, of all that this process has read. All processes make this call together: each writes its
    /// share of a folder's pictures, the first all else.
    pub(crate) fn write_parts(
        &self,
        parts: &SampleParts<'_>,
        labels: Option<&[u32]>,
    ) -> Result<usize> {
        let (path, n, mut nfe) = (&self.path, parts.n(), 0);
        match self.kind {
            SampleFormat::Folder => {
                for part in parts.shared() {
                    let (range, samples) = part?;
                    nfe = nfe.max(samples.nfe);
                    folder::add(path, pictures(&samples.images, range.start)?)?;
                }
                parts.wait()?;
                if parts.is_first() {
                    folder::remove_others(path, &(0..n).map(folder::image).collect())?;
                }
            }
            _ if !parts.is_first() => {}
            SampleFormat::Npz => {
                let [c, h, w] = parts.shape()?;
                let chunks = parts.all().map(|samples| {
                    let samples = samples?;
                    nfe = nfe.max(samples.nfe);
                    to_pixels(&samples.images)
                });
                npz::write_image_chunks(path, [n, h, w, c], chunks)?;
            }
            SampleFormat::Grid | SampleFormat::Safetensors => {
                let all = parts.all().collect::<fm_candle::Result<Vec<_>>>()?;
                nfe = all.iter().map(|samples| samples.nfe).max().unwrap_or(0);
                let images: Vec<&Tensor> = all.iter().map(|samples| &samples.images).collect();
                let images = Tensor::cat(&images, 0)?;
                let samples = Samples { images, trajectory: None, nfe, warning: None };
                self.write(&samples, labels, &[])?;
            }
        }
        Ok(nfe)
    }
}

/// The pictures of images, whose numbers begin at `first`, with their names.
fn pictures(
    images: &Tensor,
    first: usize,
) -> Result<impl Iterator<Item = Result<(PathBuf, Vec<u8>)>>> {
    let (_, c, h, w) = images.dims4()?;
    let pixels = to_pixels(images)?;
    let size = (h * w * c).max(1);
    Ok((0..pixels.len() / size).map(move |i| {
        let image = &pixels[i * size..(i + 1) * size];
        Ok((folder::image(first + i), grid::draw(image, [1, h, w, c], 1, 1)?.rgb().png()?))
    }))
}

impl fmt::Display for OutputFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())
    }
}

/// The tensors of a `.safetensors` output.
fn tensors(
    samples: &Samples,
    labels: Option<&[u32]>,
    times: &[f64],
) -> Result<Vec<(String, Tensor)>> {
    let device = samples.images.device();
    let mut tensors = vec![("samples".to_string(), samples.images.clone())];
    tensors.push(("nfe".into(), Tensor::new(&[i64::try_from(samples.nfe)?], device)?));
    if let Some(labels) = labels {
        tensors.push(("label".into(), label_tensor(labels)?));
    }
    if let Some(trajectory) = &samples.trajectory {
        tensors.push(("trajectory".into(), trajectory.clone()));
        tensors.push(("times".into(), Tensor::new(times, device)?));
    }
    Ok(tensors)
}

/// Labels as files hold them: `[n]`, i64.
pub(crate) fn label_tensor(labels: &[u32]) -> Result<Tensor> {
    let labels: Vec<i64> = labels.iter().map(|&label| label.into()).collect();
    Ok(Tensor::new(labels, &fm_candle::device::Device::Cpu)?)
}

/// The PNG of all images in a grid.
pub(crate) fn grid_png(images: &Tensor) -> Result<Vec<u8>> {
    square(images)?.png()
}

/// A grid of all images, as many rows as columns, in RGB.
fn square(images: &Tensor) -> Result<Picture> {
    let (n, c, h, w) = images.dims4()?;
    let columns = (1..=n).find(|k| k * k >= n).unwrap_or(1);
    Ok(grid::draw(&to_pixels(images)?, [n, h, w, c], columns, 2)?.rgb())
}

/// The pictures of a trajectory, `[times, n, c, h, w]`.
struct Frames<'a> {
    states: &'a Tensor,
}

impl Frames<'_> {
    fn count(&self) -> usize {
        self.times().min(FRAMES)
    }

    fn times(&self) -> usize {
        self.states.dims()[0]
    }

    /// The grid of the first images at the time of frame `i`.
    fn draw(&self, i: usize) -> Result<Picture> {
        let state = self.states.get(time_of(i, self.count(), self.times()))?;
        square(&state.narrow(0, 0, SHOWN.min(state.dim(0)?))?)
    }

    fn animation(&self) -> Result<Vec<u8>> {
        picture::animation(self.count(), |i| self.draw(i)).context("the animation")
    }
}

/// The time that frame `i` of `count` shows: the frames are spread evenly over all `times`, from
/// the first to the last.
fn time_of(i: usize, count: usize, times: usize) -> usize {
    let gaps = count.saturating_sub(1).max(1);
    (i * times.saturating_sub(1) + gaps / 2) / gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_go_by_their_names() {
        let kind = |path: &str| OutputFile::of(path.into()).map(|output| output.kind);
        assert_eq!(kind("a/b.PNG"), Ok(SampleFormat::Grid));
        assert_eq!(kind("b.npz"), Ok(SampleFormat::Npz));
        assert_eq!(kind("b.v2.safetensors"), Ok(SampleFormat::Safetensors));
        assert_eq!(kind("new"), Ok(SampleFormat::Folder));
        assert_eq!(kind("v0.5/"), Ok(SampleFormat::Folder));
        assert!(kind("b.jpg").is_err());
        let dir = tempfile::Builder::new().suffix(".png").tempdir().unwrap();
        assert_eq!(OutputFile::of(dir.path().into()).unwrap().kind, SampleFormat::Folder);
    }

    #[test]
    fn frames_are_spread_from_the_first_time_to_the_last() {
        let shown = |times: usize| -> Vec<usize> {
            let count = times.min(FRAMES);
            (0..count).map(|i| time_of(i, count, times)).collect()
        };
        assert_eq!(shown(1), [0]);
        assert_eq!(shown(3), [0, 1, 2]);
        assert_eq!(shown(50), (0..50).collect::<Vec<_>>());
        for times in [51, 99, 100, 1001] {
            let shown = shown(times);
            assert_eq!((shown.len(), shown[0], shown[49]), (50, 0, times - 1));
            assert!(shown.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
