//! `fmq fid`: the Fréchet distance between two sets of images.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fm_candle::checkpoint;
use fm_candle::data::{Dataset, Images, Split};
use fm_candle::fid::{self, Features, Statistics, lenet::LeNet, npz};
use rayon::prelude::*;
use serde_json::json;

use crate::cli::Common;
use crate::cmd::sample;
use crate::embedded;

/// Fréchet distance between two sets of images
#[derive(clap::Args)]
#[command(after_help = "A, B: a folder of PNG images, .npz of images (arr_0) or statistics (mu, \
    sigma), .safetensors with `features` or `samples`, a data set (mnist:train, mnist:test, ...), \
    or a checkpoint to sample -n images from")]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent")]
pub(crate) struct Args {
    /// One set
    #[arg(value_name = "A")]
    a: String,
    /// The other set; not needed where A's statistics are only saved
    #[arg(value_name = "B", required_unless_present = "save_stats")]
    b: Option<String>,
    /// Use the first N images of each set; statistics, mnist:train's built-in ones too, stay whole
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Folder of the data sets
    #[arg(long = "data-path", alias = "data_path", value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// What is compared: lenet, a small classifier of digits
    #[arg(long, default_value = "lenet", value_name = "NAME")]
    features: String,
    /// Weights of the features' net, as `fmq train-lenet` writes them [default: built in]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How images are resized for inception; lenet takes 28 x 28 as they are
    #[arg(long, value_name = "HOW", value_parser = ["torchmetrics", "tf1", "pytorch-fid"])]
    resize: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write A's statistics
    #[arg(long = "save-stats", alias = "save_stats", value_name = "OUT.npz")]
    save_stats: Option<PathBuf>,
    /// Kernel distance (not in this version)
    #[arg(long, hide = true)]
    kid: bool,
    /// Inception score (not in this version)
    #[arg(long, hide = true)]
    is: bool,
    /// Precision, recall, density, coverage (not in this version)
    #[arg(long, hide = true)]
    prdc: bool,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    let features: Features = args.features.parse().context("--features")?;
    refuse_what_is_missing(args)?;
    let judge = Judge { args, common, features };
    let a = judge.side(&args.a)?;
    if let Some(path) = &args.save_stats {
        npz::write_statistics(path, &a.statistics)?;
        common.progress().line(&format!("wrote `{}`", path.display()));
    }
    let Some(b) = &args.b else {
        if args.json {
            let n = a.statistics.n;
            let result = json!({ "fid": null, "n_a": n, "n_b": null, "features": a.name(&judge) });
            writeln!(out, "{result}")?;
        }
        return Ok(());
    };
    let b = judge.side(b)?;
    let (d_a, d_b) = (a.statistics.dim(), b.statistics.dim());
    ensure!(
        d_a == d_b,
        "A (`{}`) has {d_a} features, but B (`{}`) has {d_b}; both need the same ones",
        args.a,
        args.b.as_deref().unwrap_or_default()
    );
    let distance = fid::fid(&a.statistics, &b.statistics)?;
    let judged = if a.judged { &a } else { &b };
    if args.json {
        let result = json!({
            "fid": distance,
            "n_a": a.statistics.n,
            "n_b": b.statistics.n,
            "features": judged.name(&judge),
        });
        writeln!(out, "{result}")?;
    } else {
        let count = |side: &Side| match side.statistics.n {
            Some(n) => format!("{n} images"),
            None => "statistics".into(),
        };
        let title = judged.title(&judge);
        writeln!(out, "{title} = {distance:.4}  (A: {}, B: {})", count(&a), count(&b))?;
    }
    Ok(())
}

/// Refuses options whose net is not in this version.
fn refuse_what_is_missing(args: &Args) -> Result<()> {
    let measures = [("--kid", args.kid), ("--is", args.is), ("--prdc", args.prdc)];
    if let Some((flag, _)) = measures.iter().find(|(_, given)| *given) {
        bail!("{flag} is not in this version, which has the Fréchet distance on lenet's features");
    }
    if let Some(how) = &args.resize {
        bail!("--resize {how} is about inception's features, but this version has lenet's alone");
    }
    Ok(())
}

/// One set, as its statistics.
struct Side {
    statistics: Statistics,
    /// Whether our net computed the features; else they came with the file.
    judged: bool,
}

impl Side {
    fn given(statistics: Statistics) -> Self {
        Self { statistics, judged: false }
    }

    fn name(&self, judge: &Judge<'_>) -> &'static str {
        if self.judged { judge.features.name() } else { "given" }
    }

    fn title(&self, judge: &Judge<'_>) -> String {
        if self.judged {
            judge.features.title().into()
        } else {
            format!("FID ({} given features)", self.statistics.dim())
        }
    }
}

/// Turns what A or B names into statistics.
struct Judge<'a> {
    args: &'a Args,
    common: &'a Common,
    features: Features,
}

impl Judge<'_> {
    /// The statistics of the set that `name` names; its contents tell what a file is.
    fn side(&self, name: &str) -> Result<Side> {
        self.read(name).map_err(|error| {
            let named = format!("`{name}`");
            // Errors about a file begin with its name already.
            if error.to_string().starts_with(&named) { error } else { error.context(named) }
        })
    }

    fn read(&self, name: &str) -> Result<Side> {
        if let Some((dataset, split)) = data_set(name) {
            return self.data_set(dataset, split);
        }
        let path = Path::new(name);
        if path.is_dir() {
            return self.judge(folder(path, self.args.n)?);
        }
        match content(path)? {
            Content::Npz => match npz::read(path)? {
                npz::Content::Statistics(statistics) => Ok(Side::given(statistics)),
                npz::Content::Images(images) => self.judge(images),
            },
            Content::Safetensors => self.safetensors(path),
            Content::Other => self.sampled(path),
        }
    }

    /// The first images of half a data set, or what the binary knows of it.
    fn data_set(&self, dataset: Dataset, split: Split) -> Result<Side> {
        let args = self.args;
        if let Some(dir) = &args.data_path {
            return self.judge(dataset.load(dir, split)?);
        }
        match (dataset, split, args.n) {
            // A checkpoint as the other set needs -n, so -n must not ask for the images here.
            (Dataset::Mnist, Split::Train, _) if args.weights.is_none() => {
                Ok(Side { statistics: embedded::lenet_mnist_train()?, judged: true })
            }
            (Dataset::Mnist, Split::Test, Some(n)) if n <= 512 => {
                self.judge(embedded::mnist_test_images()?)
            }
            _ => bail!(
                "needs --data-path DIR; built in are the statistics of mnist:train on the built-in \
                 lenet, and the first 512 images of mnist:test (-n 512 or less)"
            ),
        }
    }

    fn safetensors(&self, path: &Path) -> Result<Side> {
        let tensors = checkpoint::load(path, true)?.tensors;
        let find = |wanted| tensors.iter().find(|(name, _)| name == wanted).map(|(_, t)| t);
        if let Some(features) = find("features") {
            let (mut rows, d) = fid::rows(features)?;
            rows.truncate(self.args.n.unwrap_or(usize::MAX).saturating_mul(d));
            return Ok(Side::given(Statistics::of_rows(&rows, d)?));
        }
        match find("samples") {
            Some(samples) => self.judge(sample::images(samples)?),
            None => self.sampled(path),
        }
    }

    /// Images sampled from a checkpoint.
    fn sampled(&self, path: &Path) -> Result<Side> {
        let Some(n) = self.args.n else {
            bail!("-n N is needed to sample from a checkpoint");
        };
        ensure!(n >= 2, "-n {n}: at least 2 images are needed");
        self.judge(sample::images(&sample::draw(path, n, self.common)?)?)
    }

    /// The statistics of the net's features on the images, or the first `-n` of them.
    fn judge(&self, mut images: Images) -> Result<Side> {
        if let Some(n) = self.args.n.filter(|&n| n < images.n) {
            images.pixels.truncate(n * images.image_len());
            images.labels.truncate(n);
            images.n = n;
        }
        ensure!(images.n >= 2, "at least 2 images are needed, but there is {}", images.n);
        let net = match (self.features, &self.args.weights) {
            (Features::LeNet, None) => embedded::lenet()?,
            (Features::LeNet, Some(path)) => {
                let device = self.common.device()?;
                checkpoint::load(path, true)
                    .and_then(|file| LeNet::load(file.tensors, &device))
                    .with_context(|| format!("--weights `{}`", path.display()))?
            }
        };
        Ok(Side { statistics: net.statistics(&images)?, judged: true })
    }
}

/// The data set that a name such as `mnist:test` means.
fn data_set(name: &str) -> Option<(Dataset, Split)> {
    let (dataset, split) = name.split_once(':')?;
    Some((dataset.parse().ok()?, split.parse().ok()?))
}

/// What a file is, told by its contents.
enum Content {
    Npz,
    Safetensors,
    /// A checkpoint, or nothing that we know; who reads it says which.
    Other,
}

fn content(path: &Path) -> Result<Content> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(9).read_to_end(&mut head))
        .context("neither a readable file or folder nor a data set such as mnist:test")?;
    ensure!(!head.starts_with(b"\x89PNG"), "is one image; give the folder of all of them");
    Ok(if head.starts_with(b"PK") && npz::is_npz(path) {
        Content::Npz
    } else if head.get(8) == Some(&b'{') {
        Content::Safetensors
    } else {
        Content::Other
    })
}

/// The PNG images of a folder, by name, or the first `n` of them.
fn folder(dir: &Path, n: Option<usize>) -> Result<Images> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.truncate(n.unwrap_or(usize::MAX));
    let Some(first) = paths.first() else { bail!("the folder holds no PNG images") };
    let pictures: Vec<Picture> = paths
        .par_iter()
        .map(|path| picture(path).with_context(|| format!("`{}`", path.display())))
        .collect::<Result<_>>()?;
    let [height, width, channels] = pictures[0].shape;
    let mut pixels = Vec::new();
    for (path, picture) in paths.iter().zip(&pictures) {
        let [h, w, c] = picture.shape;
        ensure!(
            [h, w, c] == [height, width, channels],
            "`{}` is {h} x {w} with {c} channel(s), but `{}` is {height} x {width} with {channels}",
            path.display(),
            first.display()
        );
        pixels.extend(fid::planar(&picture.pixels, channels, height * width));
    }
    Ok(Images { n: paths.len(), channels, height, width, pixels, labels: Vec::new() })
}

/// A decoded image.
struct Picture {
    /// Height, width, channels.
    shape: [usize; 3],
    /// `[h, w, c]`.
    pixels: Vec<u8>,
}

/// Reads a grey or RGB image of 8 bits; palettes and fewer bits are expanded.
fn picture(path: &Path) -> Result<Picture> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info()?;
    let channels = match reader.output_color_type() {
        (png::ColorType::Grayscale, png::BitDepth::Eight) => 1,
        (png::ColorType::Rgb, png::BitDepth::Eight) => 3,
        (color, depth) => {
            bail!("is {color:?} with {} bits; grey or RGB with 8 is needed", depth as u8)
        }
    };
    let size = reader.output_buffer_size().context("is too large")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    let shape = [frame.height as usize, frame.width as usize, channels];
    ensure!(
        shape.iter().product::<usize>() == pixels.len(),
        "holds {} bytes for {shape:?}",
        pixels.len()
    );
    Ok(Picture { shape, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_png(path: &Path, color: png::ColorType, width: u32, pixels: &[u8]) {
        let mut bytes = Vec::new();
        let per_row = width * u32::try_from(color.samples()).unwrap();
        let height = u32::try_from(pixels.len()).unwrap() / per_row;
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn folders_are_read_by_name_into_planes() {
        let dir = tempfile::tempdir().unwrap();
        let rgb = png::ColorType::Rgb;
        write_png(&dir.path().join("b.png"), rgb, 2, &[7, 8, 9, 10, 11, 12]);
        write_png(&dir.path().join("a.PNG"), rgb, 2, &[1, 2, 3, 4, 5, 6]);
        fs::write(dir.path().join("notes.txt"), "no image").unwrap();
        let images = folder(dir.path(), None).unwrap();
        assert_eq!((images.n, images.channels, images.height, images.width), (2, 3, 1, 2));
        assert_eq!(images.pixels, [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
        assert_eq!(folder(dir.path(), Some(1)).unwrap().n, 1);
    }

    #[test]
    fn folders_name_the_image_at_fault() {
        let dir = tempfile::tempdir().unwrap();
        let complaint = || format!("{:#}", folder(dir.path(), None).unwrap_err());
        assert!(complaint().contains("no PNG images"));
        write_png(&dir.path().join("0.png"), png::ColorType::Grayscale, 2, &[1, 2, 3, 4]);
        write_png(&dir.path().join("1.png"), png::ColorType::Grayscale, 1, &[1, 2]);
        assert!(complaint().contains("1.png` is 2 x 1 with 1 channel(s)"), "{}", complaint());
        write_png(&dir.path().join("1.png"), png::ColorType::Rgba, 1, &[0; 4]);
        assert!(complaint().contains("1.png`: is Rgba with 8 bits"), "{}", complaint());
        fs::write(dir.path().join("1.png"), "no image").unwrap();
        assert!(complaint().contains("1.png`"), "{}", complaint());
    }

    #[test]
    fn data_sets_go_by_their_names() {
        assert_eq!(data_set("mnist:test"), Some((Dataset::Mnist, Split::Test)));
        assert_eq!(data_set("mnist"), None);
        assert_eq!(data_set("mnist:half"), None);
        assert_eq!(data_set("c:\\images"), None);
    }
}
