//! Axes of charts: the positions of numbers, and the ticks.

/// The scale of an axis, linear or logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Equal differences take equal room.
    Linear,
    /// Equal factors take equal room; linear again when the values span less than a factor of 3.
    Log,
}

/// A fitted axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    /// Ends of the axis, as [`Scale::forward`] has them.
    ends: [f64; 2],
    /// Numbers to name, ascending, all on the axis.
    ticks: Vec<f64>,
    /// Digits after the point that tell neighbouring ticks apart.
    decimals: usize,
}

/// Room left beyond the extreme values, as a share of the axis.
const PADDING: f64 = 0.05;

/// Largest magnitude that is drawn, so that differences do not overflow.
const LARGEST: f64 = 1e300;

/// Steps between ticks, at most.
const TICKS: f64 = 8.0;

impl Axis {
    /// An axis that holds all of `values`, of which those that `scale` cannot place are ignored;
    /// none if no value is left.
    pub(super) fn fit(values: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let values: Vec<f64> = values.filter(|&value| scale.places(value)).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        Some(match scale {
            Scale::Log if high >= 3.0 * low => Self::log(low, high),
            Scale::Linear | Scale::Log => {
                let whole = values.iter().all(|value| value.fract() == 0.0);
                Self::linear(low, high, whole)
            }
        })
    }

    /// Returns true if `value` has a place on this axis.
    pub(super) fn places(&self, value: f64) -> bool {
        self.scale.places(value)
    }

    /// The position of `value`: 0 at the low end, 1 at the high end.
    pub(super) fn position(&self, value: f64) -> f64 {
        let [low, high] = self.ends;
        (self.scale.forward(value) - low) / (high - low)
    }

    /// The numbers to name, each with its name.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        self.ticks.iter().map(|&tick| {
            let name = match self.scale {
                Scale::Linear => format!("{tick:.*}", self.decimals),
                Scale::Log if (9e-4..9e4).contains(&tick) => tick.to_string(),
                Scale::Log => format!("{tick:.0e}"),
            };
            (tick, name)
        })
    }

    fn linear(low: f64, high: f64, whole: bool) -> Self {
        // A lone value, or values that differ by rounding, still get an axis about them.
        let size = high.abs().max(low.abs());
        let least = if high > low { 1e-9 * size } else { 0.1 * size };
        let span = (high - low).max(least).max(1e-100);
        let (low, high) = (low - PADDING * span, high + PADDING * span);
        let step = step(span / TICKS).max(if whole { 1.0 } else { 0.0 });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 101")]
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let ticks = multiples(step, low, high);
        Self { scale: Scale::Linear, ends: [low, high], ticks, decimals }
    }

    fn log(low: f64, high: f64) -> Self {
        let (low, high) = (low.log10(), high.log10());
        let decades = high - low;
        let (low, high) = (low - PADDING * decades, high + PADDING * decades);
        let digits: &[f64] = if 3.0 * decades <= TICKS { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (decades / TICKS).ceil();
        let exponents = multiples(every, low - every, high);
        let ticks = exponents
            .iter()
            .flat_map(|exponent| digits.iter().map(move |digit| digit * 10.0_f64.powf(*exponent)))
            .filter(|tick| (low..=high).contains(&tick.log10()))
            .collect();
        Self { scale: Scale::Log, ends: [low, high], ticks, decimals: 0 }
    }
}

impl Scale {
    /// Returns true if `value` can be drawn: within `±LARGEST`, and above 0 for a logarithm.
    fn places(self, value: f64) -> bool {
        value.abs() <= LARGEST && (self == Self::Linear || value > 0.0)
    }

    /// The quantity that takes equal room.
    fn forward(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    let power = 10.0_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|&s| s >= least)
        .unwrap_or(10.0 * power)
}

/// The multiples of `step` from `low` to `high`, a few dozen at most.
fn multiples(step: f64, low: f64, high: f64) -> Vec<f64> {
    let first = (low / step).ceil();
    // `+ 0.0` turns a negative zero into zero.
    (0..32).map(|i| (first + f64::from(i)) * step + 0.0).take_while(|&x| x <= high).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(values: &[f64], scale: Scale) -> Vec<String> {
        let axis = Axis::fit(values.iter().copied(), scale).unwrap();
        axis.ticks().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(names(&[2.0, 8.0], Scale::Linear), ["2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(names(&[3.0, 4.0], Scale::Linear), ["3", "4"]);
        assert_eq!(names(&[2.3, 3.2], Scale::Linear), ["2.4", "2.6", "2.8", "3.0", "3.2"]);
        assert_eq!(names(&[-12.5, 31.0], Scale::Linear), ["-10", "0", "10", "20", "30"]);
        assert_eq!(names(&[9.0, 520.0], Scale::Log), ["10", "20", "50", "100", "200", "500"]);
        assert_eq!(names(&[0.02, 30_000.0], Scale::Log).len(), 7);
        assert!(names(&[1e-300, 1e300], Scale::Log).len() > 3);
        assert_eq!(names(&[1e-6, 1e-4], Scale::Log)[..3], ["1e-6", "2e-6", "5e-6"]);
    }

    #[test]
    fn every_value_lies_on_its_axis() {
        for scale in [Scale::Linear, Scale::Log] {
            for values in [
                [1.0, 1.0],
                [0.1, 900.0],
                [5.0, 5.0 + 1e-15],
                [1e-30, 1e30],
                [1e-300, 1e300],
                [7.0, 9.0],
            ] {
                let axis = Axis::fit(values.into_iter(), scale).unwrap();
                for value in values {
                    assert!((0.0..=1.0).contains(&axis.position(value)), "{scale:?} {value}");
                }
            }
        }
        let zero = Axis::fit([0.0].into_iter(), Scale::Linear).unwrap();
        assert!((zero.position(0.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn values_without_a_place_are_ignored() {
        let values = [f64::NAN, f64::INFINITY, f64::MAX, -3.0, 0.0, 2.0, 50.0];
        let axis = Axis::fit(values.into_iter(), Scale::Log).unwrap();
        assert_eq!(axis, Axis::fit([2.0, 50.0].into_iter(), Scale::Log).unwrap());
        assert!(!axis.places(0.0) && axis.places(1e-9));
        assert!(Axis::fit([f64::NAN].into_iter(), Scale::Linear).is_none());
    }
}
