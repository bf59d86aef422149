//! Features of one set of images, computed by several processes.
//!
//! ```text
//! chunks       0   1   2   3   4
//! process 0    *       *       *      each computes its chunk of a round,
//! process 1        *       *          then all take in the round's chunks in order
//! ```
//!
//! All processes see all features in the order of the images, so what they make of them is the same bits
//! for any number of processes.

use core::ops::Range;

use crate::error::Error;
use crate::process_group::{ImageParts, ProcessGroup, Rank};

/// Images that a process turns into features at a time, at most.
const CHUNK: usize = 64;

/// Chunks begin at multiples of so many images.
const TOGETHER: usize = 8;

/// Gives `take` the features of `n` images, `d` each, in order and in all processes; false where any
/// process stops.
///
/// `features` computes those of a range of images; `stop` is asked after each round.
///
/// # Shapes
///
/// `features`: `[images of the range, d]`, row-major.
///
/// # Errors
///
/// Those of `features` and `take`; as [`ProcessGroup::broadcast`].
pub fn rows<E: From<Error>>(
    group: &dyn ProcessGroup,
    (n, d): (usize, usize),
    mut features: impl FnMut(Range<usize>) -> Result<Vec<f32>, E>,
    mut take: impl FnMut(&[f32]) -> Result<(), E>,
    stop: impl Fn() -> bool,
) -> Result<bool, E> {
    let Rank { index, size } = group.rank();
    let chunks = ImageParts::of_size(n, n.div_ceil(size).min(CHUNK), TOGETHER);
    for first in (0..chunks.count()).step_by(size) {
        let range = chunks.range(first + index);
        let own = if range.is_empty() { Vec::new() } else { features(range)? };
        for from in 0..size {
            let range = chunks.range(first + from);
            if range.is_empty() {
                break;
            }
            let mut rows: Vec<f64> = if from == index {
                own.iter().copied().map(f64::from).collect()
            } else {
                vec![0.0; range.len() * d]
            };
            group.broadcast(from, &mut rows)?;
            #[expect(clippy::cast_possible_truncation, reason = "sent as f32")]
            take(&rows.iter().map(|&value| value as f32).collect::<Vec<_>>())?;
        }
        if group.any(stop())? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Result;
    use crate::process_group::threads;

    /// Two features of each image, which tell its number.
    fn of_images(range: Range<usize>) -> Vec<f32> {
        range.flat_map(|i| [i as f32 + 0.1, (i % 13) as f32 / 7.0]).collect()
    }

    #[test]
    fn all_see_the_features_in_order() {
        for n in [2, 47, 700] {
            for size in [1, 2, 3, 7] {
                let seen = threads::run(size, |group| {
                    let (mut seen, mut own) = (Vec::new(), 0);
                    let features = |range: Range<usize>| {
                        assert!(range.start.is_multiple_of(TOGETHER) && range.len() <= CHUNK);
                        own += range.len();
                        Ok(of_images(range))
                    };
                    let take = |rows: &[f32]| {
                        seen.extend_from_slice(rows);
                        Ok(())
                    };
                    let whole: Result<bool> = rows(&*group, (n, 2), features, take, || false);
                    assert!(whole.unwrap());
                    (seen, own)
                });
                assert!(seen.iter().all(|(rows, _)| *rows == of_images(0..n)), "{n}, {size}");
                assert_eq!(seen.iter().map(|(_, own)| own).sum::<usize>(), n);
                let most = seen.iter().map(|(_, own)| own).max().unwrap();
                assert!(*most <= n.div_ceil(size) + CHUNK, "{n}, {size}: {most}");
            }
        }
    }

    #[test]
    fn all_stop_after_the_round_in_which_one_is_asked_to() {
        let rounds = threads::run(3, |group| {
            let rounds = AtomicUsize::new(0);
            let features = |range| {
                rounds.fetch_add(1, Ordering::Relaxed);
                Ok(of_images(range))
            };
            let stop = || group.rank().index == 1 && rounds.load(Ordering::Relaxed) == 2;
            let whole: Result<bool> = rows(&*group, (1000, 2), features, |_| Ok(()), stop);
            assert!(!whole.unwrap());
            rounds.into_inner()
        });
        assert_eq!(rounds, [2, 2, 2]);
    }
}
