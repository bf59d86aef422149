//! Every lossy cast and every libm call of the crate.
//!
//! The transcendental functions come from `libm` on every target, so that results carry the same
//! bits everywhere; those of the standard library differ between systems.

/// `x` rounded to the nearest f32, ties to even.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
pub(crate) const fn f32_of(x: f64) -> f32 {
    x as f32
}

/// `x` rounded to the nearest f32, ties to even; exact up to 2^24.
#[expect(clippy::cast_precision_loss, reason = "rounding is the purpose")]
pub(crate) const fn f32_of_u32(x: u32) -> f32 {
    x as f32
}

/// `x` rounded to the nearest f32, ties to even; exact up to 2^24.
#[expect(clippy::cast_precision_loss, reason = "rounding is the purpose")]
pub(crate) const fn f32_of_usize(x: usize) -> f32 {
    x as f32
}

/// `x` rounded to the nearest f32, ties to even; exact up to 2^24.
#[expect(clippy::cast_precision_loss, reason = "rounding is the purpose")]
pub(crate) const fn f32_of_i32(x: i32) -> f32 {
    x as f32
}

/// `x` rounded to the nearest f32, ties to even; exact up to 2^24.
#[expect(clippy::cast_precision_loss, reason = "rounding is the purpose")]
pub(crate) const fn f32_of_i64(x: i64) -> f32 {
    x as f32
}

/// The integer that `x` holds; beyond i32 the nearest, of NaN 0.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
pub(crate) const fn i32_of(x: f32) -> i32 {
    x as i32
}

/// `x` as f64; exact up to 2^53, which no length in memory reaches.
#[expect(clippy::cast_precision_loss, reason = "lengths stay below 2^53")]
pub(crate) const fn f64_of(x: usize) -> f64 {
    x as f64
}

/// `x` as u64, which has room for any length.
pub(crate) const fn u64_of(x: usize) -> u64 {
    x as u64
}

/// The low byte of `x`.
#[expect(clippy::cast_possible_truncation, reason = "taking the low byte is the purpose")]
pub(crate) const fn low_u8(x: usize) -> u8 {
    x as u8
}

/// The low 32 bits of `x`.
#[expect(clippy::cast_possible_truncation, reason = "taking the low word is the purpose")]
pub(crate) const fn low_u32(x: u64) -> u32 {
    x as u32
}

/// The high 32 bits of `x`.
pub(crate) const fn high_u32(x: u64) -> u32 {
    low_u32(x >> 32)
}

/// The low 32 bits of a position.
#[expect(clippy::cast_possible_truncation, reason = "callers bound the position by 2^32")]
pub(crate) const fn u32_of(x: usize) -> u32 {
    x as u32
}

/// A 32-bit position as an index.
pub(crate) const fn index(x: u32) -> usize {
    x as usize
}

/// `x` rounded to an integer, ties to even.
pub(crate) fn round_even(x: f32) -> f32 {
    libm::rintf(x)
}

pub(crate) fn log2(x: f64) -> f64 {
    libm::log2(x)
}

pub(crate) fn exp2(x: f64) -> f64 {
    libm::exp2(x)
}

pub(crate) fn abs_f32(x: f32) -> f32 {
    libm::fabsf(x)
}

pub(crate) fn ln(x: f32) -> f32 {
    libm::logf(x)
}

pub(crate) fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// `x / (1 + exp(-x))`.
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

pub(crate) fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

pub(crate) fn sin_cos(x: f32) -> (f32, f32) {
    libm::sincosf(x)
}

/// The integer that `x` holds; beyond i16 the nearest.
#[expect(clippy::cast_possible_truncation, reason = "the float holds a small integer")]
pub(crate) const fn i16_of(x: f32) -> i16 {
    x as i16
}

/// The whole part of `x`, 0 below 1, 2^32 - 1 beyond it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounding down is the purpose; `as` saturates and makes NaN 0"
)]
pub(crate) const fn u32_of_real(x: f64) -> u32 {
    x as u32
}

/// The level code of `x`, a float that holds an integer in 0..=255.
#[cfg(feature = "alloc")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the float holds a small non-negative integer; `as` saturates"
)]
pub(crate) const fn code_of(x: f32) -> u8 {
    x as u8
}

/// The absolute value of `x`.
#[cfg(feature = "alloc")]
pub(crate) fn abs(x: f64) -> f64 {
    libm::fabs(x)
}

/// The square root of `x`.
#[cfg(feature = "alloc")]
pub(crate) fn sqrt_f64(x: f64) -> f64 {
    libm::sqrt(x)
}

/// The decimal logarithm of `x`.
#[cfg(feature = "alloc")]
pub(crate) fn log10(x: f64) -> f64 {
    libm::log10(x)
}
