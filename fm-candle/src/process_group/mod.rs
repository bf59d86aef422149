//! Processes that work together, each on its own images.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod parts;
#[cfg(test)]
pub(crate) mod threads;

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;
use std::sync::Arc;

use candle_core::{DType, Tensor, Var};

use crate::error::Result;

#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use parts::ImageParts;

/// Elements of a message: gradients are averaged many at a time, as each message costs a wait.
const BUCKET: usize = 1 << 21;

/// One process among those that work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its number, below `size`.
    pub index: usize,
    /// Number of processes.
    pub size: usize,
}

impl Default for Rank {
    /// A process that works alone.
    fn default() -> Self {
        Self { index: 0, size: 1 }
    }
}

impl Rank {
    /// This process's part of `n` things: from the first of them to the one after the last.
    pub fn share(self, n: usize) -> (usize, usize) {
        (n * self.index / self.size, n * (self.index + 1) / self.size)
    }
}

/// The processes that work together, as one of them sees them. Each of them must make the same calls
/// in the same order.
pub trait ProcessGroup: Send + Sync {
    /// This process.
    fn rank(&self) -> Rank;

    /// Replaces the values by their sums over all processes, which are the same bits in each.
    ///
    /// # Errors
    /// A process that cannot be reached.
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// Replaces the values by those of the process of number `from`, bit for bit.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn broadcast(&self, from: usize, values: &mut [f64]) -> Result<()>;

    /// Ends the other processes too, where this one cannot go on.
    fn abort(&self);

    /// Returns true if `flag` is true in any process.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn any(&self, flag: bool) -> Result<bool> {
        let mut count = [f32::from(u8::from(flag))];
        self.sum(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// The mean of a tensor over all processes, on its device: the same bits in each.
    ///
    /// # Shapes
    /// `values: [n]` of f32, as many in each process.
    ///
    /// # Errors
    /// As [`sum`](Self::sum); a tensor of another rank or type.
    fn mean(&self, values: &Tensor) -> Result<Tensor> {
        let size = self.rank().size as f32;
        let mut sums = values.to_vec1::<f32>()?;
        self.sum(&mut sums)?;
        for sum in &mut sums {
            *sum /= size;
        }
        Ok(Tensor::from_vec(sums, values.shape(), values.device())?)
    }

    /// Returns true if `what` is the same in all processes.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn all_equal(&self, what: &str) -> Result<bool> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        // Bytes, as f32 adds those of 65536 processes exactly.
        let own = hasher.finish().to_le_bytes().map(f32::from);
        let mut sums = own;
        self.sum(&mut sums)?;
        let size = self.rank().size as f32;
        let differs = sums.iter().zip(own).any(|(&sum, own)| (sum - own * size).abs() > 0.5);
        Ok(!self.any(differs)?)
    }
}

/// A process that works alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> Rank {
        Rank::default()
    }

    fn sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _from: usize, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn abort(&self) {}
}

/// Replaces the gradients by their means over all processes; one that is missing counts as zero.
pub(crate) fn average(
    group: &Arc<dyn ProcessGroup>,
    vars: &[(String, Var)],
    gradients: &mut [Option<Tensor>],
) -> Result<()> {
    if group.rank().size == 1 {
        return Ok(());
    }
    let (mut bucket, mut filled, mut first) = (Vec::new(), 0, 0);
    for last in 0..gradients.len() {
        let var = &vars[last].1;
        bucket.push(match &gradients[last] {
            Some(gradient) => gradient.flatten_all()?,
            None => Tensor::zeros(var.elem_count(), DType::F32, var.device())?,
        });
        filled += var.elem_count();
        if filled < BUCKET && last + 1 < gradients.len() {
            continue;
        }
        let means = group.mean(&Tensor::cat(&bucket, 0)?)?;
        let mut at = 0;
        for ((_, var), gradient) in vars.iter().zip(&mut *gradients).take(last + 1).skip(first) {
            let n = var.elem_count();
            *gradient = Some(means.narrow(0, at, n)?.reshape(var.shape())?);
            at += n;
        }
        bucket.clear();
        (filled, first) = (0, last + 1);
    }
    Ok(())
}

/// The mean of a value over all processes.
pub(crate) fn mean(group: &Arc<dyn ProcessGroup>, value: f64) -> Result<f64> {
    let size = group.rank().size;
    if size == 1 {
        return Ok(value);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a loss, which was computed in f32")]
    let mut sum = [value as f32];
    group.sum(&mut sum)?;
    Ok(f64::from(sum[0]) / size as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::data::{ImageSet, Images};
    use crate::model::UNetConfig;
    use crate::model::config::tiny;
    use crate::train::{TrainConfig, Trainer};

    /// Two processes that hold the same, but for what the other adds to the first value.
    struct Twins(f32);

    impl ProcessGroup for Twins {
        fn rank(&self) -> Rank {
            Rank { index: 0, size: 2 }
        }

        fn sum(&self, values: &mut [f32]) -> Result<()> {
            for value in &mut *values {
                *value *= 2.0;
            }
            values[0] += self.0;
            Ok(())
        }

        fn broadcast(&self, _from: usize, _values: &mut [f64]) -> Result<()> {
            Ok(())
        }

        fn abort(&self) {}
    }

    #[test]
    fn gradients_keep_their_places_in_buckets() {
        let var = |n: usize| {
            let zeros = Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu).unwrap();
            (String::new(), Var::from_tensor(&zeros).unwrap())
        };
        // The first fills a bucket alone; the others share the second.
        let vars = [var(BUCKET), var(3), var(2), var(1)];
        let values = |n: u32, from: u32| {
            Tensor::from_iter((from..from + n).map(|i| i as f32), &Device::Cpu).unwrap()
        };
        let large = values(u32::try_from(BUCKET).unwrap(), 0);
        let mut gradients = [Some(large), Some(values(3, 10)), None, Some(values(1, 20))];
        let group: Arc<dyn ProcessGroup> = Arc::new(Twins(8.0));
        average(&group, &vars, &mut gradients).unwrap();
        let [large, a, b, c] = gradients.map(|g| g.unwrap().to_vec1::<f32>().unwrap());
        assert_eq!((large[0], large[1], large[BUCKET - 1]), (4.0, 1.0, (BUCKET - 1) as f32));
        assert_eq!((&a[..], &b[..], &c[..]), (&[14.0, 11.0, 12.0][..], &[0.0; 2][..], &[20.0][..]));
    }

    #[test]
    fn processes_agree_only_on_the_same() {
        assert!(SingleProcess.all_equal("a run").unwrap());
        assert!(Twins(0.0).all_equal("a run").unwrap());
        assert!(!Twins(1.0).all_equal("a run").unwrap());
        assert!(SingleProcess.any(true).unwrap() && !SingleProcess.any(false).unwrap());
    }

    /// The losses of two batches under these settings, and the weights after them.
    fn train(batch_size: usize, group: Arc<dyn ProcessGroup>) -> (Vec<f64>, Vec<Vec<f32>>) {
        let net = UNetConfig { num_classes: Some(3), dropout: 0.2, image_size: Some(4), ..tiny() };
        let world_size = group.rank().size;
        let config = TrainConfig { batch_size, world_size, use_ema: true, ..Default::default() };
        let pixels = (0..13 * 16u8).map(|i| i.wrapping_mul(31)).collect();
        let images = Images::new([1, 4, 4], pixels, (0..13).map(|i| i % 3).collect()).unwrap();
        let images: Arc<dyn ImageSet> = Arc::new(images);
        let run = Trainer::new(&net, &config, &Device::Cpu).unwrap();
        let mut run = run.with_group(group).unwrap();
        let mut loader = run.loader(&images).unwrap();
        let losses = (0..2).map(|_| run.next_batch(&mut loader).unwrap().unwrap()).collect();
        let flat = |(_, tensor): &(_, Tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap();
        (losses, run.evaluation_weights().unwrap().iter().map(flat).collect())
    }

    #[test]
    fn two_train_as_one_of_twice_the_batch() {
        let two = threads::run(2, |group| train(3, group));
        assert!(two[0] == two[1], "the two hold different weights");
        let (losses, _) = train(6, Arc::new(SingleProcess));
        for (loss, expected) in two[0].0.iter().zip(&losses) {
            assert!((loss / expected - 1.0).abs() < 1e-5, "{:?} for {losses:?}", two[0].0);
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        for (n, size) in [(64, 3), (2, 5), (0, 2), (7, 1)] {
            let shares = (0..size).map(|index| Rank { index, size }.share(n));
            let end = shares.fold(0, |end, (first, behind)| {
                assert_eq!(first, end);
                behind
            });
            assert_eq!(end, n);
        }
    }
}
