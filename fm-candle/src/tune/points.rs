//! The calibration set: points along trajectories of a net from its own noise, with its velocities.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::model::{Mode, UNet};
use crate::random::Domain;
use crate::sample::Sampler;
use crate::solver::solve;
use crate::train::Points;

/// Images of a trajectory's batch on the CPU, where several run side by side.
const BATCH: usize = 8;

/// Points along trajectories, and the net's velocities there.
pub struct CalibrationPoints {
    shape: [usize; 3],
    /// States, `[n, c, h, w]`.
    x: Vec<f32>,
    /// Velocities, `[n, c, h, w]`.
    u: Vec<f32>,
    /// Times, `[n]`.
    t: Vec<f32>,
    /// Classes, `[n]`; that after the last is no label. Empty for a net without classes.
    label: Vec<u32>,
}

impl CalibrationPoints {
    /// The evaluations of the net along `n` trajectories, with all classes and no label in turn; under
    /// guidance each is two points. `done` is told how many trajectories each finished batch held.
    ///
    /// # Errors
    /// A velocity that is not finite, with its time; those of the solver.
    pub fn draw(
        net: &UNet,
        sampler: &Sampler,
        shape: [usize; 3],
        n: usize,
        seed: u64,
        device: &Device,
        done: impl Fn(usize) + Sync,
    ) -> Result<Self> {
        let noise = Domain::TuneNoise.stream(seed);
        let size: usize = shape.iter().product();
        let rows = net.config().num_classes.map(|classes| classes + 1);
        let rows = rows
            .map(u32::try_from)
            .transpose()
            .map_err(|_| Error::Config("too many classes".into()))?;
        let batch = |first: usize| -> Result<Self> {
            let count = sampler.batch_size.clamp(1, BATCH).min(n - first);
            let mut x0 = vec![0f32; count * size];
            for (image, x0) in (first as u64..).zip(x0.chunks_mut(size)) {
                noise.fill_normal(image, 0, x0);
            }
            let [c, h, w] = shape;
            let x0 = Tensor::from_vec(x0, (count, c, h, w), device)?;
            let labels: Option<Vec<u32>> = rows
                .map(|rows| (0..rows).cycle().skip(first % rows as usize).take(count).collect());
            let mut points = Self { shape, x: vec![], u: vec![], t: vec![], label: vec![] };
            let mut field = |x: &Tensor, t: f64| -> Result<Tensor> {
                let v = points.evaluate(net, x, t, labels.as_deref())?;
                if sampler.cfg_scale == 0.0 || labels.is_none() {
                    return Ok(v);
                }
                let none = vec![rows.unwrap_or(1) - 1; count];
                let free = points.evaluate(net, x, t, Some(&none))?;
                Ok(((v * (1.0 + sampler.cfg_scale))? - (free * sampler.cfg_scale)?)?)
            };
            solve(sampler.method, &mut field, &x0, &sampler.grid, &sampler.options, |_| {})?;
            done(count);
            Ok(points)
        };
        let step = sampler.batch_size.clamp(1, BATCH);
        let firsts: Vec<usize> = (0..n).step_by(step).collect();
        let parts: Vec<Self> = if device.is_cpu() {
            firsts.into_par_iter().map(batch).collect::<Result<_>>()?
        } else {
            firsts.into_iter().map(batch).collect::<Result<_>>()?
        };
        let mut all = Self { shape, x: vec![], u: vec![], t: vec![], label: vec![] };
        for part in parts {
            all.x.extend(part.x);
            all.u.extend(part.u);
            all.t.extend(part.t);
            all.label.extend(part.label);
        }
        Ok(all)
    }

    /// The bytes of the points of one trajectory of `evaluations` of the net.
    pub fn bytes(shape: [usize; 3], evaluations: usize) -> usize {
        8 * shape.iter().product::<usize>() * evaluations
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.t.len()
    }

    /// The velocity at one time, which becomes points.
    fn evaluate(
        &mut self,
        net: &UNet,
        x: &Tensor,
        t: f64,
        labels: Option<&[u32]>,
    ) -> Result<Tensor> {
        let n = x.dim(0)?;
        let time = Tensor::full(t, n, x.device())?.to_dtype(DType::F32)?;
        let label = labels.map(|labels| Tensor::new(labels, x.device())).transpose()?;
        let v = net.forward(x, &time, label.as_ref(), None, Mode::Eval)?;
        let values = v.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if values.iter().any(|value| !value.is_finite()) {
            let reason =
                format!("the net's velocity is not finite at t = {t}; it cannot be tuned to");
            return Err(Error::Config(reason));
        }
        self.x.extend(x.flatten_all()?.to_vec1::<f32>()?);
        self.u.extend(values);
        self.t.extend(time.to_vec1::<f32>()?);
        self.label.extend(labels.unwrap_or(&[]));
        Ok(v)
    }

    /// The points of a step: `n` of them, drawn with replacement, a function of seed and step.
    ///
    /// # Errors
    /// An allocation that fails on the device.
    pub fn batch(&self, seed: u64, step: u64, n: usize, device: &Device) -> Result<Points> {
        let (stream, size) = (Domain::TuneBatch.stream(seed), self.shape.iter().product::<usize>());
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        let picks: Vec<usize> =
            (0..).take(n).map(|i| stream.below(step, i, count) as usize).collect();
        let gather = |from: &[f32]| -> Result<Tensor> {
            let mut values = vec![0f32; n * size];
            for (to, &pick) in values.chunks_mut(size).zip(&picks) {
                to.copy_from_slice(&from[pick * size..][..size]);
            }
            let [c, h, w] = self.shape;
            Ok(Tensor::from_vec(values, (n, c, h, w), device)?)
        };
        let t: Vec<f32> = picks.iter().map(|&pick| self.t[pick]).collect();
        let label: Vec<u32> =
            picks.iter().filter_map(|&pick| self.label.get(pick)).copied().collect();
        Ok(Points {
            x: gather(&self.x)?,
            t: Tensor::from_vec(t, n, device)?,
            label: (label.len() == n).then(|| Tensor::from_vec(label, n, device)).transpose()?,
            u: gather(&self.u)?,
        })
    }
}
