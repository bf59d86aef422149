//! Histogram of absolute values, by which the range of their bytes is chosen.

/// Bins of a histogram.
const BINS: usize = 2048;
/// Ranges that are tried, as parts of the largest magnitude.
const TRIED: usize = 64;

/// A histogram of magnitudes that widens as they come.
#[derive(Clone, Debug)]
pub(super) struct AbsHistogram {
    counts: Vec<u64>,
    /// Width of a bin; 0 until the first magnitude above 0.
    width: f32,
    most: f32,
    finite: bool,
}

impl Default for AbsHistogram {
    fn default() -> Self {
        Self { counts: vec![0; BINS], width: 0.0, most: 0.0, finite: true }
    }
}

impl AbsHistogram {
    /// Adds values.
    pub(super) fn add(&mut self, values: &[f32]) {
        let most = values.iter().fold(0f32, |most, x| most.max(x.abs()));
        self.finite &= values.iter().all(|x| x.is_finite());
        if !self.finite {
            return;
        }
        self.most = self.most.max(most);
        if self.width == 0.0 && most > 0.0 {
            // Whatever came before was 0, and stays in the first bin.
            self.width = (most / BINS as f32).max(f32::MIN_POSITIVE);
        }
        while most >= self.width * BINS as f32 && self.width > 0.0 {
            self.widen();
        }
        for x in values {
            let bin = self.bin(x.abs());
            self.counts[bin] += 1;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a magnitude within the bins"
    )]
    fn bin(&self, x: f32) -> usize {
        let bin = if self.width > 0.0 { (x / self.width) as usize } else { 0 };
        bin.min(BINS - 1)
    }

    /// Makes bins twice as wide.
    fn widen(&mut self) {
        for i in 0..BINS / 2 {
            self.counts[i] = self.counts[2 * i] + self.counts[2 * i + 1];
        }
        self.counts[BINS / 2..].fill(0);
        self.width *= 2.0;
    }

    /// The range `r` for which rounding to the 255 values `r i / 127` and clipping beyond it err the least in
    /// the mean square; 1 where all values are 0, `None` where one was not finite.
    ///
    /// ```text
    /// E(r) = sum over |x| <= r of (r / 127)^2 / 12  +  sum over |x| > r of (|x| - r)^2
    /// ```
    pub(super) fn range(&self) -> Option<f32> {
        if !self.finite {
            return None;
        }
        if self.most < f32::MIN_POSITIVE {
            return Some(1.0);
        }
        let error = |range: f64| -> f64 {
            let rounding = (range / 127.0).powi(2) / 12.0;
            let bins = self.counts.iter().enumerate().filter(|&(_, &count)| count > 0);
            let squares = bins.map(|(i, &count)| {
                let beyond = (i as f64 + 0.5) * f64::from(self.width) - range;
                count as f64 * if beyond > 0.0 { beyond * beyond } else { rounding }
            });
            squares.sum()
        };
        let tried = (1..=TRIED).map(|i| f64::from(self.most) * i as f64 / TRIED as f64);
        let best = tried.min_by(|&a, &b| error(a).total_cmp(&error(b)))?;
        #[expect(clippy::cast_possible_truncation, reason = "not above `most`")]
        Some((best as f32).max(f32::MIN_POSITIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_far_values_are_clipped() {
        let mut histogram = AbsHistogram::default();
        let near: Vec<f32> = (0..20_000).map(|i| (i as f32 / 10_000.0) - 1.0).collect();
        histogram.add(&near);
        assert_eq!(histogram.range(), Some(1.0));
        histogram.add(&[-3.0]);
        // One value 2 off costs more than what wider steps do.
        let all = histogram.range().unwrap();
        assert!((2.0..=3.0).contains(&all), "{all}");
        for _ in 0..500 {
            histogram.add(&near);
        }
        let most = histogram.range().unwrap();
        assert!((1.0..1.5).contains(&most), "{most}");
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        let mut histogram = AbsHistogram::default();
        histogram.add(&[0.0; 9]);
        assert_eq!(histogram.range(), Some(1.0));
        histogram.add(&[1.0, f32::NEG_INFINITY]);
        assert_eq!(histogram.range(), None);
        let mut histogram = AbsHistogram::default();
        histogram.add(&[1e-30]);
        histogram.add(&[f32::MAX]);
        assert_eq!(histogram.range(), Some(f32::MAX));
        let mut histogram = AbsHistogram::default();
        histogram.add(&[1e-45]);
        assert_eq!(histogram.range(), Some(1.0));
    }

    #[test]
    fn the_order_does_not_matter_much() {
        let values: Vec<f32> = (1..1000).map(|i| (i as f32).powi(3)).collect();
        let (mut up, mut down) = (AbsHistogram::default(), AbsHistogram::default());
        for (&first, &last) in values.iter().zip(values.iter().rev()) {
            up.add(&[first]);
            down.add(&[last]);
        }
        let (up, down) = (up.range().unwrap(), down.range().unwrap());
        assert!((up / down - 1.0).abs() < 0.05, "{up} {down}");
    }
}
