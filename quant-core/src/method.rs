//! The methods that solve the flow's equation, by torchdiffeq's names.

use core::fmt;
use core::str::FromStr;

/// A method of Runge and Kutta or of Adams, on a given grid or with steps of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// `x + h v(x, t)`; order 1.
    #[default]
    Euler,
    /// `x + h v(x + h/2 v(x, t), t + h/2)`; order 2.
    Midpoint,
    /// `x + h/2 (k1 + k2)`, `k1 = v(x, t)`, `k2 = v(x + h k1, t + h)`; order 2.
    Heun2,
    /// Heun's method of three stages, at 0, 1/3 and 2/3; order 3.
    Heun3,
    /// The 3/8 rule of Kutta, four stages at 0, 1/3, 2/3 and 1; order 4.
    Rk4,
    /// Adams and Bashforth's methods of order 3 to 11, as many as there are slopes.
    ExplicitAdams,
    /// Explicit Adams as the predictor, corrected by Adams and Moulton's methods of one order more.
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
    pub const fn name(self) -> &'static str {
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

    /// Returns whether [`infer`](crate::infer) has the method.
    pub const fn is_on_device(self) -> bool {
        matches!(self, Self::Euler | Self::Midpoint | Self::Heun2)
    }

    /// Returns whether the method chooses its own steps, from tolerances.
    pub const fn is_adaptive(self) -> bool {
        matches!(
            self,
            Self::AdaptiveHeun | Self::Fehlberg2 | Self::Bosh3 | Self::Dopri5 | Self::Dopri8
        )
    }

    /// Returns whether the method remembers the slopes of the steps before.
    pub const fn is_multistep(self) -> bool {
        matches!(self, Self::ExplicitAdams | Self::ImplicitAdams)
    }

    /// Evaluations of the field per step; `None` where it varies: an adaptive method's steps are its
    /// own, one of Adams starts with others and may correct itself.
    pub const fn evaluations(self) -> Option<usize> {
        match self {
            Self::Euler => Some(1),
            Self::Midpoint | Self::Heun2 => Some(2),
            Self::Heun3 => Some(3),
            Self::Rk4 => Some(4),
            _ => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or(UnknownMethod)
    }
}

/// A name that is no method of the solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMethod;

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown ODE method: must be one of")?;
        Method::ALL
            .iter()
            .enumerate()
            .try_for_each(|(i, method)| write!(f, "{} {method}", if i == 0 { "" } else { "," }))
    }
}

impl core::error::Error for UnknownMethod {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn names_are_read_back() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
        }
        let error = "edm_heun".parse::<Method>().unwrap_err().to_string();
        assert!(Method::ALL.iter().all(|method| error.contains(method.name())), "{error}");
    }
}
