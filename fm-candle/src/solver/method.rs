//! The step function or tableau of each method.

use quant_core::method::Method;

use super::dopri8::DOPRI8;
use super::fixed::{self, StepFn};
use super::tableau::{ADAPTIVE_HEUN, BOSH3, DOPRI5, FEHLBERG2, Tableau};

/// The way of a method's steps.
pub(super) enum StepScheme {
    /// Along a given grid.
    Fixed(StepFn),
    /// Along a given grid, from the slopes of the steps before.
    Adams {
        /// True if the prediction is corrected.
        implicit: bool,
    },
    /// With steps chosen by the error estimate.
    Adaptive(&'static Tableau),
}

/// The scheme of a method.
pub(super) fn scheme(method: Method) -> StepScheme {
    match method {
        Method::Euler => StepScheme::Fixed(fixed::euler),
        Method::Midpoint => StepScheme::Fixed(fixed::midpoint),
        Method::Heun2 => StepScheme::Fixed(fixed::heun2),
        Method::Heun3 => StepScheme::Fixed(fixed::heun3),
        Method::Rk4 => StepScheme::Fixed(fixed::rk4),
        Method::ExplicitAdams => StepScheme::Adams { implicit: false },
        Method::ImplicitAdams => StepScheme::Adams { implicit: true },
        Method::AdaptiveHeun => StepScheme::Adaptive(&ADAPTIVE_HEUN),
        Method::Fehlberg2 => StepScheme::Adaptive(&FEHLBERG2),
        Method::Bosh3 => StepScheme::Adaptive(&BOSH3),
        Method::Dopri5 => StepScheme::Adaptive(&DOPRI5),
        Method::Dopri8 => StepScheme::Adaptive(&DOPRI8),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::solver::{SolverOptions, solve};

    #[test]
    fn a_method_evaluates_as_often_as_it_says() {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        for method in Method::ALL {
            let mut field = |x: &Tensor, _: f64| Ok(x.clone());
            let times = [0.0, 0.5, 1.0];
            let trace =
                solve(method, &mut field, &x, &times, &SolverOptions::default(), |_| ()).unwrap();
            let varies = method.is_adaptive() || method.is_multistep();
            assert_eq!(varies, method.evaluations().is_none());
            if let Some(evaluations) = method.evaluations() {
                assert_eq!(trace.evaluations.len(), 2 * evaluations, "{method}");
            }
        }
    }
}
