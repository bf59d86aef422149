//! Dropout of a forward pass: off, or masks that depend on the place in the run alone.

use core::cell::Cell;

use quant_core::noise::Stream;

use crate::ops::Mask;
use crate::random::Domain;

/// Mode of a forward pass: dropout off or on.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// No dropout.
    Eval,
    /// Dropout with these masks.
    Train(&'a Masks),
}

/// The dropout masks of one training batch, a function of (seed, batch, image) alone.
pub struct Masks {
    stream: Stream,
    batch: u64,
    images: (usize, usize),
    layer: Cell<u64>,
}

impl Masks {
    /// The masks of every `step`-th image, `images = (first, step)`, of batch number `batch` of the
    /// run with this seed.
    pub fn new(seed: u64, batch: u64, images: (usize, usize)) -> Self {
        Self { stream: Domain::Dropout.stream(seed), batch, images, layer: Cell::new(0) }
    }

    /// Layers that have drawn their masks.
    pub(super) fn layer(&self) -> u64 {
        self.layer.get()
    }

    /// Goes back to where `layer` layers have drawn.
    pub(super) fn rewind(&self, layer: u64) {
        self.layer.set(layer);
    }

    /// The mask of the next layer.
    pub(super) fn next(&self) -> Mask {
        let layer = self.layer.replace(self.layer.get() + 1);
        Mask { stream: self.stream, base: (self.batch << 32) | (layer << 16), images: self.images }
    }
}
