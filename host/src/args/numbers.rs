//! Numbers as arguments.

use core::str::FromStr;

/// A number that is neither infinite nor none.
pub(crate) fn finite(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or("expected a finite number")
}

/// A number above 0.
pub(crate) fn above_0(text: &str) -> Result<f64, &'static str> {
    finite(text).ok().filter(|&number| number > 0.0).ok_or("expected a number above 0")
}

/// A number of at least 0.
pub(crate) fn at_least_0(text: &str) -> Result<f64, &'static str> {
    finite(text).ok().filter(|&number| number >= 0.0).ok_or("expected a number of at least 0")
}

/// A count of at least 1.
pub(crate) fn at_least_1<T: FromStr + From<u8> + PartialOrd>(
    text: &str,
) -> Result<T, &'static str> {
    let counted = text.parse().ok().filter(|n| *n >= T::from(1));
    counted.ok_or("expected a whole number of at least 1")
}

/// A count of at least 2, as a covariance needs.
pub(crate) fn at_least_2(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|&n| n >= 2).ok_or("expected a whole number of at least 2")
}
