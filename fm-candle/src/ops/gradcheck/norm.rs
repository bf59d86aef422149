//! Group norm, with and without its activation.

use candle_core::{DType, Tensor};

use super::{MAPS, assert_close, channels_first, check, compare, f32_values, values};
use crate::ops::{Activation, group_norm};

#[test]
fn group_norm_gradients() {
    for activation in [Activation::Identity, Activation::Silu] {
        // Odd, non-square, batch 1, more channels than lanes, sequences, single pixels.
        for (x, groups) in
            [(&[2, 3, 5, 6][..], 3), (&[1, 7, 1, 36], 4), (&[1, 40, 4], 4), (&[3, 4], 2)]
        {
            let affine = [x[0], x[x.len() - 1]];
            check(&[x, &affine, &affine], |t| {
                group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation)
            });
        }
        check(&[&[2, 6, 3, 5], &[6, 2], &[2, 6]], |t| {
            let x = t[0].permute((0, 2, 3, 1))?;
            group_norm(&x, &t[1].t()?, &t[2], 2, 1e-5, activation)
        });
    }
}

#[test]
fn group_norm_equals_a_composite() {
    for shape @ [n, .., c] in MAPS {
        for activation in [Activation::Identity, Activation::Silu] {
            let groups = 32;
            compare(
                &[&shape, &[n, c], &[n, c]],
                |t| group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation),
                |t| {
                    channels_first(&t[0], |x| {
                        let grouped = x.reshape((n, groups, ()))?;
                        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
                        let variance = centred.sqr()?.mean_keepdim(2)?;
                        let unit = centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
                        let z = unit
                            .reshape(x.shape())?
                            .broadcast_mul(&t[1].reshape((n, c, 1, 1))?)?
                            .broadcast_add(&t[2].reshape((n, c, 1, 1))?)?;
                        if activation == Activation::Silu { z.silu() } else { Ok(z) }
                    })
                },
            );
        }
    }
}

#[test]
fn group_norm_of_values_far_from_zero() {
    let affine = [2, 32];
    let (a, b) = (f32_values(&affine, 2), f32_values(&affine, 3));
    let x = values(&[2, 20, 30, 32], 1);
    let norm = |x: &Tensor, a: &Tensor, b: &Tensor| {
        group_norm(x, a, b, 8, 1e-5, Activation::Identity).unwrap()
    };
    let far = norm(&(&x + 16.0).unwrap().to_dtype(DType::F32).unwrap(), &a, &b);
    let [a, b] = [a, b].map(|t| t.to_dtype(DType::F64).unwrap());
    assert_close(&far.to_dtype(DType::F64).unwrap(), &norm(&x, &a, &b));
}

#[test]
fn group_norm_refuses_what_does_not_fit() {
    let x = values(&[2, 3, 3, 6], 1);
    let affine = values(&[2, 6], 2);
    let norm =
        |x: &Tensor, a: &Tensor, groups| group_norm(x, a, &affine, groups, 1e-5, Activation::Silu);
    assert!(norm(&x, &affine, 3).is_ok());
    assert!(norm(&x, &affine, 4).is_err() && norm(&x, &affine, 0).is_err());
    assert!(norm(&x, &values(&[6], 3), 3).is_err());
    assert!(norm(&values(&[6], 3), &affine, 3).is_err());
}
