//! The standard error of a Fréchet distance, by the bootstrap.
//!
//! A distance from `n` images is one draw: other images of the same source give another. The
//! bootstrap (B. Efron, "Bootstrap methods: another look at the jackknife", 1979) draws `n` of the rows
//! at hand with replacement, again and again, and takes the spread of the distances so found for the
//! spread over fresh images. The other side's statistics stay as they are.
//!
//! Only the spread is of use. A resample holds 63 % of the images, some of them several times, so its
//! distances are too large on average, as those of fewer images are. The 95 % interval of a
//! distance is therefore `fid ± 1.96 se` about the distance of all rows, not the resamples' quantiles.
//!
//! Images whose classes were given out in turn have each class equally often in every set, which draws
//! from all rows would not keep: the spread of the classes' numbers is then several times that of the
//! images. Such rows are drawn again within their strata, the classes.
//!
//! ```text
//! Σ₂ = L Lᵀ,  y_i = Lᵀ (x_i − μ₂)                          once
//! z_i = √w_i (y_i − ȳ),  ȳ = Σ w_i y_i / n                 for counts w of a resample
//! d²  = |x̄ − μ₂|² + tr Σ_w + tr Σ₂ − 2 Σ √eig(ZᵀZ / (n − 1))
//! ```
//! The eigenvalues are those of `Σ_w Σ₂`, as in [`frechet`](super::frechet).

use std::collections::BTreeMap;

use faer::MatRef;
use rayon::prelude::*;

use super::Statistics;
use super::frechet::{columns, covariance, factor, sum_of_roots, trace};
use super::rows::{BLOCK, Rows, products};
use crate::error::{Error, Result};
use crate::ops::gemm::{Mat, gemm};
use crate::random::Domain;

/// Half of the 95 % interval of a normal distribution, in standard errors.
pub const Z95: f64 = 1.96;

/// The standard error of the Fréchet distance between feature rows and `reference`: the standard
/// deviation of the distances of `resamples` resamples of the rows.
///
/// Resamples are a function of the seed, and run on all threads. Each row is replaced by one of its
/// own stratum, which `strata` names for every row; with none, all are of one.
///
/// # Shapes
///
/// `rows`: `[n, d]`, row-major, with `d = reference.dim()`; `strata`: `[n]` or empty.
///
/// # Errors
///
/// [`Error::Tensor`] when `rows` does not divide into rows of `d`, or a value is not finite, or the
/// reference is no Gaussian's; [`Error::Config`] with fewer than two rows or resamples, with strata
/// for another number of rows, or where a distance overflows.
pub fn standard_error(
    rows: &[f32],
    reference: &Statistics,
    strata: &[u32],
    resamples: usize,
    seed: u64,
) -> Result<f64> {
    if resamples < 2 {
        return Err(Error::Config(format!("a spread needs at least 2 resamples, not {resamples}")));
    }
    let sample = BootstrapSample::new(Rows::new(rows, reference.dim())?, reference)?;
    let strata = Strata::new(strata, sample.n())?;
    let distances: Vec<f64> = (0..resamples as u64)
        .into_par_iter()
        .map(|resample| sample.distance(&strata.counts(resample, seed)))
        .collect();
    let n = resamples as f64;
    let mean = distances.iter().sum::<f64>() / n;
    let squares: f64 = distances.iter().map(|distance| (distance - mean).powi(2)).sum();
    let error = (squares / (n - 1.0)).sqrt();
    if error.is_finite() {
        Ok(error)
    } else {
        Err(Error::Config("the Fréchet distance of a resample overflows".into()))
    }
}

/// The rows that may stand for each other.
struct Strata {
    /// The stratum of each row, as an index into `members`.
    of: Vec<usize>,
    /// The rows of each.
    members: Vec<Vec<usize>>,
}

impl Strata {
    fn new(names: &[u32], n: usize) -> Result<Self> {
        if names.is_empty() {
            return Ok(Self { of: vec![0; n], members: vec![(0..n).collect()] });
        }
        if names.len() != n {
            return Err(Error::Config(format!("strata of {} rows for {n} rows", names.len())));
        }
        let mut members = BTreeMap::<u32, Vec<usize>>::new();
        for (row, &name) in names.iter().enumerate() {
            members.entry(name).or_default().push(row);
        }
        let mut of = vec![0; n];
        for (index, rows) in members.values().enumerate() {
            for &row in rows {
                of[row] = index;
            }
        }
        Ok(Self { of, members: members.into_values().collect() })
    }

    /// The number of times that a resample holds each row.
    fn counts(&self, resample: u64, seed: u64) -> Vec<u32> {
        let draws = Domain::Bootstrap.stream(seed);
        let mut counts = vec![0; self.of.len()];
        // Rows are at most 2^32 - 1, as their view has it.
        for (draw, &stratum) in (0..).zip(&self.of) {
            let rows = &self.members[stratum];
            let n = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            counts[rows[draws.below(resample, draw, n) as usize]] += 1;
        }
        counts
    }
}

/// The values that all resamples share.
struct BootstrapSample<'a> {
    rows: Rows<'a>,
    reference: &'a Statistics,
    /// `|x_i − μ₂|²`, `[n]`.
    squares: Vec<f64>,
    /// `y_i`, `[n, rank]`.
    projected: Vec<f64>,
    /// Rank of `Σ₂`.
    rank: usize,
    /// `tr Σ₂`.
    trace: f64,
}

impl<'a> BootstrapSample<'a> {
    fn new(rows: Rows<'a>, reference: &'a Statistics) -> Result<Self> {
        let (n, d) = (rows.n(), rows.dim());
        if n < 2 {
            return Err(Error::Config(format!("resampling needs at least 2 images, got {n}")));
        }
        let sigma = covariance(&reference.mean, &reference.covariance)?;
        let factor = factor(sigma);
        let rank = factor.len() / d;
        let mut squares = vec![0.0; n];
        let mut projected = vec![0.0; n * rank];
        for range in rows.blocks() {
            let mut x = rows.block(range.clone());
            for (x, square) in x.chunks_exact_mut(d).zip(&mut squares[range.clone()]) {
                x.iter_mut().zip(&reference.mean).for_each(|(x, mean)| *x -= mean);
                *square = x.iter().map(|x| x * x).sum();
            }
            let y = &mut projected[range.start * rank..range.end * rank];
            gemm(Mat::new(&x, range.len(), d, d), columns(&factor, d), y, rank, false);
        }
        Ok(Self { rows, reference, squares, projected, rank, trace: trace(sigma) })
    }

    fn n(&self) -> usize {
        self.rows.n()
    }

    /// The distance of the rows, taken as often as `counts` says.
    fn distance(&self, counts: &[u32]) -> f64 {
        let n = self.n() as f64;
        let (d, rank) = (self.rows.dim(), self.rank);
        let drawn = || counts.iter().copied().map(f64::from).enumerate().filter(|(_, w)| *w > 0.0);

        let (mut mean, mut centre) = (vec![0.0; d], vec![0.0; rank]);
        let mut square = 0.0;
        for (i, w) in drawn() {
            mean.iter_mut().zip(self.rows.row(i)).for_each(|(mean, x)| *mean += w / n * x);
            let y = &self.projected[i * rank..][..rank];
            centre.iter_mut().zip(y).for_each(|(centre, y)| *centre += w / n * y);
            square += w * self.squares[i];
        }
        let shift: f64 = mean.iter().zip(&self.reference.mean).map(|(a, b)| (a - b).powi(2)).sum();
        let trace = (square - n * shift) / (n - 1.0);

        let row = |(i, w): (usize, f64)| {
            let (scale, y) = (w.sqrt(), &self.projected[i * rank..][..rank]);
            y.iter().zip(&centre).map(move |(&y, &centre)| scale * (y - centre))
        };
        let distinct: Vec<(usize, f64)> = drawn().collect();
        // The smaller of the two Gram matrices, as the greater has eigenvalues at 0.
        let (size, gram) = if distinct.len() < rank {
            let z: Vec<f64> = distinct.iter().copied().flat_map(row).collect();
            (distinct.len(), products(&z, &z, rank))
        } else {
            let mut gram = vec![0.0; rank * rank];
            for rows in distinct.chunks(BLOCK) {
                let z: Vec<f64> = rows.iter().copied().flat_map(row).collect();
                let z = Mat::new(&z, rows.len(), rank, rank);
                gemm(z.t(), z, &mut gram, rank, true);
            }
            (rank, gram)
        };
        let gram = MatRef::from_column_major_slice(&gram, size, size);
        let overlap = sum_of_roots(gram) / (n - 1.0).sqrt();
        (shift + trace + self.trace - 2.0 * overlap).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fid;
    use super::*;

    /// Rows of independent normals about `shift`.
    fn normals(n: u32, d: u32, shift: f32, seed: u64) -> Vec<f32> {
        let stream = Domain::Bootstrap.stream(seed);
        (0..n * d).map(|i| stream.normal(u64::MAX, i) + shift).collect()
    }

    /// The distance of each resample from rows that are written out.
    fn literally(rows: &[f32], reference: &Statistics, resamples: u64, seed: u64) -> Vec<f64> {
        let d = reference.dim();
        let distance = |resample| {
            let strata = Strata::new(&[], rows.len() / d).unwrap();
            let counts = strata.counts(resample, seed);
            let repeat = |(row, &n): (&[f32], &u32)| row.repeat(n as usize);
            let drawn: Vec<f32> = rows.chunks(d).zip(&counts).flat_map(repeat).collect();
            fid(&Statistics::of_rows(&drawn, d).unwrap(), reference).unwrap()
        };
        (0..resamples).map(distance).collect()
    }

    fn spread(values: &[f64]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
    }

    #[test]
    fn equals_the_spread_over_written_out_resamples() {
        // More rows than features, fewer, more than a block, and a reference of low rank.
        for (n, d, other) in [(40, 3, 50), (8, 20, 60), (600, 5, 90), (30, 12, 6), (2, 1, 9)] {
            let rows = normals(n, d, 0.3, 1);
            let reference = normals(other, d, 0.0, 2);
            let reference = Statistics::of_rows(&reference, d as usize).unwrap();
            let expected = spread(&literally(&rows, &reference, 20, 7));
            let found = standard_error(&rows, &reference, &[], 20, 7).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-6, "{n} {d}: {found} {expected}");
        }
    }

    #[test]
    fn resamples_draw_n_rows_and_follow_the_seed() {
        let counts = |resample, seed| Strata::new(&[], 1000).unwrap().counts(resample, seed);
        let first = counts(0, 1);
        assert_eq!(first.iter().sum::<u32>(), 1000);
        let distinct = first.iter().filter(|&&count| count > 0).count();
        // 1000 (1 - 1/e), give or take.
        assert!((600..665).contains(&distinct), "{distinct}");
        assert_eq!(first, counts(0, 1));
        assert!(first != counts(1, 1) && first != counts(0, 2));
    }

    #[test]
    fn resamples_keep_the_size_of_each_stratum() {
        let names = [7, 7, 1, 7, 1, 1, 7, 900];
        let counts = Strata::new(&names, 8).unwrap().counts(3, 1);
        for name in [1, 7, 900] {
            let of = names.iter().zip(&counts).filter(|(n, _)| **n == name);
            let size = names.iter().filter(|n| **n == name).count();
            assert_eq!(of.map(|(_, &count)| count as usize).sum::<usize>(), size);
        }
        let varied = (0..20).any(|r| Strata::new(&names, 8).unwrap().counts(r, 1) != counts);
        assert!(varied && Strata::new(&names, 9).is_err());
    }

    /// Two classes in turn, far apart: as many of each in every set.
    #[test]
    fn strata_tell_the_spread_where_classes_are_in_turn() {
        let reference =
            Statistics { n: None, mean: vec![0.0; 2], covariance: vec![40., 0., 0., 1.] };
        let names: Vec<u32> = (0..400).map(|i| i % 2).collect();
        let set = |seed| {
            let mut rows = normals(400, 2, 1.0, seed);
            for (row, name) in rows.chunks_exact_mut(2).zip(&names) {
                row[0] += if *name == 0 { -6.0 } else { 6.0 };
            }
            rows
        };
        let distance =
            |rows: Vec<f32>| fid(&Statistics::of_rows(&rows, 2).unwrap(), &reference).unwrap();
        let true_error = spread(&(0..200).map(set).map(distance).collect::<Vec<_>>());
        let error = |strata: &[u32]| {
            let errors = (0..10).map(|s| standard_error(&set(s), &reference, strata, 200, 3));
            errors.map(Result::unwrap).sum::<f64>() / 10.0
        };
        let (within, of_all) = (error(&names) / true_error, error(&[]) / true_error);
        assert!((within - 1.0).abs() < 0.15 && of_all > 2.0, "{within} {of_all}");
    }

    #[test]
    fn tells_the_spread_over_fresh_images() {
        let reference =
            Statistics { n: None, mean: vec![0.0; 2], covariance: vec![1., 0., 0., 1.] };
        let sets: Vec<Vec<f32>> = (0..200).map(|seed| normals(400, 2, 1.0, seed)).collect();
        let distance =
            |rows: &Vec<f32>| fid(&Statistics::of_rows(rows, 2).unwrap(), &reference).unwrap();
        let true_error = spread(&sets.iter().map(distance).collect::<Vec<_>>());
        let errors =
            sets[..10].iter().map(|rows| standard_error(rows, &reference, &[], 200, 3).unwrap());
        let mean = errors.sum::<f64>() / 10.0;
        // Of a mean shift of (1, 1) in n = 400: 2 √2 / √400 = 0.14.
        assert!((0.12..0.16).contains(&true_error), "{true_error}");
        assert!((mean / true_error - 1.0).abs() < 0.15, "{mean} {true_error}");
    }

    #[test]
    fn equal_rows_have_no_spread() {
        let reference = Statistics::of_rows(&normals(9, 2, 0.0, 1), 2).unwrap();
        assert!(standard_error(&[1.0; 12], &reference, &[], 5, 1).unwrap() < 1e-9);
    }

    #[test]
    fn refuses_what_has_no_spread() {
        let reference = Statistics::of_rows(&normals(9, 2, 0.0, 1), 2).unwrap();
        let message = |rows: &[f32], resamples| {
            standard_error(rows, &reference, &[], resamples, 1).unwrap_err().to_string()
        };
        assert!(message(&[1.0; 4], 1).contains("at least 2 resamples, not 1"));
        assert!(message(&[1.0; 2], 9).contains("at least 2 images, got 1"));
        assert!(message(&[], 9).contains("got 0"));
        assert!(message(&[1.0; 3], 9).contains("rows of 2"));
        assert!(message(&[1.0, 1.0, f32::NAN, 1.0], 9).contains("row 1, column 0 is NaN"));
    }
}
