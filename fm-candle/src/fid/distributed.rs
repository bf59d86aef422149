//! Moments of one set of images, gathered by several processes.
//!
//! The set is cut by its size alone, never by the number of processes, and the parts are joined in
//! their order. So the moments are the same bits for any number of processes.
//!
//! ```text
//! parts        0   1   2   3   4
//! process 0    *       *       *      each gathers its part of a round,
//! process 1        *       *          then all join the round's parts in order
//! ```

use core::ops::Range;

use super::moments::{BLOCK, FeatureMoments};
use crate::error::Error;
use crate::process_group::{ProcessGroup, Rank};

/// Parts of a set that is no larger than so many blocks: as many processes can gather it.
const PARTS: usize = 64;

/// Parts begin at multiples of so many images. A solver with steps of its own choice chooses them for as
/// many images together, which must be the same ones in any process.
const TOGETHER: usize = 8;

/// The moments of `n` images with `d` features each, the same in all processes; none where any process
/// stops.
///
/// `part` gathers the moments of a part of the images, by number; `stop` is asked after each round
/// of parts.
///
/// # Errors
///
/// That of `part`; as [`ProcessGroup::broadcast`].
pub fn moments<E: From<Error>>(
    group: &dyn ProcessGroup,
    (n, d): (usize, usize),
    mut part: impl FnMut(Range<usize>) -> Result<FeatureMoments, E>,
    stop: impl Fn() -> bool,
) -> Result<Option<FeatureMoments>, E> {
    let Rank { index, size } = group.rank();
    let step = part_of(n);
    let range = |number: usize| number * step..n.min((number + 1) * step);
    let parts = n.div_ceil(step);
    let (mut whole, mut other) = (FeatureMoments::new(d), FeatureMoments::new(d));
    for first in (0..parts).step_by(size) {
        let count = size.min(parts - first);
        let mut own =
            if index < count { part(range(first + index))? } else { FeatureMoments::new(d) };
        for from in 0..count {
            let moments = if from == index { &mut own } else { &mut other };
            moments.broadcast(group, from)?;
            whole.merge(moments)?;
        }
        if group.any(stop())? {
            return Ok(None);
        }
    }
    Ok(Some(whole))
}

/// Images of a part, in a set of `n`.
fn part_of(n: usize) -> usize {
    n.div_ceil(PARTS).next_multiple_of(TOGETHER).clamp(TOGETHER, BLOCK)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Result;
    use crate::fid::Statistics;
    use crate::process_group::threads;

    /// Rows of two features far from the origin.
    fn rows(range: Range<usize>) -> Vec<f32> {
        range.flat_map(|i| [1000.0 + (i as f32 * 0.7).sin(), (i % 13) as f32 / 7.0]).collect()
    }

    fn of_rows(range: Range<usize>) -> Result<FeatureMoments> {
        let mut moments = FeatureMoments::new(2);
        moments.add(&rows(range))?;
        Ok(moments)
    }

    #[test]
    fn moments_are_the_same_bits_for_any_number_of_processes() {
        for n in [2, 47, 700, 64 * BLOCK + 5] {
            let gathered = |size| {
                threads::run(size, |group| {
                    moments(&*group, (n, 2), of_rows, || false).unwrap().unwrap()
                })
            };
            let alone = gathered(1).remove(0);
            assert_eq!(alone.n(), n as u64);
            for size in [2, 3, 7] {
                assert!(gathered(size).iter().all(|moments| *moments == alone), "{n}, {size}");
            }
            let expected = Statistics::of_rows(&rows(0..n), 2).unwrap();
            let found = Statistics::try_from(alone).unwrap();
            let pairs = found.mean.iter().zip(&expected.mean);
            for (a, b) in pairs.chain(found.covariance.iter().zip(&expected.covariance)) {
                assert!((a - b).abs() < 1e-12 * b.abs().max(1e-3), "{n}: {a}, {b}");
            }
        }
    }

    #[test]
    fn each_image_is_taken_once_and_by_every_process_its_part() {
        for (n, size) in [(47, 2), (5000, 16), (50_000, 8)] {
            let counts = threads::run(size, |group| {
                let count = AtomicUsize::new(0);
                let part = |range: Range<usize>| {
                    assert!(range.start.is_multiple_of(TOGETHER) && range.len() <= BLOCK);
                    count.fetch_add(range.len(), Ordering::Relaxed);
                    of_rows(range)
                };
                moments(&*group, (n, 2), part, || false).unwrap();
                count.into_inner()
            });
            assert_eq!(counts.iter().sum::<usize>(), n);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= part_of(n), "{counts:?}");
        }
    }

    #[test]
    fn all_stop_after_the_round_in_which_one_is_asked_to() {
        let rounds = threads::run(3, |group| {
            let rounds = AtomicUsize::new(0);
            let part = |range| {
                rounds.fetch_add(1, Ordering::Relaxed);
                of_rows(range)
            };
            let stop = || group.rank().index == 1 && rounds.load(Ordering::Relaxed) == 2;
            assert!(moments(&*group, (1000, 2), part, stop).unwrap().is_none());
            rounds.into_inner()
        });
        assert_eq!(rounds, [2, 2, 2]);
    }
}
