//! A number from several sets of samples, and how far chance moves it.

use crate::fid::bootstrap::Z95;

/// The 97.5 % points of Student's t with 1 to 10 degrees of freedom.
const STUDENT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// A mean with half of its 95 % confidence interval, both in the unit of the measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of its 95 % confidence interval; none where it is not known or not finite.
    pub error: Option<f64>,
}

impl Estimate {
    /// The mean of a measure over sets of samples:
    ///
    /// ```text
    /// mean = Σ x / n,  error = t(n - 1) √(Σ (x - mean)² / (n - 1) / n)
    /// ```
    ///
    /// with the 97.5 % point of Student's t for `n - 1` degrees of freedom, right to a percent. One
    /// set has no spread: its error is `single`, the one within the set.
    ///
    /// # Shapes: `values: [n]`, one of each set; of no set the mean is NaN
    pub fn over_sets(values: &[f64], single: Option<f64>) -> Self {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        if n < 2 {
            return Self { mean, error: single };
        }
        let square = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        let error = student(n - 1) * (square / n as f64).sqrt();
        Self { mean, error: error.is_finite().then_some(error) }
    }
}

/// The 97.5 % point of Student's t with at least 1 degree of freedom.
fn student(freedom: usize) -> f64 {
    // Beyond the table the normal's, a little widened.
    STUDENT.get(freedom - 1).copied().unwrap_or(Z95 + 2.6 / freedom as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probability that Student's t lies in `[-t, t]`, by Simpson's rule on its density
    /// `(1 + x²/ν)^(-(ν + 1)/2)`, which is normalized by the integral over the whole line, taken
    /// with `x = √ν tan θ`.
    fn probability(t: f64, freedom: usize) -> f64 {
        const STEPS: u32 = 2000;
        let nu = freedom as f64;
        // The density is then cos^(ν - 1) θ, from -π/2 to π/2.
        let density = |theta: f64| theta.cos().max(0.0).powf(nu - 1.0);
        let integral = |end: f64| {
            let step = end / f64::from(STEPS);
            let weight = |i: u32| match i {
                0 | STEPS => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            (0..=STEPS).map(|i| weight(i) * density(f64::from(i) * step)).sum::<f64>() * step / 3.0
        };
        integral((t / nu.sqrt()).atan()) / integral(core::f64::consts::FRAC_PI_2)
    }

    #[test]
    fn students_points_leave_out_five_percent() {
        for freedom in 1..=10 {
            let found = probability(student(freedom), freedom);
            assert!((found - 0.95).abs() < 5e-5, "{freedom}: {found}");
        }
        // A percent of the point is 0.0012 of probability.
        for freedom in [11, 12, 20, 50, 1000] {
            let found = probability(student(freedom), freedom);
            assert!((found - 0.95).abs() < 1.2e-3, "{freedom}: {found}");
        }
    }

    #[test]
    fn several_sets_have_students_interval() {
        let one = Estimate::over_sets(&[2.0], Some(0.5));
        assert_eq!(one, Estimate { mean: 2.0, error: Some(0.5) });
        // Mean 2, deviation 1 over three sets: 4.303 / sqrt 3.
        let Estimate { mean, error } = Estimate::over_sets(&[1.0, 2.0, 3.0], Some(0.5));
        assert!((mean - 2.0).abs() < 1e-12);
        assert!((error.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn without_a_finite_spread_there_is_no_interval() {
        assert_eq!(Estimate::over_sets(&[f64::INFINITY; 2], Some(0.5)).error, None);
        assert_eq!(Estimate::over_sets(&[1.0], None).error, None);
        assert_eq!(Estimate::over_sets(&[1.0; 3], None).error, Some(0.0));
    }
}
