//! Real images through a net, two ways: to the latents of its bottleneck, and back to their noise.

use candle_core::{Device, Tensor};

use super::inversion::Inversion;
use super::latent::{Components, Latent, Latents};
use super::round_trip::round_trip;
use crate::data::Images;
use crate::error::Result;
use crate::model::UNet;
use crate::sample::{BatchSampler, from_pixels};

/// Real images that nets are compared on.
pub struct RealImages<'a> {
    shown: Tensor,
    inverted: Option<Inverted<'a>>,
}

/// Images whose noise is sought.
struct Inverted<'a> {
    /// `[n, c, h, w]` in `[-1, 1]`.
    images: Tensor,
    /// Their classes; fewer than images where they are not known.
    labels: Vec<u32>,
    sampler: &'a BatchSampler,
}

/// Principal components of a net's latents of real images, and their noise under its ODE run backward;
/// measures of other nets refer to those of full precision.
pub struct EncodedImages {
    /// The principal components of its latents.
    pub components: Components,
    /// The noise of the images, `[n, c, h, w]`, where it was sought.
    pub x0: Option<Tensor>,
}

/// The measures of a net's latents and noise.
pub struct RealImageScores {
    /// The spread of the latents.
    pub latent: Latent,
    /// The latents' variances along the common components, descending where those are the net's own.
    pub variances_common: Vec<f64>,
    /// The noise, where it was sought.
    pub inversion: Option<Inversion>,
}

impl<'a> RealImages<'a> {
    /// The first images of a set: at most `latents` for latents, which the paper's code takes of
    /// images in `[0, 1]` (`unit_range`) although the nets are of `[-1, 1]`; of at most so many as
    /// `inverted` says the noise is sought by its sampler, with their classes where the net has any.
    ///
    /// # Errors
    /// An allocation that fails on the device.
    pub fn new(
        set: &Images,
        latents: usize,
        unit_range: bool,
        inverted: Option<(usize, &'a BatchSampler)>,
        device: &Device,
    ) -> Result<Self> {
        let images = from_pixels(set, device)?;
        let shown = images.narrow(0, 0, latents.min(set.n))?;
        let shown = if unit_range { ((shown + 1.0)? / 2.0)? } else { shown };
        let inverted = inverted.map(|(n, sampler)| {
            let n = n.min(set.n);
            let labels = set.labels.iter().take(n).copied().collect();
            Ok::<_, crate::Error>(Inverted { images: images.narrow(0, 0, n)?, labels, sampler })
        });
        Ok(Self { shown, inverted: inverted.transpose()? })
    }

    /// The images as latents and velocities are taken of them, `[n, c, h, w]`.
    pub fn shown(&self) -> &Tensor {
        &self.shown
    }

    /// The measures of a net, and what others are to be compared with; `full` is what the
    /// full-precision net makes of the images, this net itself where none is given.
    ///
    /// # Errors
    /// Fewer than two images, images that do not fit the net, an encoding of other images or by a
    /// net of another shape; those of [`BatchSampler::run`].
    pub fn measure(
        &self,
        net: &UNet,
        full: Option<&EncodedImages>,
    ) -> Result<(RealImageScores, EncodedImages)> {
        let latents = Latents::of(net, &self.shown)?;
        let components = latents.principal()?;
        let common = full.map_or(&components, |full| &full.components);
        let variances_common = latents.variances_along(common)?;
        let latent = latents.measure(&components.variances, &variances_common);
        let (inversion, x0) = match &self.inverted {
            Some(inverted) => {
                let (x0, again) = inverted.round_trip(net)?;
                let of_full = full.and_then(|full| full.x0.as_ref()).unwrap_or(&x0);
                let inversion = Inversion::measure(&x0, of_full, &inverted.images, &again)?;
                (Some(inversion), Some(x0))
            }
            None => (None, None),
        };
        let scores = RealImageScores { latent, variances_common, inversion };
        Ok((scores, EncodedImages { components, x0 }))
    }
}

impl Inverted<'_> {
    fn round_trip(&self, net: &UNet) -> Result<(Tensor, Tensor)> {
        let known =
            net.config().num_classes.is_some() && self.labels.len() == self.images.dim(0)?;
        round_trip(self.sampler, net, &self.images, known.then_some(self.labels.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{changed, net, sampler, tensors};
    use super::*;
    use crate::model::UNetConfig;
    use crate::model::config::tiny;
    use crate::solver::Method;

    /// Nine images of 8 x 8 pixels, with the classes of the first `labelled`.
    fn images(labelled: usize) -> Images {
        let pixels = (0..9 * 64u32).map(|i| (i * i * 31 % 251) as u8).collect();
        let mut images = Images::new([1, 8, 8], pixels, vec![1; 9]).unwrap();
        images.labels.truncate(labelled);
        images
    }

    fn equal(a: &Tensor, b: &Tensor) -> bool {
        let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        off.to_scalar::<f32>().unwrap() == 0.0
    }

    #[test]
    fn the_range_of_pixels_is_the_latents_alone() {
        let (set, sampler) = (images(0), sampler(Method::Euler, 0.5));
        let of = |unit_range| {
            RealImages::new(&set, 5, unit_range, Some((3, &sampler)), &Device::Cpu).unwrap()
        };
        let (real, unit) = (of(false), of(true));
        assert_eq!(real.shown().dims(), [5, 1, 8, 8]);
        let shown = |real: &RealImages<'_>| {
            let first = real.shown().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (first[0], first[1])
        };
        // Pixels 0 and 31.
        let pixel = 31f32 / 255.0;
        let (zero, other) = shown(&real);
        assert!(zero == -1.0 && (other - (2.0 * pixel - 1.0)).abs() < 1e-6);
        let (zero, other) = shown(&unit);
        assert!(zero == 0.0 && (other - pixel).abs() < 1e-6);
        let inverted = |real: &RealImages<'_>| real.inverted.as_ref().unwrap().images.clone();
        assert!(equal(&inverted(&real), &inverted(&unit)));
        assert_eq!(inverted(&unit).dims(), [3, 1, 8, 8]);
        // As many as there are.
        let all = RealImages::new(&set, 50, false, None, &Device::Cpu).unwrap();
        assert_eq!(all.shown().dims(), [9, 1, 8, 8]);
    }

    #[test]
    fn a_net_is_measured_in_the_basis_and_from_the_noise_of_another() {
        let (set, sampler) = (images(0), sampler(Method::Midpoint, 0.5));
        let real = RealImages::new(&set, 9, false, Some((4, &sampler)), &Device::Cpu).unwrap();
        let tensors = tensors(&tiny());
        let (full, other) = (net(&tiny(), &tensors), net(&tiny(), &changed(&tensors).0));
        let (own, encoding) = real.measure(&full, None).unwrap();
        assert_eq!(own.inversion.unwrap().drift, 0.0);
        for (common, own) in own.variances_common.iter().zip(&encoding.components.variances) {
            assert!((common - own).abs() < 1e-9 * own.max(1.0), "{common} {own}");
        }

        let (found, found_encoding) = real.measure(&other, Some(&encoding)).unwrap();
        let latents = Latents::of(&other, real.shown()).unwrap();
        let expected = latents.variances_along(&encoding.components).unwrap();
        assert_eq!(found.variances_common, expected);
        assert_ne!(expected, found_encoding.components.variances);
        let of_first = from_pixels(&set, &Device::Cpu).unwrap().narrow(0, 0, 4).unwrap();
        let (x0, again) = round_trip(&sampler, &other, &of_first, None).unwrap();
        assert!(equal(found_encoding.x0.as_ref().unwrap(), &x0));
        let x0_full = encoding.x0.unwrap();
        let expected = Inversion::measure(&x0, &x0_full, &of_first, &again).unwrap();
        assert!(expected.drift > 0.0 && found.inversion == Some(expected));
    }

    #[test]
    fn classes_go_to_nets_that_know_them_where_all_are_known() {
        let config = UNetConfig { num_classes: Some(3), ..tiny() };
        let sampler = sampler(Method::Euler, 0.5);
        let x0 = |config: &UNetConfig, labelled: usize| {
            let set = images(labelled);
            let real = RealImages::new(&set, 9, false, Some((4, &sampler)), &Device::Cpu).unwrap();
            real.measure(&net(config, &tensors(config)), None).unwrap().1.x0.unwrap()
        };
        let known = x0(&config, 4);
        assert!(equal(&known, &x0(&config, 9)));
        assert!(!equal(&known, &x0(&config, 3)) && equal(&x0(&config, 3), &x0(&config, 0)));
        assert!(equal(&x0(&tiny(), 9), &x0(&tiny(), 0)));
    }

    #[test]
    fn without_a_sampler_no_noise_is_sought() {
        let real = RealImages::new(&images(0), 9, false, None, &Device::Cpu).unwrap();
        let (found, encoding) = real.measure(&net(&tiny(), &tensors(&tiny())), None).unwrap();
        assert!(found.inversion.is_none() && encoding.x0.is_none());
    }
}
