//! The learning rate over the epochs.

use serde_json::{Value as Json, json};

use super::TrainConfig;

/// torch's `ConstantLR` with factor 1 or `LinearLR`, stepped once per epoch.
///
/// ```text
/// lr(p) = initial (start + (end - start) min(p, total) / total)
/// ```
/// where `p` counts the epochs that the schedule has seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate that the factors multiply.
    pub initial: f64,
    factors: Factors,
    /// Epochs over which the factors change.
    total: u64,
    /// Epochs that the schedule has seen before the run's first: not 0 only for checkpoints whose
    /// schedule and epoch do not agree.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Factors {
    Constant,
    Linear { start: f64, end: f64 },
}

impl Schedule {
    /// A new run's: constant, or linear from `lr` to 1e-8 over all epochs with `decay_lr`.
    pub fn new(config: &TrainConfig) -> Self {
        let linear = Factors::Linear { start: 1.0, end: 1e-8 / config.lr };
        let factors = if config.decay_lr { linear } else { Factors::Constant };
        Self { initial: config.lr, factors, total: config.epochs.max(1), offset: 0 }
    }

    /// Returns true if the rate changes with the epochs.
    pub fn falls(&self) -> bool {
        self.factors != Factors::Constant
    }

    /// Epochs over which the rate falls, where it does.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The learning rate of an epoch, counted from 0.
    pub fn lr(&self, epoch: u64) -> f64 {
        let seen = epoch.saturating_add_signed(self.offset);
        match self.factors {
            Factors::Constant => self.initial,
            Factors::Linear { start, end } => {
                let done = seen.min(self.total) as f64 / self.total as f64;
                self.initial * (start + (end - start) * done)
            }
        }
    }

    /// The state dict of torch's class after `epoch` epochs.
    pub(super) fn state(&self, epoch: u64) -> Json {
        let factors = match self.factors {
            Factors::Constant => json!({ "factor": 1.0 }),
            Factors::Linear { start, end } => json!({ "start_factor": start, "end_factor": end }),
        };
        let seen = epoch.saturating_add_signed(self.offset);
        let others = json!({
            "total_iters": self.total,
            "base_lrs": [self.initial],
            "last_epoch": seen,
            "_step_count": seen + 1,
            "_is_initial": false,
            "_get_lr_called_within_step": false,
            "_last_lr": [self.lr(epoch)],
        });
        let both = [factors, others].into_iter().filter_map(|part| match part {
            Json::Object(map) => Some(map),
            _ => None,
        });
        Json::Object(both.flatten().collect())
    }

    /// The schedule whose state dict is `state`, for a run that goes on with epoch `epoch`; why
    /// it cannot be gone on with.
    pub(super) fn from_state(state: &Json, epoch: u64) -> Result<Self, String> {
        let number = |key: &str| state[key].as_f64();
        let count = |key: &str| state[key].as_u64();
        let factors = match (number("start_factor"), number("end_factor"), number("factor")) {
            (Some(start), Some(end), _) => Factors::Linear { start, end },
            (_, _, Some(1.0)) => Factors::Constant,
            _ => return Err("is neither a LinearLR nor a ConstantLR of factor 1".into()),
        };
        let (Some(initial), Some(total @ 1..), Some(seen)) =
            (state["base_lrs"][0].as_f64(), count("total_iters"), count("last_epoch"))
        else {
            return Err("lacks base_lrs, total_iters or last_epoch".into());
        };
        let finite = match factors {
            Factors::Constant => true,
            Factors::Linear { start, end } => start.is_finite() && end.is_finite(),
        };
        if !(initial > 0.0 && initial.is_finite() && finite) {
            return Err(format!("starts from a learning rate of {initial}"));
        }
        let offset = i64::try_from(seen).ok().zip(i64::try_from(epoch).ok());
        let Some(offset) = offset.map(|(seen, epoch)| seen - epoch) else {
            return Err(format!("has seen {seen} epochs"));
        };
        Ok(Self { initial, factors, total, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_rate_ends_at_1e_8_and_stays_there() {
        let config = TrainConfig { decay_lr: true, epochs: 4, ..TrainConfig::default() };
        let schedule = Schedule::new(&config);
        assert_eq!(schedule.lr(0), config.lr);
        assert!((schedule.lr(2) - f64::midpoint(config.lr, 1e-8)).abs() < 1e-18);
        assert!((schedule.lr(4) - 1e-8).abs() < 1e-20 && schedule.lr(9) == schedule.lr(4));
        assert_eq!(Schedule::new(&TrainConfig::default()).lr(900), 1e-4);
    }

    #[test]
    fn goes_on_from_its_own_state() {
        for decay_lr in [false, true] {
            let config = TrainConfig { decay_lr, epochs: 40, ..TrainConfig::default() };
            let schedule = Schedule::new(&config);
            assert_eq!(Schedule::from_state(&schedule.state(7), 7), Ok(schedule));
        }
    }

    #[test]
    fn a_schedule_may_have_seen_other_epochs_than_the_run() {
        let config = TrainConfig { decay_lr: true, epochs: 50, ..TrainConfig::default() };
        let state = Schedule::new(&config).state(1);
        let resumed = Schedule::from_state(&state, 10).unwrap();
        assert_eq!(resumed.lr(10), Schedule::new(&config).lr(1));
        assert_eq!(resumed.state(10), state);
    }

    #[test]
    fn refuses_what_it_cannot_go_on_with() {
        let good = Schedule::new(&TrainConfig::default()).state(3);
        for (key, bad) in [
            ("factor", json!(0.5)),
            ("total_iters", json!(0)),
            ("last_epoch", json!(-1)),
            ("base_lrs", json!([])),
            ("base_lrs", json!([-1.0])),
        ] {
            let mut state = good.clone();
            state[key] = bad;
            assert!(Schedule::from_state(&state, 3).is_err(), "{key}");
        }
    }
}
