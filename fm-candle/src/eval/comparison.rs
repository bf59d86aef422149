//! A quantized net against its full-precision self: everything that is measured beside its samples.

use candle_core::Tensor;

use super::bounds::{Bounds, Lipschitz, Trajectories};
use super::divergence::divergence;
use super::inversion::Inversion;
use super::latent::Latent;
use super::real_images::{EncodedImages, RealImageScores, RealImages};
use super::velocity::{self, VelocityMatch};
use crate::error::{Error, Result};
use crate::model::UNet;
use crate::sample::BatchSampler;

/// Real images, start noise and classes on which a quantized net is compared with full precision.
pub struct ComparisonInputs<'a> {
    /// Images whose latents, noise and velocities are compared.
    pub real: RealImages<'a>,
    /// The sampler of the trajectories.
    pub sampler: &'a BatchSampler,
    /// Their start noise, `[n, c, h, w]`.
    pub noise: Tensor,
    /// Their classes, `n` of them, or none.
    pub labels: Option<Vec<u32>>,
}

/// The full-precision net on the inputs: what quantized nets are compared with.
pub struct FullPrecision<'a> {
    inputs: ComparisonInputs<'a>,
    net: &'a UNet,
    encoding: EncodedImages,
    /// At t = 0.
    velocity: Tensor,
    /// `[times, n, c, h, w]`.
    states: Tensor,
    /// Its latents.
    pub latent: Latent,
    /// Its noise of the real images, where that is sought.
    pub inversion: Option<Inversion>,
    /// Its Lipschitz constants along the trajectories.
    pub lipschitz: Lipschitz,
}

/// The measures of a quantized net.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Its velocity of the real images at t = 0.
    pub velocity: VelocityMatch,
    /// Its latents.
    pub latent: Latent,
    /// Its noise of the real images, where that is sought.
    pub inversion: Option<Inversion>,
    /// Root mean square distance of its trajectories' states to those of full precision, at each time of
    /// the sampler ([`divergence`]), in units of pixels from -1 to 1.
    pub divergence: Vec<f64>,
    /// The error of their ends, and its bounds.
    pub bounds: Bounds,
}

impl<'a> FullPrecision<'a> {
    /// The net on the inputs; `tensors` are its weights.
    ///
    /// # Errors
    /// Those of [`RealImages::measure`] and [`Lipschitz::estimate`].
    pub fn new(
        inputs: ComparisonInputs<'a>,
        net: &'a UNet,
        tensors: &[(String, Tensor)],
    ) -> Result<Self> {
        let (scores, encoding) = inputs.real.measure(net, None)?;
        let RealImageScores { latent, inversion, .. } = scores;
        let velocity = velocity::at_start(net, inputs.real.shown())?;
        let states = inputs.states(net)?;
        let labels = inputs.label_tensor()?;
        let along =
            Trajectories { sampler: inputs.sampler, states: &states, labels: labels.as_ref() };
        let lipschitz = Lipschitz::estimate(net.config(), tensors, &along, || {})?;
        Ok(Self { inputs, net, encoding, velocity, states, latent, inversion, lipschitz })
    }

    /// The measures of a quantized net, whose weights differ by `weights`, the norm `|Δθ|` over all
    /// of them.
    ///
    /// # Errors
    /// A net of another shape.
    pub fn compare(&self, net: &UNet, weights: f64) -> Result<Comparison> {
        let inputs = &self.inputs;
        let (scores, _) = inputs.real.measure(net, Some(&self.encoding))?;
        let velocity = velocity::at_start(net, inputs.real.shown())?;
        let states = inputs.states(net)?;
        let labels = inputs.label_tensor()?;
        let (sampler, labels) = (inputs.sampler, labels.as_ref());
        let full = Trajectories { sampler, states: &self.states, labels };
        let own = Trajectories { sampler, states: &states, labels };
        Ok(Comparison {
            velocity: VelocityMatch::measure(&velocity, &self.velocity)?,
            latent: scores.latent,
            inversion: scores.inversion,
            divergence: divergence(&states, &self.states)?,
            bounds: Bounds::measure(&self.lipschitz, weights, (&full, self.net), (&own, net))?,
        })
    }
}

impl ComparisonInputs<'_> {
    /// The net's trajectories: the states at the sampler's times, `[times, n, c, h, w]`.
    fn states(&self, net: &UNet) -> Result<Tensor> {
        let samples = self.sampler.run(net, &self.noise, self.labels.as_deref(), true, |_| {})?;
        samples.trajectory.ok_or_else(|| Error::Config("a sampler without a trajectory".into()))
    }

    /// The labels as a net takes them.
    fn label_tensor(&self) -> Result<Option<Tensor>> {
        let labels = self.labels.as_deref();
        Ok(labels.map(|labels| Tensor::new(labels, self.noise.device())).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::fixtures::{changed, net, sampler, tensors};
    use super::*;
    use crate::data::Images;
    use crate::model::UNetConfig;
    use crate::model::config::tiny;
    use crate::sample::start_noise;
    use crate::solver::Method;

    #[test]
    fn a_net_equals_itself_and_another_is_apart() {
        let config = UNetConfig { num_classes: Some(3), ..tiny() };
        let tensors = tensors(&config);
        let (other, change) = changed(&tensors);
        let (full_net, other) = (net(&config, &tensors), net(&config, &other));
        let sampler = sampler(Method::Midpoint, 0.5);
        let pixels = (0..5 * 64u32).map(|i| (i * i * 31 % 251) as u8).collect();
        let set = Images::new([1, 8, 8], pixels, vec![0, 1, 2, 0, 1]).unwrap();
        let real = RealImages::new(&set, 5, false, Some((3, &sampler)), &Device::Cpu).unwrap();
        let noise = start_noise(1, 0, 2, (1, 8, 8), &Device::Cpu).unwrap();
        let labels = Some(vec![2, 1]);
        let inputs = ComparisonInputs { real, sampler: &sampler, noise: noise.clone(), labels };
        let full = FullPrecision::new(inputs, &full_net, &tensors).unwrap();
        assert_eq!((full.lipschitz.t.len(), full.inversion.unwrap().drift), (2, 0.0));

        let same = full.compare(&full_net, 0.0).unwrap();
        assert_eq!((same.divergence, same.velocity.psnr_db), (vec![0.0; 3], None));
        assert_eq!((same.bounds.error, same.bounds.from_velocity), (0.0, 0.0));
        assert_eq!((same.latent.own, same.inversion), (full.latent.own, full.inversion));

        let found = full.compare(&other, change).unwrap();
        // The ends of the trajectories are the samples from the same noise and classes.
        let samples =
            |net: &UNet| sampler.run(net, &noise, Some(&[2, 1]), false, |_| {}).unwrap().images;
        let square = (samples(&other) - samples(&full_net)).unwrap().sqr().unwrap();
        let square = f64::from(square.mean_all().unwrap().to_scalar::<f32>().unwrap());
        assert!(square > 0.0 && found.divergence[0] == 0.0);
        assert!((found.divergence[2] / square.sqrt() - 1.0).abs() < 1e-5, "{found:?}");
        // The bound's norm is that of a whole image of 64 pixels.
        assert!((found.bounds.error / (8.0 * square.sqrt()) - 1.0).abs() < 1e-5, "{found:?}");
        assert_eq!(found.bounds.weights, change);
        let (scores, _) = full.inputs.real.measure(&other, Some(&full.encoding)).unwrap();
        assert_eq!((found.latent, found.inversion), (scores.latent, scores.inversion));
        assert!(found.velocity.psnr_db.unwrap() > 0.0 && found.inversion.unwrap().drift > 0.0);
    }
}
