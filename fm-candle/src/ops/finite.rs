//! The check that a tensor has no NaN and no infinity.

use candle_core::{DType, Result, Tensor};

/// Returns true if no element is NaN or infinite: `0 x` is NaN for such elements, 0 for the others.
///
/// # Errors
/// A tensor that is not of floats.
pub fn is_finite(x: &Tensor) -> Result<bool> {
    Ok((x * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? == 0.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_bad_element_is_found() {
        let of = |values: &[f32]| is_finite(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        assert!(of(&[0.0, -1.0, f32::MAX, f32::MAX]));
        assert!(!of(&[0.0, f32::NAN]) && !of(&[f32::NEG_INFINITY, 1.0]));
    }
}
