//! The coefficients of the Adams methods, by their formula.
//!
//! The slopes at `t + h s`, `s = s0, s0 - 1, ..., s0 - (n - 1)`, lie on a polynomial of degree
//! `n - 1`, whose integral over the step is `h sum_k w_k f_k`:
//!
//! ```text
//! w_k = integral from 0 to 1 of  product over i != k of (s - s0 + i) / (i - k)  ds
//! ```
//! Adams and Bashforth's weights have `s0 = 0`, the start of the step; Adams and Moulton's `s0 = 1`,
//! its end (Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section III.1).

/// The most slopes of a step.
pub(super) const MAX_SLOPES: usize = 12;

/// The least common multiple of 1 to [`MAX_SLOPES`].
const MULTIPLE: f64 = 27_720.0;

/// Adams and Bashforth's weights of `n` slopes, the newest at the start of the step first.
pub(super) fn bashforth(n: usize) -> Vec<f64> {
    weights(n, 0.0)
}

/// Adams and Moulton's weights of `n` slopes, the newest at the end of the step first.
pub(super) fn moulton(n: usize) -> Vec<f64> {
    weights(n, 1.0)
}

/// The weights of `n` slopes, at most [`MAX_SLOPES`], the newest at `s0`.
///
/// Numerators and denominators are whole numbers below 2^53, hence exact, and their quotients
/// the nearest doubles to the weights.
fn weights(n: usize, s0: f64) -> Vec<f64> {
    let weight = |k: usize| {
        // Coefficients of the product, lowest power first.
        let (mut product, mut divisor) = (vec![1.0], MULTIPLE);
        for i in (0..n).filter(|&i| i != k) {
            let root = i as f64 - s0;
            let raised = core::iter::once(0.0).chain(product.iter().copied());
            let scaled = product.iter().map(|c| c * root).chain([0.0]);
            product = raised.zip(scaled).map(|(a, b)| a + b).collect();
            divisor *= i as f64 - k as f64;
        }
        let integral = |(p, c): (usize, &f64)| c * (MULTIPLE / (p + 1) as f64);
        product.iter().enumerate().map(integral).sum::<f64>() / divisor
    };
    (0..n).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_published_fractions() {
        let over = |numerators: &[f64], divisor: f64| -> Vec<f64> {
            numerators.iter().map(|n| n / divisor).collect()
        };
        // Hairer, Norsett and Wanner, section III.1, (1.5) and (1.9).
        assert_eq!(bashforth(1), [1.0]);
        assert_eq!(bashforth(2), [1.5, -0.5]);
        assert_eq!(bashforth(3), over(&[23.0, -16.0, 5.0], 12.0));
        assert_eq!(bashforth(4), over(&[55.0, -59.0, 37.0, -9.0], 24.0));
        assert_eq!(bashforth(5), over(&[1901.0, -2774.0, 2616.0, -1274.0, 251.0], 720.0));
        assert_eq!(moulton(1), [1.0]);
        assert_eq!(moulton(2), [0.5, 0.5]);
        assert_eq!(moulton(4), over(&[9.0, 19.0, -5.0, 1.0], 24.0));
        assert_eq!(moulton(5), over(&[251.0, 646.0, -264.0, 106.0, -19.0], 720.0));
        assert_eq!(bashforth(11)[0], 2_132_509_567.0 / 479_001_600.0);
        assert_eq!(moulton(12)[0], 262_747_265.0 / 958_003_200.0);
    }

    #[test]
    fn powers_are_integrated_without_error() {
        for n in 1..=MAX_SLOPES {
            for (s0, weights) in [(0.0, bashforth(n)), (1.0, moulton(n))] {
                for power in 0..n {
                    let power = i32::try_from(power).unwrap();
                    let at = |k: usize| (s0 - k as f64).powi(power);
                    let terms: Vec<f64> =
                        weights.iter().enumerate().map(|(k, w)| w * at(k)).collect();
                    let scale: f64 = terms.iter().map(|term| term.abs()).sum();
                    let off = terms.iter().sum::<f64>() - 1.0 / f64::from(power + 1);
                    assert!(off.abs() <= 1e-15 * scale.max(1.0), "{n}, {s0}, {power}: {off}");
                }
            }
        }
    }
}
