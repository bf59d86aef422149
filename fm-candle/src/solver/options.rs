//! Settings of the methods.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::adams_coefficients::MAX_SLOPES;
use super::control::Control;
use crate::error::{Error, Result};

/// The state at asked times between two of a fixed-step method's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// On a straight line.
    #[default]
    Linear,
    /// On the cubic through both states and slopes; costs an evaluation for every asked time.
    Cubic,
}

/// Settings of [`solve`](super::solve).
#[derive(Clone, Debug)]
pub struct SolverOptions {
    /// Steps of a fixed-step method; without it the asked times are the grid.
    pub step_size: Option<f64>,
    /// Precision of a fixed-step method's times, F32 or F64 (torch's type of the time grid).
    pub time: DType,
    /// Asked times between a fixed-step method's steps (torchdiffeq's `interp`).
    pub interpolation: Interpolation,
    /// True if a fixed-step method sees the ends of a step from within it: at the float after its
    /// start and the one before its end, for fields that jump at times of the grid.
    pub perturb: bool,
    /// Order and corrections of a method of Adams.
    pub adams: Adams,
    /// Tolerances of an adaptive method and of `implicit_adams`; step control of an adaptive one.
    pub control: Control,
    /// Times at which an adaptive method must end a step.
    pub step_t: Vec<f64>,
    /// Such times at which the field jumps, too: its slope is taken anew after them.
    pub jump_t: Vec<f64>,
}

impl Default for SolverOptions {
    fn default() -> Self {
        Self {
            step_size: None,
            time: DType::F64,
            interpolation: Interpolation::default(),
            perturb: false,
            adams: Adams::default(),
            control: Control::default(),
            step_t: Vec::new(),
            jump_t: Vec::new(),
        }
    }
}

/// Settings of the methods of Adams; the defaults are torchdiffeq's.
///
/// With 12, `explicit_adams` is unstable over more than about 20 steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adams {
    /// One more than the slopes that are remembered, 2 to 12; below 4 every step is one of `rk4`.
    pub max_order: usize,
    /// Corrections of an implicit step at most, at least 1.
    pub max_iters: usize,
}

impl Default for Adams {
    fn default() -> Self {
        Self { max_order: MAX_SLOPES, max_iters: 4 }
    }
}

impl Adams {
    /// Refuses settings that no method can work with.
    ///
    /// # Errors
    /// Says which settings, and what they must be.
    pub fn check(self) -> Result<()> {
        let Self { max_order, max_iters } = self;
        if !(2..=MAX_SLOPES).contains(&max_order) {
            return Err(Error::Config(format!("max_order {max_order} must be 2 to {MAX_SLOPES}")));
        }
        if max_iters == 0 {
            return Err(Error::Config("max_iters 0 must be at least 1".into()));
        }
        Ok(())
    }
}

/// A step of `implicit_adams` whose corrections still differed after the last of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unconverged {
    /// Time at which the step starts.
    pub t: f64,
    /// Its number, from 0.
    pub step: usize,
}
