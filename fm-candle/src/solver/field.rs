//! The field as a solver sees it: in the solver's own time, every evaluation noted.
//!
//! The solver's time always grows: backward in time it is `-t`, and the field is negated
//! (torchdiffeq's `_ReverseFunc`). The field gets its time rounded to the state's precision
//! (torchdiffeq's `_PerturbFunc`).

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// A velocity field.
pub trait Velocity {
    /// `v(x, t)` for one time and a batch of states.
    ///
    /// # Errors
    /// Those of the field: shapes that its net does not take, memory that its device lacks.
    fn velocity(&mut self, x: &Tensor, t: f64) -> Result<Tensor>;
}

impl<F: FnMut(&Tensor, f64) -> Result<Tensor>> Velocity for F {
    fn velocity(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        self(x, t)
    }
}

/// A field in the solver's time.
pub(super) struct Field<'a> {
    v: &'a mut dyn Velocity,
    dtype: DType,
    sign: f64,
    /// Every time the field was asked at, in true time and in order.
    pub(super) times: Vec<f64>,
}

impl<'a> Field<'a> {
    /// The field for states of `dtype`; time runs backward where `sign` is -1.
    pub(super) fn new(v: &'a mut dyn Velocity, dtype: DType, sign: f64) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            let reason = format!("the state is {dtype:?}; solvers work on F32 and F64");
            return Err(Error::Config(reason));
        }
        Ok(Self { v, dtype, sign, times: Vec::new() })
    }

    /// True time, from the solver's or back.
    pub(super) fn flip(&self, t: f64) -> f64 {
        self.sign * t
    }

    /// `x` rounded to the state's precision.
    pub(super) fn round(&self, x: f64) -> f64 {
        round(self.dtype, x)
    }

    /// The velocity at `t`.
    pub(super) fn at(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        self.evaluate(x, self.round(t))
    }

    /// The velocity at the last float before `t`: a jump of the field at `t` is not seen yet.
    pub(super) fn before(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        self.evaluate(x, previous(self.dtype, t))
    }

    /// The velocity at the first float after `t`: past a jump of the field at `t`.
    pub(super) fn after(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        self.evaluate(x, next(self.dtype, t))
    }

    /// An error at a time of the solver's and a step, counted from 0.
    pub(super) fn failure(&self, t: f64, step: usize, reason: &str) -> Error {
        let t = self.flip(t);
        Error::Config(format!("solving the ODE failed at t = {t}, step {step}: {reason}"))
    }

    fn evaluate(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        let t = self.flip(t);
        self.times.push(t);
        let v = self.v.velocity(x, t)?;
        Ok(if self.sign < 0.0 { v.neg()? } else { v })
    }
}

/// `x` rounded to the precision of `dtype`, F32 or F64.
///
/// Sums, products and quotients of two singles that are computed in double and rounded once
/// more are those of single arithmetic, since 53 >= 2 x 24 + 2.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
pub(super) fn round(dtype: DType, x: f64) -> f64 {
    if dtype == DType::F32 { f64::from(x as f32) } else { x }
}

/// The last number of `dtype` before `t`.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn previous(dtype: DType, t: f64) -> f64 {
    if dtype == DType::F32 { f64::from((t as f32).next_down()) } else { t.next_down() }
}

/// The first number of `dtype` after `t`.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn next(dtype: DType, t: f64) -> f64 {
    if dtype == DType::F32 { f64::from((t as f32).next_up()) } else { t.next_up() }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn backward_in_time_the_field_is_negated_and_asked_at_true_times() {
        let x = Tensor::new(&[3f32], &Device::Cpu).unwrap();
        let mut v = |x: &Tensor, t: f64| Ok((x * t)?);
        let mut field = Field::new(&mut v, DType::F32, -1.0).unwrap();
        let slope = field.at(&x, -0.5).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(slope, [-1.5]);
        field.before(&x, -0.5).unwrap();
        field.after(&x, -0.5).unwrap();
        let last_bit = f64::from(f32::EPSILON) / 2.0;
        assert_eq!(field.times, [0.5, 0.5 + last_bit, 0.5 - last_bit / 2.0]);
    }

    #[test]
    fn only_single_and_double_are_solved() {
        let mut v = |x: &Tensor, _: f64| Ok(x.clone());
        assert!(Field::new(&mut v, DType::F16, 1.0).is_err());
    }
}
