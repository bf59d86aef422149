//! The order of the training images, and the part of each process.

use core::ops::Range;

use crate::process_group::Rank;
use crate::random::Domain;

/// The shuffled order of one epoch, or one process's part of it.
///
/// Every process takes each `size`-th image of the common order, beginning with its own number; the
/// order is filled up from its start to a multiple of `size` (torch's `DistributedSampler`).
pub struct EpochOrder(Vec<u32>);

impl EpochOrder {
    /// The order of `n` images in epoch `epoch`, as far as `rank` takes part in it.
    pub fn new(n: usize, seed: u64, epoch: u64, rank: Rank) -> Self {
        let mut order: Vec<u32> = (0..).take(n).collect();
        Domain::Shuffle.stream(seed).shuffle(epoch, &mut order);
        let even = n.next_multiple_of(rank.size);
        let filled = order.iter().cycle().take(if n == 0 { 0 } else { even });
        Self(filled.skip(rank.index).step_by(rank.size).copied().collect())
    }

    /// The images in this order.
    pub fn images(&self) -> &[u32] {
        &self.0
    }

    /// Full batches in the epoch; the rest of the images waits for the next one.
    pub fn batches(&self, batch_size: usize) -> u64 {
        (self.0.len() / batch_size.max(1)) as u64
    }

    /// The images of batch `batch`, none after the last full one.
    pub(super) fn batch(&self, batch: u64, batch_size: usize) -> Option<&[u32]> {
        let start = usize::try_from(batch).ok()?.checked_mul(batch_size)?;
        let range: Range<usize> = start..start.checked_add(batch_size)?;
        self.0.get(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: usize, index: usize, size: usize) -> Vec<u32> {
        EpochOrder::new(n, 5, 1, Rank { index, size }).0
    }

    #[test]
    fn ranks_share_the_images_of_one_order() {
        let whole = order(7, 0, 1);
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..7).collect::<Vec<_>>());
        assert_ne!(whole, sorted, "shuffled");
        assert_eq!(order(7, 0, 2), [whole[0], whole[2], whole[4], whole[6]]);
        assert_eq!(order(7, 1, 2), [whole[1], whole[3], whole[5], whole[0]]);
        assert_eq!(order(2, 4, 5).len(), 1, "fewer images than processes");
        assert!(order(0, 0, 2).is_empty());
    }

    #[test]
    fn only_full_batches_count() {
        let order = EpochOrder::new(7, 5, 1, Rank::default());
        assert_eq!(order.batches(3), 2);
        assert_eq!(order.batch(1, 3), Some(&order.0[3..6]));
        assert_eq!(order.batch(2, 3), None);
        assert_eq!(order.batch(u64::MAX, 3), None);
    }
}
