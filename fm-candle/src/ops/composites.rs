//! Tests of the operations that a GPU runs in place of our CPU kernels, run on the CPU: gradients
//! against finite differences in f64, values against the kernels, half precision against f32.

use candle_core::{DType, Result, Tensor, Var};

use super::attention::{self, attention};
use super::conv2d::columns;
use super::gradcheck::{SHAPES, apart, check, f32_values, values};
use super::norm::{self, GroupNorm};
use super::resample::{downsample2_composite, upsample2_composite};
use super::{Activation, QkvOrder, conv2d, dropout, group_norm};

#[test]
fn conv2d_gradients() {
    // (input, weight, stride, padding): odd, non-square, batch 1, strided with and without a rest,
    // pointwise, pointwise with a stride.
    let cases: &[(&[usize], &[usize], usize, usize)] = &[
        (&[2, 5, 4, 3], &[2, 3, 3, 3], 1, 1),
        (&[1, 1, 7, 2], &[3, 2, 3, 3], 1, 1),
        (&[1, 6, 5, 2], &[2, 2, 3, 3], 2, 1),
        (&[2, 5, 7, 1], &[2, 1, 3, 3], 3, 1),
        (&[3, 4, 4, 1], &[2, 1, 3, 2], 2, 0),
        (&[2, 3, 3, 4], &[3, 4, 1, 1], 1, 0),
        (&[2, 4, 5, 2], &[3, 2, 1, 1], 2, 0),
        (&[1, 9, 11, 1], &[1, 1, 5, 5], 1, 2),
    ];
    for &(x, w, stride, padding) in cases {
        check(&[x, w, &w[..1]], |t| by_columns(&t[0], &t[1], &t[2], stride, padding));
    }
    check(&[&[2, 3, 5, 4], &[4, 2, 3, 3], &[2]], |t| {
        by_columns(&t[0].transpose(1, 2)?, &t[1].transpose(0, 1)?, &t[2], 1, 1)
    });
}

/// With the same zeros on all sides.
fn by_columns(x: &Tensor, w: &Tensor, b: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    columns::conv2d(x, w, b, stride, (padding, padding))
}

/// The result of a convolution of these sizes, and the gradients of its input, weight and bias.
fn convolve(
    [n, h, w, c, o, size, stride, padding]: [usize; 8],
    dtype: DType,
    f: impl Fn(&Tensor, &Tensor, &Tensor, usize, usize) -> Result<Tensor>,
) -> Vec<Tensor> {
    let var = |shape: &[usize], salt| {
        Var::from_tensor(&values(shape, salt).to_dtype(dtype).unwrap()).unwrap()
    };
    let vars = [var(&[n, h, w, c], 1), var(&[o, c, size, size], 2), var(&[o], 3)];
    let y = f(&vars[0], &vars[1], &vars[2], stride, padding).unwrap();
    let factor = values(y.dims(), 4).to_dtype(dtype).unwrap();
    let grads = (&y * factor).unwrap().sum_all().unwrap().backward().unwrap();
    let grads = vars.map(|var| grads.get(&var).unwrap().clone());
    [vec![y], grads.to_vec()].concat()
}

#[test]
fn conv2d_equals_the_definition() {
    for sizes in SHAPES {
        let exact = convolve(sizes, DType::F64, conv2d);
        for (dtype, most) in
            [(DType::F64, 1e-12), (DType::F32, 2e-6), (DType::F16, 1e-2), (DType::BF16, 1.5e-2)]
        {
            for (i, (found, exact)) in
                convolve(sizes, dtype, by_columns).iter().zip(&exact).enumerate()
            {
                assert_eq!((found.dtype(), found.dims()), (dtype, exact.dims()));
                let off = apart(found, exact);
                assert!(off < most, "{sizes:?}, {dtype:?}, result {i}: off by {off}");
            }
        }
    }
}

#[test]
fn conv2d_gives_gradients_to_those_who_ask() {
    let (x, w, b) = (values(&[2, 5, 4, 3], 1), values(&[2, 3, 3, 3], 2), values(&[2], 3));
    let x = Var::from_tensor(&x).unwrap();
    let y = by_columns(&x, &w, &b, 1, 1).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&w).is_none() && grads.get(&b).is_none());
    let refused = |w: &[usize], b: &[usize], padding| {
        by_columns(&x, &values(w, 4), &values(b, 5), 1, padding).is_err()
    };
    assert!(refused(&[2, 1, 3, 3], &[2], 1) && refused(&[2, 3, 3, 3], &[3], 1));
    assert!(refused(&[2, 3, 3, 3], &[2], 3));
}

#[test]
fn group_norm_gradients() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (x, groups) in [(&[2, 3, 5, 6][..], 3), (&[1, 40, 4], 4), (&[3, 4], 2)] {
            let affine = [x[0], x[x.len() - 1]];
            let op = GroupNorm::new(groups, 1e-5, activation);
            check(&[x, &affine, &affine], |t| norm::composite(&t[0], &t[1], &t[2], &op));
        }
    }
}

#[test]
fn attention_gradients() {
    for order in [QkvOrder::Parts, QkvOrder::Heads] {
        check(&[&[2, 5, 12]], |t| attention::composite(&t[0], 2, order));
        check(&[&[1, 7, 6]], |t| attention::composite(&t[0], 1, order));
    }
}

#[test]
fn resampling_gradients() {
    check(&[&[2, 4, 6, 3]], |t| upsample2_composite(&t[0]));
    check(&[&[1, 7, 5, 2]], |t| downsample2_composite(&t[0]));
    check(&[&[1, 3, 3, 2]], |t| upsample2_composite(&t[0])? + upsample2_composite(&t[0].sqr()?)?);
}

#[test]
fn join_and_dropout_gradients() {
    check(&[&[1, 3, 2], &[1, 3, 2]], |t| &t[0] + &t[1]);
    check(&[&[1, 3, 5, 2], &[1, 3, 5, 3]], |t| {
        Tensor::cat(&[&t[0], &t[1]], candle_core::D::Minus1)
    });
    let mask = values(&[3, 4], 5).abs().unwrap();
    check(&[&[3, 4]], |t| dropout::composite(&t[0], &mask, 0.25));
}

/// Values and gradients of half-precision arguments are close to those of f32.
fn halves(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let run = |dtype| {
        let vars = (1..).zip(shapes).map(|(salt, shape)| {
            Var::from_tensor(&f32_values(shape, salt).to_dtype(dtype).unwrap()).unwrap()
        });
        let vars: Vec<Var> = vars.collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = f(&tensors).unwrap();
        assert_eq!(y.dtype(), dtype);
        let factor = f32_values(y.dims(), 9).to_dtype(dtype).unwrap();
        let grads = (&y * factor).unwrap().sum_all().unwrap().backward().unwrap();
        let mut found = vec![y];
        found.extend(vars.iter().map(|var| grads.get(var).unwrap().clone()));
        found
    };
    let single = run(DType::F32);
    // Four unit roundoffs: 2^-11 and 2^-8.
    for (dtype, most) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
        for (i, (half, single)) in run(dtype).iter().zip(&single).enumerate() {
            assert_eq!((half.dtype(), half.dims()), (dtype, single.dims()));
            let off = apart(half, single);
            assert!(off < most, "{dtype:?}, result {i}: off by {off}");
        }
    }
}

#[test]
fn every_operation_takes_half_precision() {
    let map = [2, 6, 4, 12];
    for activation in [Activation::Identity, Activation::Silu] {
        halves(&[&map, &[2, 12], &[2, 12]], |t| {
            group_norm(&t[0], &t[1], &t[2], 3, 1e-5, activation)
        });
    }
    halves(&[&[2, 9, 24]], |t| attention(&t[0], 2, QkvOrder::Heads));
    halves(&[&map], |t| super::upsample2(&t[0]));
    halves(&[&map], |t| super::downsample2(&t[0]));
    halves(&[&map, &map], |t| super::add(&t[0], &t[1]));
    halves(&[&map, &[2, 6, 4, 3]], |t| super::concat(&t[0], &t[1]));
    let mask = f32_values(&map, 7).abs().unwrap();
    halves(&[&map], |t| dropout::dropout_where(&t[0], &mask, 0.5));
}
