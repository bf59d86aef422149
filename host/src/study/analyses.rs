//! The analyses of a row beside its samples, and those of full precision to compare with.

use anyhow::{Context, Result};
use fm_candle::analysis::bounds::{Bounds, Lipschitz, Trajectories};
use fm_candle::analysis::inversion::{Inversion, round_trip};
use fm_candle::analysis::latent::{Components, Latent, Latents};
use fm_candle::analysis::paired;
use fm_candle::data::Images;
use fm_candle::model::{Mode, UNet};
use fm_candle::sample::from_pixels;
use fm_candle::{DType, Tensor};

use super::Study;
use crate::args::label::class_cycle;

/// Real images whose latents are taken, at most.
const LATENT_IMAGES: usize = 2000;
/// Real images whose noise is sought, at most.
const INVERTED: usize = 256;
/// Real images whose velocities are compared, at most; a batch of the paper's.
const VELOCITIES: usize = 64;
/// Samples whose trajectories are followed.
const FOLLOWED: usize = 16;

/// The analyses of the full-precision net.
pub(super) struct Analyses<'a> {
    study: &'a Study,
    net: &'a UNet,
    /// The real images as the net takes them, in `[-1, 1]`; of the latents and velocities in `[0, 1]`
    /// where the study wants the paper's way.
    shown: Tensor,
    inverted: Tensor,
    labels: Option<Vec<u32>>,
    components: Components,
    pub(super) latent: Latent,
    velocity: Tensor,
    x0: Tensor,
    pub(super) inversion: Inversion,
    noise: Tensor,
    followed: Option<Vec<u32>>,
    states: Tensor,
    pub(super) lipschitz: Lipschitz,
}

/// The results of the analyses for one row.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) velocity_psnr_db: Option<f64>,
    pub(super) velocity_ssim: Option<f64>,
    pub(super) latent: Option<Latent>,
    pub(super) inversion: Option<Inversion>,
    pub(super) divergence: Vec<f64>,
    pub(super) bounds: Option<Bounds>,
}

impl<'a> Analyses<'a> {
    /// The analyses of the full-precision net; `noise` is that of the samples.
    pub(super) fn of(study: &'a Study, net: &'a UNet, noise: &Tensor) -> Result<Self> {
        let device = &study.device;
        let mut real = study.real.clone();
        real.truncate(LATENT_IMAGES);
        let images = from_pixels(&real, device)?;
        let shown = if study.unit_range { ((&images + 1.0)? / 2.0)? } else { images.clone() };
        let inverted = images.narrow(0, 0, INVERTED.min(real.n))?;
        let labels = labels(&real, net, inverted.dim(0)?);
        let latents = Latents::of(net, &shown).context("latents of real images")?;
        let components = latents.principal();
        let latent = latents.measure(&components, &components)?;
        let velocity = velocity(net, &shown)?;
        let (x0, again) = round_trip(&study.sampler, net, &inverted, labels.as_deref())?;
        let inversion = Inversion::measure(&x0, &x0, &inverted, &again)?;
        let noise = noise.narrow(0, 0, FOLLOWED.min(noise.dim(0)?))?;
        let followed = class_cycle(net.config(), noise.dim(0)?)?;
        let states = trajectory(study, net, &noise, followed.as_deref())?;
        let lipschitz = {
            let labels = tensor(followed.as_deref(), &noise)?;
            let labels = labels.as_ref();
            let along = Trajectories { sampler: &study.sampler, states: &states, labels };
            Lipschitz::estimate(&study.config, &study.tensors, &along, || {})?
        };
        Ok(Self {
            study,
            net,
            shown,
            inverted,
            labels,
            components,
            latent,
            velocity,
            x0,
            inversion,
            noise,
            followed,
            states,
            lipschitz,
        })
    }

    /// The analyses of a quantized net, the norm of whose change of weights is `weights`.
    pub(super) fn measure(&self, net: &UNet, weights: f64) -> Result<Measured> {
        let study = self.study;
        let latents = Latents::of(net, &self.shown).context("latents of real images")?;
        let velocity = velocity(net, &self.shown)?;
        let (x0, again) = round_trip(&study.sampler, net, &self.inverted, self.labels.as_deref())?;
        let states = trajectory(study, net, &self.noise, self.followed.as_deref())?;
        let labels = tensor(self.followed.as_deref(), &self.noise)?;
        let labels = labels.as_ref();
        let full = Trajectories { sampler: &study.sampler, states: &self.states, labels };
        let own = Trajectories { sampler: &study.sampler, states: &states, labels };
        let bounds = Bounds::measure(&self.lipschitz, weights, (&full, self.net), (&own, net))?;
        let psnr = paired::psnr_of_maps(&velocity, &self.velocity)?;
        Ok(Measured {
            velocity_psnr_db: psnr.is_finite().then_some(psnr),
            velocity_ssim: paired::ssim_of_maps(&velocity, &self.velocity)?,
            latent: Some(latents.measure(&latents.principal(), &self.components)?),
            inversion: Some(Inversion::measure(&x0, &self.x0, &self.inverted, &again)?),
            divergence: divergence(&states, &self.states)?,
            bounds: Some(bounds),
        })
    }
}

/// The classes of the first `n` images, for a net that knows them.
fn labels(real: &Images, net: &UNet, n: usize) -> Option<Vec<u32>> {
    net.config().num_classes?;
    (real.labels.len() >= n).then(|| real.labels[..n].to_vec())
}

/// Labels as a net takes them.
fn tensor(labels: Option<&[u32]>, beside: &Tensor) -> Result<Option<Tensor>> {
    Ok(labels.map(|labels| Tensor::new(labels, beside.device())).transpose()?)
}

/// The velocity of the first images at t = 0, without a label, as the paper compares it.
fn velocity(net: &UNet, images: &Tensor) -> Result<Tensor> {
    let x = images.narrow(0, 0, VELOCITIES.min(images.dim(0)?))?;
    let t = Tensor::zeros(x.dim(0)?, DType::F32, x.device())?;
    Ok(net.forward(&x, &t, None, None, Mode::Eval)?)
}

/// The states at the sampler's times, `[times, n, c, h, w]`.
fn trajectory(study: &Study, net: &UNet, noise: &Tensor, labels: Option<&[u32]>) -> Result<Tensor> {
    let samples = study.sampler.run(net, noise, labels, true, |_| {})?;
    samples.trajectory.context("a sampler gives the trajectory that it is asked for")
}

/// Root mean square difference of the states at each time.
fn divergence(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let square = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?.sqr()?;
    Ok(square.flatten_from(1)?.mean(1)?.sqrt()?.to_vec1()?)
}
