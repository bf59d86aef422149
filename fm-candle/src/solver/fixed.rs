//! Explicit one-step methods on a given grid (torchdiffeq's `euler`, `midpoint`, `heun2`).

use core::fmt;
use core::str::FromStr;

use candle_core::Tensor;

use super::Velocity;
use crate::error::{Error, Result};

/// A one-step method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `x + h v(x, t)`; order 1.
    Euler,
    /// `x + h v(x + h/2 v(x, t), t + h/2)`; order 2.
    Midpoint,
    /// `x + h/2 (k1 + k2)`, `k1 = v(x, t)`, `k2 = v(x + h k1, t + h)`; order 2.
    Heun2,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 3] = [Self::Euler, Self::Midpoint, Self::Heun2];

    /// torchdiffeq's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::Midpoint => "midpoint",
            Self::Heun2 => "heun2",
        }
    }

    /// Evaluations of the field per step.
    pub fn evaluations(self) -> usize {
        match self {
            Self::Euler => 1,
            Self::Midpoint | Self::Heun2 => 2,
        }
    }

    /// One step from `t` to `t + h`.
    fn step(self, v: &mut dyn Velocity, x: &Tensor, t: f64, h: f64) -> Result<Tensor> {
        let k1 = v.velocity(x, t)?;
        let slope = match self {
            Self::Euler => k1,
            Self::Midpoint => v.velocity(&(x + (k1 * (0.5 * h))?)?, t + 0.5 * h)?,
            Self::Heun2 => {
                let k2 = v.velocity(&(x + (&k1 * h)?)?, t + h)?;
                ((k1 + k2)? * 0.5)?
            }
        };
        Ok((x + (slope * h)?)?)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Config(format!("unknown ODE method `{name}`; known are {known}"))
        })
    }
}

/// Carries `x` along `grid` and returns the last state; `each` sees every state after the first.
///
/// # Errors
/// Whatever evaluating the field may meet.
pub fn solve(
    method: Method,
    v: &mut dyn Velocity,
    x: &Tensor,
    grid: &[f64],
    mut each: impl FnMut(&Tensor),
) -> Result<Tensor> {
    let mut x = x.clone();
    for t in grid.windows(2) {
        x = method.step(v, &x, t[0], t[1] - t[0])?;
        each(&x);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::solver::uniform_grid;

    /// Error at t = 1 of `x' = -x`, `x(0) = 1`, with `steps` steps.
    fn error(method: Method, steps: u32) -> f64 {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let grid = uniform_grid(1.0 / f64::from(steps)).unwrap();
        let mut field = |x: &Tensor, _t: f64| Ok(x.neg()?);
        let end = solve(method, &mut field, &x, &grid, |_| ()).unwrap();
        (end.to_vec1::<f64>().unwrap()[0] - (-1f64).exp()).abs()
    }

    #[test]
    fn errors_shrink_with_the_order_of_the_method() {
        for (method, order) in [(Method::Euler, 1), (Method::Midpoint, 2), (Method::Heun2, 2)] {
            let ratio = error(method, 64) / error(method, 128);
            assert!((ratio - f64::from(1 << order)).abs() < 0.1, "{method}: {ratio}");
        }
    }

    #[test]
    fn a_method_evaluates_as_often_as_it_says() {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        for method in Method::ALL {
            let mut count = 0;
            let mut field = |x: &Tensor, _t: f64| {
                count += 1;
                Ok(x.clone())
            };
            solve(method, &mut field, &x, &[0.0, 0.5, 1.0], |_| ()).unwrap();
            assert_eq!(count, 2 * method.evaluations());
        }
    }
}
