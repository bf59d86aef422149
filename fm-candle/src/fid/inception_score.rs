//! The inception score: how sure a classifier is of each image, and how different the images are.
//!
//! ```text
//! IS = exp( 1/n Σ_i Σ_c p_ic (ln p_ic − ln q_c) ),   p_i = softmax of the logits,  q = 1/n Σ_i p_i
//! ```
//! It lies between 1 and the number of classes, and knows nothing of real images.
//!
//! T. Salimans et al., "Improved techniques for training GANs", 2016, section 4. As torch-fidelity
//! reports it (`metric_isc.py`), it is taken on logits without the bias, and the mean and the
//! population's standard deviation over ten parts of the images in random order are given; that
//! package shuffles them by NumPy's generator and we by ours.

use super::kid::MeanStd;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::random::Domain;

/// torch-fidelity's number of parts.
pub const SPLITS: usize = 10;

/// An order of `n` images that is a function of the seed.
pub fn order(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    Domain::ScoreOrder.stream(seed).shuffle(0, &mut order);
    order
}

/// The score of each of `splits` parts of the images, cut from `order` as evenly as can be.
///
/// # Shapes
///
/// `logits`: `[n, classes]`, row-major; `order`: numbers of rows, below `n`.
///
/// # Errors
///
/// [`Error::Tensor`] for values that do not divide into rows of `classes` or are not finite;
/// [`Error::Config`] for no parts or more than there are images, or for a number that is no row's.
pub fn inception_score(
    logits: &[f32],
    classes: usize,
    order: &[usize],
    splits: usize,
) -> Result<MeanStd> {
    let rows = Rows::new(logits, classes)?;
    let n = order.len();
    if splits == 0 || splits > n {
        return Err(Error::Config(format!(
            "{splits} splits of {n} images: must be at least 1, with an image in each"
        )));
    }
    if let Some(i) = order.iter().find(|&&i| i >= rows.n()) {
        return Err(Error::Config(format!("there is no image {i} among {}", rows.n())));
    }
    let part = |i: usize| score(rows, &order[i * n / splits..(i + 1) * n / splits]);
    Ok(MeanStd::of(&(0..splits).map(part).collect::<Vec<f64>>()))
}

/// The score of the images with these numbers.
fn score(rows: Rows<'_>, numbers: &[usize]) -> f64 {
    let n = numbers.len() as f64;
    let mut mean = vec![0.0; rows.dim()];
    // Σ_i Σ_c p_ic ln p_ic
    let mut certainty = 0.0;
    for &i in numbers {
        let most = rows.row(i).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = rows.row(i).map(|x| (x - most).exp()).sum::<f64>().ln();
        for (x, mean) in rows.row(i).zip(&mut mean) {
            let log = x - most - log_sum;
            let p = log.exp();
            certainty += p * log;
            *mean += p / n;
        }
    }
    // A class of no probability adds 0.
    let spread: f64 = mean.iter().filter(|q| **q > 0.0).map(|q| q * q.ln()).sum();
    // Rounding alone can bring it below 1.
    (certainty / n - spread).exp().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(logits: &[f32], classes: usize, splits: usize) -> MeanStd {
        let order: Vec<usize> = (0..logits.len() / classes).collect();
        inception_score(logits, classes, &order, splits).unwrap()
    }

    /// `n` images, each certainly of its number's class.
    fn certain(n: usize, classes: usize) -> Vec<f32> {
        (0..n * classes)
            .map(|i| if i % classes == i / classes % classes { 900.0 } else { 0.0 })
            .collect()
    }

    #[test]
    fn lies_between_one_and_the_number_of_classes() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        close(all(&certain(40, 8), 8, 1).mean, 8.0);
        close(all(&certain(40, 8), 8, 5).mean, 8.0);
        // Only 4 of the classes are in each half.
        close(all(&certain(8, 8), 8, 2).mean, 4.0);
        // Undecided images, or equal ones, or one.
        close(all(&[3.0; 40], 8, 1).mean, 1.0);
        close(all(&[1.0, 2.0, 3.0, 4.0].repeat(6), 4, 1).mean, 1.0);
        close(all(&[1.0, 2.0, 3.0, 4.0], 4, 1).mean, 1.0);
        assert!(all(&[3.0; 40], 8, 5).std < 1e-12);
    }

    #[test]
    fn is_the_definition() {
        // p = (0.8, 0.2) and (0.4, 0.6), so q = (0.6, 0.4).
        let logits: Vec<f32> = [0.8_f32, 0.2, 0.4, 0.6].iter().map(|p| p.ln() + 7.0).collect();
        let kl = 0.8 * (0.8_f64 / 0.6).ln()
            + 0.2 * 0.5_f64.ln()
            + 0.4 * (0.4_f64 / 0.6).ln()
            + 0.6 * 1.5_f64.ln();
        assert!((all(&logits, 2, 1).mean - (kl / 2.0).exp()).abs() < 1e-6);
    }

    #[test]
    fn orders_are_permutations_that_follow_the_seed() {
        let mut first = order(50, 1);
        assert_eq!(first, order(50, 1));
        assert_ne!(first, order(50, 2));
        first.sort_unstable();
        assert_eq!(first, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn refuses_what_has_no_score() {
        let message = |logits: &[f32], classes, order: &[usize], splits| {
            inception_score(logits, classes, order, splits).unwrap_err().to_string()
        };
        assert!(message(&[0.0; 6], 2, &[0, 1, 2], 4).contains("4 splits of 3 images"));
        assert!(message(&[0.0; 6], 2, &[0], 0).contains("at least 1"));
        assert!(message(&[0.0; 6], 2, &[3], 1).contains("no image 3 among 3"));
        assert!(message(&[0.0; 5], 2, &[0], 1).contains("rows of 2"));
        assert!(message(&[f32::NAN; 2], 2, &[0], 1).contains("is NaN"));
    }
}
