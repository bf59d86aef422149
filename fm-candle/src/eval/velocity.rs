//! The velocity of real images at t = 0, as the paper compares nets: not a state that sampling meets.

use candle_core::{DType, Tensor};

use super::paired;
use crate::error::Result;
use crate::model::{Mode, UNet};

/// Images whose velocities are compared, at most; a batch of the paper's.
const IMAGES: usize = 64;

/// The velocity of the first images, at most 64, at t = 0 and without a label.
///
/// # Shapes: `images: [n, c, h, w]`, result `[min(n, 64), c, h, w]`
///
/// # Errors
/// Images that do not fit the net, an allocation that fails on the device.
pub fn at_start(net: &UNet, images: &Tensor) -> Result<Tensor> {
    let x = images.narrow(0, 0, IMAGES.min(images.dim(0)?))?;
    let t = Tensor::zeros(x.dim(0)?, DType::F32, x.device())?;
    net.forward(&x, &t, None, None, Mode::Eval)
}

/// Likeness of two velocities of the same images, for a peak of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VelocityMatch {
    /// [`paired::psnr_of_maps`], in dB; none where they are equal.
    pub psnr_db: Option<f64>,
    /// [`paired::ssim_of_maps`], at most 1; none for images smaller than its window.
    pub ssim: Option<f64>,
}

impl VelocityMatch {
    /// The likeness of a velocity to that of full precision.
    ///
    /// # Shapes: both `[n, c, h, w]`
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn measure(velocity: &Tensor, full: &Tensor) -> Result<Self> {
        let psnr = paired::psnr_of_maps(velocity, full)?;
        let ssim = paired::ssim_of_maps(velocity, full)?;
        Ok(Self { psnr_db: psnr.is_finite().then_some(psnr), ssim })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::fixtures::{net, tensors};
    use super::*;
    use crate::model::config::tiny;
    use crate::sample::start_noise;

    #[test]
    fn velocities_are_those_of_a_batch_at_the_start() {
        let net = net(&tiny(), &tensors(&tiny()));
        let images = start_noise(1, 0, IMAGES + 1, (1, 8, 8), &Device::Cpu).unwrap();
        assert_eq!(at_start(&net, &images).unwrap().dims(), [IMAGES, 1, 8, 8]);
        let two = images.narrow(0, 0, 2).unwrap();
        let t = Tensor::new(&[0f32, 0.0], &Device::Cpu).unwrap();
        let expected = net.forward(&two, &t, None, None, Mode::Eval).unwrap();
        let found = at_start(&net, &two).unwrap();
        let off = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(off.to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn equal_velocities_have_no_decibels() {
        let x = start_noise(1, 0, 2, (1, 12, 12), &Device::Cpu).unwrap();
        let same = VelocityMatch::measure(&x, &x).unwrap();
        assert!(same.psnr_db.is_none() && (same.ssim.unwrap() - 1.0).abs() < 1e-12);
        // A difference of 0.1 everywhere: 20 dB.
        let near = VelocityMatch::measure(&(&x + 0.1).unwrap(), &x).unwrap();
        assert!((near.psnr_db.unwrap() - 20.0).abs() < 1e-4, "{near:?}");
    }
}
