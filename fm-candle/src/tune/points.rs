//! The calibration set: points along trajectories of a net from its own noise, or on paths to real images,
//! with its velocities.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::model::{Mode, UNet};
use crate::path::cond_ot;
use crate::random::Domain;
use crate::sample::{BatchSampler, batch_size};
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
        sampler: &BatchSampler,
        shape: [usize; 3],
        n: usize,
        seed: u64,
        device: &Device,
        done: impl Fn(usize) + Sync,
    ) -> Result<Self> {
        let rows = label_rows(net)?;
        Self::in_batches(shape, n, sampler.batch_size, device, |points, first, count| {
            let x0 = points.noise(seed, first, count, device)?;
            let labels: Option<Vec<u32>> = rows
                .map(|rows| (0..rows).cycle().skip(first % rows as usize).take(count).collect());
            let mut field = |x: &Tensor, t: f64| -> Result<Tensor> {
                let t = Tensor::full(t, count, device)?.to_dtype(DType::F32)?;
                let v = points.evaluate(net, x, &t, labels.as_deref())?;
                if sampler.cfg_scale == 0.0 || labels.is_none() {
                    return Ok(v);
                }
                let none = vec![rows.unwrap_or(1) - 1; count];
                let free = points.evaluate(net, x, &t, Some(&none))?;
                Ok(((v * (1.0 + sampler.cfg_scale))? - (free * sampler.cfg_scale)?)?)
            };
            solve(sampler.method, &mut field, &x0, &sampler.grid, &sampler.options, |_| {})?;
            done(count);
            Ok(())
        })
    }

    /// The net's velocities at `n` points of straight paths from its own noise to `images`, in turn: at
    /// uniform times, with the images' labels, each `classes + 1`-th without one. `done` is told how many
    /// points each finished batch held.
    ///
    /// # Errors
    /// A velocity that is not finite, with its time; images that cannot be read.
    pub fn on_paths(
        net: &UNet,
        images: &dyn ImageSet,
        n: usize,
        seed: u64,
        device: &Device,
        done: impl Fn(usize) + Sync,
    ) -> Result<Self> {
        let rows = label_rows(net)?;
        let times = Domain::TuneTime.stream(seed);
        let step = batch_size(device);
        Self::in_batches(images.shape(), n, step, device, |points, first, count| {
            let [c, h, w] = points.shape;
            let mut x1 = vec![0f32; count * c * h * w];
            let mut pixels = vec![0; c * h * w];
            for (i, x1) in (first..).zip(x1.chunks_mut(c * h * w)) {
                images.read(i % images.len(), &mut pixels)?;
                for (x, pixel) in x1.iter_mut().zip(&pixels) {
                    *x = f32::from(*pixel) / 127.5 - 1.0;
                }
            }
            let x0 = points.noise(seed, first, count, device)?;
            let x1 = Tensor::from_vec(x1, (count, c, h, w), device)?;
            let t: Vec<f32> = (first as u64..).take(count).map(|i| times.uniform(i, 0)).collect();
            let t = Tensor::from_vec(t, count, device)?;
            let (x, _) = cond_ot(&x0, &x1, &t)?;
            let labels: Option<Vec<u32>> = rows.map(|rows| {
                let of = |i: usize| match images.label(i % images.len()) {
                    Some(label) if !(i + 1).is_multiple_of(rows as usize) => label.min(rows - 1),
                    _ => rows - 1,
                };
                (first..first + count).map(of).collect()
            });
            points.evaluate(net, &x, &t, labels.as_deref())?;
            done(count);
            Ok(())
        })
    }

    /// Points that `fill` adds for `count` items from `first` on, a batch of at most `step` at a time.
    fn in_batches(
        shape: [usize; 3],
        n: usize,
        step: usize,
        device: &Device,
        fill: impl Fn(&mut Self, usize, usize) -> Result<()> + Sync,
    ) -> Result<Self> {
        let none = || Self { shape, x: vec![], u: vec![], t: vec![], label: vec![] };
        let step = step.clamp(1, BATCH);
        let batch = |first: usize| -> Result<Self> {
            let mut points = none();
            fill(&mut points, first, step.min(n - first))?;
            Ok(points)
        };
        let firsts: Vec<usize> = (0..n).step_by(step).collect();
        let parts: Vec<Self> = if device.is_cpu() {
            firsts.into_par_iter().map(batch).collect::<Result<_>>()?
        } else {
            firsts.into_iter().map(batch).collect::<Result<_>>()?
        };
        let mut all = none();
        for part in parts {
            all.x.extend(part.x);
            all.u.extend(part.u);
            all.t.extend(part.t);
            all.label.extend(part.label);
        }
        Ok(all)
    }

    /// Noise of the images from `first` on, `[count, c, h, w]`.
    fn noise(&self, seed: u64, first: usize, count: usize, device: &Device) -> Result<Tensor> {
        let (stream, [c, h, w]) = (Domain::TuneNoise.stream(seed), self.shape);
        let mut x0 = vec![0f32; count * c * h * w];
        for (image, x0) in (first as u64..).zip(x0.chunks_mut((c * h * w).max(1))) {
            stream.fill_normal(image, 0, x0);
        }
        Ok(Tensor::from_vec(x0, (count, c, h, w), device)?)
    }

    /// The bytes of the points of one trajectory of `evaluations` of the net.
    pub fn bytes(shape: [usize; 3], evaluations: usize) -> usize {
        8 * shape.iter().product::<usize>() * evaluations
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.t.len()
    }

    /// The velocities at states and times, which become points.
    fn evaluate(
        &mut self,
        net: &UNet,
        x: &Tensor,
        times: &Tensor,
        labels: Option<&[u32]>,
    ) -> Result<Tensor> {
        let label = labels.map(|labels| Tensor::new(labels, x.device())).transpose()?;
        let v = net.forward(x, times, label.as_ref(), None, Mode::Eval)?;
        let values = v.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let t = times.to_vec1::<f32>()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let t = t[at / (values.len() / t.len())];
            let reason =
                format!("the net's velocity is not finite at t = {t}; it cannot be tuned to");
            return Err(Error::Config(reason));
        }
        self.x.extend(x.flatten_all()?.to_vec1::<f32>()?);
        self.u.extend(values);
        self.t.extend(t);
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

/// Rows of the net's table of labels, that of no label last; none where the net has no classes.
fn label_rows(net: &UNet) -> Result<Option<u32>> {
    let rows = net.config().num_classes.map(|classes| u32::try_from(classes + 1));
    rows.transpose().map_err(|_| Error::Config("too many classes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;
    use crate::model::config::tiny;
    use crate::model::{RandomInit, UNetConfig};
    use crate::solver::{Method, SolverOptions, uniform_grid};

    fn net(num_classes: Option<usize>) -> UNet {
        let config = UNetConfig { num_classes, ..tiny() };
        UNet::new(&config, &mut RandomInit::new(1, &Device::Cpu)).unwrap()
    }

    fn draw(net: &UNet, cfg_scale: f64, batch_size: usize) -> CalibrationPoints {
        let sampler = BatchSampler {
            method: Method::Midpoint,
            grid: uniform_grid(0.5).unwrap(),
            options: SolverOptions::default(),
            cfg_scale,
            batch_size,
        };
        CalibrationPoints::draw(net, &sampler, [1, 8, 8], 5, 7, &Device::Cpu, |_| {}).unwrap()
    }

    #[test]
    fn points_are_the_evaluations_of_the_net() {
        let net = net(Some(3));
        let points = draw(&net, 0.0, 2);
        // Two steps of two evaluations.
        assert_eq!((points.count(), points.x.len(), points.u.len()), (20, 20 * 64, 20 * 64));
        let classes: Vec<u32> = points.label.chunks(2).step_by(4).flatten().copied().collect();
        assert_eq!(classes[..4], [0, 1, 2, 3]);
        let batch = points.batch(1, 5, 6, &Device::Cpu).unwrap();
        let v = net.forward(&batch.x, &batch.t, batch.label.as_ref(), None, Mode::Eval).unwrap();
        let error = (v - &batch.u).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
        // A function of seed and step alone, as is the set of the size of its batches.
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let again = points.batch(1, 5, 6, &Device::Cpu).unwrap();
        assert_eq!(values(&again.x), values(&batch.x));
        let other = points.batch(1, 6, 6, &Device::Cpu).unwrap();
        assert_ne!(values(&other.x), values(&batch.x));
    }

    #[test]
    fn points_on_paths_lie_between_noise_and_images() {
        let net = net(Some(3));
        let images = Images::new([1, 8, 8], vec![255; 3 * 64], vec![2, 0, 1]).unwrap();
        let points =
            CalibrationPoints::on_paths(&net, &images, 20, 7, &Device::Cpu, |_| {}).unwrap();
        assert_eq!((points.count(), &points.label[..5]), (20, &[2, 0, 1, 3, 0][..]));
        let noise = points.noise(7, 0, 20, &Device::Cpu).unwrap().flatten_all().unwrap();
        let noise = noise.to_vec1::<f32>().unwrap();
        for (i, (x, x0)) in points.x.iter().zip(noise).enumerate() {
            let t = points.t[i / 64];
            assert!((x - ((1.0 - t) * x0 + t)).abs() < 1e-5, "{i}");
        }
        let batch = points.batch(1, 5, 6, &Device::Cpu).unwrap();
        let v = net.forward(&batch.x, &batch.t, batch.label.as_ref(), None, Mode::Eval).unwrap();
        let error = (v - &batch.u).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn guided_evaluations_are_two_points_and_unlabelled_nets_have_no_labels() {
        assert_eq!(draw(&net(Some(3)), 1.5, 8).count(), 40);
        let points = draw(&net(None), 0.0, 8);
        assert_eq!((points.count(), points.label.len()), (20, 0));
        assert!(points.batch(0, 0, 3, &Device::Cpu).unwrap().label.is_none());
    }
}
