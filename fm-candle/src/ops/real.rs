//! The number types that our CPU kernels run on, and their way into a tensor's memory.

use core::ops::Deref;

use candle_core::{CpuStorage, Layout, Result, Storage, WithDType, bail};

/// A float type with the few functions that the kernels need.
pub(crate) trait Real: WithDType + core::iter::Sum {
    /// Logistic function `1 / (1 + exp(-x))`.
    fn sigmoid(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn sigmoid(self) -> Self {
        1.0 / (1.0 + exp(-self))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

/// `e^x` without branches or calls, so that loops over it become SIMD code.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its Taylor polynomial of degree 7, whose
/// remainder is below 6e-9 there. Relative error below 3e-7; `x` is clamped to ±87, where
/// f32 nears its range.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 as the sum of a part with few bits, whose product with k is exact, and the rest.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `clamp`: a NaN must pass through.
    let x = if x > 87.0 { 87.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN2_HIGH - k * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// The elements of a contiguous storage.
pub(crate) fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The elements behind a guard of [`Tensor::storage_and_layout`].
pub(crate) fn elements<'a, T: Real>(
    guard: &'a (impl Deref<Target = Storage>, &Layout),
) -> Result<&'a [T]> {
    match &*guard.0 {
        Storage::Cpu(storage) => slice(storage, guard.1),
        _ => bail!("a CPU tensor is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_value_over_its_range() {
        for i in -870_000..=870_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(f32::INFINITY.sigmoid(), 1.0);
        assert!(f32::NEG_INFINITY.sigmoid() < 1e-37);
    }
}
