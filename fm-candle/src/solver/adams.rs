//! The linear multistep methods of Adams on a given grid (torchdiffeq's `fixed_adams`).
//!
//! ```text
//! f0 = v(x, t); the history holds the slopes of the last steps, newest first, n of them
//! n < 3:     the step of rk4
//! n >= 3:    dx = h sum_k bashforth(n)_k f_k
//! implicit:  repeat  f = v(x + dx, t + h),  dx = h (moulton(n + 1)_0 f + sum_k moulton(n + 1)_(k+1) f_k)
//!            until   max |dx - dx before| / (atol + rtol max(|dx|, |dx before|)) < 1
//! ```
//! The weights are those of steps of one length, whatever the spacing of the grid. A step that does
//! not converge forgets the oldest slope and goes on.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::adams_coefficients::{bashforth, moulton};
use super::control::Control;
use super::field::Field;
use super::fixed::{self, Advance, GridStep, rk4_from};
use super::options::{Adams, SolverOptions, Unconverged};
use crate::error::Result;

/// The fewest slopes that a step of Adams is made of.
const MIN_SLOPES: usize = 3;

/// Carries `x` along `times` as [`fixed::solve`] does; returns the steps that did not converge.
pub(super) fn solve(
    implicit: bool,
    field: &mut Field<'_>,
    x: &Tensor,
    times: &[f64],
    options: &SolverOptions,
    each: &mut dyn FnMut(Tensor),
) -> Result<Vec<Unconverged>> {
    options.adams.check()?;
    if implicit {
        options.control.check()?;
    }
    let mut history = History {
        settings: options.adams,
        control: &options.control,
        slopes: VecDeque::new(),
        steps: 0,
        unconverged: Vec::new(),
    };
    let step = |v: &mut Field<'_>, x: &Tensor, span: &GridStep| history.step(implicit, v, x, span);
    fixed::solve(step, field, x, times, options, each)?;
    Ok(history.unconverged)
}

/// The slopes of the steps before.
struct History<'a> {
    settings: Adams,
    control: &'a Control,
    /// Newest first.
    slopes: VecDeque<Tensor>,
    steps: usize,
    unconverged: Vec<Unconverged>,
}

impl History<'_> {
    fn step(
        &mut self,
        implicit: bool,
        v: &mut Field<'_>,
        x: &Tensor,
        span: &GridStep,
    ) -> Result<Advance> {
        let f0 = span.first(v, x)?;
        self.slopes.push_front(f0.clone());
        self.slopes.truncate(self.settings.max_order - 1);
        let n = self.slopes.len();
        let dx = if n < MIN_SLOPES {
            rk4_from(v, x, span, &f0)?
        } else {
            let weights: Vec<f64> = bashforth(n).iter().map(|w| span.h * w).collect();
            let predicted = self.combine(&weights)?;
            if implicit { self.correct(predicted, v, x, span)? } else { predicted }
        };
        self.steps += 1;
        Ok(Advance { dx, f0 })
    }

    /// The change `dx` of `x` after the corrections.
    fn correct(
        &mut self,
        mut dx: Tensor,
        v: &mut Field<'_>,
        x: &Tensor,
        span: &GridStep,
    ) -> Result<Tensor> {
        let weights = moulton(self.slopes.len() + 1);
        let (now, before) = (span.h * weights[0], &weights[1..]);
        let remembered = (self.combine(before)? * span.h)?;
        for _ in 0..self.settings.max_iters {
            let f = span.last(v, &(x + &dx)?, span.t1)?;
            let corrected = ((f * now)? + &remembered)?;
            let converged = self.control.is_within(&(&dx - &corrected)?, &dx, &corrected)?;
            dx = corrected;
            if converged {
                return Ok(dx);
            }
        }
        self.unconverged.push(Unconverged { t: v.flip(span.t0), step: self.steps });
        self.slopes.pop_back();
        Ok(dx)
    }

    /// `sum_k weights_k slopes_k`.
    fn combine(&self, weights: &[f64]) -> Result<Tensor> {
        let mut sum = (&self.slopes[0] * weights[0])?;
        for (slope, &weight) in self.slopes.iter().zip(weights).skip(1) {
            sum = (sum + (slope * weight)?)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::solver::{Method, Trace, solve, uniform_grid};

    /// The state at t = 1 of `x' = rate x`, `x(0) = 1`, with `steps` steps, and the trace.
    fn decay(method: Method, rate: f64, steps: u32, adams: Adams) -> Result<(f64, Trace)> {
        let x = Tensor::new(&[1f64], &Device::Cpu)?;
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok((x * rate)?) };
        let control = Control { atol: 1e-14, rtol: 1e-14, ..Control::default() };
        let options = SolverOptions { adams, control, ..SolverOptions::default() };
        let grid = uniform_grid(1.0 / f64::from(steps))?;
        let mut end = x.clone();
        let trace = solve(method, &mut field, &x, &grid, &options, |x| end = x)?;
        Ok((end.to_vec1::<f64>()?[0], trace))
    }

    #[test]
    fn errors_shrink_with_the_number_of_slopes() {
        // The start by rk4 has an error of order 5 in the state: higher orders do not show.
        for (method, max_order, order) in [
            (Method::ExplicitAdams, 4, 3),
            (Method::ExplicitAdams, 5, 4),
            (Method::ImplicitAdams, 4, 4),
            (Method::ImplicitAdams, 3, 4),
        ] {
            let adams = Adams { max_order, max_iters: 100 };
            let error = |steps| {
                let (end, _) = decay(method, -1.0, steps, adams).unwrap();
                (end - (-1f64).exp()).abs()
            };
            let ratio = error(128) / error(256);
            let expected = f64::from(1 << order);
            assert!((ratio / expected - 1.0).abs() < 0.2, "{method}: {ratio} for {expected}");
        }
    }

    #[test]
    fn an_explicit_step_costs_one_evaluation_after_the_start() {
        let (_, trace) = decay(Method::ExplicitAdams, -1.0, 10, Adams::default()).unwrap();
        assert_eq!(trace.evaluations.len(), 2 * 4 + 8);
        let rk4 = Adams { max_order: 3, ..Adams::default() };
        let (end, trace) = decay(Method::ExplicitAdams, -1.0, 10, rk4).unwrap();
        assert_eq!(trace.evaluations.len(), 4 * 10);
        assert_eq!(end, decay(Method::Rk4, -1.0, 10, rk4).unwrap().0);
    }

    /// ```python
    /// x, t = torch.ones(1, dtype=torch.float64), torch.linspace(0, 1, 11, dtype=torch.float64)
    /// odeint(lambda t, x: -4 * x, x, t, method='implicit_adams', rtol=1e-14, atol=1e-14,
    ///        options=dict(max_iters=iters))[-1]
    /// ```
    #[test]
    fn steps_that_do_not_converge_are_named_and_go_on_as_torchdiffeqs() {
        for (max_iters, end, evaluations) in [
            (1, 0.018_640_878_792_453_67, 24),
            (2, 0.018_209_766_277_342_32, 32),
            (4, 0.018_263_650_204_262_73, 48),
        ] {
            let adams = Adams { max_iters, ..Adams::default() };
            let (x, trace) = decay(Method::ImplicitAdams, -4.0, 10, adams).unwrap();
            assert!((x - end).abs() < 1e-14, "{max_iters}: {x} for {end}");
            assert_eq!(trace.evaluations.len(), evaluations);
            let steps: Vec<usize> = trace.unconverged.iter().map(|it| it.step).collect();
            assert_eq!(steps, [2, 3, 4, 5, 6, 7, 8, 9]);
            assert!((trace.unconverged[0].t - 0.2).abs() < 1e-15);
        }
        let adams = Adams { max_iters: 60, ..Adams::default() };
        let (_, trace) = decay(Method::ImplicitAdams, -4.0, 10, adams).unwrap();
        assert!(trace.unconverged.is_empty());
    }

    #[test]
    fn senseless_settings_are_refused() {
        for (max_order, max_iters) in [(0, 4), (1, 4), (13, 4), (12, 0)] {
            let adams = Adams { max_order, max_iters };
            assert!(decay(Method::ImplicitAdams, -1.0, 8, adams).is_err(), "{adams:?}");
        }
    }
}
