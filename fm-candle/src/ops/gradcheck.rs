//! Gradients against central finite differences in f64, and values against candle's own ops.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::dropout::dropout_where;
use super::{
    Activation, InferenceConv2d, QkvOrder, add, attention, concat, concat_all, conv2d,
    conv2d_padded, downsample2, group_norm, upsample2,
};
use crate::model::{Init, StateDict, Weight, WeightLoader};

/// Deterministic values in `[-1, 1)`, different for each salt.
pub(super) fn values(shape: &[usize], salt: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let data: Vec<f64> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Checks every partial derivative of `sum(f(inputs) * r)`, r fixed and irregular.
pub(super) fn check(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let inputs: Vec<Var> = (1..)
        .zip(shapes)
        .map(|(salt, shape)| Var::from_tensor(&values(shape, salt)).unwrap())
        .collect();
    let loss = |inputs: &[Tensor]| {
        let y = f(inputs).unwrap();
        (&y * values(y.dims(), 99)).unwrap().sum_all().unwrap()
    };
    let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = loss(&tensors).backward().unwrap();
    for (i, var) in inputs.iter().enumerate() {
        let analytic = grads.get(var).expect("every input gets a gradient");
        let analytic = analytic.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let flat = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for j in 0..flat.len() {
            let at = |delta: f64| {
                let mut moved = flat.clone();
                moved[j] += delta;
                let mut tensors: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
                tensors[i] = Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap();
                loss(&tensors).to_scalar::<f64>().unwrap()
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (numeric - analytic[j]).abs() < 1e-7 * (1.0 + numeric.abs()),
                "input {i}, element {j}: finite difference {numeric}, gradient {}",
                analytic[j]
            );
        }
    }
}

#[test]
fn conv2d_gradients() {
    // (input, weight, stride, padding): odd, non-square, batch 1, strided with a rest, pointwise.
    let cases: &[(&[usize], &[usize], usize, usize)] = &[
        (&[2, 5, 4, 3], &[2, 3, 3, 3], 1, 1),
        (&[1, 1, 7, 2], &[3, 2, 3, 3], 1, 1),
        (&[1, 6, 5, 2], &[2, 2, 3, 3], 2, 1),
        (&[3, 4, 4, 1], &[2, 1, 3, 2], 2, 0),
        (&[2, 3, 3, 4], &[3, 4, 1, 1], 1, 0),
        (&[1, 9, 11, 1], &[1, 1, 5, 5], 1, 2),
    ];
    for &(x, w, stride, padding) in cases {
        check(&[x, w, &w[..1]], |t| conv2d(&t[0], &t[1], &t[2], stride, padding));
    }
}

#[test]
fn conv2d_gradients_of_a_transposed_input() {
    check(&[&[2, 3, 5, 4], &[2, 4, 3, 3], &[2]], |t| {
        conv2d(&t[0].transpose(1, 2)?, &t[1], &t[2], 1, 1)
    });
}

/// Greatest difference of two tensors, relative to the greatest value of the second.
pub(super) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let most = |x: &Tensor| x.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    let a = a.to_dtype(DType::F64).unwrap();
    let b = b.to_dtype(DType::F64).unwrap();
    most(&(&a - &b).unwrap()).unwrap() / most(&b).unwrap()
}

/// Shapes that reach every way of computing in f32: (n, h, w, c, o, kernel, stride, padding).
pub(super) const SHAPES: [[usize; 8]; 12] = [
    // 3x3 between whole panels of channels: even and odd sides, one tile, many bands, one line.
    [2, 8, 8, 32, 64, 3, 1, 1],
    [3, 7, 9, 64, 32, 3, 1, 1],
    [1, 1, 1, 32, 32, 3, 1, 1],
    [1, 33, 20, 32, 32, 3, 1, 1],
    [9, 4, 4, 32, 32, 3, 1, 0],
    [2, 5, 6, 32, 32, 3, 1, 2],
    // All others: few channels, part of a panel, strides, pointwise, a whole image's kernel.
    [5, 7, 7, 3, 4, 3, 1, 1],
    [1, 40, 33, 2, 40, 3, 2, 1],
    [2, 9, 6, 32, 32, 3, 2, 1],
    [70, 2, 2, 24, 33, 1, 1, 0],
    [7, 1, 1, 50, 70, 1, 1, 0],
    [2, 6, 5, 12, 24, 5, 1, 0],
];

#[test]
fn fast_conv2d_equals_the_definition() {
    for [n, h, w, c, o, size, stride, padding] in SHAPES {
        let run = |dtype: DType| {
            let var = |shape: &[usize], salt| {
                Var::from_tensor(&values(shape, salt).to_dtype(dtype).unwrap()).unwrap()
            };
            let vars = [var(&[n, h, w, c], 1), var(&[o, c, size, size], 2), var(&[o], 3)];
            let y = conv2d(&vars[0], &vars[1], &vars[2], stride, padding).unwrap();
            let factor = values(y.dims(), 4).to_dtype(dtype).unwrap();
            let grads = (&y * factor).unwrap().sum_all().unwrap().backward().unwrap();
            let grads = vars.map(|var| grads.get(&var).unwrap().clone());
            [vec![y], grads.to_vec()].concat()
        };
        for (fast, exact) in run(DType::F32).iter().zip(run(DType::F64)) {
            let off = apart(fast, &exact);
            assert!(off < 2e-6, "{n} x {h} x {w}, {c} to {o}, {size}: {off}");
        }
    }
}

#[test]
fn conv2d_does_not_depend_on_the_threads() {
    for [n, h, w, c, o, size, stride, padding] in SHAPES {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let x = values(&[n, h, w, c], 1).to_dtype(DType::F32).unwrap();
                let weight = values(&[o, c, size, size], 2).to_dtype(DType::F32).unwrap();
                let weight = Var::from_tensor(&weight).unwrap();
                let bias = values(&[o], 3).to_dtype(DType::F32).unwrap();
                let y = conv2d(&x, &weight, &bias, stride, padding).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                (bits(&y), bits(grads.get(&weight).unwrap()))
            })
        };
        assert!(run(1) == run(3), "{n} x {h} x {w}, {c} to {o}, {size}");
    }
}

#[test]
fn conv2d_equals_candle() {
    for [n, h, w, c, o, size, stride, padding] in SHAPES {
        let f32s = |shape: &[usize], salt| values(shape, salt).to_dtype(DType::F32).unwrap();
        let (x, weight) = (f32s(&[n, h, w, c], 1), f32s(&[o, c, size, size], 2));
        let bias = f32s(&[o], 3);
        let ours = conv2d(&x, &weight, &bias, stride, padding).unwrap();
        let theirs = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let theirs = theirs.conv2d(&weight, padding, stride, 1, 1).unwrap();
        let theirs = theirs.permute((0, 2, 3, 1)).unwrap().broadcast_add(&bias).unwrap();
        assert!(apart(&ours, &theirs) < 2e-6);
    }
}

#[test]
fn a_frozen_conv2d_adds_the_residual_and_passes_gradients_on() {
    for (c, o, size) in [(32, 32, 3), (5, 7, 1)] {
        let f32s = |shape: &[usize], salt| values(shape, salt).to_dtype(DType::F32).unwrap();
        let (x, weight) = (f32s(&[2, 6, 5, c], 1), f32s(&[o, c, size, size], 2));
        let (bias, residual) = (f32s(&[o], 3), f32s(&[2, 6, 5, o], 4));
        let (x, residual) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&residual).unwrap());
        let rows = StateDict::new([("w".into(), weight.clone())], &Device::Cpu)
            .take_weight("w", weight.dims(), Init::Zeros)
            .unwrap();
        let Weight::Source(rows, arithmetic) = rows else {
            panic!("constant weights on the CPU are rows")
        };
        let values = bias.to_vec1().unwrap();
        let conv =
            InferenceConv2d::new(rows, [o, c, size, size], values, size / 2, arithmetic).unwrap();
        let fused = conv.forward(&x, Some(&residual)).unwrap();
        let plain = conv2d(&x, &weight, &bias, 1, size / 2).unwrap();
        let plain = (plain + residual.as_tensor()).unwrap();
        assert!(apart(&fused, &plain) < 1e-6);
        let grads = |y: &Tensor| {
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [&x, &residual].map(|var| grads.get(var).unwrap().clone())
        };
        for (a, b) in grads(&fused).iter().zip(grads(&plain)) {
            assert!(apart(a, &b) < 1e-6);
        }
        assert!(conv.forward(&x, Some(&f32s(&[2, 6, 5, o + 1], 5))).is_err());
    }
}

#[test]
fn a_frozen_conv2d_rectifies_whatever_its_kernel() {
    // (channels, outputs, kernel, stride, padding): both ways of f32, and 8-bit integers.
    for (c, o, [kh, kw], stride, padding) in [
        (32, 64, [3, 3], 1, (1, 1)),
        (32, 32, [3, 3], 1, (0, 0)),
        (5, 40, [1, 7], 1, (0, 3)),
        (32, 33, [7, 1], 1, (3, 0)),
        (3, 8, [3, 3], 2, (0, 0)),
    ] {
        let x = f32_values(&[2, 9, 8, c], 1);
        let (weight, bias) = (f32_values(&[o, c, kh, kw], 2), f32_values(&[o], 3));
        let plain = conv2d_padded(&x, &weight, &bias, stride, padding).unwrap();
        let exact = {
            let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
            conv2d_padded(&wide(&x), &wide(&weight), &wide(&bias), stride, padding).unwrap()
        };
        assert!(apart(&plain, &exact) < 2e-6);
        let theirs = super::conv2d::columns::conv2d(&x, &weight, &bias, stride, padding).unwrap();
        assert!(apart(&plain, &theirs) < 2e-6);
        let rows = || {
            let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
            std::sync::Arc::new(super::DenseWeight::new(values, c * kh * kw))
        };
        let frozen = |arithmetic| {
            InferenceConv2d::new(rows(), [o, c, kh, kw], bias.to_vec1().unwrap(), 0, arithmetic)
                .unwrap()
                .with_stride(stride)
                .with_padding(padding)
        };
        for arithmetic in [super::ConvArithmetic::Float, super::ConvArithmetic::Integer] {
            let expected = frozen(arithmetic).forward(&x, None).unwrap().relu().unwrap();
            let rectified = frozen(arithmetic).with_relu().forward(&x, None).unwrap();
            assert_eq!(apart(&rectified, &expected), 0.0);
        }
        let x = Var::from_tensor(&x).unwrap();
        let y = frozen(super::ConvArithmetic::Float).with_relu().forward(&x, None).unwrap();
        assert!(y.backward().unwrap_err().to_string().contains("no gradient"));
    }
}

#[test]
fn concat_all_equals_candle() {
    let map = |c| f32_values(&[2, 3, 4, c], c as u64);
    for maps in [vec![map(3)], vec![map(1), map(7)], vec![map(32), map(5), map(64), map(2)]] {
        let ours = concat_all(&maps).unwrap();
        assert_eq!(apart(&ours, &Tensor::cat(&maps, 3).unwrap()), 0.0);
    }
    assert!(concat_all(&[]).is_err());
    assert!(concat_all(&[map(2), f32_values(&[2, 4, 3, 2], 1)]).is_err());
    check(&[&[2, 2, 3], &[2, 2, 1], &[2, 2, 2]], concat_all);
}

#[test]
fn conv2d_refuses_what_does_not_fit() {
    let x = values(&[1, 4, 4, 2], 1);
    let bias = values(&[3], 2);
    for (w, padding) in [(vec![3, 1, 3, 3], 1), (vec![3, 2, 3, 3], 3), (vec![2, 2, 3, 3], 1)] {
        assert!(conv2d(&x, &values(&w, 3), &bias, 1, padding).is_err());
    }
}

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

/// Shapes of maps: small, odd, many blocks of pixels, channels that are no power of two.
const MAPS: [[usize; 4]; 3] = [[2, 7, 5, 32], [1, 32, 32, 256], [3, 4, 4, 96]];

pub(super) fn f32_values(shape: &[usize], salt: u64) -> Tensor {
    values(shape, salt).to_dtype(DType::F32).unwrap()
}

fn assert_close(ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.shape(), theirs.shape());
    let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
    let difference = difference.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
    assert!(difference < 1e-5, "off by {difference}");
}

/// The values and gradients of two computations of channels-last maps are close.
fn compare(
    shapes: &[&[usize]],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    theirs: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let inputs: Vec<Var> = (1..)
        .zip(shapes)
        .map(|(salt, shape)| Var::from_tensor(&f32_values(shape, salt)).unwrap())
        .collect();
    let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let results = [ours(&tensors).unwrap(), theirs(&tensors).unwrap()];
    assert_close(&results[0], &results[1]);
    let weights = (f32_values(results[0].dims(), 99) * 1e-3).unwrap();
    let [ours, theirs] =
        results.map(|y| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap());
    for input in &inputs {
        assert_close(ours.get(input).unwrap(), theirs.get(input).unwrap());
    }
}

/// An operation on `[n, c, h, w]`, applied to `[n, h, w, c]`.
fn channels_first(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    f(&x.permute((0, 3, 1, 2))?.contiguous()?)?.permute((0, 2, 3, 1))?.contiguous()
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

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let shape = [2, 40, 30, 64];
            let inputs: Vec<Var> = [(&shape[..], 1), (&[2, 64], 2), (&[2, 64], 3)]
                .map(|(shape, salt)| Var::from_tensor(&f32_values(shape, salt)).unwrap())
                .to_vec();
            let x = inputs[0].as_tensor();
            let y = group_norm(x, &inputs[1], &inputs[2], 32, 1e-5, Activation::Silu).unwrap();
            let y = dropout_where(&y, &f32_values(&shape, 4), 0.1).unwrap();
            let y = concat(&add(&y, x).unwrap(), x).unwrap();
            let y = upsample2(&downsample2(&y).unwrap()).unwrap();
            let grads = y.sqr().unwrap().backward().unwrap();
            let gradients = inputs.iter().map(|input| grads.get(input).unwrap().clone());
            gradients
                .chain([y])
                .flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        })
    };
    assert!(bits(1) == bits(2));
}

#[test]
fn attention_gradients() {
    for order in [QkvOrder::Parts, QkvOrder::Heads] {
        check(&[&[1, 7, 12]], |t| attention(&t[0], 1, order));
        check(&[&[2, 5, 12]], |t| attention(&t[0], 2, order));
        // More than one block of queries.
        check(&[&[1, 67, 6]], |t| attention(&t[0], 1, order));
    }
}

#[test]
fn attention_gradients_of_a_transposed_input() {
    check(&[&[1, 6, 5]], |t| attention(&t[0].transpose(1, 2)?, 2, QkvOrder::Heads));
}

#[test]
fn resampling_gradients() {
    check(&[&[2, 4, 6, 3]], |t| upsample2(&t[0]));
    check(&[&[1, 3, 2, 37]], |t| upsample2(&t[0]));
    check(&[&[1, 7, 5, 2]], |t| downsample2(&t[0]));
    check(&[&[2, 2, 3, 37]], |t| downsample2(&t[0]));
    check(&[&[1, 3, 5, 4]], |t| downsample2(&t[0].transpose(1, 3)?));
    check(&[&[2, 3, 5, 4]], |t| upsample2(&t[0].transpose(1, 3)?));
    // The trap in candle's own upsampling: a second path into the same input.
    check(&[&[1, 3, 3, 2]], |t| upsample2(&t[0])? + upsample2(&t[0].sqr()?)?);
}

#[test]
fn resampling_values() {
    let x = Tensor::new(&[[1f64, 2., 9.], [3., 6., 9.], [9., 9., 9.]], &Device::Cpu).unwrap();
    let x = x.reshape((1, 3, 3, 1)).unwrap();
    let down = downsample2(&x).unwrap();
    assert_eq!(down.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [3.0]);
    let up = upsample2(&x.narrow(1, 0, 1).unwrap()).unwrap();
    assert_eq!(up.dims(), [1, 2, 6, 1]);
    let expected = [1., 1., 2., 2., 9., 9., 1., 1., 2., 2., 9., 9.];
    assert_eq!(up.flatten_all().unwrap().to_vec1::<f64>().unwrap(), expected);
    assert!(downsample2(&x.narrow(1, 0, 1).unwrap()).is_err());
}

#[test]
fn resampling_equals_a_composite() {
    for shape in MAPS {
        compare(
            &[&shape],
            |t| downsample2(&t[0]),
            |t| {
                let (h, w) = (shape[1] / 2 * 2, shape[2] / 2 * 2);
                let even = t[0].narrow(1, 0, h)?.narrow(2, 0, w)?;
                channels_first(&even, |x| x.avg_pool2d(2))
            },
        );
        compare(
            &[&shape],
            |t| upsample2(&t[0]),
            |t| {
                let [n, h, w, c] = shape;
                let wide = t[0].reshape((n * h, w, 1, c))?;
                let wide = Tensor::cat(&[&wide, &wide], 2)?.reshape((n, h, 1, 2 * w * c))?;
                Tensor::cat(&[&wide, &wide], 2)?.reshape((n, 2 * h, 2 * w, c))
            },
        );
    }
}

#[test]
fn join_gradients() {
    check(&[&[1, 3, 5, 2], &[1, 3, 5, 2]], |t| add(&t[0], &t[1]));
    check(&[&[2, 3, 5, 2], &[2, 5, 3, 2]], |t| add(&t[0], &t[1].transpose(1, 2)?));
    check(&[&[1, 3, 5, 2], &[1, 3, 5, 3]], |t| concat(&t[0], &t[1]));
    check(&[&[2, 3, 2], &[2, 4, 3]], |t| concat(&t[0], &t[1].transpose(1, 2)?));
    check(&[&[2, 3, 2]], |t| add(&t[0], &concat(&t[0].narrow(2, 1, 1)?, &t[0].narrow(2, 0, 1)?)?));
}

#[test]
fn join_equals_candle() {
    for shape @ [n, h, w, c] in MAPS {
        compare(&[&shape, &shape], |t| add(&t[0], &t[1]), |t| &t[0] + &t[1]);
        let other = [n, h, w, c / 2 + 1];
        compare(&[&shape, &other], |t| concat(&t[0], &t[1]), |t| Tensor::cat(&[&t[0], &t[1]], 3));
    }
    let (x, wide) = (values(&[2, 3, 2], 1), values(&[2, 3, 3], 2));
    assert!(add(&x, &wide).is_err() && concat(&x, &values(&[2, 2, 2], 3)).is_err());
    assert_eq!(concat(&x, &wide).unwrap().dims(), [2, 3, 5]);
}

#[test]
fn dropout_gradients_and_values() {
    let mask = Tensor::new(&[0.1, 0.25, 0.3, 0.99], &Device::Cpu).unwrap();
    check(&[&[4]], |t| dropout_where(&t[0], &mask, 0.25));
    let ones = Tensor::ones(4, DType::F64, &Device::Cpu).unwrap();
    let y = dropout_where(&ones, &mask, 0.25).unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(y, [0.0, 4.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0]);
    for shape in MAPS {
        let mask = f32_values(&shape, 5).abs().unwrap();
        compare(
            &[&shape],
            |t| dropout_where(&t[0], &mask, 0.3),
            |t| &t[0] * (mask.ge(0.3)?.to_dtype(DType::F32)? / 0.7)?,
        );
    }
    assert!(dropout_where(&ones, &values(&[2], 1), 0.25).is_err());
}

#[test]
fn other_types_go_by_operations_of_candle() {
    type Operation<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<Tensor>;
    let mask = f32_values(&[2, 5, 4, 6], 3).abs().unwrap();
    let affine = f32_values(&[2, 6], 4);
    let operations: [Operation<'_>; 6] = [
        &|x, affine| group_norm(x, affine, affine, 3, 1e-5, Activation::Silu),
        &|x, _| upsample2(x),
        &|x, _| downsample2(x),
        &|x, _| add(x, x),
        &|x, _| concat(x, x),
        &|x, _| dropout_where(x, &mask, 0.5),
    ];
    let x = f32_values(&[2, 5, 4, 6], 1);
    for f in operations {
        let ours = f(&x, &affine).unwrap();
        let [x, affine] = [&x, &affine].map(|t| t.to_dtype(DType::F16).unwrap());
        let theirs = f(&x, &affine).unwrap();
        assert_eq!((theirs.dtype(), theirs.shape()), (DType::F16, ours.shape()));
        let theirs = theirs.to_dtype(DType::F32).unwrap();
        let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 2e-3);
    }
}
