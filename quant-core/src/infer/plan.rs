//! The memory and the work of an evaluation of a net, and its result.

use super::engine;
use super::executor::{Engine, Needs, Observer};
use super::unet::{Input, SizedNet};
use super::walk::Walk;
use super::{Arithmetic, Precision};
use crate::error::check_range;
use crate::error::{Error, Result, check_length};
use crate::format::{MemoryPlan, Model};
use crate::num;

/// Memory and work of an evaluation of a net, for images of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    needs: Needs,
    engine: Engine,
    /// Sides of the images in patches.
    height: usize,
    width: usize,
    patch: usize,
}

impl Plan {
    /// The plan for images of the size that the file names.
    ///
    /// # Errors
    /// [`Error::Encoding`] for a file without a net or without the size of its images; those of
    /// [`Plan::with_size`].
    pub fn new(model: &Model<'_>) -> Result<Self> {
        Self::with_arithmetic::<f32>(model)
    }

    /// The plan for images of the size that the file names, in an arithmetic.
    ///
    /// # Errors
    /// Those of [`Plan::new`]; for integers [`Error::Encoding`] for a file without activation scales,
    /// and [`Error::Length`] for those of another net.
    pub fn with_arithmetic<A: Arithmetic>(model: &Model<'_>) -> Result<Self> {
        Self::stated(model, A::ENGINE)
    }

    /// The plan for images of the size that the file names, in a precision that is known when the program
    /// runs: it links both.
    ///
    /// # Errors
    /// Those of [`Plan::with_arithmetic`].
    pub fn with_precision(model: &Model<'_>, precision: Precision) -> Result<Self> {
        Self::stated(model, engine(precision))
    }

    fn stated(model: &Model<'_>, engine: Engine) -> Result<Self> {
        let side = model.net().and_then(|net| net.image_size);
        let side = side.ok_or(Error::Encoding { needed: "a net with its image size" })?;
        Self::sized(model, (side, side), engine)
    }

    /// The plan for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// [`Error::Encoding`] for a file without a net; [`Error::Range`] for sides that the net cannot
    /// halve as often as it does; [`Error::Multiple`] for attention whose heads do not divide its channels;
    /// [`Error::NotOfTheNet`] for weights that are integers.
    pub fn with_size(model: &Model<'_>, height: usize, width: usize) -> Result<Self> {
        Self::sized(model, (height, width), f32::ENGINE)
    }

    /// The plan for images of `height` x `width` pixels, and of a precision.
    ///
    /// # Errors
    /// Those of [`Plan::with_size`] and [`Plan::with_precision`].
    pub fn with_size_and_precision(
        model: &Model<'_>,
        size: (usize, usize),
        precision: Precision,
    ) -> Result<Self> {
        Self::sized(model, size, engine(precision))
    }

    fn sized(model: &Model<'_>, (height, width): (usize, usize), engine: Engine) -> Result<Self> {
        let config = model.net().ok_or(Error::Encoding { needed: "the parameters of a net" })?;
        let patch = config.patch.max(1);
        let multiple = (patch << config.channel_mult.len().saturating_sub(1)).max(1);
        for side in [height, width] {
            let left = u64::try_from(side % multiple).unwrap_or(u64::MAX);
            check_range("rest of an image's side by what the net halves", left, 0, 0)?;
            check_range("side of an image", u64::try_from(side).unwrap_or(u64::MAX), 1, 1 << 16)?;
        }
        for (i, tensor) in model.tensors().enumerate() {
            if tensor.integers().is_some() {
                return Err(Error::NotOfTheNet { tensor: i });
            }
        }
        let net = SizedNet { config, height: height / patch, width: width / patch };
        let input = Input { x: &[], concat: &[], t: 0.0, label: None };
        let path = |walk: &mut Walk<'_, '_>| net.forward(walk, &input);
        let needs = (engine.measure)(model, model.tensors(), &path)?;
        if engine.precision == Precision::Integer {
            let ranges = model.activations().map_or(0, |activations| activations.ranges().len());
            check_length("activation scales", needs.maps, ranges)?;
        }
        Ok(Self { needs, engine, height: net.height, width: net.width, patch })
    }

    /// The floats that an evaluation needs, without images.
    pub fn arena_len(&self) -> usize {
        self.needs.arena_len()
    }

    /// The plan as a file stores it.
    pub fn stored(&self) -> MemoryPlan {
        let (height, width) = self.image_size();
        let arena_bytes = u64::try_from(self.arena_len()).unwrap_or(u64::MAX / 4).saturating_mul(4);
        MemoryPlan {
            size: (num::u32_of(height), num::u32_of(width)),
            arena_bytes,
            macs: self.needs.macs,
        }
    }

    /// The arithmetic of the plan.
    pub const fn precision(&self) -> Precision {
        self.engine.precision
    }

    /// The maps that layers write in one evaluation, each of which has an activation scale.
    pub const fn maps(&self) -> usize {
        self.needs.maps
    }

    /// Multiplications of weights or of attention in one evaluation.
    pub const fn macs(&self) -> u64 {
        self.needs.macs
    }

    /// Height and width of the images in pixels.
    pub const fn image_size(&self) -> (usize, usize) {
        (self.height * self.patch, self.width * self.patch)
    }

    /// Writes the velocity `v(x, t, label)`.
    ///
    /// # Shapes
    /// `input.x`: `[c, h, w]`; `out`: `[out_channels, h, w]`; `arena`: at least
    /// [`Plan::arena_len`].
    ///
    /// # Errors
    /// [`Error::Length`] for slices of other lengths, and for a model that the plan is not of;
    /// [`Error::Range`] for a label that the net does not have.
    pub fn velocity(
        &self,
        model: &Model<'_>,
        input: &Input<'_>,
        arena: &mut [f32],
        out: &mut [f32],
    ) -> Result<()> {
        self.write(model, input, arena, out, None)
    }

    /// Writes the velocity, and tells `observer` the number of each map, below [`Plan::maps`], and its
    /// values.
    ///
    /// # Shapes
    /// As [`Plan::velocity`].
    ///
    /// # Errors
    /// Those of [`Plan::velocity`]; [`Error::Encoding`] for a plan of integers, which have their scales.
    pub fn observe(
        &self,
        model: &Model<'_>,
        input: &Input<'_>,
        arena: &mut [f32],
        out: &mut [f32],
        observer: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        if self.precision() == Precision::Integer {
            return Err(Error::Encoding { needed: "a plan of floats" });
        }
        self.write(model, input, arena, out, Some(observer))
    }

    fn write<'a>(
        &self,
        model: &'a Model<'_>,
        input: &Input<'_>,
        arena: &'a mut [f32],
        out: &mut [f32],
        observer: Option<Observer<'a>>,
    ) -> Result<()> {
        let channels = model.net().map_or(0, |net| net.out_channels);
        let (height, width) = self.image_size();
        let expected = channels.saturating_mul(height.saturating_mul(width));
        check_length("velocity", expected, out.len())?;
        let velocity = self.evaluate(model, input, arena, observer)?;
        velocity.each(|index, value| {
            if let Some(out) = out.get_mut(index) {
                *out = value;
            }
        });
        Ok(())
    }

    /// Computes the velocity and leaves it in the arena.
    pub(super) fn evaluate<'a>(
        &self,
        model: &'a Model<'_>,
        input: &Input<'_>,
        arena: &'a mut [f32],
        observer: Option<Observer<'a>>,
    ) -> Result<VelocityView<'a>> {
        let config = model.net().ok_or(Error::Encoding { needed: "the parameters of a net" })?;
        let net = SizedNet { config, height: self.height, width: self.width };
        net.check(input)?;
        let path = |walk: &mut Walk<'_, '_>| net.forward(walk, input);
        let execute = self.engine.execute;
        let (map, values) = execute(model, model.tensors(), &path, &self.needs, arena, observer)?;
        Ok(VelocityView { net, plane: map.plane_len(), values })
    }
}

/// A velocity in the arena, plane of patches after plane.
pub(super) struct VelocityView<'a> {
    net: SizedNet<'a>,
    plane: usize,
    values: &'a [f32],
}

impl VelocityView<'_> {
    /// The velocity in the order in which the last convolution writes it.
    pub(super) const fn values(&self) -> &[f32] {
        self.values
    }

    /// Calls with each pixel's place in the image and its velocity.
    pub(super) fn each(&self, mut call: impl FnMut(usize, f32)) {
        for (channel, plane) in self.values.chunks(self.plane.max(1)).enumerate() {
            for (i, &value) in plane.iter().enumerate() {
                call(self.net.pixel(channel, i), value);
            }
        }
    }
}
