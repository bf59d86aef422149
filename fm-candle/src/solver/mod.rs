//! Ordinary differential equations `dx/dt = v(x, t)`: grids and methods; they know no net.
//!
//! | file | idea |
//! |---|---|
//! | `method` | the methods by name |
//! | `fixed` | one-step methods on a given grid |
//! | `adams`, `weights` | methods that remember slopes, and their coefficients |
//! | `adaptive`, `control`, `dense` | embedded pairs: the step, its length, what lies between |
//! | `tableau`, `dopri8` | the pairs' coefficients |
//! | `field` | time as the solver and as the field see it |
//!
//! The methods, their numbers and the times they evaluate at are those of torchdiffeq 0.2.5.

mod adams;
mod adaptive;
mod control;
mod dense;
mod dopri8;
mod field;
mod fixed;
mod method;
mod tableau;
mod weights;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use field::{Field, round};
use method::{Scheme, scheme};

pub use adams::{Adams, Unconverged};
pub use control::Control;
pub use quant_core::method::Method;

/// A velocity field.
pub trait Velocity {
    /// `v(x, t)` for one time and a batch of states.
    ///
    /// # Errors
    /// Whatever evaluating the field may meet.
    fn velocity(&mut self, x: &Tensor, t: f64) -> Result<Tensor>;
}

impl<F: FnMut(&Tensor, f64) -> Result<Tensor>> Velocity for F {
    fn velocity(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        self(x, t)
    }
}

/// The state at asked times between two of a fixed-step method's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// On a straight line.
    #[default]
    Linear,
    /// On the cubic through both states and slopes; costs an evaluation for every asked time.
    Cubic,
}

/// Settings of [`solve`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps of a fixed-step method; without it the asked times are the grid.
    pub step_size: Option<f64>,
    /// Precision of a fixed-step method's times, F32 or F64 (torch's type of the time grid).
    pub time: DType,
    /// Asked times between a fixed-step method's steps (torchdiffeq's `interp`).
    pub interpolation: Interpolation,
    /// Whether a fixed-step method sees the ends of a step from within it: at the float after its
    /// start and the one before its end, for fields that jump at times of the grid.
    pub perturb: bool,
    /// Order and corrections of a method of Adams.
    pub adams: Adams,
    /// Tolerances of an adaptive method and of `implicit_adams`; step control of an adaptive one.
    pub control: Control,
    /// Times at which an adaptive method must end a step.
    pub step_t: Vec<f64>,
    /// Such times at which the field jumps, too: its slope is taken anew behind them.
    pub jump_t: Vec<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            step_size: None,
            time: DType::F64,
            interpolation: Interpolation::default(),
            perturb: false,
            adams: Adams::default(),
            control: Control::default(),
            step_t: Vec::new(),
            jump_t: Vec::new(),
        }
    }
}

/// A step that an adaptive method tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where it starts.
    pub t: f64,
    /// Its length, negative backward in time.
    pub h: f64,
    /// Whether its error was small enough.
    pub accepted: bool,
}

/// What a solution cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Every time at which the field was evaluated, in order.
    pub evaluations: Vec<f64>,
    /// The steps of an adaptive method.
    pub steps: Vec<Step>,
    /// Steps of `implicit_adams` that it could not correct to within the tolerances: the solution
    /// goes on, but may be wrong.
    pub unconverged: Vec<Unconverged>,
}

/// Solves `dx/dt = v(x, t)` from `x` at the first of `times`, which grow or shrink; `each` gets the
/// state at every time after the first.
///
/// An adaptive method goes past the last time and comes back by interpolation: the field must
/// stand times beyond it.
///
/// # Shapes: `x`, the states: any, F32 or F64
///
/// # Errors
/// Times that neither grow nor shrink, options that make no sense, a state that is not F32 or F64,
/// whatever evaluating the field may meet; a state that is not finite and, of an adaptive method, a
/// step too short to move on or an error that is not finite, with the time and the number of the
/// step.
pub fn solve(
    method: Method,
    v: &mut dyn Velocity,
    x: &Tensor,
    times: &[f64],
    options: &Options,
    mut each: impl FnMut(Tensor),
) -> Result<Trace> {
    let sign = if times.len() > 1 && times[0] > times[1] { -1.0 } else { 1.0 };
    let grows = |w: &[f64]| sign * w[0] < sign * w[1];
    if !times.iter().all(|t| t.is_finite()) || !times.windows(2).all(grows) {
        return Err(Error::Config("times must be finite, and all grow or all shrink".into()));
    }
    if !matches!(options.time, DType::F32 | DType::F64) {
        return Err(Error::Config(format!("times are F32 or F64, not {:?}", options.time)));
    }
    if times.len() < 2 {
        return Ok(Trace::default());
    }
    let mut field = Field::new(v, x.dtype(), sign)?;
    let times: Vec<f64> = times.iter().map(|t| sign * t).collect();
    let (mut steps, mut unconverged) = (Vec::new(), Vec::new());
    match scheme(method) {
        Scheme::Fixed(step) => fixed::solve(step, &mut field, x, &times, options, &mut each)?,
        Scheme::Adams { implicit } => {
            unconverged = adams::solve(implicit, &mut field, x, &times, options, &mut each)?;
        }
        Scheme::Adaptive(pair) => {
            steps = adaptive::solve(pair, &mut field, x, &times, options, &mut each)?;
        }
    }
    Ok(Trace { evaluations: field.times, steps, unconverged })
}

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
fn step_grid(start: f64, end: f64, step_size: f64, dtype: DType) -> Result<Vec<f64>> {
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
    fn times_must_grow_or_shrink() {
        let x = Tensor::new(&[1f32], &candle_core::Device::Cpu).unwrap();
        for method in [Method::Euler, Method::Dopri5] {
            let run = |times: &[f64]| {
                let mut v = |x: &Tensor, _: f64| Ok(x.clone());
                solve(method, &mut v, &x, times, &Options::default(), |_| ())
            };
            for bad in [&[0.0, 0.5, 0.25][..], &[0.0, 0.5, 0.5, 1.0], &[0.0, f64::NAN]] {
                assert!(run(bad).is_err(), "{method}: {bad:?}");
            }
            assert!(run(&[1.0, 0.5, 0.0]).is_ok() && run(&[0.0]).unwrap().steps.is_empty());
        }
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
