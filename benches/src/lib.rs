//! Shared parts of the benches: seeded inputs, a packed file, and a short criterion configuration.
//!
//! | suite | what it times |
//! |---|---|
//! | `packing` | codes into bytes and back, codes and rows to weights, a whole file checked |
//! | `fitting` | every scheme on a group of weights |
//! | `noise` | the counter-based generator |
//! | `ops` | our convolution and group norm beside candle's own operations |
//! | `data` | a folder of JPEGs, decoded and resized |
//! | `cuda` | a GPU, with the feature `cuda`: packed weights made dense, convolutions, the small MNIST net |
//! | `unet` | the small MNIST net: velocity, dense and packed, and steps of training and tuning |
//!
//! `src/bin/pace.rs` times whole nets for `peers/cpu.py`, which sets them beside PyTorch, and
//! `src/bin/folder.rs` the reading of images for `peers/folder.py`; `src/bin/integers.rs` holds images of
//! integers against those of floats for `firmware.sh`, which measures the chips.
//!
//! Names read `what/key=value/impl=.../n=...`, so a filter picks what is wanted:
//!
//! ```text
//! cargo bench -p fmq-benches                              everything
//! cargo bench -p fmq-benches --bench ops -- conv2d        one suite, one operation
//! cargo bench -p fmq-benches --bench packing -- bits=4
//! cargo bench -p fmq-benches -- --test                    each bench once, untimed
//! ```

use core::time::Duration;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use criterion::Criterion;
use fm_candle::checkpoint::{FileWeights, Source};
use fm_candle::data::{ImageSet, Images};
use fm_candle::model::{StateDict, UNet, UNetConfig};
use fm_candle::ops::ConvArithmetic;
use fm_candle::quantize::{QuantizedNet, TensorPolicy, quantize_in_memory};
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{Method, SolverOptions, uniform_grid};
use fm_candle::train::{Loader, Trainer};
use fm_candle::tune::{CalibrationPoints, TuneConfig, Tuner};
use quant_core::bits::Bits;
use quant_core::noise::Stream;
use quant_core::quantize::{Granularity, QuantizeOptions};
use quant_core::scheme::Scheme;

/// The allocator of the program, so that tensors cost here what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The one seed of all inputs.
const SEED: u64 = 2024;
/// A domain that the library does not draw from.
const DOMAIN: u32 = 0xbe7c;

/// Seconds, not minutes, per suite; flags such as `--measurement-time` override it.
pub fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

/// A width of 1 to 8 bits.
///
/// # Panics
/// Outside of them.
pub const fn width(bits: u8) -> Bits {
    match Bits::new(bits) {
        Ok(bits) => bits,
        Err(_) => panic!("a width is 1 to 8 bits"),
    }
}

/// `n` standard normals; each `index` gives others.
pub fn normals(index: u64, n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Stream::new(SEED, DOMAIN).fill_normal(index, 0, &mut values);
    values
}

/// `n` normals of the size that trained weights have.
pub fn weights(n: usize) -> Vec<f32> {
    normals(0, n).into_iter().map(|w| 0.05 * w).collect()
}

/// `n` codes of `bits` bits.
pub fn codes(n: usize, bits: u8) -> Vec<u8> {
    let stream = Stream::new(SEED, DOMAIN);
    let byte = |element| stream.word(1, element).to_le_bytes()[3] >> (8 - bits);
    (0..).take(n).map(byte).collect()
}

/// A CPU tensor of standard normals; each `index` gives others.
///
/// # Errors
/// Those of candle.
pub fn tensor(index: u64, shape: &[usize]) -> candle_core::Result<Tensor> {
    Tensor::from_vec(normals(index, shape.iter().product()), shape, &Device::Cpu)
}

/// The configuration of the small MNIST net.
///
/// # Errors
/// None while the preset exists.
pub fn small_config() -> fm_candle::Result<UNetConfig> {
    Ok(UNetConfig::preset("mnist-small")?)
}

/// Form of a net's weights in memory, and arithmetic of their products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In f32.
    Dense,
    /// Packed at so many bits; the products in f32 or in integers.
    Packed(Bits, ConvArithmetic),
}

/// A net with irregular weights, ready to sample.
///
/// # Errors
/// A configuration that makes no net; those of the file system for a packed one.
pub fn net(config: &UNetConfig, form: Form) -> fm_candle::Result<UNet> {
    net_on(&Device::Cpu, DType::F32, config, form)
}

/// A net with irregular weights on a device, ready to sample, computing in `dtype`.
///
/// # Errors
/// Those of [`net`], and a device without room.
pub fn net_on(
    device: &Device,
    dtype: DType,
    config: &UNetConfig,
    form: Form,
) -> fm_candle::Result<UNet> {
    match form {
        Form::Dense => {
            let weights = StateDict::new(tensors(config)?, device);
            UNet::new(config, &mut weights.with_dtype(dtype))
        }
        Form::Packed(bits, arithmetic) => {
            let path = std::env::temp_dir().join(format!("fmq-bench-{}.fmq", std::process::id()));
            let io = |cause| fm_candle::Error::Io { path: path.clone(), cause };
            std::fs::write(&path, packed_file(config, bits)?).map_err(io)?;
            let weights = FileWeights::new(Source::open(&path, false)?, device, dtype);
            let net = UNet::new(config, &mut weights.with_arithmetic(arithmetic));
            std::fs::remove_file(&path).map_err(io)?;
            net
        }
    }
}

/// A packed file: a net's tensors, all quantized by equal mass.
///
/// # Errors
/// A configuration that makes no net.
pub fn packed_file(config: &UNetConfig, bits: Bits) -> fm_candle::Result<Vec<u8>> {
    let policy = TensorPolicy::Quantize(QuantizeOptions::new(Scheme::EqualMass, bits));
    Ok(quantize_in_memory(&tensors(config)?, Some(config), |_, _| policy)?.0)
}

/// The parameters of a net, in order, with irregular weights.
fn tensors(config: &UNetConfig) -> fm_candle::Result<Vec<(String, Tensor)>> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = weights(shape.iter().product());
        Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
    };
    UNet::shapes(config)?.into_iter().map(tensor).collect()
}

/// Steps of tuning without end, of `n` points each.
pub struct TuneSteps {
    tuner: Tuner,
    points: CalibrationPoints,
}

impl TuneSteps {
    /// Steps of a net with irregular weights at 2 bits, at points of 2 `n` trajectories.
    ///
    /// # Errors
    /// A configuration that makes no net.
    pub fn new(config: &UNetConfig, n: usize, device: &Device) -> fm_candle::Result<Self> {
        let tensors = tensors(config)?;
        let full = UNet::new(config, &mut StateDict::new(tensors.clone(), device))?;
        let sampler = BatchSampler {
            method: Method::Euler,
            grid: uniform_grid(0.25)?,
            options: SolverOptions::default(),
            cfg_scale: 0.0,
            batch_size: n,
        };
        let side = config.image_size.unwrap_or(0);
        let shape = [config.in_channels, side, side];
        let points = CalibrationPoints::draw(&full, &sampler, shape, 2 * n, SEED, device, |_| {})?;
        let options = QuantizeOptions {
            granularity: Granularity::Auto,
            ..QuantizeOptions::new(Scheme::LloydMax, width(2))
        };
        let start =
            QuantizedNet::nearest(config, &tensors, Scheme::LloydMax.name(), |_, shape| {
                if shape.len() < 2 { TensorPolicy::F16 } else { TensorPolicy::Quantize(options) }
            })?;
        let settings = TuneConfig { batch_size: n, ..TuneConfig::default() };
        Ok(Self { tuner: Tuner::new(&start, &tensors, settings, device)?, points })
    }

    /// One step; its error.
    ///
    /// # Errors
    /// An error that is not finite.
    pub fn step(&mut self) -> fm_candle::Result<f64> {
        self.tuner.step(&self.points)
    }
}

/// Training steps without end.
pub struct Steps {
    trainer: Trainer,
    images: Arc<dyn ImageSet>,
    loader: Loader,
}

impl Steps {
    /// Steps of this trainer over these images.
    ///
    /// # Errors
    /// No thread to read the images.
    pub fn new(trainer: Trainer, images: Images) -> fm_candle::Result<Self> {
        let images: Arc<dyn ImageSet> = Arc::new(images);
        let loader = trainer.loader(&images)?;
        Ok(Self { trainer, images, loader })
    }

    /// One step, in the next epoch where this one has ended; its loss.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub fn step(&mut self) -> fm_candle::Result<f64> {
        loop {
            if let Some(loss) = self.trainer.next_batch(&mut self.loader)? {
                return Ok(loss);
            }
            self.trainer.end_epoch();
            self.loader = self.trainer.loader(&self.images)?;
        }
    }
}
