//! The step control of adaptive solvers: tolerances, the first step, the next step.

use candle_core::{DType, Tensor};

use super::field::Field;
use crate::error::{Error, Result};

/// Tolerances, and settings of the adaptive methods; the defaults are torchdiffeq's, the tolerances upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Control {
    /// Absolute error allowed per step.
    pub atol: f64,
    /// Error allowed per step, relative to the state.
    pub rtol: f64,
    /// The first step to try; chosen from the field where there is none.
    pub first_step: Option<f64>,
    /// Steps are no shorter, and accepted whatever their error once they are this short.
    pub min_step: f64,
    /// Steps are no longer.
    pub max_step: f64,
    /// The share of the step that the error estimate would allow.
    pub safety: f64,
    /// A step is at most this many times the last one.
    pub ifactor: f64,
    /// After a rejected step, the next is at least this many times it.
    pub dfactor: f64,
    /// Most steps that are tried on the whole way; torchdiffeq counts from one asked time to the next.
    pub max_num_steps: u64,
    /// Length of the first part of a state in one dimension that has two parts: the larger of the
    /// parts' errors counts (torchdiffeq's norm of a tuple). Without it the state is one.
    pub split: Option<usize>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            atol: 1e-5,
            rtol: 1e-5,
            first_step: None,
            min_step: 0.0,
            max_step: f64::INFINITY,
            safety: 0.9,
            ifactor: 10.0,
            dfactor: 0.2,
            max_num_steps: (1 << 31) - 1,
            split: None,
        }
    }
}

impl Control {
    /// Refuses settings that no solver can work with.
    ///
    /// # Errors
    /// Says which settings, and what they must be.
    pub fn check(&self) -> Result<()> {
        let Self { atol, rtol, .. } = *self;
        let tolerance = |x: f64| x.is_finite() && x >= 0.0;
        if !tolerance(atol) || !tolerance(rtol) || atol + rtol == 0.0 {
            return Err(Error::Config(format!(
                "atol {atol} and rtol {rtol} must be finite and at least 0, one of them above"
            )));
        }
        if self.first_step.is_some_and(|step| !(step.is_finite() && step > 0.0)) {
            return Err(Error::Config("first_step must be finite and above 0".into()));
        }
        if !(self.min_step >= 0.0 && self.min_step <= self.max_step && self.max_step > 0.0) {
            let (min, max) = (self.min_step, self.max_step);
            return Err(Error::Config(format!("steps from {min} to {max} make no sense")));
        }
        let factors = [self.safety, self.ifactor, self.dfactor];
        if factors.iter().any(|f| !(f.is_finite() && *f > 0.0)) {
            let reason = "safety, ifactor and dfactor must be finite and above 0";
            return Err(Error::Config(reason.into()));
        }
        if self.max_num_steps == 0 {
            return Err(Error::Config("max_num_steps must be at least 1".into()));
        }
        Ok(())
    }

    /// `|error / (atol + rtol max(|y0|, |y1|))|`, root of the mean square; a step is good up to 1.
    pub(super) fn ratio(&self, error: &Tensor, y0: &Tensor, y1: &Tensor) -> Result<f64> {
        self.norm(&(error / self.allowed(y0, y1)?)?)
    }

    /// Returns true if `|error / (atol + rtol max(|y0|, |y1|))| < 1` for every element.
    pub(super) fn is_within(&self, error: &Tensor, y0: &Tensor, y1: &Tensor) -> Result<bool> {
        let within = (error / self.allowed(y0, y1)?)?.abs()?.lt(1.0)?;
        Ok(within.min_all()?.to_scalar::<u8>()? == 1)
    }

    /// The root of the mean square, or the larger of those of the parts.
    fn norm(&self, x: &Tensor) -> Result<f64> {
        let Some(first) = self.split else { return rms(x) };
        let rest = x.elem_count().saturating_sub(first);
        let (a, b) = (rms(&x.narrow(0, 0, first)?)?, rms(&x.narrow(0, first, rest)?)?);
        // What is not a number must show.
        Ok(if a > b || a.is_nan() { a } else { b })
    }

    /// `atol + rtol max(|y0|, |y1|)`.
    fn allowed(&self, y0: &Tensor, y1: &Tensor) -> Result<Tensor> {
        Ok(y0.abs()?.maximum(&y1.abs()?)?.affine(self.rtol, self.atol)?)
    }

    /// The first step (Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I,
    /// section II.4), for a method of the given order that starts with slope `f0` from `y0`.
    pub(super) fn initial_step(
        &self,
        field: &mut Field<'_>,
        t0: f64,
        y0: &Tensor,
        f0: &Tensor,
        order: i32,
    ) -> Result<f64> {
        let scale = y0.abs()?.affine(self.rtol, self.atol)?;
        let d0 = field.round(self.norm(&(y0 / &scale)?)?);
        let d1 = field.round(self.norm(&(f0 / &scale)?)?);
        let h0 = if d0 < 1e-5 || d1 < 1e-5 { 1e-6 } else { 0.01 * d0 / d1 };
        let h0 = field.round(h0);
        let f1 = field.at(&(y0 + (f0 * h0)?)?, t0 + h0)?;
        let d2 = field.round(self.norm(&((f1 - f0)? / scale)?)? / h0);
        let h1 = if d1 <= 1e-15 && d2 <= 1e-15 {
            (h0 * 1e-3).max(1e-6)
        } else {
            (0.01 / d1.max(d2)).powf(1.0 / f64::from(order))
        };
        Ok(field.round((100.0 * h0).min(h1)))
    }

    /// The step after one of length `dt` whose error ratio was `ratio`.
    pub(super) fn next_step(&self, dt: f64, ratio: f64, order: i32) -> f64 {
        let factor = if ratio == 0.0 {
            self.ifactor
        } else {
            let least = if ratio < 1.0 { 1.0 } else { self.dfactor };
            (self.safety / ratio.powf(1.0 / f64::from(order))).max(least).min(self.ifactor)
        };
        (dt * factor).clamp(self.min_step, self.max_step)
    }
}

/// Root of the mean square; the sum runs in double.
fn rms(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_bounded_by_the_factors() {
        let control = Control { max_step: 4.0, ..Control::default() };
        assert_eq!(control.next_step(0.1, 0.0, 5), 1.0);
        assert_eq!(control.next_step(1.0, 0.0, 5), 4.0);
        assert_eq!(control.next_step(1.0, 1e30, 5), 0.2);
        // An accepted step never shrinks the next one.
        assert_eq!(control.next_step(1.0, 0.99, 5), 1.0);
        assert!((control.next_step(1.0, 4.0, 2) - 0.45).abs() < 1e-15);
    }

    #[test]
    fn senseless_settings_are_refused() {
        let good = Control::default();
        assert!(good.check().is_ok());
        for bad in [
            Control { atol: 0.0, rtol: 0.0, ..good },
            Control { rtol: f64::NAN, ..good },
            Control { atol: -1.0, ..good },
            Control { first_step: Some(0.0), ..good },
            Control { min_step: 1.0, max_step: 0.5, ..good },
            Control { safety: 0.0, ..good },
            Control { max_num_steps: 0, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn of_two_parts_the_larger_error_counts() {
        let tensor = |x: &[f64]| Tensor::new(x, &candle_core::Device::Cpu).unwrap();
        let (error, y) = (tensor(&[3.0, 4.0, 0.5]), tensor(&[0.0; 3]));
        let ratio =
            |split| Control { atol: 1.0, split, ..Control::default() }.ratio(&error, &y, &y);
        assert!((ratio(None).unwrap() - (25.25f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((ratio(Some(2)).unwrap() - 12.5f64.sqrt()).abs() < 1e-12);
        let nan = tensor(&[1.0, 1.0, f64::NAN]);
        let control = Control { split: Some(2), ..Control::default() };
        assert!(control.ratio(&nan, &y, &y).unwrap().is_nan());
    }
}
