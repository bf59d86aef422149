//! Explicit one-step methods on a given grid (torchdiffeq's `FixedGridODESolver`).
//!
//! ```text
//! euler     h k1
//! midpoint  h k2                          k2 = v(x + h/2 k1, t + h/2)
//! heun2     h/2 (k1 + k2)                 k2 = v(x + h k1, t + h)
//! heun3     h/4 (k1 + 3 k3)               k2 = v(x + h/3 k1, t + h/3), k3 = v(x + 2h/3 k2, t + 2h/3)
//! rk4       h/8 (k1 + 3 k2 + 3 k3 + k4)   k2 as above, k3 = v(x + h (k2 - k1/3), t + 2h/3),
//!                                         k4 = v(x + h (k1 - k2 + k3), t + h)
//! ```
//!
//! Asked times between two states of the grid lie on a straight line, or on the cubic through both
//! states and both slopes, `s` from 0 to 1:
//!
//! ```text
//! (1 + 2s)(1 - s)² x0 + s (1 - s)² h f0 + s² (3 - 2s) x1 + s² (s - 1) h f1
//! ```

use candle_core::{DType, Tensor};

use super::field::{Field, round};
use super::grid::step_grid;
use super::options::{Interpolation, SolverOptions};
use crate::error::Result;
use crate::ops::is_finite;

/// The result of a step.
pub(super) struct Advance {
    /// The change of the state.
    pub(super) dx: Tensor,
    /// The slope at the start of the step.
    pub(super) f0: Tensor,
}

/// One step over a span from `x`.
pub(super) type StepFn = fn(&mut Field<'_>, &Tensor, &GridStep) -> Result<Advance>;

const THIRD: f64 = 1.0 / 3.0;

/// A step of the grid; times are rounded to the grid's precision.
pub(super) struct GridStep {
    pub(super) t0: f64,
    pub(super) t1: f64,
    pub(super) h: f64,
    dtype: DType,
    /// True if the ends are seen from within the step.
    perturb: bool,
}

impl GridStep {
    /// The slope at the start.
    pub(super) fn first(&self, v: &mut Field<'_>, x: &Tensor) -> Result<Tensor> {
        if self.perturb { v.after(x, self.t0) } else { v.at(x, self.t0) }
    }

    /// The slope at `t`, the end of the step.
    pub(super) fn last(&self, v: &mut Field<'_>, x: &Tensor, t: f64) -> Result<Tensor> {
        if self.perturb { v.before(x, t) } else { v.at(x, t) }
    }

    /// The time after a fraction of the step.
    fn at(&self, fraction: f64) -> f64 {
        let passed = self.round(self.h * self.round(fraction));
        self.round(self.t0 + passed)
    }

    fn round(&self, x: f64) -> f64 {
        round(self.dtype, x)
    }

    /// The share of the step that has passed at `t`.
    fn share(&self, t: f64) -> f64 {
        self.round(self.round(t - self.t0) / self.h)
    }

    /// The state at `t` on the line from `x0` to `x1`.
    fn line(&self, x0: &Tensor, x1: &Tensor, t: f64) -> Result<Tensor> {
        if t >= self.t1 {
            return Ok(x1.clone());
        }
        Ok((x0 + ((x1 - x0)? * self.share(t))?)?)
    }

    /// The state at `t` on the cubic from `x0` with slope `f0` to `x1` with slope `f1`.
    fn cubic(&self, [x0, x1]: [&Tensor; 2], [f0, f1]: [&Tensor; 2], t: f64) -> Result<Tensor> {
        let (s, h) = (self.share(t), self.h);
        let product = |factors: &[f64]| {
            factors.iter().copied().reduce(|a, b| self.round(a * b)).unwrap_or(1.0)
        };
        let (rest, rising) = (self.round(1.0 - s), self.round(1.0 + 2.0 * s));
        let (falling, past) = (self.round(3.0 - 2.0 * s), self.round(s - 1.0));
        let start =
            ((x0 * product(&[rising, rest, rest]))? + (f0 * product(&[s, rest, rest, h]))?)?;
        let end = ((x1 * product(&[s, s, falling]))? + (f1 * product(&[s, s, past, h]))?)?;
        Ok((start + end)?)
    }
}

pub(super) fn euler(v: &mut Field<'_>, x: &Tensor, span: &GridStep) -> Result<Advance> {
    let f0 = span.first(v, x)?;
    Ok(Advance { dx: (&f0 * span.h)?, f0 })
}

pub(super) fn midpoint(v: &mut Field<'_>, x: &Tensor, span: &GridStep) -> Result<Advance> {
    let f0 = span.first(v, x)?;
    let k2 = v.at(&(x + (&f0 * (0.5 * span.h))?)?, span.at(0.5))?;
    Ok(Advance { dx: (k2 * span.h)?, f0 })
}

pub(super) fn heun2(v: &mut Field<'_>, x: &Tensor, span: &GridStep) -> Result<Advance> {
    let f0 = span.first(v, x)?;
    let k2 = span.last(v, &(x + (&f0 * span.h)?)?, span.at(1.0))?;
    Ok(Advance { dx: (((&f0 + k2)? * 0.5)? * span.h)?, f0 })
}

pub(super) fn heun3(v: &mut Field<'_>, x: &Tensor, span: &GridStep) -> Result<Advance> {
    let h = span.h;
    let f0 = span.first(v, x)?;
    let k2 = v.at(&(x + (&f0 * (h * THIRD))?)?, span.at(THIRD))?;
    let k3 = v.at(&(x + (k2 * (h * 2.0 * THIRD))?)?, span.at(2.0 * THIRD))?;
    Ok(Advance { dx: (((&f0 * 0.25)? + (k3 * 0.75)?)? * h)?, f0 })
}

pub(super) fn rk4(v: &mut Field<'_>, x: &Tensor, span: &GridStep) -> Result<Advance> {
    let f0 = span.first(v, x)?;
    Ok(Advance { dx: rk4_from(v, x, span, &f0)?, f0 })
}

/// The change of `x` by the 3/8 rule whose first slope is `k1`.
pub(super) fn rk4_from(
    v: &mut Field<'_>,
    x: &Tensor,
    span: &GridStep,
    k1: &Tensor,
) -> Result<Tensor> {
    let h = span.h;
    let k2 = v.at(&(x + (k1 * (h * THIRD))?)?, span.at(THIRD))?;
    let k3 = v.at(&(x + ((&k2 - (k1 * THIRD)?)? * h)?)?, span.at(2.0 * THIRD))?;
    let k4 = span.last(v, &(x + (((k1 - &k2)? + &k3)? * h)?)?, span.t1)?;
    let inner = ((k2 + k3)? * 3.0)?;
    Ok((((k1 + inner)? + k4)? * (h * 0.125))?)
}

/// Carries `x` by `step` along the grid of `options.step_size`, or along `times` themselves;
/// `each` gets the state at every time after the first.
///
/// Times are the solver's, growing, and are calculated in the precision of `options.time`.
pub(super) fn solve(
    mut step: impl FnMut(&mut Field<'_>, &Tensor, &GridStep) -> Result<Advance>,
    field: &mut Field<'_>,
    x: &Tensor,
    times: &[f64],
    options: &SolverOptions,
    each: &mut dyn FnMut(Tensor),
) -> Result<()> {
    let SolverOptions { step_size, time: dtype, interpolation, perturb, .. } = *options;
    let times: Vec<f64> = times.iter().map(|&t| round(dtype, t)).collect();
    let [first, .., last] = times[..] else { return Ok(()) };
    let grid = match step_size {
        Some(step_size) => step_grid(first, last, step_size, dtype)?,
        None => times.clone(),
    };
    let mut x0 = x.clone();
    let mut asked = times[1..].iter().copied().peekable();
    for (number, t) in grid.windows(2).enumerate() {
        let (t0, t1) = (t[0], t[1]);
        let span = GridStep { t0, t1, h: round(dtype, t1 - t0), dtype, perturb };
        let Advance { dx, f0 } = step(field, &x0, &span)?;
        let x1 = (&x0 + dx)?;
        if !is_finite(&x1)? {
            let reason = format!(
                "the state after a step of {:e} is not finite: look at the start, the field, the step",
                span.h
            );
            return Err(field.failure(t0, number, &reason));
        }
        while let Some(t) = asked.next_if(|&t| t <= t1) {
            each(match interpolation {
                Interpolation::Linear => span.line(&x0, &x1, t)?,
                Interpolation::Cubic => {
                    let f1 = field.at(&x1, t1)?;
                    span.cubic([&x0, &x1], [&f0, &f1], t)?
                }
            });
        }
        x0 = x1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use crate::error::Result;
    use crate::solver::{Interpolation, Method, SolverOptions, solve, uniform_grid};
    use candle_core::Tensor;

    /// Error at t = 1 of `x' = -x`, `x(0) = 1`, with `steps` steps.
    fn error(method: Method, steps: u32) -> f64 {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let grid = uniform_grid(1.0 / f64::from(steps)).unwrap();
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok(x.neg()?) };
        let mut end = x.clone();
        solve(method, &mut field, &x, &grid, &SolverOptions::default(), |x| end = x).unwrap();
        (end.to_vec1::<f64>().unwrap()[0] - (-1f64).exp()).abs()
    }

    #[test]
    fn errors_shrink_with_the_order_of_the_method() {
        use Method::{Euler, Heun2, Heun3, Midpoint, Rk4};
        for (method, order) in [(Euler, 1), (Midpoint, 2), (Heun2, 2), (Heun3, 3), (Rk4, 4)] {
            let ratio = error(method, 64) / error(method, 128);
            let expected = f64::from(1 << order);
            assert!((ratio / expected - 1.0).abs() < 0.05, "{method}: {ratio} for {expected}");
        }
    }

    #[test]
    fn asked_times_lie_on_lines_between_the_grids_states() {
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, t: f64| -> Result<Tensor> { Ok(x.affine(0.0, t)?) };
        let options = SolverOptions { step_size: Some(0.5), ..SolverOptions::default() };
        let mut states = Vec::new();
        let trace = solve(Method::Euler, &mut field, &x, &[0.0, 0.75, 1.0], &options, |x| {
            states.push(x.to_vec1::<f64>().unwrap()[0]);
        });
        // Euler: 0 up to t = 0.5, then a slope of 0.5.
        assert_eq!(states, [0.125, 0.25]);
        assert_eq!(trace.unwrap().evaluations, [0.0, 0.5]);
    }

    #[test]
    fn the_cubic_finds_a_cubic_again() {
        // x' = 3t², x(0) = 0: rk4 is exact, and so is the cubic; a line is not.
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let at = |interpolation| {
            let mut field =
                |x: &Tensor, t: f64| -> Result<Tensor> { Ok(x.affine(0.0, 3.0 * t * t)?) };
            let options =
                SolverOptions { step_size: Some(1.0), interpolation, ..SolverOptions::default() };
            let mut states = Vec::new();
            let times = [0.0, 0.25, 0.5, 1.0];
            let trace = solve(Method::Rk4, &mut field, &x, &times, &options, |x| {
                states.push(x.to_vec1::<f64>().unwrap()[0]);
            });
            (states, trace.unwrap().evaluations.len())
        };
        assert_eq!(at(Interpolation::Linear), (vec![0.25, 0.5, 1.0], 4));
        let (states, evaluations) = at(Interpolation::Cubic);
        for (state, expected) in states.iter().zip([1.0 / 64.0, 0.125, 1.0]) {
            assert!((state - expected).abs() < 1e-15, "{state} for {expected}");
        }
        assert_eq!(evaluations, 4 + 3);
    }

    #[test]
    fn ends_are_seen_from_within_where_asked() {
        // The field jumps from 1 to 2 at t = 1/2, where the grid has a point.
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let end = |perturb| {
            let jump = |t: f64| if t < 0.5 { 1.0 } else { 2.0 };
            let mut field = |x: &Tensor, t: f64| -> Result<Tensor> { Ok(x.affine(0.0, jump(t))?) };
            let options = SolverOptions { perturb, ..SolverOptions::default() };
            let mut end = 0.0;
            solve(Method::Heun2, &mut field, &x, &[0.0, 0.5, 1.0], &options, |x| {
                end = x.to_vec1::<f64>().unwrap()[0];
            })
            .unwrap();
            end
        };
        assert_eq!((end(true), end(false)), (1.5, 1.75));
    }

    #[test]
    fn a_state_that_is_not_finite_is_an_error_that_says_where() {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, t: f64| -> Result<Tensor> {
            Ok(if t < 0.5 { x.clone() } else { (x * f64::INFINITY)? })
        };
        for method in [Method::Euler, Method::Rk4, Method::ExplicitAdams] {
            let grid = [0.0, 0.25, 0.5, 0.75, 1.0];
            let error = solve(method, &mut field, &x, &grid, &SolverOptions::default(), |_| ());
            let text = error.unwrap_err().to_string();
            assert!(text.contains("failed at t = 0.") && text.contains(", step "), "{text}");
        }
    }
}
