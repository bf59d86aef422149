//! A way to quantize a net: a scheme, and the refinement of its result.

use core::fmt;
use core::str::FromStr;

use quant_core::scheme::{Scheme, UnknownScheme};

/// A scheme and its refinement: `lloyd-max`, `lloyd-max+feedback`, `lloyd-max+tune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuantizeMethod {
    /// The scheme of codebooks and first codes.
    pub(crate) scheme: Scheme,
    /// Refinement of the scheme's result, if any.
    pub(crate) refinement: Option<Refinement>,
}

/// Refinement of a scheme's result by the net's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refinement {
    /// Error feedback: codes chosen by the errors of the layers' outputs.
    Feedback,
    /// Tuning of codes, levels, scales, norms and biases.
    Tune,
}

impl From<Scheme> for QuantizeMethod {
    fn from(scheme: Scheme) -> Self {
        Self { scheme, refinement: None }
    }
}

impl fmt::Display for QuantizeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.name())?;
        f.write_str(match self.refinement {
            None => "",
            Some(Refinement::Feedback) => "+feedback",
            Some(Refinement::Tune) => "+tune",
        })
    }
}

impl FromStr for QuantizeMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, refinement) = match text.split_once('+') {
            None => (text, None),
            Some((scheme, "feedback")) => (scheme, Some(Refinement::Feedback)),
            Some((scheme, "tune")) => (scheme, Some(Refinement::Tune)),
            Some((_, other)) => {
                return Err(format!("`+{other}` is not known; expected +feedback or +tune"));
            }
        };
        let scheme = scheme.parse().map_err(|error: UnknownScheme| error.to_string())?;
        Ok(Self { scheme, refinement })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["ot", "lloyd-max+feedback", "uniform-mse+tune"] {
            assert_eq!(name.parse::<QuantizeMethod>().unwrap().to_string(), name);
        }
        let error = |name: &str| name.parse::<QuantizeMethod>().unwrap_err();
        assert!(error("ot+magic").contains("`+magic` is not known"));
        assert!(error("magic").contains("must be one of ot"));
    }
}
