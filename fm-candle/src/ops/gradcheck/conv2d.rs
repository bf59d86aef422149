//! Convolution: gradients, every way of computing it, and the frozen one.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::{SHAPES, apart, check, f32_values, values};
use crate::model::{Init, StateDict, Weight, WeightLoader};
use crate::ops::conv2d::columns;
use crate::ops::{ConvArithmetic, DenseWeight, InferenceConv2d, conv2d, conv2d_padded};

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
        let theirs = columns::conv2d(&x, &weight, &bias, stride, padding).unwrap();
        assert!(apart(&plain, &theirs) < 2e-6);
        let rows = || {
            let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
            Arc::new(DenseWeight::new(values, c * kh * kw))
        };
        let frozen = |arithmetic| {
            InferenceConv2d::new(rows(), [o, c, kh, kw], bias.to_vec1().unwrap(), 0, arithmetic)
                .unwrap()
                .with_stride(stride)
                .with_padding(padding)
        };
        for arithmetic in [ConvArithmetic::Float, ConvArithmetic::Integer] {
            let expected = frozen(arithmetic).forward(&x, None).unwrap().relu().unwrap();
            let rectified = frozen(arithmetic).with_relu().forward(&x, None).unwrap();
            assert_eq!(apart(&rectified, &expected), 0.0);
        }
        let x = Var::from_tensor(&x).unwrap();
        let y = frozen(ConvArithmetic::Float).with_relu().forward(&x, None).unwrap();
        assert!(y.backward().unwrap_err().to_string().contains("no gradient"));
    }
}

#[test]
fn conv2d_refuses_what_does_not_fit() {
    let x = values(&[1, 4, 4, 2], 1);
    let bias = values(&[3], 2);
    for (w, padding) in [(vec![3, 1, 3, 3], 1), (vec![3, 2, 3, 3], 3), (vec![2, 2, 3, 3], 1)] {
        assert!(conv2d(&x, &values(&w, 3), &bias, 1, padding).is_err());
    }
}
