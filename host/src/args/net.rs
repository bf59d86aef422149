//! From a file to a net: the CHECKPOINT argument and its options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use fm_candle::DType;
use fm_candle::checkpoint::{FileWeights, Source, identify, order};
use fm_candle::data::Dataset;
use fm_candle::device::{self, Device};
use fm_candle::fingerprint;
use fm_candle::model::{StateDict, UNet, UNetConfig, config};
use fm_candle::ops::ConvArithmetic;

use crate::args::weights::{Scope, WeightsArgs, config_named, say_taken};
use crate::progress::Reporter;

/// A file with weights, and how to read it.
#[derive(clap::Args)]
pub(crate) struct NetArgs {
    /// Checkpoint: .pth, .safetensors, packed .fmq, or a folder with model.safetensors
    #[arg(value_name = "CKPT")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Side of the images, in place of what the net's configuration says
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16384))]
    image_size: Option<u16>,
    /// What the net computes in; tf32, f16 and bf16 need a GPU, int8 (products of the inner layers) a CPU
    #[arg(long, value_enum, default_value_t = NetPrecision::F32)]
    pub(crate) dtype: NetPrecision,
}

/// What a net computes in; norms and softmax stay in f32.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetPrecision {
    F32,
    Tf32,
    F16,
    Bf16,
    Int8,
}

impl NetPrecision {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    /// The type of the net's tensors on a device, which is made to compute so.
    pub(crate) fn on(self, device: &Device) -> Result<DType> {
        let name = self.name();
        Ok(match self {
            Self::Int8 if !device.is_cpu() => {
                bail!(
                    "--dtype int8: a GPU computes in f32, tf32, f16 and bf16; int8 needs --device cpu"
                )
            }
            Self::Tf32 | Self::F16 | Self::Bf16 if device.is_cpu() => bail!(
                "--dtype {name}: the CPU computes in f32 and int8; all others need --device cuda"
            ),
            Self::F32 | Self::Int8 => DType::F32,
            Self::Tf32 => {
                device::allow_tf32();
                DType::F32
            }
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        })
    }
}

impl NetArgs {
    /// A checkpoint that says itself which net it is of.
    pub(crate) fn plain(path: &Path) -> Self {
        Self::new(path, WeightsArgs::default(), None)
    }

    /// A checkpoint, and how to read it.
    pub(crate) fn new(path: &Path, weights: WeightsArgs, image_size: Option<u16>) -> Self {
        Self { path: path.to_path_buf(), weights, image_size, dtype: NetPrecision::F32 }
    }

    /// These arguments with another type to compute in.
    pub(crate) fn with_dtype(self, dtype: NetPrecision) -> Self {
        Self { dtype, ..self }
    }

    /// The file's name without its folder and extension, or the name of a folder, for people.
    pub(crate) fn name(&self) -> String {
        match self.path.canonicalize() {
            Ok(path) if path.is_dir() => path.file_name().map(Into::into),
            _ => self.path.file_stem().map(Into::into),
        }
        .map_or_else(String::new, |name: OsString| name.to_string_lossy().into_owned())
    }

    /// A name of the weights: that of the file's contents, and which of its nets is taken.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let WeightsArgs { raw_weights, checkpoint_key, .. } = &self.weights;
        let raw = if *raw_weights { ", raw weights" } else { "" };
        let key = checkpoint_key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
        let file = Source::open(&self.path, true)?;
        Ok(format!("{}{raw}{key}", fingerprint::of_file(file.path())?))
    }

    /// The file, and the configuration of its net.
    pub(crate) fn open(&self, progress: Reporter) -> Result<(Source, UNetConfig)> {
        let source = self.weights.open(&self.path, Scope::Net)?;
        let config = self.config(&source);
        let mut config = config.with_context(|| format!("`{}`", self.path.display()))?;
        if let Some(side) = self.image_size.map(usize::from) {
            let own = config.image_size.replace(side).filter(|_| source.net().is_some());
            if let Some(own) = own.filter(|&own| own != side) {
                progress.line(&format!(
                    "warning: --image-size {side}: the net of `{}` is for images of side {own}",
                    self.path.display()
                ));
            }
        }
        say_taken(&source, &self.path, progress);
        self.weights.say_unused(&source, &self.path, progress);
        Ok((source, config))
    }

    /// The net whose parameters the file holds.
    fn config(&self, source: &Source) -> Result<UNetConfig> {
        let Some(config) = stated(source, self.weights.arch.as_deref())? else {
            return Ok(identify(source.tensors())?);
        };
        order(&config, source.tensors())?;
        Ok(config)
    }

    /// The net, ready to evaluate.
    pub(crate) fn build(&self, device: &Device, progress: Reporter) -> Result<UNet> {
        let (source, config) = self.open(progress)?;
        let dtype = self.dtype.on(device)?;
        let arithmetic = match self.dtype {
            NetPrecision::Int8 => ConvArithmetic::Integer,
            _ => ConvArithmetic::Float,
        };
        let build = || -> fm_candle::Result<UNet> {
            let weights = FileWeights::new(source, device, dtype);
            let mut weights = weights.with_arithmetic(arithmetic);
            let net = UNet::new(&config, &mut weights)?;
            weights.finish()?;
            Ok(net)
        };
        build().with_context(|| format!("`{}`", self.path.display()))
    }
}

/// The net that the file or `--arch` names, if one does.
pub(crate) fn stated(source: &Source, arch: Option<&str>) -> Result<Option<UNetConfig>> {
    match (source.net(), arch) {
        (Some(_), Some(arch)) => bail!("the file says its own net; leave out --arch {arch}"),
        (Some(json), None) => Ok(Some(config::from_json(json)?)),
        (None, Some(arch)) => config_named(arch).map(Some),
        (None, None) => Ok(None),
    }
}

/// Channels, height and width of the net's images.
pub(crate) fn image_shape(config: &UNetConfig) -> Result<(usize, usize, usize)> {
    let side = config.image_size.context(
        "the net's configuration has no image_size; give --image-size, or the noise with --x0",
    )?;
    Ok((config.out_channels, side, side))
}

/// Refuses images of a data set, of `shape` (channels, height, width), that are not those of the net in
/// the file at `path`.
pub(crate) fn check_images(
    path: &Path,
    config: &UNetConfig,
    data: Dataset,
    shape: [usize; 3],
) -> Result<()> {
    let drawn: [usize; 3] = image_shape(config)?.into();
    ensure!(
        drawn == shape,
        "--data {data}: its images are {shape:?} (channels, height, width), those of `{}` {drawn:?}",
        path.display()
    );
    Ok(())
}

/// The net of a complete state dict.
pub(crate) fn build(
    config: &UNetConfig,
    tensors: Vec<(String, fm_candle::Tensor)>,
    device: &Device,
    dtype: DType,
) -> Result<UNet> {
    let mut weights = StateDict::new(tensors, device).with_dtype(dtype);
    let net = UNet::new(config, &mut weights)?;
    weights.finish()?;
    Ok(net)
}
