//! From noise to images: start noise, guidance, the solver, pixels.

use candle_core::{DType, Device, Tensor};
use quant_core::noise;
use rayon::prelude::*;

use crate::data::Images;
use crate::error::{Error, Result};
use crate::model::{Mode, UNet};
use crate::random::Domain;
use crate::solver::{Interpolation, Method, SolverOptions, Trace, Unconverged, solve};

/// The settings by which samples are drawn.
#[derive(Clone, Debug)]
pub struct BatchSampler {
    /// The solver's method.
    pub method: Method,
    /// Times from noise to data, or back: a fixed-step method's grid; an adaptive one only reports
    /// there.
    pub grid: Vec<f64>,
    /// The solver's settings.
    pub options: SolverOptions,
    /// Guidance `s`: the velocity is `(1 + s) v(x, t, label) - s v(x, t, none)`; 0 is off.
    pub cfg_scale: f64,
    /// Images in one tensor; on the CPU several such batches run side by side. An adaptive method
    /// chooses its steps for the whole of a batch.
    pub batch_size: usize,
}

/// Samples and what they cost.
pub struct Samples {
    /// `[n, c, h, w]`, about `[-1, 1]`, not clamped; the noise, where the grid leads back.
    pub images: Tensor,
    /// The states at every time of the grid, `[times, n, c, h, w]`, where asked for.
    pub trajectory: Option<Tensor>,
    /// Evaluations of the velocity per image; one with guidance counts once. Batches of an adaptive
    /// method may differ: that of the one with the most.
    pub nfe: usize,
    /// A warning where the solver went on without having met its tolerances.
    pub warning: Option<String>,
}

/// Images that a device takes well in one tensor: few where their maps should stay in the caches of a
/// core, many where a GPU is to be kept busy.
pub fn batch_size(device: &Device) -> usize {
    if device.is_cpu() { 8 } else { 256 }
}

impl BatchSampler {
    /// A method on these times, with the solver's defaults, without guidance, in batches that a device
    /// takes well.
    pub fn new(method: Method, grid: Vec<f64>, device: &Device) -> Self {
        let options = SolverOptions::default();
        Self { method, grid, options, cfg_scale: 0.0, batch_size: batch_size(device) }
    }

    /// Evaluations of the velocity per image, where they are known beforehand: not of an adaptive
    /// method, nor of Adams, nor where the options hold a step size or interpolate by cubics.
    pub fn nfe(&self) -> Option<usize> {
        let SolverOptions { step_size, interpolation, .. } = self.options;
        if step_size.is_some() || interpolation == Interpolation::Cubic {
            return None;
        }
        Some(self.grid.len().saturating_sub(1) * self.method.evaluations()?)
    }

    /// The sampler whose times lead the other way: from images to their noise.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { grid: self.grid.iter().rev().copied().collect(), ..self.clone() }
    }

    /// Solves the ODE from each row of `x0`.
    ///
    /// `done` is told how many images each finished batch held.
    ///
    /// # Shapes: `x0: [n, c, h, w]`, `labels`: `n` of them, or none
    ///
    /// # Errors
    /// Shapes or labels that do not fit the net.
    pub fn run(
        &self,
        net: &UNet,
        x0: &Tensor,
        labels: Option<&[u32]>,
        trajectory: bool,
        done: impl Fn(usize) + Sync,
    ) -> Result<Samples> {
        let n = x0.dim(0)?;
        check_labels(net, labels, n)?;
        if !self.cfg_scale.is_finite() {
            let scale = self.cfg_scale;
            return Err(Error::Config(format!("the guidance scale is {scale}; it must be finite")));
        }
        if n == 0 {
            return Err(Error::Config("no images asked for; at least 1 is needed".into()));
        }
        let size = self.batch_size.max(1);
        let batch = |start: usize| -> Result<(Vec<Tensor>, Trace)> {
            let count = size.min(n - start);
            let x = x0.narrow(0, start, count)?.to_dtype(DType::F32)?.contiguous()?;
            let label = match labels {
                Some(labels) => Some(Tensor::new(&labels[start..start + count], x0.device())?),
                None => None,
            };
            let mut field = |x: &Tensor, t: f64| self.velocity(net, x, t, label.as_ref());
            let mut states = vec![x.clone()];
            let trace = solve(self.method, &mut field, &x, &self.grid, &self.options, |x| {
                if !trajectory {
                    states.clear();
                }
                states.push(x);
            })?;
            done(count);
            Ok((states, trace))
        };
        let starts: Vec<usize> = (0..n).step_by(size).collect();
        let batches: Vec<(Vec<Tensor>, Trace)> = if x0.device().is_cpu() {
            starts.into_par_iter().map(batch).collect::<Result<_>>()?
        } else {
            starts.into_iter().map(batch).collect::<Result<_>>()?
        };
        let at = |i: usize| Tensor::cat(&batches.iter().map(|(b, _)| &b[i]).collect::<Vec<_>>(), 0);
        let trajectory = if trajectory {
            let states = (0..self.grid.len()).map(at).collect::<candle_core::Result<Vec<_>>>()?;
            Some(Tensor::stack(&states, 0)?)
        } else {
            None
        };
        let images = at(if trajectory.is_some() { self.grid.len() - 1 } else { 0 })?;
        let traces = || batches.iter().map(|(_, trace)| trace);
        let nfe = traces().map(|trace| trace.evaluations.len()).max().unwrap_or(0);
        let warning = traces().find_map(|trace| self.warning(&trace.unconverged));
        Ok(Samples { images, trajectory, nfe, warning })
    }

    fn warning(&self, unconverged: &[Unconverged]) -> Option<String> {
        let [Unconverged { t, step }, ..] = unconverged else { return None };
        let (method, count) = (self.method, unconverged.len());
        Some(format!(
            "{method} did not converge in {count} of {} steps, first at t = {t}, step {step}; the \
             images may be wrong: try a smaller step, a larger max_iters, a smaller max_order",
            self.grid.len() - 1
        ))
    }

    /// The guided velocity at one time.
    ///
    /// # Shapes: `x`, result: `[n, c, h, w]`; `label: [n]`
    ///
    /// # Errors
    /// States, labels or a time that do not fit the net, an allocation that fails on the device.
    pub fn velocity(
        &self,
        net: &UNet,
        x: &Tensor,
        t: f64,
        label: Option<&Tensor>,
    ) -> Result<Tensor> {
        let t = Tensor::full(t, x.dim(0)?, x.device())?.to_dtype(DType::F32)?;
        let v = net.forward(x, &t, label, None, Mode::Eval)?;
        if label.is_none() || self.cfg_scale == 0.0 {
            return Ok(v);
        }
        let free = net.forward(x, &t, None, None, Mode::Eval)?;
        Ok(((v * (1.0 + self.cfg_scale))? - (free * self.cfg_scale)?)?)
    }
}

/// Refuses labels that the net has no row for.
fn check_labels(net: &UNet, labels: Option<&[u32]>, n: usize) -> Result<()> {
    let Some(labels) = labels else { return Ok(()) };
    let Some(classes) = net.config().num_classes else {
        return Err(Error::Config("the net has no classes; leave the labels out".into()));
    };
    if labels.len() != n {
        return Err(Error::Config(format!("{} labels for {n} images", labels.len())));
    }
    match labels.iter().find(|&&label| label as usize > classes) {
        Some(label) => Err(Error::Config(format!(
            "label {label} is not a class; the net has 0 to {}, and {classes} for none",
            classes - 1
        ))),
        None => Ok(()),
    }
}

/// The start noise of images `first..first + n`, a function of (seed, image, element) alone.
///
/// # Shapes: result `[n, shape...]`, f32
///
/// # Errors
/// An allocation that fails on the device.
pub fn start_noise(
    seed: u64,
    first: u64,
    n: usize,
    shape: (usize, usize, usize),
    device: &Device,
) -> Result<Tensor> {
    let (c, h, w) = shape;
    let size = c * h * w;
    let mut values = Vec::new();
    let enough = n.checked_mul(size).filter(|&len| values.try_reserve_exact(len).is_ok());
    let Some(len) = enough else {
        return Err(Error::Config(format!("{n} images of {c} x {h} x {w} do not fit into memory")));
    };
    values.resize(len, 0f32);
    values
        .par_chunks_mut(size.max(1))
        .enumerate()
        .for_each(|(i, image)| noise::fill_normal(seed, first + i as u64, 0, image));
    Ok(Tensor::from_vec(values, (n, c, h, w), device)?)
}

/// Labels drawn uniformly from `classes`, a function of (seed, image) alone.
pub fn random_labels(seed: u64, first: u64, n: usize, classes: u32) -> Vec<u32> {
    let stream = Domain::SampleLabel.stream(seed);
    (first..first + n as u64).map(|index| stream.below(index, 0, classes)).collect()
}

/// Images as nets are trained on them: `2 pixel / 255 - 1`, in `[-1, 1]`.
///
/// # Shapes: result `[n, c, h, w]`, f32
///
/// # Errors
/// An allocation that fails on the device.
pub fn from_pixels(images: &Images, device: &Device) -> Result<Tensor> {
    let values = images.pixels.par_iter().map(|&pixel| f32::from(pixel) / 255.0 * 2.0 - 1.0);
    let shape = (images.n, images.channels, images.height, images.width);
    Ok(Tensor::from_vec(values.collect::<Vec<_>>(), shape, device)?)
}

/// Pixels as upstream writes them: `floor(255 clamp(x / 2 + 1/2, 0, 1))`.
///
/// # Shapes: `images: [n, c, h, w]`; result in the order n, h, w, c
///
/// # Errors
/// A tensor that is not 4-dimensional.
pub fn to_pixels(images: &Tensor) -> Result<Vec<u8>> {
    let images = images.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?;
    let values = images.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    Ok(values
        .into_iter()
        .map(|x| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).floor() as u8)
        .collect())
}
