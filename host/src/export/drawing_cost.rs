//! What drawing an image from a packed file takes on a device.

use quant_core::Result;
use quant_core::format::Model;
use quant_core::infer::{Plan, Precision, STACK_BYTES, Settings};
use quant_core::method::Method;

/// Needs of drawing an image without guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrawingCost {
    pub(crate) precision: Precision,
    pub(crate) method: Method,
    /// Floats of the arena of one evaluation.
    evaluation_len: usize,
    /// Floats of the arena of the method.
    arena_len: usize,
    /// Channels, height and width of the image.
    pub(crate) shape: [usize; 3],
    /// Multiplications of one evaluation.
    pub(crate) macs: u64,
}

impl DrawingCost {
    /// The needs of a model, computed in `precision` by `method`.
    ///
    /// # Errors
    ///
    /// Those of [`Plan::with_precision`]: no net, no image size, no scales of activations.
    pub(crate) fn of(model: &Model<'_>, precision: Precision, method: Method) -> Result<Self> {
        let plan = Plan::with_precision(model, precision)?;
        let (height, width) = plan.image_size();
        Ok(Self {
            precision,
            method,
            evaluation_len: plan.arena_len(),
            arena_len: Settings { method, ..Settings::default() }.arena_len(&plan, model),
            shape: [model.net().map_or(0, |net| net.out_channels), height, width],
            macs: plan.macs(),
        })
    }

    pub(crate) fn is_integer(&self) -> bool {
        self.precision == Precision::Integer
    }

    /// Floats of the arena of the method.
    pub(crate) fn arena_len(&self) -> usize {
        self.arena_len
    }

    /// Bytes of the arena of one evaluation.
    pub(crate) fn evaluation_bytes(&self) -> usize {
        size_of::<f32>() * self.evaluation_len
    }

    /// Bytes of the arena of the method.
    pub(crate) fn arena_bytes(&self) -> usize {
        size_of::<f32>() * self.arena_len
    }

    /// Floats of the image.
    pub(crate) fn image_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of RAM: arena, a finished image beside it, and stack.
    pub(crate) fn ram_bytes(&self) -> usize {
        self.arena_bytes() + size_of::<f32>() * self.image_len() + STACK_BYTES
    }
}
