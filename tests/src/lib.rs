//! Fixtures of the suites: reference data, formula weights, comparisons.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the reference's formula is made of such casts"
)]

pub mod nets;
mod reference;

use candle_core::{DType, Device, Tensor};
use fm_candle::model::{UNet, UNetConfig, config};
use quant_core::bits::Bits;
use serde_json::Value;

/// The guide's program, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/firmware.md")]
struct Guide;

pub use reference::{data, json, own, ran, reference, tensors};

/// A width of 1 to 8 bits.
///
/// # Panics
/// Outside of them.
pub fn width(bits: u8) -> Bits {
    Bits::new(bits).expect("1 to 8 bits")
}

/// A configuration as the reference stores it.
///
/// # Panics
/// If it is none.
pub fn config(value: &Value) -> UNetConfig {
    config::from_json(&value.to_string()).expect("a configuration")
}

/// The reference's formula: a number in `[-1, 1)` for element `i` of parameter `p`.
pub fn formula(p: u64, i: u64, salt: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = (p << 32).wrapping_add(i).wrapping_add(salt.wrapping_mul(GOLDEN));
    z = z.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    2.0 * ((z >> 40) as f64 / f64::from(1 << 24)) - 1.0
}

/// The state dict whose values follow the reference's formula (gain 3).
///
/// # Panics
/// If the configuration makes no net.
pub fn formula_weights(config: &UNetConfig, salt: u64) -> Vec<(String, Tensor)> {
    formula_state_dict(UNet::shapes(config).expect("a net"), 3.0, salt)
}

/// Tensors of these names and shapes whose values follow the reference's formula.
///
/// # Panics
/// If a shape has no elements to be made of.
pub fn formula_state_dict(
    shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
    gain: f64,
    salt: u64,
) -> Vec<(String, Tensor)> {
    let tensor = |(p, (name, shape)): (u64, (String, Vec<usize>))| {
        if name.ends_with("num_batches_tracked") {
            return (name, Tensor::zeros(shape, DType::I64, &Device::Cpu).expect("a counter"));
        }
        let weight = name.ends_with("weight");
        let fan_in: usize = shape[1..].iter().product();
        let (offset, scale) = match shape.len() {
            1 if weight || name.ends_with("running_var") => (1.0, 0.25),
            1 => (0.0, 0.125),
            _ if weight && !name.contains("label_emb") => (0.0, (gain / fan_in as f64).sqrt()),
            _ => (0.0, 0.5),
        };
        let n: usize = shape.iter().product();
        let values: Vec<f32> =
            (0..n as u64).map(|i| (offset + scale * formula(p, i, salt)) as f32).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).expect("as many as the shape says"))
    };
    (0..).zip(shapes).map(tensor).collect()
}

/// The numbers of a tensor as f64.
///
/// # Panics
/// If it holds others.
pub fn numbers(x: &Tensor) -> Vec<f64> {
    let flat = x.flatten_all().and_then(|x| x.to_dtype(DType::F64)).expect("numbers");
    flat.to_vec1().expect("f64")
}

/// The largest difference of two tensors' elements.
///
/// # Panics
/// If the shapes differ.
pub fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let wide = |x: &Tensor| x.to_dtype(DType::F64).expect("a float tensor");
    let difference = (wide(a) - wide(b)).expect("equal shapes").abs().expect("floats");
    difference.max_all().expect("not empty").to_scalar().expect("a scalar")
}
