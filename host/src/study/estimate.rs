//! A number from several sets of samples, and how far chance moves it.

/// The 97.5 % points of Student's t with 1 to 10 degrees of freedom.
const STUDENT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// The mean of a measure over sets of samples, and half of its 95 % confidence interval: Student's
/// over the sets where there are several, else `single`, the one within the only set.
pub(super) fn over_sets(values: &[f64], single: Option<f64>) -> (f64, Option<f64>) {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    if n < 2 {
        return (mean, single);
    }
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    // Beyond the table the normal's, a little widened, is right to a percent.
    let t = STUDENT.get(n - 2).copied().unwrap_or(1.96 + 2.6 / (n - 1) as f64);
    let error = t * (square / n as f64).sqrt();
    (mean, error.is_finite().then_some(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_sets_have_students_interval() {
        assert_eq!(over_sets(&[2.0], Some(0.5)), (2.0, Some(0.5)));
        // Mean 2, deviation 1 over three sets: 4.303 / sqrt 3.
        let (mean, error) = over_sets(&[1.0, 2.0, 3.0], Some(0.5));
        assert!((mean - 2.0).abs() < 1e-12);
        assert!((error.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-12);
        // 20 degrees of freedom: 2.086.
        let many: Vec<f64> = (0..21).map(f64::from).collect();
        let (_, error) = over_sets(&many, None);
        let deviation = (many.iter().map(|x| (x - 10.0).powi(2)).sum::<f64>() / 20.0).sqrt();
        assert!((error.unwrap() / (deviation / 21f64.sqrt()) - 2.086).abs() < 0.02);
        assert_eq!(over_sets(&[f64::INFINITY; 2], None).1, None);
    }
}
