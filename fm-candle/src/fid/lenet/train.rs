//! Training the classifier: cross-entropy, AdamW, small shifts.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use super::{CLASSES, LeNet, SIDE, check};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::model::RandomInit;
use crate::random::Domain;
use crate::train::{AdamW, AdamWConfig, add_gradients, of_parameters};

/// Images of a shard; shards run side by side.
const SHARD: usize = 16;

/// Settings of [`train`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeNetTraining {
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

impl Default for LeNetTraining {
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
    config: &LeNetTraining,
    device: &Device,
    mut after_epoch: impl FnMut(u64, f64, &LeNet) -> Result<()>,
) -> Result<Vec<(String, Tensor)>> {
    check(images)?;
    let (n, batch) = (images.n, config.batch_size);
    if batch == 0 || n < batch {
        let fault = format!("--batch_size {batch}: must be 1 to {n}, the images of the data set");
        return Err(Error::Config(fault));
    }
    if images.labels.len() != images.n || images.labels.iter().any(|&l| l >= 10) {
        return Err(Error::Config("LeNet needs a label from 0 to 9 for every image".into()));
    }
    let mut initial = RandomInit::new(config.seed, device);
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
            let done = batch as f64 / batches as f64 + epoch as f64;
            let left = 1.0 - done / f64::from(u32::try_from(config.epochs).unwrap_or(u32::MAX));
            optimizer.step(&vars, &grads, config.lr * left)?;
        }
        after_epoch(epoch + 1, sum * (1.0 / batches as f64), &net)?;
    }
    vars.into_iter().map(|(name, var)| Ok((name, var.as_tensor().detach().copy()?))).collect()
}

/// Loss and gradients of one batch, cut into shards with a graph each.
pub(super) fn gradients(
    net: &LeNet,
    vars: &[(String, Var)],
    images: &Images,
    indices: &[u32],
    epoch: u64,
    config: &LeNetTraining,
    device: &Device,
) -> Result<(f64, Vec<Option<Tensor>>)> {
    let shards: Vec<&[u32]> = indices.chunks(SHARD).collect();
    let parts: Vec<(f64, GradStore)> = shards
        .into_par_iter()
        .map(|shard| {
            let (x, targets) = draw(images, shard, epoch, config, device)?;
            let part = shard.len() as f64 / indices.len() as f64;
            let loss = (cross_entropy(&net.logits(&x)?, &targets)? * part)?;
            Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
        })
        .collect::<Result<_>>()?;
    let mut value = 0.0;
    let mut sums: Vec<Option<Tensor>> = vec![None; vars.len()];
    for (part, grads) in parts {
        value += part;
        add_gradients(&mut sums, of_parameters(vars, grads))?;
    }
    Ok((value, sums))
}

/// Shifted images `[n, 1, 28, 28]` and their classes as rows of `[n, 10]` with a single 1.
pub(super) fn draw(
    images: &Images,
    indices: &[u32],
    epoch: u64,
    config: &LeNetTraining,
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
        target[images.labels[index as usize] as usize] = 1.0;
    }
    let x = Tensor::from_vec(values, (n, 1, SIDE, SIDE), device)?;
    Ok((x, Tensor::from_vec(targets, (n, CLASSES), device)?))
}

/// Mean over the rows of `log sum exp(z) - z[class]`, from operations whose gradients are right.
///
/// # Shapes: `logits`, `targets`: `[n, 10]`
pub(super) fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let z = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_sum = z.exp()?.sum(1)?.log()?;
    let chosen = (z * targets)?.sum(1)?;
    Ok((log_sum - chosen)?.mean_all()?)
}
