//! From noise to an image: a solver whose steps are calls of their own.

use super::plan::VelocityView;
use super::{Input, Plan};
use crate::error::{Error, Result, check_range};
use crate::format::Model;
use crate::method::Method;
use crate::noise;
use crate::num;

/// Settings of a [`Sampler`]: solver, class, guidance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The solver.
    pub method: Method,
    /// Steps of the solver from noise at t = 0 to data at t = 1, all of one length.
    pub steps: u32,
    /// The class, `None` for "no label".
    pub label: Option<u32>,
    /// Guidance `s`: the velocity is `(1 + s) v(x, t, label) - s v(x, t, none)`; 0 is off.
    pub guidance: f32,
}

impl Default for Settings {
    /// 16 steps of Euler's method, without label and guidance.
    fn default() -> Self {
        Self { method: Method::Euler, steps: 16, label: None, guidance: 0.0 }
    }
}

impl Settings {
    fn guides(&self) -> bool {
        self.guidance != 0.0 && self.label.is_some()
    }

    /// Images beside that which is drawn: another state, the velocity with the label.
    fn buffers(&self) -> usize {
        usize::from(self.method != Method::Euler) + usize::from(self.guides())
    }

    /// The floats of the arena that a [`Sampler`] needs.
    pub fn arena_len(&self, plan: &Plan, model: &Model<'_>) -> usize {
        let images = image_len(plan, model).saturating_mul(1 + self.buffers());
        plan.arena_len().saturating_add(images)
    }
}

fn image_len(plan: &Plan, model: &Model<'_>) -> usize {
    let (height, width) = plan.image_size();
    let channels = model.net().map_or(0, |net| net.out_channels);
    height.saturating_mul(width).saturating_mul(channels)
}

/// An image on its way from noise to data.
#[derive(Debug)]
pub struct Sampler<'m, 'a> {
    model: &'m Model<'m>,
    plan: Plan,
    settings: Settings,
    done: u32,
    x: &'a mut [f32],
    /// Images that a step needs beside it.
    buffers: &'a mut [f32],
    arena: &'a mut [f32],
}

impl<'m, 'a> Sampler<'m, 'a> {
    /// A sampler in an arena; its image is all zeros.
    ///
    /// # Shapes
    /// `arena`: at least [`Settings::arena_len`].
    ///
    /// # Errors
    /// [`Error::Length`] for a shorter arena; [`Error::Range`] for no steps or a label that the net
    /// does not have; [`Error::Real`] for a guidance that is not finite; [`Error::NotOnDevice`] for
    /// another method.
    pub fn new(
        model: &'m Model<'m>,
        plan: &Plan,
        settings: Settings,
        arena: &'a mut [f32],
    ) -> Result<Self> {
        let sampler = Self::resume(model, plan, settings, arena, 0)?;
        sampler.x.fill(0.0);
        Ok(sampler)
    }

    /// A sampler that goes on after `done` steps, in the arena that one of the same model, plan and
    /// settings has left: for callers that cannot hold a borrow between two steps.
    ///
    /// # Shapes
    /// `arena`: at least [`Settings::arena_len`], with the image at its start.
    ///
    /// # Errors
    /// Those of [`Sampler::new`].
    pub fn resume(
        model: &'m Model<'m>,
        plan: &Plan,
        settings: Settings,
        arena: &'a mut [f32],
        done: u32,
    ) -> Result<Self> {
        if !settings.method.is_on_device() {
            return Err(Error::NotOnDevice(settings.method.name()));
        }
        check_range("steps of the solver", u64::from(settings.steps), 1, 1 << 24)?;
        if !settings.guidance.is_finite() {
            return Err(Error::Real { what: "guidance", range: "finite" });
        }
        let (expected, found) = (settings.arena_len(plan, model), arena.len());
        let image = image_len(plan, model);
        let (x, rest) = arena.split_at_mut_checked(image).unwrap_or_default();
        let buffers = image.saturating_mul(settings.buffers());
        let (buffers, arena) = rest.split_at_mut_checked(buffers).unwrap_or_default();
        if found < expected {
            return Err(Error::Length { what: "arena in floats", expected, found });
        }
        Ok(Self { model, plan: *plan, settings, done, x, buffers, arena })
    }

    /// Starts from the noise of an image, that of [`noise::fill_normal`].
    pub fn noise(&mut self, seed: u64, image: u64) {
        noise::fill_normal(seed, image, 0, self.x);
        self.done = 0;
    }

    /// Starts from given noise.
    ///
    /// # Errors
    /// [`Error::Length`] unless it has as many values as an image.
    pub fn start(&mut self, x0: &[f32]) -> Result<()> {
        crate::error::check_length("noise", self.x.len(), x0.len())?;
        self.x.iter_mut().zip(x0).for_each(|(x, &x0)| *x = x0);
        self.done = 0;
        Ok(())
    }

    /// Does one step; returns whether there are more.
    ///
    /// # Errors
    /// Those of [`Plan::velocity`]; [`Error::NonFinite`] for a state that is not finite, with the
    /// number of the step.
    pub fn step(&mut self) -> Result<bool> {
        let steps = self.settings.steps;
        if self.done >= steps {
            return Ok(false);
        }
        let time = |step: u32| num::f32_of_u32(step) / num::f32_of_u32(steps);
        let (t, end) = (time(self.done), time(self.done + 1));
        let h = end - t;
        let field =
            GuidedVelocity { model: self.model, plan: &self.plan, settings: &self.settings };
        let guides = self.settings.guides();
        let kept = if guides { self.x.len() } else { 0 };
        let (kept, other) = self.buffers.split_at_mut_checked(kept).unwrap_or_default();
        if self.settings.method == Method::Euler {
            field.slope(self.x, t, self.arena, kept)?.add(h, self.x);
        } else {
            let slope = field.slope(self.x, t, self.arena, kept)?;
            other.iter_mut().zip(&*self.x).for_each(|(other, &x)| *other = x);
            if self.settings.method == Method::Midpoint {
                slope.add(0.5 * h, other);
                field.slope(other, t + 0.5 * h, self.arena, kept)?.add(h, self.x);
            } else {
                slope.add(h, other);
                slope.add(0.5 * h, self.x);
                field.slope(other, end, self.arena, kept)?.add(0.5 * h, self.x);
            }
        }
        self.done += 1;
        if self.x.iter().all(|x| x.is_finite()) {
            Ok(self.done < steps)
        } else {
            Err(Error::NonFinite { what: "state after step", index: num::index(self.done) })
        }
    }

    /// The image as it stands, `[c, h, w]`, about -1 to 1 once all steps are done.
    pub fn image(&self) -> &[f32] {
        self.x
    }
}

/// The velocity with guidance.
struct GuidedVelocity<'s, 'm> {
    model: &'m Model<'m>,
    plan: &'s Plan,
    settings: &'s Settings,
}

impl GuidedVelocity<'_, '_> {
    /// # Shapes
    /// `kept`: as `x` with guidance, empty without.
    fn slope<'a>(
        &'a self,
        x: &[f32],
        t: f32,
        arena: &'a mut [f32],
        kept: &'a mut [f32],
    ) -> Result<Slope<'a>> {
        let label = self.settings.label;
        let input = Input { x, concat: &[], t, label };
        if !self.settings.guides() {
            let velocity = self.plan.evaluate(self.model, &input, arena, None)?;
            return Ok(Slope { velocity, guided: None });
        }
        self.plan.velocity(self.model, &input, arena, kept)?;
        let free = Input { label: None, ..input };
        let velocity = self.plan.evaluate(self.model, &free, arena, None)?;
        Ok(Slope { velocity, guided: Some((self.settings.guidance, kept)) })
    }
}

/// The velocity that a step follows.
struct Slope<'a> {
    velocity: VelocityView<'a>,
    /// With guidance, its scale and the velocity with the label; the other one has none.
    guided: Option<(f32, &'a [f32])>,
}

impl Slope<'_> {
    /// `x += h slope`.
    fn add(&self, h: f32, x: &mut [f32]) {
        self.velocity.each(|i, free| {
            let slope = match self.guided.map(|(scale, kept)| (scale, kept.get(i))) {
                Some((scale, Some(&v))) => v * (1.0 + scale) - free * scale,
                _ => free,
            };
            if let Some(x) = x.get_mut(i) {
                *x += h * slope;
            }
        });
    }
}
