//! A small classifier of 28 x 28 grey images whose inner features compare sets of digits.
//!
//! ```text
//! x [n, 1, 28, 28]  conv 5x5, padding 2  [12, 28, 28]  relu, 2x2 average  [12, 14, 14]
//!                   conv 5x5             [24, 10, 10]  relu, 2x2 average  [24, 5, 5]
//!                   linear               [120]         silu
//!                   linear               [84]          <- the features; silu
//!                   linear               [10]          <- the logits
//! ```
//! Pixels enter as `pixel / 255`, in `[0, 1]`. Of three channels the first is taken: grey images
//! that some tools store as RGB. The features are those before their silu, where a Gaussian fits
//! them better. The linear layers have silu because half of 120 relus die in training, which leaves
//! the 84 features on fewer dimensions.
//!
//! After Y. `LeCun` et al., "Gradient-based learning applied to document recognition", 1998
//! (LeNet-5), with relu and silu for tanh and twice the channels in the convolutions.

use core::ops::Range;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use super::Statistics;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::model::{Init, Initial, Stored, Weights};
use crate::ops::{conv2d, downsample2};
use crate::random::Domain;
use crate::train::{AdamW, AdamWConfig};

/// Number of features.
pub const DIM: usize = 84;
/// Number of classes.
pub const CLASSES: usize = 10;
/// Rows and columns of an image.
pub const SIDE: usize = 28;

/// Images evaluated at once: enough for the GEMM, few enough for the caches.
const BATCH: usize = 64;
/// Images of a shard in training; shards run side by side.
const SHARD: usize = 16;

/// A convolution or linear layer.
struct Layer {
    weight: Tensor,
    bias: Tensor,
}

impl Layer {
    fn new(weights: &mut dyn Weights, name: &str, shape: &[usize]) -> Result<Self> {
        let init = Init::Uniform { fan_in: shape[1..].iter().product() };
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), shape, init)?,
            bias: weights.take(&format!("{name}.bias"), &shape[..1], init)?,
        })
    }

    fn conv(&self, x: &Tensor, padding: usize) -> Result<Tensor> {
        let y = conv2d(x, &self.weight, &self.bias, 1, padding)?.relu()?;
        Ok(downsample2(&y)?)
    }

    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// The classifier; see the module for its layers.
pub struct LeNet {
    conv1: Layer,
    conv2: Layer,
    fc1: Layer,
    fc2: Layer,
    fc3: Layer,
    device: Device,
}

impl LeNet {
    /// The net with parameters from `weights`, which live on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing or has another shape.
    pub fn new(weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        Ok(Self {
            conv1: Layer::new(weights, "conv1", &[12, 1, 5, 5])?,
            conv2: Layer::new(weights, "conv2", &[24, 12, 5, 5])?,
            fc1: Layer::new(weights, "fc1", &[120, 600])?,
            fc2: Layer::new(weights, "fc2", &[DIM, 120])?,
            fc3: Layer::new(weights, "fc3", &[CLASSES, DIM])?,
            device: device.clone(),
        })
    }

    /// The net of a state dict, to be evaluated on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a parameter that is missing, misshapen or unknown.
    pub fn load(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: &Device,
    ) -> Result<Self> {
        let mut stored = Stored::new(tensors, device);
        let net = Self::new(&mut stored, device)?;
        stored.finish()?;
        Ok(net)
    }

    /// The net of a safetensors file in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] when the bytes are no safetensors file; those of [`LeNet::load`].
    pub fn decode(bytes: &[u8], device: &Device) -> Result<Self> {
        let tensors: HashMap<String, Tensor> =
            candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        Self::load(tensors, device)
    }

    /// The features of images.
    ///
    /// # Shapes: `x: [n, 1, 28, 28]` in `[0, 1]`, result `[n, 84]`
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for another shape.
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 4 || x.dims()[1..] != [1, SIDE, SIDE] {
            let dims = x.dims();
            return Err(Error::tensor("x", format!("shape {dims:?} is not [n, 1, 28, 28]")));
        }
        let x = self.conv1.conv(x, 2)?;
        let x = self.conv2.conv(&x, 0)?;
        let x = self.fc1.linear(&x.flatten_from(1)?)?.silu()?;
        self.fc2.linear(&x)
    }

    /// The unnormalized log-probabilities of the ten classes.
    ///
    /// # Shapes: `x: [n, 1, 28, 28]` in `[0, 1]`, result `[n, 10]`
    ///
    /// # Errors
    ///
    /// As [`LeNet::features`].
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.fc3.linear(&self.features(x)?.silu()?)
    }

    /// The features of 8-bit images, `[n, 84]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for images that are not 28 x 28 with 1 or 3 channels.
    pub fn features_of(&self, images: &Images) -> Result<Vec<f32>> {
        self.rows_of(images, Self::features)
    }

    /// The statistics of the features of 8-bit images.
    ///
    /// # Errors
    ///
    /// As [`LeNet::features_of`]; [`Error::Config`] with fewer than two images.
    pub fn statistics(&self, images: &Images) -> Result<Statistics> {
        Statistics::of_rows(&self.features_of(images)?, DIM)
    }

    /// The part of the images, in `[0, 1]`, whose label gets the greatest logit.
    ///
    /// # Errors
    ///
    /// As [`LeNet::features_of`]; [`Error::Config`] without images or labels.
    pub fn accuracy(&self, images: &Images) -> Result<f64> {
        if images.n == 0 || images.labels.len() != images.n {
            return Err(Error::Config("accuracy needs labelled images".into()));
        }
        let logits = self.rows_of(images, Self::logits)?;
        let right = |(row, &label): (&[f32], &u8)| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.is_some_and(|(class, _)| class == usize::from(label))
        };
        let hits = logits.chunks_exact(CLASSES).zip(&images.labels).filter(|&x| right(x)).count();
        Ok(ratio(hits, images.n))
    }

    /// What `f` makes of the images, batch by batch, in their order.
    fn rows_of(
        &self,
        images: &Images,
        f: impl Fn(&Self, &Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Vec<f32>> {
        check(images)?;
        let batches: Vec<Vec<f32>> = (0..images.n.div_ceil(BATCH))
            .into_par_iter()
            .map(|batch| {
                let range = batch * BATCH..(batch * BATCH + BATCH).min(images.n);
                let rows = f(self, &input(images, range, &self.device)?)?;
                Ok(rows.flatten_all()?.to_vec1()?)
            })
            .collect::<Result<_>>()?;
        Ok(batches.concat())
    }
}

#[expect(clippy::cast_precision_loss, reason = "image counts stay far below 2^53")]
fn ratio(a: usize, b: usize) -> f64 {
    a as f64 / b as f64
}

/// Refuses images that the net cannot take.
fn check(images: &Images) -> Result<()> {
    let Images { channels, height, width, .. } = *images;
    if (height, width) != (SIDE, SIDE) || !matches!(channels, 1 | 3) {
        return Err(Error::Config(format!(
            "LeNet takes images of 28 x 28 with 1 or 3 channels, not {height} x {width} with \
             {channels}"
        )));
    }
    Ok(())
}

/// The first channel of some images as the net takes them.
fn input(images: &Images, range: Range<usize>, device: &Device) -> Result<Tensor> {
    let n = range.len();
    let pixels = range.flat_map(|i| &images.image(i)[..SIDE * SIDE]);
    let values: Vec<f32> = pixels.map(|&pixel| f32::from(pixel) / 255.0).collect();
    Ok(Tensor::from_vec(values, (n, 1, SIDE, SIDE), device)?)
}

/// Settings of [`train`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainConfig {
    /// Passes over the images.
    pub epochs: u64,
    /// Images per update.
    pub batch_size: usize,
    /// Learning rate at the start; it falls linearly to 0.
    pub lr: f64,
    /// Largest shift of an image in pixels, up, down, left and right; 0 shifts none.
    pub shift: u8,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { epochs: 10, batch_size: 64, lr: 2e-3, shift: 2, seed: 0 }
    }
}

/// Trains a fresh net to tell the classes of `images` apart; returns its weights in state-dict
/// order.
///
/// The loss is the cross-entropy, the optimizer [`AdamW`] with decays 0.9 and 0.999. `after_epoch` is
/// given the number of finished epochs, the mean loss of the last one, and the net.
///
/// # Errors
///
/// [`Error::Config`] for images or settings that cannot train, or a loss that is not finite; those
/// of `after_epoch`.
pub fn train(
    images: &Images,
    config: &TrainConfig,
    device: &Device,
    mut after_epoch: impl FnMut(u64, f64, &LeNet) -> Result<()>,
) -> Result<Vec<(String, Tensor)>> {
    check(images)?;
    if config.batch_size == 0 || images.n < config.batch_size {
        let (n, batch) = (images.n, config.batch_size);
        return Err(Error::Config(format!("{n} images cannot fill batches of {batch}")));
    }
    if images.labels.len() != images.n || images.labels.iter().any(|&l| l >= 10) {
        return Err(Error::Config("LeNet needs a label from 0 to 9 for every image".into()));
    }
    let mut initial = Initial::new(config.seed, device);
    let net = LeNet::new(&mut initial, device)?;
    let vars = initial.vars;
    let adam = AdamWConfig { betas: (0.9, 0.999), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(adam, &vars)?;
    let batches = images.n / config.batch_size;
    for epoch in 0..config.epochs {
        let mut order: Vec<u32> = (0..).take(images.n).collect();
        Domain::Shuffle.stream(config.seed).shuffle(epoch, &mut order);
        let mut sum = 0.0;
        for (batch, indices) in order.chunks_exact(config.batch_size).enumerate() {
            let (loss, grads) = gradients(&net, &vars, images, indices, epoch, config, device)?;
            if !loss.is_finite() {
                return Err(Error::Config(format!("the loss is {loss} in epoch {epoch}")));
            }
            sum += loss;
            // Epochs and batches done, in units of epochs.
            let done = ratio(batch, batches) + f64::from(u32::try_from(epoch).unwrap_or(u32::MAX));
            let left = 1.0 - done / f64::from(u32::try_from(config.epochs).unwrap_or(u32::MAX));
            optimizer.step(&vars, &grads, config.lr * left)?;
        }
        after_epoch(epoch + 1, sum * ratio(1, batches), &net)?;
    }
    vars.into_iter().map(|(name, var)| Ok((name, var.as_tensor().detach().copy()?))).collect()
}

/// Loss and gradients of one batch, cut into shards with a graph each.
fn gradients(
    net: &LeNet,
    vars: &[(String, Var)],
    images: &Images,
    indices: &[u32],
    epoch: u64,
    config: &TrainConfig,
    device: &Device,
) -> Result<(f64, Vec<Option<Tensor>>)> {
    let shards: Vec<&[u32]> = indices.chunks(SHARD).collect();
    let parts: Vec<(f64, GradStore)> = shards
        .into_par_iter()
        .map(|shard| {
            let (x, targets) = draw(images, shard, epoch, config, device)?;
            let part = ratio(shard.len(), indices.len());
            let loss = (cross_entropy(&net.logits(&x)?, &targets)? * part)?;
            Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
        })
        .collect::<Result<_>>()?;
    let mut value = 0.0;
    let mut sums: Vec<Option<Tensor>> = vec![None; vars.len()];
    for (part, mut grads) in parts {
        value += part;
        for ((_, var), sum) in vars.iter().zip(&mut sums) {
            *sum = match (sum.take(), grads.remove(var)) {
                (Some(sum), Some(grad)) => Some((sum + grad)?),
                (sum, grad) => sum.or(grad),
            };
        }
    }
    Ok((value, sums))
}

/// Shifted images `[n, 1, 28, 28]` and their classes as rows of `[n, 10]` with a single 1.
fn draw(
    images: &Images,
    indices: &[u32],
    epoch: u64,
    config: &TrainConfig,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let n = indices.len();
    // Digits are never flipped; their shifts take the place of the flips.
    let stream = Domain::Flip.stream(config.seed);
    let reach = usize::from(config.shift);
    let step = |index: u32, axis: u32| {
        let below = 2 * u32::from(config.shift) + 1;
        stream.below(epoch, index.wrapping_mul(2) + axis, below) as usize
    };
    let (mut values, mut targets) = (vec![0_f32; n * SIDE * SIDE], vec![0_f32; n * CLASSES]);
    let outputs = values.chunks_exact_mut(SIDE * SIDE).zip(targets.chunks_exact_mut(CLASSES));
    for ((x, target), &index) in outputs.zip(indices) {
        let (dy, dx) = (step(index, 0), step(index, 1));
        let image = images.image(index as usize);
        for (row, line) in x.chunks_exact_mut(SIDE).enumerate() {
            for (column, value) in line.iter_mut().enumerate() {
                let source = (row + dy).checked_sub(reach).zip((column + dx).checked_sub(reach));
                if let Some((y, x)) = source.filter(|&(y, x)| y < SIDE && x < SIDE) {
                    *value = f32::from(image[y * SIDE + x]) / 255.0;
                }
            }
        }
        target[usize::from(images.labels[index as usize])] = 1.0;
    }
    let x = Tensor::from_vec(values, (n, 1, SIDE, SIDE), device)?;
    Ok((x, Tensor::from_vec(targets, (n, CLASSES), device)?))
}

/// Mean over the rows of `log sum exp(z) - z[class]`, from operations whose gradients are right.
///
/// # Shapes: `logits`, `targets`: `[n, 10]`
fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let z = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_sum = z.exp()?.sum(1)?.log()?;
    let chosen = (z * targets)?.sum(1)?;
    Ok((log_sum - chosen)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` images of two kinds: a bright upper or a bright lower half, with a pattern.
    fn halves(n: usize, channels: usize) -> Images {
        let mut images = Images {
            n,
            channels,
            height: SIDE,
            width: SIDE,
            pixels: Vec::new(),
            labels: Vec::new(),
        };
        for i in 0..n {
            let lower = i % 2;
            for at in 0..channels * SIDE * SIDE {
                let bright = (at / SIDE % SIDE) / 14 == lower;
                let pattern = u8::try_from((at * 7 + i) % 50).unwrap();
                images.pixels.push(if bright { 200 } else { 10 } + pattern);
            }
            images.labels.push(if lower == 1 { 7 } else { 3 });
        }
        images
    }

    #[test]
    fn shapes_are_those_of_the_table() {
        let net = LeNet::new(&mut Initial::new(1, &Device::Cpu), &Device::Cpu).unwrap();
        let x = input(&halves(3, 1), 0..3, &Device::Cpu).unwrap();
        assert_eq!(net.features(&x).unwrap().dims(), [3, DIM]);
        assert_eq!(net.logits(&x).unwrap().dims(), [3, CLASSES]);
        let error = net.features(&x.narrow(2, 0, 27).unwrap()).unwrap_err().to_string();
        assert!(error.contains("[3, 1, 27, 28]"), "{error}");
    }

    #[test]
    fn every_variable_receives_a_gradient() {
        let mut initial = Initial::new(1, &Device::Cpu);
        let net = LeNet::new(&mut initial, &Device::Cpu).unwrap();
        let config = TrainConfig::default();
        let images = halves(40, 1);
        let indices: Vec<u32> = (0..40).collect();
        let (loss, grads) =
            gradients(&net, &initial.vars, &images, &indices, 0, &config, &Device::Cpu).unwrap();
        assert!((loss - 10.0_f64.ln()).abs() < 0.3, "{loss}");
        for ((name, var), grad) in initial.vars.iter().zip(&grads) {
            let grad = grad.as_ref().expect("every variable gets a gradient");
            assert_eq!(grad.dims(), var.dims());
            let size = grad.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size > 0.0 && size.is_finite(), "{name}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let mut initial = Initial::new(2, &Device::Cpu);
        let net = LeNet::new(&mut initial, &Device::Cpu).unwrap();
        let config = TrainConfig { shift: 0, ..TrainConfig::default() };
        let images = halves(4, 1);
        let loss = || {
            let of = |i| gradients(&net, &initial.vars, &images, &[i], 0, &config, &Device::Cpu);
            (0..4).map(|i| of(i).unwrap().0).sum::<f64>() / 4.0
        };
        let all = gradients(&net, &initial.vars, &images, &[0, 1, 2, 3], 0, &config, &Device::Cpu);
        let grads = all.unwrap().1;
        // Along its own gradient, a step of each variable changes the loss by |g|^2.
        for ((name, var), grad) in initial.vars.iter().zip(grads) {
            let grad = grad.unwrap();
            let square = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 1e-2 / f64::from(square).sqrt();
            let at = var.as_tensor().copy().unwrap();
            let side = |sign: f64| {
                var.set(&(&at + (&grad * (sign * step)).unwrap()).unwrap()).unwrap();
                loss()
            };
            let slope = (side(1.0) - side(-1.0)) / (2.0 * step);
            var.set(&at).unwrap();
            let expected = f64::from(square);
            assert!(
                (slope - expected).abs() < 0.03 * expected + 1e-4,
                "{name}: {slope} {expected}"
            );
        }
    }

    #[test]
    fn cross_entropy_matches_hand_computed_values() {
        let logits = Tensor::new(&[[0_f32, 0.0], [1000.0, 0.0]], &Device::Cpu).unwrap();
        let targets = Tensor::new(&[[1_f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let loss = cross_entropy(&logits, &targets).unwrap().to_scalar::<f32>().unwrap();
        assert!((loss - f32::midpoint(2_f32.ln(), 1000.0)).abs() < 1e-3, "{loss}");
    }

    #[test]
    fn a_few_steps_learn_a_tiny_set_and_the_same_seed_repeats_them() {
        let images = halves(64, 1);
        let config = TrainConfig { epochs: 4, batch_size: 16, ..TrainConfig::default() };
        let run = || {
            let mut losses = Vec::new();
            let weights = train(&images, &config, &Device::Cpu, |_, loss, _| {
                losses.push(loss);
                Ok(())
            });
            (losses, weights.unwrap())
        };
        let (losses, weights) = run();
        assert_eq!(losses.len(), 4);
        assert!(losses[3] < 0.5 * losses[0], "{losses:?}");
        assert_eq!(run().0, losses);
        let net = LeNet::load(weights.clone(), &Device::Cpu).unwrap();
        assert!((net.accuracy(&images).unwrap() - 1.0).abs() < 1e-9);
        assert!(LeNet::load(weights[1..].to_vec(), &Device::Cpu).is_err());
    }

    #[test]
    fn features_do_not_depend_on_batches_or_further_channels() {
        let net = LeNet::new(&mut Initial::new(1, &Device::Cpu), &Device::Cpu).unwrap();
        let images = halves(BATCH + 3, 1);
        let all = net.features_of(&images).unwrap();
        assert_eq!(all.len(), images.n * DIM);
        let last = net.features_of(&images.subset(&[BATCH + 2]).unwrap()).unwrap();
        for (a, b) in all[(BATCH + 2) * DIM..].iter().zip(&last) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        let mut colour = halves(1, 3);
        colour.pixels[SIDE * SIDE..].fill(99);
        let grey = net.features_of(&halves(1, 1)).unwrap();
        assert_eq!(net.features_of(&colour).unwrap(), grey);
    }

    #[test]
    fn shifts_move_the_image_and_fill_with_black() {
        let mut images = halves(1, 1);
        images.pixels.fill(255);
        let config = TrainConfig { shift: 3, ..TrainConfig::default() };
        let mut seen = std::collections::HashSet::new();
        for epoch in 0..400 {
            let (x, _) = draw(&images, &[0], epoch, &config, &Device::Cpu).unwrap();
            let x = x.reshape((SIDE, SIDE)).unwrap().to_vec2::<f32>().unwrap();
            let white = x.iter().flatten().filter(|&&v| v > 0.0).count();
            assert!((25 * 25..=SIDE * SIDE).contains(&white), "{white}");
            seen.insert(white);
        }
        assert_eq!(seen.len(), 10, "all sizes of overlap occur");
    }

    #[test]
    fn refuses_what_it_cannot_take() {
        let net = LeNet::new(&mut Initial::new(1, &Device::Cpu), &Device::Cpu).unwrap();
        let mut images = halves(2, 1);
        assert!(net.features_of(&halves(2, 2)).is_err());
        images.labels[0] = 10;
        let config = TrainConfig { batch_size: 2, ..TrainConfig::default() };
        assert!(train(&images, &config, &Device::Cpu, |_, _, _| Ok(())).is_err());
        let config = TrainConfig { batch_size: 3, ..TrainConfig::default() };
        assert!(train(&halves(2, 1), &config, &Device::Cpu, |_, _, _| Ok(())).is_err());
        assert!(LeNet::decode(b"nonsense", &Device::Cpu).is_err());
    }
}
