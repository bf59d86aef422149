//! The methods by torchdiffeq's names, and how each of them steps.

use core::fmt;
use core::str::FromStr;

use super::dopri8::DOPRI8;
use super::fixed::{self, Step};
use super::tableau::{ADAPTIVE_HEUN, BOSH3, DOPRI5, FEHLBERG2, Tableau};
use crate::error::{Error, Result};

/// A method of Runge and Kutta or of Adams, on a given grid or with steps of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `x + h v(x, t)`; order 1.
    Euler,
    /// `x + h v(x + h/2 v(x, t), t + h/2)`; order 2.
    Midpoint,
    /// `x + h/2 (k1 + k2)`, `k1 = v(x, t)`, `k2 = v(x + h k1, t + h)`; order 2.
    Heun2,
    /// Heun's method of three stages, at 0, 1/3 and 2/3; order 3.
    Heun3,
    /// The 3/8 rule of Kutta, four stages at 0, 1/3, 2/3 and 1; order 4.
    Rk4,
    /// Adams and Bashforth's methods of order 3 to 11, as many as there are slopes; see
    /// [`Adams`](super::Adams).
    ExplicitAdams,
    /// The same as the predictor, corrected by Adams and Moulton's methods of one order more.
    ImplicitAdams,
    /// Heun's method with Euler's as the error estimate; order 2, adaptive.
    AdaptiveHeun,
    /// Fehlberg's pair of orders 1 and 2, adaptive.
    Fehlberg2,
    /// The pair of Bogacki and Shampine of orders 2 and 3, adaptive.
    Bosh3,
    /// The pair of Dormand and Prince of orders 4 and 5, adaptive.
    Dopri5,
    /// The pair of Prince and Dormand of orders 7 and 8, adaptive.
    Dopri8,
}

/// How a method steps.
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

impl Method {
    /// All methods.
    pub const ALL: [Self; 12] = [
        Self::Euler,
        Self::Midpoint,
        Self::Heun2,
        Self::Heun3,
        Self::Rk4,
        Self::ExplicitAdams,
        Self::ImplicitAdams,
        Self::AdaptiveHeun,
        Self::Fehlberg2,
        Self::Bosh3,
        Self::Dopri5,
        Self::Dopri8,
    ];

    /// torchdiffeq's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::Midpoint => "midpoint",
            Self::Heun2 => "heun2",
            Self::Heun3 => "heun3",
            Self::Rk4 => "rk4",
            Self::ExplicitAdams => "explicit_adams",
            Self::ImplicitAdams => "implicit_adams",
            Self::AdaptiveHeun => "adaptive_heun",
            Self::Fehlberg2 => "fehlberg2",
            Self::Bosh3 => "bosh3",
            Self::Dopri5 => "dopri5",
            Self::Dopri8 => "dopri8",
        }
    }

    /// Whether the method chooses its own steps, from tolerances.
    pub fn is_adaptive(self) -> bool {
        matches!(self.scheme(), Scheme::Adaptive(_))
    }

    /// Whether the method remembers the slopes of the steps before.
    pub fn is_multistep(self) -> bool {
        matches!(self.scheme(), Scheme::Adams { .. })
    }

    /// Evaluations of the field per step; none where it varies: an adaptive method's steps are its
    /// own, one of Adams starts with others and may correct itself.
    pub fn evaluations(self) -> Option<usize> {
        match self {
            Self::Euler => Some(1),
            Self::Midpoint | Self::Heun2 => Some(2),
            Self::Heun3 => Some(3),
            Self::Rk4 => Some(4),
            _ => None,
        }
    }

    pub(super) fn scheme(self) -> Scheme {
        match self {
            Self::Euler => Scheme::Fixed(fixed::euler),
            Self::Midpoint => Scheme::Fixed(fixed::midpoint),
            Self::Heun2 => Scheme::Fixed(fixed::heun2),
            Self::Heun3 => Scheme::Fixed(fixed::heun3),
            Self::Rk4 => Scheme::Fixed(fixed::rk4),
            Self::ExplicitAdams => Scheme::Adams { implicit: false },
            Self::ImplicitAdams => Scheme::Adams { implicit: true },
            Self::AdaptiveHeun => Scheme::Adaptive(&ADAPTIVE_HEUN),
            Self::Fehlberg2 => Scheme::Adaptive(&FEHLBERG2),
            Self::Bosh3 => Scheme::Adaptive(&BOSH3),
            Self::Dopri5 => Scheme::Adaptive(&DOPRI5),
            Self::Dopri8 => Scheme::Adaptive(&DOPRI8),
        }
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

    #[test]
    fn names_are_read_back() {
        for method in Method::ALL {
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
        }
        let error = "edm_heun".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("edm_heun") && error.contains("dopri5"), "{error}");
    }
}
