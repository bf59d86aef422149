//! The quantizers by name.

use core::fmt;
use core::str::FromStr;

/// Quantizer: a way to choose levels and codes for a group of weights, defined in `fit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `ot`: levels of equal mass, the paper's optimal-transport quantizer.
    EqualMass,
    /// `uniform`: equal steps from the least weight to the greatest.
    Uniform,
    /// `pwl`: midpoints between quantiles.
    Piecewise,
    /// `log`: geometric levels for each sign.
    Logarithmic,
    /// `uniform-mse`: equal steps of the least mean squared error, outliers clipped.
    UniformMse,
    /// `lloyd-max`: the least mean squared error that levels can reach, which is also the least
    /// 2-Wasserstein distance.
    LloydMax,
    /// `ecq`: the least mean squared error plus a multiple of the entropy of the codes.
    Ecq,
}

impl Scheme {
    /// Every scheme, in the order in which reports print them.
    pub const ALL: [Self; 7] = [
        Self::EqualMass,
        Self::Uniform,
        Self::Piecewise,
        Self::Logarithmic,
        Self::UniformMse,
        Self::LloydMax,
        Self::Ecq,
    ];

    /// The name on the command line and in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EqualMass => "ot",
            Self::Uniform => "uniform",
            Self::Piecewise => "pwl",
            Self::Logarithmic => "log",
            Self::UniformMse => "uniform-mse",
            Self::LloydMax => "lloyd-max",
            Self::Ecq => "ecq",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, UnknownScheme> {
        let found = Self::ALL.into_iter().find(|scheme| scheme.name() == name);
        found.ok_or(UnknownScheme)
    }
}

/// A name that is no scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownScheme;

impl fmt::Display for UnknownScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown scheme: must be one of")?;
        Scheme::ALL
            .iter()
            .enumerate()
            .try_for_each(|(i, scheme)| write!(f, "{} {scheme}", if i == 0 { "" } else { "," }))
    }
}

impl core::error::Error for UnknownScheme {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn names_read_back() {
        for scheme in Scheme::ALL {
            assert_eq!(scheme.name().parse(), Ok(scheme));
        }
        assert_eq!("OT".parse::<Scheme>(), Err(UnknownScheme));
    }

    #[test]
    fn unknown_scheme_lists_every_name() {
        let message = UnknownScheme.to_string();
        assert!(Scheme::ALL.iter().all(|scheme| message.contains(scheme.name())));
    }
}
