//! Columns of the tables that people read: how a number is printed, and who is best.

/// The better end of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Higher,
    Lower,
}

/// The number format of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    /// This number of digits after the point.
    Fixed(usize),
    /// This number of digits in all, with a power of ten where the number is very large or small.
    Significant(u8),
}

/// A column of a table about `T`s.
pub(super) struct Column<'a, T> {
    /// Heading, with the unit.
    pub(super) title: &'a str,
    /// One sentence for those who ask.
    pub(super) meaning: &'a str,
    /// The number, none where it was not measured.
    pub(super) value: fn(&T) -> Option<f64>,
    pub(super) digits: Digits,
    /// Half of the number's 95 % confidence interval, where it is known.
    pub(super) error: fn(&T) -> Option<f64>,
    /// The better end; none for a column that is not compared.
    pub(super) better: Option<Better>,
}

/// The mark of the best entries of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// No other is better.
    Best,
    /// Its interval does not tell it from the best.
    Tie,
}

impl<'a, T> Column<'a, T> {
    /// A column that is not compared.
    pub(super) fn new(
        title: &'a str,
        meaning: &'a str,
        digits: Digits,
        value: fn(&T) -> Option<f64>,
    ) -> Self {
        Self { title, meaning, value, digits, error: |_| None, better: None }
    }

    /// The column, compared.
    pub(super) fn better(self, better: Better) -> Self {
        Self { better: Some(better), ..self }
    }

    /// The column with intervals.
    pub(super) fn error(self, error: fn(&T) -> Option<f64>) -> Self {
        Self { error, ..self }
    }

    /// The number as printed, with its interval; empty where it was not measured.
    pub(super) fn text(&self, item: &T) -> String {
        let value = self.measured(item).map(|value| self.digits.print(value));
        match (value, (self.error)(item)) {
            (Some(value), Some(error)) => format!("{value} ± {}", self.digits.print(error)),
            (value, _) => value.unwrap_or_default(),
        }
    }

    fn measured(&self, item: &T) -> Option<f64> {
        (self.value)(item).filter(|value| !value.is_nan())
    }

    /// Marks the best of a block and those tied with it; none where nothing is compared or all
    /// entries read the same. Two values tie when they differ by less than the root of the sum of
    /// their half intervals' squares.
    pub(super) fn marks(&self, block: &[&T]) -> Vec<Option<Mark>> {
        let value = |item: &T| self.measured(item);
        let sign = if self.better == Some(Better::Higher) { 1.0 } else { -1.0 };
        let known = block.iter().filter_map(|item| Some((item, sign * value(item)?)));
        let best = known.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(item, _)| *item);
        let text = |item: &T| value(item).map(|value| self.digits.print(value));
        let (Some(best), Some(_)) = (best, self.better) else { return vec![None; block.len()] };
        if block.iter().all(|item| text(item) == text(best)) {
            return vec![None; block.len()];
        }
        let tied = |item: &T| {
            let (a, b) = value(item).zip(value(best))?;
            let [ea, eb] = [item, best].map(|item| (self.error)(item).unwrap_or(0.0));
            Some((a - b).abs() < ea.hypot(eb))
        };
        let mark = |item: &&T| {
            if text(item) == text(best) {
                Some(Mark::Best)
            } else {
                tied(item).unwrap_or(false).then_some(Mark::Tie)
            }
        };
        block.iter().map(mark).collect()
    }
}

impl Digits {
    fn print(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => if value > 0.0 { "∞" } else { "-∞" }.into(),
            Self::Fixed(digits) => format!("{value:.digits$}"),
            Self::Significant(digits) => {
                let digits = usize::from(digits);
                let power = format!("{value:.*e}", digits.saturating_sub(1));
                // Its exponent is that of the rounded number.
                let exponent = power.rsplit_once('e').and_then(|(_, e)| e.parse::<i32>().ok());
                match exponent.and_then(|exponent| usize::try_from(exponent + 3).ok()) {
                    Some(places) if places <= 7 => {
                        format!("{value:.*}", (digits + 2).saturating_sub(places))
                    }
                    _ => power,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with its interval.
    type Item = (Option<f64>, Option<f64>);

    fn column<'a>() -> Column<'a, Item> {
        Column::new("x", "a number", Digits::Fixed(2), |item: &Item| item.0)
            .error(|item| item.1)
            .better(Better::Lower)
    }

    fn marks(column: &Column<'_, Item>, items: &[Item]) -> String {
        let block: Vec<&Item> = items.iter().collect();
        let letter = |mark| match mark {
            Some(Mark::Best) => 'B',
            Some(Mark::Tie) => 't',
            None => '.',
        };
        column.marks(&block).into_iter().map(letter).collect()
    }

    #[test]
    fn entries_that_chance_does_not_tell_apart_are_ties() {
        let item = |value, error| (Some(value), Some(error));
        // The root of 0.3² + 0.4² is 0.5.
        let items = [item(2.0, 0.3), item(2.49, 0.4), item(2.51, 0.4), (Some(2.2), None)];
        assert_eq!(marks(&column(), &items), "Bt.t", "an unknown interval counts as none");
        let higher = column().better(Better::Higher);
        assert_eq!(marks(&higher, &items), ".tBt");
    }

    #[test]
    fn without_intervals_only_the_best_is_marked() {
        let items = [2.004, 2.0, 2.1].map(|value| (Some(value), None));
        assert_eq!(marks(&column(), &items), "BB.", "what reads the same is as good");
        assert_eq!(marks(&column(), &items[..2]), "..", "all the same");
        let uncompared = Column { better: None, ..column() };
        assert_eq!(marks(&uncompared, &items), "...");
    }

    #[test]
    fn what_was_not_measured_is_no_candidate() {
        let items = [(None, None), (Some(f64::NAN), None), (Some(3.0), None), (Some(4.0), None)];
        assert_eq!(marks(&column(), &items), "..B.");
        assert_eq!(marks(&column(), &items[..2]), "..");
        let infinite = [(Some(f64::INFINITY), Some(0.1)), (Some(40.0), Some(0.1))];
        assert_eq!(marks(&column().better(Better::Higher), &infinite), "B.");
    }

    #[test]
    fn numbers_are_printed_with_their_intervals() {
        let text = |item: &Item| column().text(item);
        assert_eq!(text(&(Some(1.0), Some(0.128))), "1.00 ± 0.13");
        assert_eq!(text(&(Some(f64::INFINITY), None)), "∞");
        assert_eq!([text(&(None, Some(1.0))), text(&(Some(f64::NAN), None))], ["", ""]);
    }

    #[test]
    fn significant_digits_stay_readable() {
        let print = |value| Digits::Significant(3).print(value);
        let plain = [0.001, 0.0123, 0.999_9, 3.78, 12.6, 650.0, 2463.0, 0.0].map(print);
        assert_eq!(plain, ["0.00100", "0.0123", "1.00", "3.78", "12.6", "650", "2463", "0.00"]);
        assert_eq!([0.000_123, 123_456.0, 1e30].map(print), ["1.23e-4", "1.23e5", "1.00e30"]);
    }
}
