//! Ordinary differential equations `dx/dt = v(x, t)`: grids and methods; they know no net.
//!
//! | file | idea |
//! |---|---|
//! | `method` | the methods by name |
//! | `fixed` | one-step methods on a given grid |
//! | `adams`, `adams_coefficients` | methods that remember slopes, and their coefficients |
//! | `adaptive`, `control`, `dense` | embedded pairs: the step, its length, what lies between |
//! | `tableau`, `dopri8` | the pairs' coefficients |
//! | `field` | the velocity, and time as the solver and as the field see it |
//! | `grid`, `options` | time grids; settings |
//!
//! The methods, their numbers and the times they evaluate at are those of torchdiffeq 0.2.5.

mod adams;
mod adams_coefficients;
mod adaptive;
mod control;
mod dense;
mod dopri8;
mod field;
mod fixed;
mod grid;
mod method;
mod options;
mod tableau;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use field::Field;
use method::{StepScheme, scheme};

pub use adaptive::SolverStep;
pub use control::Control;
pub use field::Velocity;
pub use grid::{edm_grid, steps_grid, uniform_grid};
pub use options::{Adams, Interpolation, SolverOptions, Unconverged};
pub use quant_core::method::Method;

/// The evaluations and steps of a solution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Every time at which the field was evaluated, in order.
    pub evaluations: Vec<f64>,
    /// The steps of an adaptive method.
    pub steps: Vec<SolverStep>,
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
    options: &SolverOptions,
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
        StepScheme::Fixed(step) => fixed::solve(step, &mut field, x, &times, options, &mut each)?,
        StepScheme::Adams { implicit } => {
            unconverged = adams::solve(implicit, &mut field, x, &times, options, &mut each)?;
        }
        StepScheme::Adaptive(pair) => {
            steps = adaptive::solve(pair, &mut field, x, &times, options, &mut each)?;
        }
    }
    Ok(Trace { evaluations: field.times, steps, unconverged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_must_grow_or_shrink() {
        let x = Tensor::new(&[1f32], &candle_core::Device::Cpu).unwrap();
        for method in [Method::Euler, Method::Dopri5] {
            let run = |times: &[f64]| {
                let mut v = |x: &Tensor, _: f64| Ok(x.clone());
                solve(method, &mut v, &x, times, &SolverOptions::default(), |_| ())
            };
            for bad in [&[0.0, 0.5, 0.25][..], &[0.0, 0.5, 0.5, 1.0], &[0.0, f64::NAN]] {
                assert!(run(bad).is_err(), "{method}: {bad:?}");
            }
            assert!(run(&[1.0, 0.5, 0.0]).is_ok() && run(&[0.0]).unwrap().steps.is_empty());
        }
    }
}
