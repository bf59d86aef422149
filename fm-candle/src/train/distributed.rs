//! Training one net in several processes, each on its own images.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use crate::error::Result;

/// One process among those that train together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its number, below `size`.
    pub index: usize,
    /// Number of processes.
    pub size: usize,
}

impl Default for Rank {
    /// A process that trains alone.
    fn default() -> Self {
        Self { index: 0, size: 1 }
    }
}

/// The processes that train together, as one of them sees them. Each of them must make the same calls
/// in the same order.
pub trait Ranks: Send + Sync {
    /// This process.
    fn rank(&self) -> Rank;

    /// Replaces the values by their sums over all processes.
    ///
    /// # Errors
    /// A process that cannot be reached.
    fn sum(&self, values: &mut [f32]) -> Result<()>;
}

/// A process that trains alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> Rank {
        Rank::default()
    }

    fn sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }
}

/// Replaces the gradients by their means over all processes; one that is missing counts as zero.
pub(super) fn average(
    ranks: &Arc<dyn Ranks>,
    vars: &[(String, Var)],
    gradients: &mut [Option<Tensor>],
) -> Result<()> {
    let size = ranks.rank().size;
    if size == 1 {
        return Ok(());
    }
    for ((_, var), gradient) in vars.iter().zip(gradients) {
        let mut values = match gradient {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>()?,
            None => vec![0.0; var.elem_count()],
        };
        ranks.sum(&mut values)?;
        for value in &mut values {
            *value /= size as f32;
        }
        *gradient = Some(Tensor::from_vec(values, var.shape(), var.device())?);
    }
    Ok(())
}

/// The mean of a value over all processes.
pub(super) fn mean(ranks: &Arc<dyn Ranks>, value: f64) -> Result<f64> {
    let size = ranks.rank().size;
    if size == 1 {
        return Ok(value);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a loss, which was computed in f32")]
    let mut sum = [value as f32];
    ranks.sum(&mut sum)?;
    Ok(f64::from(sum[0]) / size as f64)
}
