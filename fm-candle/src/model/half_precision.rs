//! The test that a net's velocity in f16 or bf16 differs from that in f32 by rounding alone.

use candle_core::{DType, Tensor};

/// Holds a velocity that was computed in `dtype` to the one in f32, by root mean squares and in
/// unit roundoffs: 2^-11 for the 11 digits of f16, 2^-8 for the 8 of bf16.
///
/// Each of some hundred roundings adds less than one, and most cancel: small nets are off by 0.9
/// to 2.0, in either type. With the digits of the other type it would be 8 times as much or an
/// eighth.
pub(crate) fn assert_near(dtype: DType, half: &Tensor, single: &Tensor) {
    let square = |x: &Tensor| x.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let digits = if dtype == DType::F16 { 11 } else { 8 };
    let off = (square(&(half - single).unwrap()) / square(single)).sqrt();
    let roundoffs = off * 2_f32.powi(digits);
    assert!((0.4..4.0).contains(&roundoffs), "{dtype:?}: off by {roundoffs} unit roundoffs");
}
