//! Scratch memory cut up for the schemes that work on points.

use super::bins::Bins;
use super::links::Links;
use super::points::{Points, Row};
use super::{Scratch, ScratchLen};

/// Sorted points, and room to work on up to `k` clusters of them.
#[derive(Debug)]
pub(super) struct Room<'a> {
    pub(super) points: Points<'a>,
    pub(super) links: Links<'a>,
    /// Ends of clusters: `[k]`, twice.
    pub(super) ends: [&'a mut [u32]; 2],
    /// Costs of clusters: `[k]`.
    pub(super) costs: &'a mut [f64],
}

impl<'a> Room<'a> {
    /// What [`Self::new`] takes for `n` weights; `None` beyond the address space.
    pub(super) fn scratch_len(n: usize, k: usize) -> Option<ScratchLen> {
        let edges = n.checked_add(1)?;
        let row = size_of::<Row>() / size_of::<f64>();
        Some(ScratchLen {
            keys: n,
            reals: edges.checked_mul(row + 1)?.checked_add(k)?,
            cuts: edges.checked_mul(4)?.checked_add(2 * k)?,
        })
    }

    /// Sorts weights that are not none, see [`Points::new`]; `scratch` as [`Self::scratch_len`] says.
    pub(super) fn new(
        weights: &[f32],
        importance: Option<&'a [f32]>,
        scratch: Scratch<'a>,
        k: usize,
    ) -> Self {
        let n = weights.len();
        let Scratch { keys, reals, cuts } = scratch;
        let (rows, reals) = reals.split_at_mut((n + 1) * size_of::<Row>() / size_of::<f64>());
        let (best, reals) = reals.split_at_mut(n + 1);
        let (ends_0, cuts) = cuts.split_at_mut(k);
        let (ends_1, cuts) = cuts.split_at_mut(k);
        let (first, cuts) = cuts.split_at_mut(n + 1);
        // Counting and linking come one after the other.
        let rows = rows.as_chunks_mut().0;
        let counts = &mut cuts[..Bins::number(n)];
        let points = Points::new(weights, importance, &mut keys[..n], rows, first, counts);
        let (from, cuts) = cuts.split_at_mut(n + 1);
        let (queue, cuts) = cuts.split_at_mut(n + 1);
        let links = Links { costs: best, from, queue, since: &mut cuts[..=n] };
        Self { points, links, ends: [ends_0, ends_1], costs: &mut reals[..k] }
    }
}
