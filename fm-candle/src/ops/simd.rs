//! f32 and f64 in the registers of whatever SIMD the processor has.

use core::fmt::Debug;

use pulp::Simd;

use super::real::Real;

/// A type whose values fill SIMD registers, and what the kernels do with them.
pub(super) trait Lanes: Real {
    /// A register full of values.
    type Register<S: Simd>: Copy + Debug;
    /// The registers that a slice fills, and the rest.
    fn registers<S: Simd>(values: &[Self]) -> (&[Self::Register<S>], &[Self]);
    /// The mutable registers that a slice fills, and the rest.
    fn registers_mut<S: Simd>(values: &mut [Self]) -> (&mut [Self::Register<S>], &mut [Self]);
    /// A rest of [`Self::registers`], in the first lanes.
    fn load<S: Simd>(simd: S, rest: &[Self]) -> Self::Register<S>;
    /// The first lanes, into a rest of [`Self::registers_mut`].
    fn store<S: Simd>(simd: S, rest: &mut [Self], x: Self::Register<S>);
    /// The value in every lane.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Register<S>;
    /// `x + y`.
    fn plus<S: Simd>(simd: S, x: Self::Register<S>, y: Self::Register<S>) -> Self::Register<S>;
    /// `x - y`.
    fn minus<S: Simd>(simd: S, x: Self::Register<S>, y: Self::Register<S>) -> Self::Register<S>;
    /// `x y`.
    fn times<S: Simd>(simd: S, x: Self::Register<S>, y: Self::Register<S>) -> Self::Register<S>;
    /// `x y + z`, rounded once or twice.
    fn times_plus<S: Simd>(
        simd: S,
        x: Self::Register<S>,
        y: Self::Register<S>,
        z: Self::Register<S>,
    ) -> Self::Register<S>;
    /// `value` where `x >= least`, 0 elsewhere.
    fn where_at_least<S: Simd>(
        simd: S,
        x: Self::Register<S>,
        least: Self::Register<S>,
        value: Self::Register<S>,
    ) -> Self::Register<S>;
    /// `x / y`.
    fn over<S: Simd>(simd: S, x: Self::Register<S>, y: Self::Register<S>) -> Self::Register<S>;
    /// `e^x`; for f32 within 3e-7, of an `x` clamped to ±87.
    fn exp<S: Simd>(simd: S, x: Self::Register<S>) -> Self::Register<S>;

    /// `1 / (1 + exp(-x))`.
    #[inline(always)]
    fn sigmoid<S: Simd>(simd: S, x: Self::Register<S>) -> Self::Register<S> {
        let one = Self::splat(simd, Self::one());
        let power = Self::exp(simd, Self::minus(simd, Self::splat(simd, Self::zero()), x));
        Self::over(simd, one, Self::plus(simd, one, power))
    }
}

macro_rules! arithmetic {
    ($type:ty, $register:ident, $as:ident, $as_mut:ident, $load:ident, $store:ident, $splat:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $mul_add:ident, $at_least:ident, $select:ident) => {
        type Register<S: Simd> = S::$register;

        #[inline(always)]
        fn registers<S: Simd>(values: &[$type]) -> (&[S::$register], &[$type]) {
            S::$as(values)
        }

        #[inline(always)]
        fn registers_mut<S: Simd>(values: &mut [$type]) -> (&mut [S::$register], &mut [$type]) {
            S::$as_mut(values)
        }

        #[inline(always)]
        fn load<S: Simd>(simd: S, rest: &[$type]) -> S::$register {
            simd.$load(rest)
        }

        #[inline(always)]
        fn store<S: Simd>(simd: S, rest: &mut [$type], x: S::$register) {
            simd.$store(rest, x);
        }

        #[inline(always)]
        fn splat<S: Simd>(simd: S, value: $type) -> S::$register {
            simd.$splat(value)
        }

        #[inline(always)]
        fn plus<S: Simd>(simd: S, x: S::$register, y: S::$register) -> S::$register {
            simd.$add(x, y)
        }

        #[inline(always)]
        fn minus<S: Simd>(simd: S, x: S::$register, y: S::$register) -> S::$register {
            simd.$sub(x, y)
        }

        #[inline(always)]
        fn times<S: Simd>(simd: S, x: S::$register, y: S::$register) -> S::$register {
            simd.$mul(x, y)
        }

        #[inline(always)]
        fn over<S: Simd>(simd: S, x: S::$register, y: S::$register) -> S::$register {
            simd.$div(x, y)
        }

        #[inline(always)]
        fn times_plus<S: Simd>(
            simd: S,
            x: S::$register,
            y: S::$register,
            z: S::$register,
        ) -> S::$register {
            simd.$mul_add(x, y, z)
        }

        #[inline(always)]
        fn where_at_least<S: Simd>(
            simd: S,
            x: S::$register,
            least: S::$register,
            value: S::$register,
        ) -> S::$register {
            simd.$select(simd.$at_least(x, least), value, simd.$splat(0.0))
        }
    };
}

impl Lanes for f32 {
    arithmetic!(
        f32,
        f32s,
        as_simd_f32s,
        as_mut_simd_f32s,
        partial_load_f32s,
        partial_store_f32s,
        splat_f32s,
        add_f32s,
        sub_f32s,
        mul_f32s,
        div_f32s,
        mul_add_e_f32s,
        greater_than_or_equal_f32s,
        select_f32s
    );

    #[inline(always)]
    fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        exp(simd, x)
    }
}

impl Lanes for f64 {
    arithmetic!(
        f64,
        f64s,
        as_simd_f64s,
        as_mut_simd_f64s,
        partial_load_f64s,
        partial_store_f64s,
        splat_f64s,
        add_f64s,
        sub_f64s,
        mul_f64s,
        div_f64s,
        mul_add_e_f64s,
        greater_than_or_equal_f64s,
        select_f64s
    );

    #[inline(always)]
    fn exp<S: Simd>(simd: S, x: S::f64s) -> S::f64s {
        let mut lanes = [0.0f64; 8];
        let lanes = &mut lanes[..S::F64_LANES];
        simd.partial_store_f64s(lanes, x);
        for x in &mut *lanes {
            *x = x.exp();
        }
        simd.partial_load_f64s(lanes)
    }
}

/// `e^x`.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its Taylor polynomial of degree 7, whose
/// remainder is below 6e-9 there. Relative error below 3e-7; `x` is clamped to ±87, where
/// f32 nears its range.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 as the sum of a part with few bits, whose product with k is exact, and the rest.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    // Not minimum and maximum: a NaN must pass through.
    let (high, low) = (simd.splat_f32s(87.0), simd.splat_f32s(-87.0));
    let x = simd.select_f32s(simd.greater_than_f32s(x, high), high, x);
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    let shifted =
        simd.mul_add_e_f32s(x, simd.splat_f32s(core::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let k = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    let r = simd.mul_add_e_f32s(k, simd.splat_f32s(-LN2_HIGH), x);
    let r = simd.mul_add_e_f32s(k, simd.splat_f32s(-LN2_LOW), r);
    let mut p = simd.splat_f32s(1.0 / 5040.0);
    for coefficient in COEFFICIENTS {
        p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(coefficient));
    }
    let offset = simd.splat_u32s(127u32.wrapping_sub(ROUND.to_bits()));
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), offset);
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Exponentials<'a>(&'a mut [f32]);

    impl WithSimd for Exponentials<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            let (registers, rest) = f32::registers_mut::<S>(self.0);
            for x in registers {
                *x = exp(simd, *x);
            }
            let last = exp(simd, f32::load(simd, rest));
            f32::store(simd, rest, last);
        }
    }

    #[test]
    fn exp_is_close_to_the_exact_value_over_its_range() {
        let inputs: Vec<f32> = (-870_000..=870_000).map(|i| i as f32 * 1e-4).collect();
        let mut powers = inputs.clone();
        Arch::new().dispatch(Exponentials(&mut powers));
        for (&x, &power) in inputs.iter().zip(&powers) {
            let exact = f64::from(x).exp();
            let error = (f64::from(power) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        let mut limits = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
        Arch::new().dispatch(Exponentials(&mut limits));
        assert!(limits[0].is_nan() && limits[1] < 1e-37 && limits[2] > 1e37);
    }
}
