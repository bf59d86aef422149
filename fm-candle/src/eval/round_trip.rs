//! From images back to their noise, and forward again.

use candle_core::{DType, Tensor};

use super::paired::psnr_of_each;
use crate::error::Result;
use crate::model::UNet;
use crate::sample::BatchSampler;

/// The noise of images, by the sampler's own method and times backward, and the images that it leads
/// back to. What the steps of a fixed-step method are off by is in both.
///
/// # Shapes: `images`, both results: `[n, c, h, w]`; `labels`: `n` of them, or none
///
/// # Errors
/// Those of [`BatchSampler::run`].
pub fn round_trip(
    sampler: &BatchSampler,
    net: &UNet,
    images: &Tensor,
    labels: Option<&[u32]>,
) -> Result<(Tensor, Tensor)> {
    let x0 = sampler.reversed().run(net, images, labels, false, |_| {})?.images;
    let again = sampler.run(net, &x0, labels, false, |_| {})?.images;
    Ok((x0, again))
}

/// The error of images that came back from their noise; nothing is clamped.
pub struct Reconstruction {
    /// [`psnr_of_each`] image, `[n]`, in dB.
    pub psnr: Tensor,
    /// Its mean over the images; infinite where one came back exactly.
    pub psnr_db: f64,
    /// Mean squared difference of all pixels of `[-1, 1]`; the squares are in the images' type.
    pub mse: f64,
}

impl Reconstruction {
    /// The error of `again` against the images.
    ///
    /// # Shapes: both `[n, c, h, w]`
    ///
    /// # Errors
    /// Shapes that differ, no images.
    pub fn measure(again: &Tensor, images: &Tensor) -> Result<Self> {
        let psnr = psnr_of_each(again, images)?;
        let psnr_db = psnr.mean_all()?.to_scalar()?;
        let squares = (again - images)?.sqr()?;
        let mse = squares.to_dtype(DType::F64)?.mean_all()?.to_scalar()?;
        Ok(Self { psnr, psnr_db, mse })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::fixtures::{net, sampler, tensors};
    use super::*;
    use crate::model::config::tiny;
    use crate::sample::start_noise;
    use crate::solver::Method;

    #[test]
    fn a_constant_velocity_is_taken_away_and_added_again() {
        // Without the last convolution's weights the velocity is its bias.
        let constant = |(name, tensor): (String, Tensor)| {
            let tensor = match name.as_str() {
                "out.2.weight" => tensor.zeros_like().unwrap(),
                "out.2.bias" => Tensor::full(0.25f32, tensor.shape(), &Device::Cpu).unwrap(),
                _ => tensor,
            };
            (name, tensor)
        };
        let net = net(&tiny(), &tensors(&tiny()).into_iter().map(constant).collect());
        let sampler = sampler(Method::Euler, 0.5);
        let images = start_noise(1, 0, 3, (1, 8, 8), &Device::Cpu).unwrap();
        let (x0, again) = round_trip(&sampler, &net, &images, None).unwrap();
        let off = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(off(&x0, &(&images - 0.25).unwrap()) < 1e-6);
        assert!(off(&again, &images) < 1e-6);
    }

    #[test]
    fn the_error_is_of_each_image_and_of_all() {
        let images = Tensor::zeros((2, 1, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let again = Tensor::new(&[[[[0.5f32, 0.5]]], [[[3.0, 1.0]]]], &Device::Cpu).unwrap();
        let found = Reconstruction::measure(&again, &images).unwrap();
        // Mean squared errors of 1/4 and 5 against a peak of 2.
        assert_eq!(found.mse, 2.625);
        let each = [10.0 * 16f64.log10(), 10.0 * 0.8f64.log10()];
        for (found, expected) in found.psnr.to_vec1::<f64>().unwrap().iter().zip(each) {
            assert!((found - expected).abs() < 1e-12);
        }
        assert!((found.psnr_db - f64::midpoint(each[0], each[1])).abs() < 1e-12);
        let same = Reconstruction::measure(&images, &images).unwrap();
        assert_eq!((same.psnr_db, same.mse), (f64::INFINITY, 0.0));
    }
}
