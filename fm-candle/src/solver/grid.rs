//! Time grids of fixed-step methods.

use candle_core::DType;

use super::field::round;
use crate::error::{Error, Result};

/// The grid `0, h, 2h, ..., 1`; the last step is shorter where `h` does not divide 1
/// (torchdiffeq's `step_size`).
///
/// # Errors
/// A step outside `(0, 1]`, or more than a million of them.
pub fn uniform_grid(step_size: f64) -> Result<Vec<f64>> {
    if !(step_size > 0.0 && step_size <= 1.0) {
        return Err(Error::Config(format!("step_size {step_size} must lie in (0, 1]")));
    }
    step_grid(0.0, 1.0, step_size, DType::F64)
}

/// The grid `0, h, 2h, ..., 1` of so many steps.
///
/// # Errors
/// No step, or more than a million of them.
pub fn steps_grid(steps: usize) -> Result<Vec<f64>> {
    if !(1..=1_000_000).contains(&steps) {
        return Err(Error::Config(format!("{steps} steps: must be 1 to 1000000")));
    }
    let h = 1.0 / steps as f64;
    Ok((0..steps).map(|i| i as f64 * h).chain([1.0]).collect())
}

/// The grid `start, start + h, start + 2h, ..., end`, calculated in the precision of `dtype`; the
/// last step is shorter where `h` does not divide the way.
pub(super) fn step_grid(start: f64, end: f64, step_size: f64, dtype: DType) -> Result<Vec<f64>> {
    let round = |x: f64| round(dtype, x);
    let h = round(step_size);
    let points = round(round(round(end - start) / h) + 1.0).ceil().max(2.0);
    if !(step_size > 0.0 && step_size.is_finite() && points <= 1e6) {
        return Err(Error::Config(format!(
            "step_size {step_size} must be above 0 and lead from {start} to {end} in 10^6 steps"
        )));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1e6")]
    let points = points as usize;
    let mut grid: Vec<f64> = (0..points).map(|i| round(round(i as f64 * h) + start)).collect();
    grid[points - 1] = end;
    Ok(grid)
}

/// The EDM noise schedule as a time grid of `nfe + 1` points.
///
/// ```text
/// sigma_i = (80^(1/7) + i / (nfe - 1) (0.002^(1/7) - 80^(1/7)))^7, then 0
/// t = 1 - clip(sigma / (1 + sigma), 0, 1)
/// ```
/// Upstream's `get_time_discretization`; it starts at t = 0.0123, not at 0.
///
/// # Errors
/// `nfe < 2`.
pub fn edm_grid(nfe: usize) -> Result<Vec<f64>> {
    if nfe < 2 {
        return Err(Error::Config(format!("nfe {nfe}: the EDM schedule needs at least 2")));
    }
    let (first, last) = (80f64.powf(1.0 / 7.0), 0.002f64.powf(1.0 / 7.0));
    let sigma = |i: usize| (first + i as f64 / (nfe - 1) as f64 * (last - first)).powi(7);
    let sigmas = (0..nfe).map(sigma).chain([0.0]);
    Ok(sigmas.map(|s| 1.0 - (s / (1.0 + s)).clamp(0.0, 1.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_grid_ends_at_one() {
        assert_eq!(uniform_grid(0.25).unwrap(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(uniform_grid(0.4).unwrap(), [0.0, 0.4, 0.8, 1.0]);
        assert_eq!(uniform_grid(0.05).unwrap().len(), 21);
        for bad in [0.0, -0.1, 1.5, f64::NAN, 1e-9] {
            assert!(uniform_grid(bad).is_err());
        }
    }

    #[test]
    fn so_many_steps_are_asked_for_so_many_are_taken() {
        for steps in 1..2000 {
            let grid = steps_grid(steps).unwrap();
            assert_eq!((grid.len(), grid[0], grid[steps]), (steps + 1, 0.0, 1.0));
            assert!(grid.windows(2).all(|pair| pair[0] < pair[1]), "{steps}");
        }
        assert_eq!(steps_grid(20).unwrap(), uniform_grid(0.05).unwrap());
        assert!(steps_grid(0).is_err() && steps_grid(1_000_001).is_err());
    }

    #[test]
    fn a_step_longer_than_the_way_is_one_step() {
        assert_eq!(step_grid(0.0, 1.0, 2.0, DType::F32).unwrap(), [0.0, 1.0]);
        assert_eq!(step_grid(0.0, 1.0, 1e30, DType::F32).unwrap(), [0.0, 1.0]);
        assert!(step_grid(0.0, 1.0, f64::INFINITY, DType::F64).is_err());
        assert_eq!(step_grid(-1.0, 0.0, 0.75, DType::F64).unwrap(), [-1.0, -0.25, 0.0]);
    }

    #[test]
    fn edm_grid_has_upstreams_ends() {
        let grid = edm_grid(50).unwrap();
        assert_eq!(grid.len(), 51);
        assert!((grid[0] - 1.0 / 81.0).abs() < 1e-12);
        assert_eq!(grid[50], 1.0);
        assert!(grid.windows(2).all(|w| w[0] < w[1]));
        assert!(edm_grid(1).is_err());
    }
}
