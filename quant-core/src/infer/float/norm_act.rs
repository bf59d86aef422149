//! Norm and activation of what enters a layer.

use super::super::op::Prologue;
use crate::num;

/// Norm and activation of one channel's values on their way into a layer.
pub(super) enum NormAct {
    Plain,
    Affine { gain: f32, offset: f32, active: bool },
}

impl NormAct {
    /// # Shapes
    /// `affine`: gain and offset of each channel, as the norm left them.
    pub(super) fn new(prologue: Prologue, affine: &[f32], channel: usize) -> Self {
        match affine.as_chunks().0.get(channel) {
            Some(&[gain, offset]) if prologue != Prologue::Plain => {
                Self::Affine { gain, offset, active: prologue == Prologue::NormSilu }
            }
            _ => Self::Plain,
        }
    }

    #[inline]
    pub(super) fn of(&self, x: f32) -> f32 {
        match *self {
            Self::Plain => x,
            Self::Affine { gain, offset, active: false } => gain * x + offset,
            Self::Affine { gain, offset, active: true } => num::silu(gain * x + offset),
        }
    }
}
