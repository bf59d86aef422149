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

use candle_core::{DType, Tensor};

use super::field::{Field, round};
use super::step_grid;
use crate::error::Result;

/// One step over a span from `x`: the change of `x`.
pub(super) type Step = fn(&mut Field<'_>, &Tensor, &Span) -> Result<Tensor>;

const THIRD: f64 = 1.0 / 3.0;

/// A step of the grid; times are rounded to the grid's precision.
pub(super) struct Span {
    t0: f64,
    t1: f64,
    h: f64,
    dtype: DType,
}

impl Span {
    fn new(t0: f64, t1: f64, dtype: DType) -> Self {
        Self { t0, t1, h: round(dtype, t1 - t0), dtype }
    }

    /// The time after a fraction of the step.
    fn at(&self, fraction: f64) -> f64 {
        let passed = round(self.dtype, self.h * round(self.dtype, fraction));
        round(self.dtype, self.t0 + passed)
    }

    /// The state at `t` on the line from `x0` to `x1`.
    fn between(&self, x0: &Tensor, x1: &Tensor, t: f64) -> Result<Tensor> {
        if t >= self.t1 {
            return Ok(x1.clone());
        }
        let slope = round(self.dtype, round(self.dtype, t - self.t0) / self.h);
        Ok((x0 + ((x1 - x0)? * slope)?)?)
    }
}

pub(super) fn euler(v: &mut Field<'_>, x: &Tensor, span: &Span) -> Result<Tensor> {
    Ok((v.at(x, span.t0)? * span.h)?)
}

pub(super) fn midpoint(v: &mut Field<'_>, x: &Tensor, span: &Span) -> Result<Tensor> {
    let k1 = v.at(x, span.t0)?;
    let k2 = v.at(&(x + (k1 * (0.5 * span.h))?)?, span.at(0.5))?;
    Ok((k2 * span.h)?)
}

pub(super) fn heun2(v: &mut Field<'_>, x: &Tensor, span: &Span) -> Result<Tensor> {
    let k1 = v.at(x, span.t0)?;
    let k2 = v.at(&(x + (&k1 * span.h)?)?, span.at(1.0))?;
    Ok((((k1 + k2)? * 0.5)? * span.h)?)
}

pub(super) fn heun3(v: &mut Field<'_>, x: &Tensor, span: &Span) -> Result<Tensor> {
    let h = span.h;
    let k1 = v.at(x, span.t0)?;
    let k2 = v.at(&(x + (&k1 * (h * THIRD))?)?, span.at(THIRD))?;
    let k3 = v.at(&(x + (k2 * (h * 2.0 * THIRD))?)?, span.at(2.0 * THIRD))?;
    Ok((((k1 * 0.25)? + (k3 * 0.75)?)? * h)?)
}

pub(super) fn rk4(v: &mut Field<'_>, x: &Tensor, span: &Span) -> Result<Tensor> {
    let h = span.h;
    let k1 = v.at(x, span.t0)?;
    let k2 = v.at(&(x + (&k1 * (h * THIRD))?)?, span.at(THIRD))?;
    let k3 = v.at(&(x + ((&k2 - (&k1 * THIRD)?)? * h)?)?, span.at(2.0 * THIRD))?;
    let k4 = v.at(&(x + (((&k1 - &k2)? + &k3)? * h)?)?, span.t1)?;
    let inner = ((k2 + k3)? * 3.0)?;
    Ok((((k1 + inner)? + k4)? * (h * 0.125))?)
}

/// Carries `x` along the grid of `step_size`, or along `times` themselves; `each` gets the state
/// at every time after the first, on a straight line between two states of the grid.
///
/// Times are the solver's, growing, and are calculated in the precision of `dtype`.
pub(super) fn solve(
    step: Step,
    field: &mut Field<'_>,
    x: &Tensor,
    times: &[f64],
    step_size: Option<f64>,
    dtype: DType,
    each: &mut dyn FnMut(Tensor),
) -> Result<()> {
    let times: Vec<f64> = times.iter().map(|&t| round(dtype, t)).collect();
    let [first, .., last] = times[..] else { return Ok(()) };
    let grid = match step_size {
        Some(step_size) => step_grid(first, last, step_size, dtype)?,
        None => times.clone(),
    };
    let mut x0 = x.clone();
    let mut asked = times[1..].iter().copied().peekable();
    for t in grid.windows(2) {
        let span = Span::new(t[0], t[1], dtype);
        let x1 = (&x0 + step(field, &x0, &span)?)?;
        while let Some(t) = asked.next_if(|&t| t <= span.t1) {
            each(span.between(&x0, &x1, t)?);
        }
        x0 = x1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use crate::error::Result;
    use crate::solver::{Method, Options, solve, uniform_grid};
    use candle_core::Tensor;

    /// Error at t = 1 of `x' = -x`, `x(0) = 1`, with `steps` steps.
    fn error(method: Method, steps: u32) -> f64 {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let grid = uniform_grid(1.0 / f64::from(steps)).unwrap();
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok(x.neg()?) };
        let mut end = x.clone();
        solve(method, &mut field, &x, &grid, &Options::default(), |x| end = x).unwrap();
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
        let options = Options { step_size: Some(0.5), ..Options::default() };
        let mut states = Vec::new();
        let trace = solve(Method::Euler, &mut field, &x, &[0.0, 0.75, 1.0], &options, |x| {
            states.push(x.to_vec1::<f64>().unwrap()[0]);
        });
        // Euler: 0 up to t = 0.5, then a slope of 0.5.
        assert_eq!(states, [0.125, 0.25]);
        assert_eq!(trace.unwrap().evaluations, [0.0, 0.5]);
    }
}
