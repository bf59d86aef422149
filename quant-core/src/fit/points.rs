//! The distinct weights in ascending order with prefix sums, for the schemes that minimize an error.
//!
//! A *point* is a distinct weight; its mass is the importance of the weights equal to it, or their
//! number where no importance is given. A weight of importance 0 is no point: it goes where its
//! nearest point goes, the lower one on ties. With `x` the points less the mean weight, row `p`
//! holds
//!
//! ```text
//! mass = Σ m_q     sum = Σ m_q x_q     square = Σ m_q x_q²     for q < p;     value = x_p
//! ```
//!
//! so the squared error of points `i..j` about their mean takes two rows. The sums carry an error of
//! about 1e-16 of the total squared deviation.

use super::rank;
use crate::num::{f32_of, f64_of, index, low_u8, u32_of};
use alloc::vec;
use alloc::vec::Vec;
use core::mem::replace;

/// Mass, sum and square of the points before one, and its value; of the last row infinite.
pub(super) type PrefixRow = [f64; 4];

/// The weights of a group, ready for fits.
#[derive(Debug)]
pub(super) struct FitPoints<'a> {
    importance: Option<&'a [f32]>,
    keys: Vec<u64>,
    /// Index of the first key of each point; one more for the end.
    first: Vec<u32>,
    rows: Vec<PrefixRow>,
    mean: f64,
}

impl<'a> FitPoints<'a> {
    /// Sorts weights that are not none; importance, where given, is not negative and has a sum.
    pub(super) fn new(weights: &[f32], importance: Option<&'a [f32]>) -> Self {
        let keys = rank::sort(weights);
        let mean = mean(&keys, importance);
        let mut first = Vec::with_capacity(keys.len() + 1);
        let mut rows = Vec::with_capacity(keys.len() + 1);
        let (mut start, mut end) = (0, 0);
        let mut sums = [0.0; 3];
        let mut last = f32::NEG_INFINITY;
        for run in keys.chunk_by(|&a, &b| rank::same_weight(a, b)) {
            let (w, mass) = (rank::weight(run[0]), mass(run, importance));
            if mass > 0.0 {
                let nearer_below = |&key: &u64| {
                    let between = f64::from(rank::weight(key));
                    between - f64::from(last) <= f64::from(w) - between
                };
                let below = keys[end..start].partition_point(nearer_below);
                first.push(if rows.is_empty() { 0 } else { u32_of(end + below) });
                let x = f64::from(w) - mean;
                rows.push([sums[0], sums[1], sums[2], x]);
                sums = [sums[0] + mass, sums[1] + mass * x, sums[2] + mass * x * x];
                end = start + run.len();
                last = w;
            }
            start += run.len();
        }
        first.push(u32_of(keys.len()));
        rows.push([sums[0], sums[1], sums[2], f64::INFINITY]);
        Self { importance, keys, first, rows, mean }
    }

    /// The number of points, at least 1.
    pub(super) fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// One row for each point and one for the end.
    pub(super) fn rows(&self) -> &[PrefixRow] {
        &self.rows
    }

    /// The mean weight, from which values count.
    pub(super) const fn mean(&self) -> f64 {
        self.mean
    }

    /// Mass, sum and square of points `i..j`.
    pub(super) fn moments(&self, i: usize, j: usize) -> [f64; 3] {
        let ([m, s, q, _], [mass, sum, square, _]) = (self.rows[i], self.rows[j]);
        [mass - m, sum - s, square - q]
    }

    /// The squared error of all points about their mean.
    pub(super) fn squared_deviation(&self) -> f64 {
        let [mass, sum, square] = self.moments(0, self.len());
        (square - sum * sum / mass).max(0.0)
    }

    /// The number of weights that go with points `i..j`.
    pub(super) fn count(&self, i: usize, j: usize) -> u32 {
        self.first[j] - self.first[i]
    }

    /// The first point from `start` on of a value not below `x`, or the number of points. The nearer
    /// it is, the sooner it is found.
    pub(super) fn below(&self, start: usize, x: f64) -> usize {
        let rows = &self.rows[start..self.len()];
        let mut reach = 1;
        while reach < rows.len() && rows[reach - 1][3] < x {
            reach *= 2;
        }
        let passed = reach / 2;
        let within = &rows[passed..reach.min(rows.len())];
        start + passed + within.partition_point(|row| row[3] < x)
    }

    /// The least and the greatest value.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.rows[0][3], self.rows[self.len() - 1][3])
    }

    /// The value below which a part of the mass lies, `part` from 0 to 1.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let mass = part * self.rows[self.len()][0];
        let at = self.rows.partition_point(|row| row[0] < mass);
        self.rows[at.saturating_sub(1).min(self.len() - 1)][3]
    }

    /// The position of each weight's cluster; `ends` counts points.
    pub(super) fn codes(&self, ends: &[u32]) -> Vec<u8> {
        let mut codes = vec![0; self.keys.len()];
        for (c, keys) in self.clusters(ends).enumerate() {
            for &key in keys {
                codes[rank::position(key)] = low_u8(c);
            }
        }
        codes
    }

    /// The mean of each cluster; not from differences of sums, but from its weights.
    pub(super) fn means(&self, ends: &[u32]) -> Vec<f32> {
        self.clusters(ends).map(|keys| f32_of(mean(keys, self.importance))).collect()
    }

    /// The keys of each cluster.
    fn clusters(&self, ends: &[u32]) -> impl Iterator<Item = &[u64]> {
        let mut start = 0;
        ends.iter().map(move |&end| {
            let end = index(self.first[index(end)]);
            &self.keys[replace(&mut start, end)..end]
        })
    }
}

/// The importance of some weights, or their number.
fn mass(keys: &[u64], importance: Option<&[f32]>) -> f64 {
    match importance {
        None => f64_of(keys.len()),
        Some(all) => keys.iter().map(|&key| f64::from(all[rank::position(key)])).sum(),
    }
}

/// The mean of some weights by importance.
fn mean(keys: &[u64], importance: Option<&[f32]>) -> f64 {
    let weight = |&key: &u64| f64::from(rank::weight(key));
    let sum: f64 = match importance {
        None => keys.iter().map(weight).sum(),
        Some(all) => {
            keys.iter().map(|key| f64::from(all[rank::position(*key)]) * weight(key)).sum()
        }
    };
    sum / mass(keys, importance)
}
