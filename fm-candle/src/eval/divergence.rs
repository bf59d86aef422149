//! Divergence of trajectories: root mean square distance of two nets' states from the same noise, at each
//! time of the sampler.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Root mean square difference of the states at each time, over all images and pixels:
/// `√(mean (a - b)²)`, in units of pixels from -1 to 1.
///
/// # Shapes: both `[times, n, c, h, w]`; result `[times]`
///
/// # Errors
/// Shapes that differ.
pub fn divergence(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let square = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?.sqr()?;
    Ok(square.flatten_from(1)?.mean(1)?.sqrt()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_time_has_the_root_mean_square_over_images_and_pixels() {
        let states =
            |values: [f32; 8]| Tensor::from_slice(&values, (2, 2, 1, 1, 2), &Device::Cpu).unwrap();
        let a = states([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        let b = states([1.0, 2.0, 3.0, 4.0, 1.0, -1.0, 3.0, 5.0]);
        // (1 + 1 + 9 + 25) / 4 = 9.
        assert_eq!(divergence(&a, &b).unwrap(), [0.0, 3.0]);
        assert_eq!(divergence(&b, &a).unwrap(), [0.0, 3.0]);
        assert!(divergence(&a, &a.narrow(0, 0, 1).unwrap().squeeze(0).unwrap()).is_err());
    }
}
