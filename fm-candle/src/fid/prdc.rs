//! Precision, recall, density and coverage: how much of each set lies near the other.
//!
//! The ball of a point reaches to its `k`-th nearest neighbour in its own set, the point itself not
//! counted, and holds its border. With generated points `x` and real points `y`:
//!
//! ```text
//! precision = part of the x in some ball of a y          density  = mean over x of its balls of y / k
//! recall    = part of the y in some ball of an x         coverage = part of the y whose ball holds an x
//! ```
//! T. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
//! 2019, with `k = 3` as in torch-fidelity (`metric_prc.py`); M. F. Naeem et al., "Reliable fidelity and
//! diversity metrics for generative models", 2020, who take `k = 5`. Density may exceed 1.
//!
//! Distances are compared as `|a|² + |b|² − 2 a·b`, a matrix product on a tile of pairs at a time. Where
//! that is too close to call, the sum of squared differences is taken: equal rows are at distance 0
//! and a point on a border is inside. Memory grows with `n` alone.

use core::ops::Range;

use rayon::prelude::*;

use super::rows::{Rows, products};
use crate::error::{Error, Result};

/// torch-fidelity's number of neighbours.
pub const NEIGHBOURS: usize = 3;

/// Relative to `|a|² + |b|²`, the rounding of a squared distance by products: `d ε`, and room.
const ROUNDING: f64 = 1e-11;

/// The four measures, each about the generated set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prdc {
    /// Part of the generated points that lie among real ones.
    pub precision: f64,
    /// Part of the real points that lie among generated ones.
    pub recall: f64,
    /// Mean number of real balls about a generated point, over `k`.
    pub density: f64,
    /// Part of the real points with a generated one in their ball.
    pub coverage: f64,
}

/// The measures of `generated` against `real` with balls of `k` neighbours.
///
/// # Shapes
///
/// `generated`: `[n, d]`, `real`: `[m, d]`, row-major.
///
/// # Errors
///
/// [`Error::Tensor`] for values that do not divide into rows of `d` or are not finite;
/// [`Error::Config`] unless each set has more than `k` points, and `k` is at least 1.
pub fn prdc(generated: &[f32], real: &[f32], d: usize, k: usize) -> Result<Prdc> {
    let [x, y] = [Manifold::new(generated, d)?, Manifold::new(real, d)?];
    let fewest = x.rows.n().min(y.rows.n());
    if k == 0 || k >= fewest {
        return Err(Error::Config(format!(
            "{k} neighbours: must be at least 1, and fewer than the {fewest} images of the smaller set"
        )));
    }
    let (radii_x, radii_y) = (x.radii(k), y.radii(k));
    let blocks: Vec<Range<usize>> = x.rows.blocks().collect();
    let met: Vec<Met> =
        blocks.into_par_iter().map(|range| x.meet(range, &y, [&radii_x, &radii_y])).collect();
    let balls = || met.iter().flat_map(|met| &met.balls);
    let part = |n: usize, of: usize| n as f64 / of as f64;
    let some_met = |which: fn(&Met) -> &[bool]| {
        let is_met = |&j: &usize| met.iter().any(|met| which(met)[j]);
        part((0..y.rows.n()).filter(is_met).count(), y.rows.n())
    };
    Ok(Prdc {
        precision: part(balls().filter(|&&balls| balls > 0).count(), x.rows.n()),
        recall: some_met(|met| &met.inside),
        density: part(balls().sum(), k * x.rows.n()),
        coverage: some_met(|met| &met.holding),
    })
}

/// The neighbours of a block of generated points among the real ones.
struct Met {
    /// Of each point of the block, the real balls that hold it.
    balls: Vec<usize>,
    /// Of each real point, true if it lies in a ball of the block.
    inside: Vec<bool>,
    /// Of each real point, true if its ball holds a point of the block.
    holding: Vec<bool>,
}

/// The points of one set.
struct Manifold<'a> {
    rows: Rows<'a>,
    /// `|x_i|²`, `[n]`.
    squares: Vec<f64>,
}

impl<'a> Manifold<'a> {
    fn new(values: &'a [f32], d: usize) -> Result<Self> {
        let rows = Rows::new(values, d)?;
        let squares = (0..rows.n()).map(|i| rows.row(i).map(|x| x * x).sum()).collect();
        Ok(Self { rows, squares })
    }

    /// The squared radius of each point's ball: the distance to its `k`-th nearest neighbour.
    fn radii(&self, k: usize) -> Vec<f64> {
        let blocks: Vec<Range<usize>> = self.rows.blocks().collect();
        let radii = blocks.into_par_iter().flat_map_iter(|range| {
            let mut nearest = vec![vec![f64::INFINITY; k]; range.len()];
            self.pairs(range.clone(), self, |i, j, distance| {
                let nearest = &mut nearest[i - range.start];
                if i != j && distance.lies_within(nearest[k - 1]) {
                    let distance = distance.exact();
                    let at = nearest.partition_point(|&other| other <= distance);
                    if at < k {
                        nearest.pop();
                        nearest.insert(at, distance);
                    }
                }
            });
            nearest.into_iter().map(move |nearest| nearest[k - 1])
        });
        radii.collect()
    }

    /// The neighbours of the points of a range among those of `real`; `radii` are those of both
    /// sets' balls.
    fn meet(&self, range: Range<usize>, real: &Self, radii: [&[f64]; 2]) -> Met {
        let m = real.rows.n();
        let first = range.start;
        let mut met =
            Met { balls: vec![0; range.len()], inside: vec![false; m], holding: vec![false; m] };
        self.pairs(range, real, |i, j, distance| {
            if distance.lies_within(radii[1][j]) {
                met.balls[i - first] += 1;
                met.holding[j] = true;
            }
            met.inside[j] = met.inside[j] || distance.lies_within(radii[0][i]);
        });
        met
    }

    /// Calls `each` with the distance of each point of the range to each of `other`.
    fn pairs(
        &self,
        range: Range<usize>,
        other: &Self,
        mut each: impl FnMut(usize, usize, Distance<'_>),
    ) {
        let d = self.rows.dim();
        let own = self.rows.block(range.clone());
        for columns in other.rows.blocks() {
            let dots = products(&own, &other.rows.block(columns.clone()), d);
            for (i, dots) in range.clone().zip(dots.chunks_exact(columns.len())) {
                for (j, dot) in columns.clone().zip(dots) {
                    let size = self.squares[i] + other.squares[j];
                    let points = (self, i, other, j);
                    each(
                        i,
                        j,
                        Distance { about: size - 2.0 * dot, rounding: ROUNDING * size, points },
                    );
                }
            }
        }
    }
}

/// The squared distance of two points.
struct Distance<'a> {
    /// By products, off by `rounding` at most.
    about: f64,
    rounding: f64,
    /// A point of one set and a point of another.
    points: (&'a Manifold<'a>, usize, &'a Manifold<'a>, usize),
}

impl Distance<'_> {
    /// Returns true if it is at most `limit`.
    fn lies_within(&self, limit: f64) -> bool {
        let over = self.about - limit;
        over < -self.rounding || (over <= self.rounding && self.exact() <= limit)
    }

    /// By differences.
    fn exact(&self) -> f64 {
        let (a, i, b, j) = self.points;
        a.rows.row(i).zip(b.rows.row(j)).map(|(a, b)| (a - b).powi(2)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Domain;

    /// Noise about the origin, wider for a greater `salt`.
    fn rows(n: usize, d: usize, salt: f32) -> Vec<f32> {
        let mut rows = vec![0.0; n * d];
        Domain::KidSubset.stream(0).fill_normal(salt.to_bits().into(), 0, &mut rows);
        rows.iter().map(|x| x * salt).collect()
    }

    /// The definitions, pair by pair.
    fn literally(x: &[f32], y: &[f32], d: usize, k: usize) -> Prdc {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
        };
        let radii = |set: &[f32]| -> Vec<f64> {
            let radius = |a: &[f32]| {
                let mut all: Vec<f64> = set.chunks(d).map(|b| distance(a, b)).collect();
                all.sort_by(f64::total_cmp);
                // The first is the point itself.
                all[k]
            };
            set.chunks(d).map(radius).collect()
        };
        let (of_x, of_y) = (radii(x), radii(y));
        let (n, m) = (of_x.len(), of_y.len());
        let near = |i: usize, j: usize| distance(&x[i * d..][..d], &y[j * d..][..d]);
        let count =
            |n: usize, holds: &dyn Fn(usize) -> bool| (0..n).filter(|&i| holds(i)).count() as f64;
        let held = |i: usize| count(m, &|j| near(i, j) <= of_y[j]);
        Prdc {
            precision: count(n, &|i| held(i) > 0.0) / n as f64,
            recall: count(m, &|j| (0..n).any(|i| near(i, j) <= of_x[i])) / m as f64,
            density: (0..n).map(held).sum::<f64>() / (k * n) as f64,
            coverage: count(m, &|j| (0..n).any(|i| near(i, j) <= of_y[j])) / m as f64,
        }
    }

    #[test]
    fn is_the_definition_for_sets_of_any_sizes() {
        let mut partly = false;
        for (n, m, d, k) in
            [(5, 4, 1, 3), (2, 2, 3, 1), (300, 40, 4, 3), (60, 270, 2, 5), (90, 80, 40, 2)]
        {
            let (x, y) = (rows(n, d, 1.5), rows(m, d, 1.0));
            let found = prdc(&x, &y, d, k).unwrap();
            assert_eq!(found, literally(&x, &y, d, k), "{n} {m} {d} {k}");
            partly |= (0.01..0.99).contains(&found.precision) && found.recall > 0.0;
        }
        assert!(partly);
    }

    #[test]
    fn a_set_lies_in_itself_to_the_border() {
        // Far from the origin, where products alone are off by more than the distances.
        let x: Vec<f32> = rows(70, 3, 1.0).iter().map(|x| 4096.0 + x).collect();
        let found = prdc(&x, &x, 3, 3).unwrap();
        assert_eq!(found, literally(&x, &x, 3, 3));
        // Each point is in its own ball and, on the border included, in three on average.
        assert_eq!((found.precision, found.recall, found.coverage), (1.0, 1.0, 1.0));
        assert!((found.density - 4.0 / 3.0).abs() < 1e-12, "{}", found.density);
    }

    #[test]
    fn duplicates_make_balls_of_no_size() {
        let (x, y) = ([1.0, 1.0, 1.0, 1.0, 5.0], [1.0, 2.0, 2.0, 2.0, 9.0]);
        let found = prdc(&x, &y, 1, 2).unwrap();
        assert_eq!(found, literally(&x, &y, 1, 2));
        // Balls of y: 1 ± 1, three of 2 ± 0, 9 ± 7.
        assert_eq!((found.precision, found.coverage), (1.0, 0.4));
    }

    #[test]
    fn sets_apart_share_nothing() {
        let x = rows(9, 2, 1.0);
        let y: Vec<f32> = x.iter().map(|x| x + 100.0).collect();
        let apart = Prdc { precision: 0.0, recall: 0.0, density: 0.0, coverage: 0.0 };
        assert_eq!(prdc(&x, &y, 2, 3).unwrap(), apart);
    }

    #[test]
    fn refuses_what_has_no_balls() {
        let x = rows(9, 2, 1.0);
        let message = |y: &[f32], k| prdc(&x, y, 2, k).unwrap_err().to_string();
        assert!(
            message(&x[..6], 3).contains("3 neighbours")
                && message(&x[..6], 3).contains("the 3 images")
        );
        assert!(message(&x, 0).contains("at least 1"));
        assert!(message(&x[..2], 1).contains("fewer than the 1 images"));
        assert!(message(&x[..3], 1).contains("rows of 2"));
        assert!(message(&[f32::NAN; 4], 1).contains("is NaN"));
    }
}
