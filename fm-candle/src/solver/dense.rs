//! The state between the ends of a step: a polynomial of degree 4.
//!
//! It has the values at both ends and in the middle and the slopes at both ends (Shampine, Some
//! practical Runge-Kutta formulas, Mathematics of Computation 46, 1986). With `x` from 0 to 1:
//!
//! ```text
//! p(x) = y0 + h f0 x + c x² + b x³ + a x⁴
//! a = 2h (f1 - f0) - 8 (y0 + y1) + 16 ym
//! b = h (5 f0 - 3 f1) + 18 y0 + 14 y1 - 32 ym
//! c = h (f1 - 4 f0) - 11 y0 - 5 y1 + 16 ym
//! ```

use candle_core::Tensor;

use crate::error::Result;

/// The values and slopes that the polynomial goes through.
pub(super) struct Knots<'a> {
    pub(super) y0: &'a Tensor,
    pub(super) middle: &'a Tensor,
    pub(super) y1: &'a Tensor,
    pub(super) f0: &'a Tensor,
    pub(super) f1: &'a Tensor,
}

/// A polynomial of degree 4, lowest power first.
pub(super) struct Quartic([Tensor; 5]);

impl Quartic {
    /// The polynomial through `knots` over a step of length `h`.
    pub(super) fn fit(knots: &Knots<'_>, h: f64) -> Result<Self> {
        let Knots { y0, middle, y1, f0, f1 } = *knots;
        let sum = |weights: [f64; 5]| -> Result<Tensor> {
            let [w0, wm, w1, v0, v1] = weights;
            let slopes = ((f0 * v0)? + (f1 * v1)?)?;
            let ends = ((y0 * w0)? + (y1 * w1)?)?;
            Ok((((slopes * h)? + ends)? + (middle * wm)?)?)
        };
        let a = sum([-8.0, 16.0, -8.0, -2.0, 2.0])?;
        let b = sum([18.0, -32.0, 14.0, 5.0, -3.0])?;
        let c = sum([-11.0, 16.0, -5.0, -4.0, 1.0])?;
        Ok(Self([y0.clone(), (f0 * h)?, c, b, a]))
    }

    /// The value after the share `x` of the step.
    pub(super) fn at(&self, x: f64) -> Result<Tensor> {
        let [first, rest @ ..] = &self.0;
        let (mut total, mut power) = (first.clone(), 1.0);
        for coefficient in rest {
            power *= x;
            total = (total + (coefficient * power)?)?;
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_polynomial_of_degree_4_is_found_again() {
        let p = |t: f64| 1.0 - 2.0 * t + 3.0 * t * t - 4.0 * t.powi(3) + 5.0 * t.powi(4);
        let slope = |t: f64| -2.0 + 6.0 * t - 12.0 * t * t + 20.0 * t.powi(3);
        let tensor = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let (y0, middle, y1) = (tensor(p(1.0)), tensor(p(1.5)), tensor(p(2.0)));
        let (f0, f1) = (tensor(slope(1.0)), tensor(slope(2.0)));
        let knots = Knots { y0: &y0, middle: &middle, y1: &y1, f0: &f0, f1: &f1 };
        let quartic = Quartic::fit(&knots, 1.0).unwrap();
        for x in [0.0, 0.3, 0.5, 0.9, 1.0] {
            let value = quartic.at(x).unwrap().to_vec1::<f64>().unwrap()[0];
            assert!((value - p(1.0 + x)).abs() < 1e-12, "{x}: {value}");
        }
    }
}
