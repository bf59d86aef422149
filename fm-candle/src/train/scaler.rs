//! The scale of gradients in half precision (torch's `GradScaler`).

use serde_json::{Value as Json, json};

/// A scale that grows while gradients stay finite, and shrinks when they do not.
///
/// ```text
/// finite      after 2000 such updates: scale <- 2 scale
/// not finite  the update is skipped:   scale <- scale / 2
/// ```
/// Source: `torch/amp/grad_scaler.py`, whose defaults upstream uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaler {
    /// The factor of the loss.
    pub scale: f64,
    growth: f64,
    backoff: f64,
    interval: u64,
    /// Finite updates since the scale last changed.
    tracker: u64,
}

impl Default for Scaler {
    fn default() -> Self {
        Self { scale: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000, tracker: 0 }
    }
}

impl Scaler {
    /// Returns true if an update with a gradient of this norm may be made, and sets the scale of
    /// the next one.
    pub(super) fn accepts(&mut self, norm: f64) -> bool {
        if !norm.is_finite() {
            self.scale *= self.backoff;
            self.tracker = 0;
            return false;
        }
        self.tracker += 1;
        if self.tracker >= self.interval {
            self.scale *= self.growth;
            self.tracker = 0;
        }
        true
    }

    /// The state dict of torch's class.
    pub(super) fn state(&self) -> Json {
        json!({
            "scale": self.scale,
            "growth_factor": self.growth,
            "backoff_factor": self.backoff,
            "growth_interval": self.interval,
            "_growth_tracker": self.tracker,
        })
    }

    /// The scaler whose state dict is `state`; a new one where it is empty, as of a run in single
    /// precision; why it cannot be gone on with.
    pub(super) fn from_state(state: &Json) -> Result<Self, String> {
        if state.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(Self::default());
        }
        let number = |key: &str| {
            let value = state[key].as_f64().filter(|value| *value > 0.0 && value.is_finite());
            value.ok_or_else(|| format!("has {key} = {}, which must be positive", state[key]))
        };
        let count = |key: &str| {
            state[key].as_u64().ok_or_else(|| format!("has {key} = {}, no count", state[key]))
        };
        Ok(Self {
            scale: number("scale")?,
            growth: number("growth_factor")?,
            backoff: number("backoff_factor")?,
            interval: count("growth_interval")?.max(1),
            tracker: count("_growth_tracker")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_follows_the_gradients() {
        let mut scaler = Scaler { interval: 2, ..Scaler::default() };
        assert!(scaler.accepts(1.0));
        assert!(!scaler.accepts(f64::INFINITY));
        assert_eq!(scaler.scale.to_bits(), 32768f64.to_bits());
        assert!(scaler.accepts(1.0) && scaler.accepts(1.0));
        assert_eq!(scaler.scale.to_bits(), 65536f64.to_bits());
        assert!(!scaler.accepts(f64::NAN));
    }

    #[test]
    fn a_state_goes_there_and_back() {
        let mut scaler = Scaler::default();
        scaler.accepts(1.0);
        scaler.accepts(f64::NAN);
        scaler.accepts(1.0);
        assert_eq!(Scaler::from_state(&scaler.state()), Ok(scaler));
        assert_eq!(Scaler::from_state(&json!({})), Ok(Scaler::default()));
        let mut wrong = scaler.state();
        wrong["scale"] = json!(0.0);
        assert!(Scaler::from_state(&wrong).unwrap_err().contains("scale = 0"));
        wrong["scale"] = json!(2.0);
        wrong["_growth_tracker"] = json!(-1);
        assert!(Scaler::from_state(&wrong).unwrap_err().contains("_growth_tracker"));
    }
}
