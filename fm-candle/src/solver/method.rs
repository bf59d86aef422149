//! How each method steps.

use quant_core::method::Method;

use super::dopri8::DOPRI8;
use super::fixed::{self, Step};
use super::tableau::{ADAPTIVE_HEUN, BOSH3, DOPRI5, FEHLBERG2, Tableau};

/// The way of a method's steps.
pub(super) enum Scheme {
    /// Along a given grid.
    Fixed(Step),
    /// Along a given grid, from the slopes of the steps before.
    Adams {
        /// Whether the prediction is corrected.
        implicit: bool,
    },
    /// As far as the error estimate lets it.
    Adaptive(&'static Tableau),
}

/// How a method steps.
pub(super) fn scheme(method: Method) -> Scheme {
    match method {
        Method::Euler => Scheme::Fixed(fixed::euler),
        Method::Midpoint => Scheme::Fixed(fixed::midpoint),
        Method::Heun2 => Scheme::Fixed(fixed::heun2),
        Method::Heun3 => Scheme::Fixed(fixed::heun3),
        Method::Rk4 => Scheme::Fixed(fixed::rk4),
        Method::ExplicitAdams => Scheme::Adams { implicit: false },
        Method::ImplicitAdams => Scheme::Adams { implicit: true },
        Method::AdaptiveHeun => Scheme::Adaptive(&ADAPTIVE_HEUN),
        Method::Fehlberg2 => Scheme::Adaptive(&FEHLBERG2),
        Method::Bosh3 => Scheme::Adaptive(&BOSH3),
        Method::Dopri5 => Scheme::Adaptive(&DOPRI5),
        Method::Dopri8 => Scheme::Adaptive(&DOPRI8),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::solver::{Options, solve};

    #[test]
    fn a_method_evaluates_as_often_as_it_says() {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        for method in Method::ALL {
            let mut field = |x: &Tensor, _: f64| Ok(x.clone());
            let times = [0.0, 0.5, 1.0];
            let trace = solve(method, &mut field, &x, &times, &Options::default(), |_| ()).unwrap();
            let varies = method.is_adaptive() || method.is_multistep();
            assert_eq!(varies, method.evaluations().is_none());
            if let Some(evaluations) = method.evaluations() {
                assert_eq!(trace.evaluations.len(), 2 * evaluations, "{method}");
            }
        }
    }
}
