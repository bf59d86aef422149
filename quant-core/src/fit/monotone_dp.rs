//! The best partition of points where each cluster costs a multiplier: monotone dynamic programming.
//!
//! With `c(i, j)` the squared error of points `i..j` about their mean, and `λ` the multiplier,
//!
//! ```text
//! F(0) = 0,     F(j) = λ + min over i < j of  F(i) + c(i, j)
//! ```
//!
//! and following the best `i` back from the last point gives the clusters. `c` satisfies the
//! quadrangle inequality: once a later `i` beats an earlier one, it does so for all further `j`. So
//! the candidates `i` form a queue, each with the `j` from which on it is the best, and a new one
//! drives out those that it beats from the start (Z. Galil and K. Park, "Dynamic programming with
//! convexity, concavity and sparsity", Theoret. Comput. Sci. 92, 1992). Where a new candidate takes
//! over is searched from where the one before it did, in steps that double; that is mostly next to
//! it, so a point costs some ten evaluations of `c` and never more than `O(log n)` on average.
//!
//! With `m`, `s`, `q` the prefix sums of mass, values and squares, `G = F - q` needs no squares:
//!
//! ```text
//! G(j) = λ + min over i of  G(i) - (s_j - s_i)² / (m_j - m_i)
//! ```
//!
//! Rounding may mislead a comparison, but `i < j` always holds, so following the best `i` back always ends at
//! the first point.

use super::points::PrefixRow;
use crate::num::{f64_of, index, u32_of};
use alloc::vec;
use alloc::vec::Vec;

/// Partitions of the points of some rows.
#[derive(Debug)]
pub(super) struct MonotoneDp<'a> {
    rows: &'a [PrefixRow],
    /// `G` of each `j`.
    costs: Vec<f64>,
    /// The best `i` of each `j`.
    from: Vec<u32>,
    /// The candidates.
    queue: Vec<u32>,
    /// For each candidate the `j` from which on it is the best.
    since: Vec<u32>,
}

/// The best partition at a multiplier: a point of the lower convex hull of error over count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LagrangianPoint {
    pub(super) lambda: f64,
    /// The number of clusters.
    pub(super) count: usize,
    /// The squared error.
    pub(super) error: f64,
}

impl<'a> MonotoneDp<'a> {
    /// No partition yet of the points that `rows` describe.
    pub(super) fn new(rows: &'a [PrefixRow]) -> Self {
        let (costs, empty) = (vec![0.0; rows.len()], vec![0; rows.len()]);
        Self { rows, costs, from: empty.clone(), queue: empty.clone(), since: empty }
    }

    /// Partitions the points at a multiplier; [`Self::ends`] tells the clusters.
    pub(super) fn solve(&mut self, lambda: f64) -> LagrangianPoint {
        let rows = self.rows;
        let n = rows.len() - 1;
        self.costs[0] = 0.0;
        (self.queue[0], self.since[0]) = (0, 1);
        let (mut head, mut tail) = (0, 0);
        for j in 1..=n {
            while head < tail && index(self.since[head + 1]) <= j {
                head += 1;
            }
            let best = self.queue[head];
            self.from[j] = best;
            self.costs[j] = lambda + self.candidate(index(best)).cost(rows[j]);

            let next = self.candidate(j);
            let (mut last, mut start);
            loop {
                last = self.candidate(index(self.queue[tail]));
                start = index(self.since[tail]).max(j + 1);
                if start > n || !next.beats(&last, rows[start]) {
                    break;
                }
                if tail == head {
                    // It beats every other from here on.
                    (self.queue[head], self.since[head]) = (u32_of(j), u32_of(start));
                    start = n + 1;
                    break;
                }
                tail -= 1;
            }
            if let Some(start) = takeover(rows, &last, &next, start) {
                tail += 1;
                (self.queue[tail], self.since[tail]) = (u32_of(j), u32_of(start));
            }
        }
        let count = self.path().count();
        let error = self.costs[n] + rows[n][2] - lambda * f64_of(count);
        LagrangianPoint { lambda, count, error }
    }

    /// Partitions as a point says once more; at multipliers of 0 and infinity there is nothing to find.
    pub(super) fn repeat(&mut self, point: LagrangianPoint) {
        if point.lambda.is_infinite() {
            self.from.fill(0);
        } else if point.lambda > 0.0 {
            self.solve(point.lambda);
        } else {
            self.from = (0..u32_of(self.rows.len())).map(|j| j.saturating_sub(1)).collect();
        }
    }

    /// The ends of the clusters.
    pub(super) fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.path().map(u32_of).collect();
        ends.reverse();
        ends
    }

    /// The ends of the clusters, the last first.
    fn path(&self) -> impl Iterator<Item = usize> + '_ {
        let ends =
            core::iter::successors(Some(self.rows.len() - 1), |&j| Some(index(self.from[j])));
        ends.take_while(|&j| j > 0)
    }

    fn candidate(&self, i: usize) -> Candidate {
        let [mass, sum, ..] = self.rows[i];
        Candidate { mass, sum, cost: self.costs[i] }
    }
}

/// A start for the last cluster.
struct Candidate {
    mass: f64,
    sum: f64,
    cost: f64,
}

impl Candidate {
    /// The cost of ending the cluster before a row, less the multiplier and all squares before it.
    fn cost(&self, [mass, sum, ..]: PrefixRow) -> f64 {
        let (mass, sum) = (mass - self.mass, sum - self.sum);
        // A mass may be too small to change the sums.
        self.cost - if mass > 0.0 { sum * sum / mass } else { 0.0 }
    }

    fn beats(&self, other: &Self, row: PrefixRow) -> bool {
        self.cost(row) < other.cost(row)
    }
}

/// The row from which on `next` beats `last`, known not to at `start`; `None` if it never does.
fn takeover(rows: &[PrefixRow], last: &Candidate, next: &Candidate, start: usize) -> Option<usize> {
    let (mut low, mut step) = (start, 1);
    let mut high = loop {
        let at = low + step;
        match rows.get(at) {
            Some(&row) if next.beats(last, row) => break at,
            Some(_) => (low, step) = (at, 2 * step),
            // After the end `next` counts as better.
            None => break rows.len(),
        }
    };
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if next.beats(last, rows[middle]) { high = middle } else { low = middle }
    }
    (high < rows.len()).then_some(high)
}
