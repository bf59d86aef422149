//! Gradients against central finite differences in f64, and values against candle's own ops.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Activation, conv2d, downsample2, dropout, group_norm, upsample2};

/// Deterministic values in `[-1, 1)`, different for each salt.
fn values(shape: &[usize], salt: u64) -> Tensor {
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
fn check(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
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
        (&[2, 3, 5, 4], &[2, 3, 3, 3], 1, 1),
        (&[1, 2, 1, 7], &[3, 2, 3, 3], 1, 1),
        (&[1, 2, 6, 5], &[2, 2, 3, 3], 2, 1),
        (&[3, 1, 4, 4], &[2, 1, 3, 2], 2, 0),
        (&[2, 4, 3, 3], &[3, 4, 1, 1], 1, 0),
        (&[1, 1, 18, 31], &[1, 1, 5, 5], 1, 2),
    ];
    for &(x, w, stride, padding) in cases {
        check(&[x, w, &w[..1]], |t| conv2d(&t[0], &t[1], &t[2], stride, padding));
    }
}

#[test]
fn conv2d_gradients_of_a_transposed_input() {
    check(&[&[2, 4, 5, 3], &[2, 3, 3, 3], &[2]], |t| {
        conv2d(&t[0].transpose(1, 3)?, &t[1], &t[2], 1, 1)
    });
}

#[test]
fn conv2d_equals_candle_on_tiled_sizes() {
    for (x, w, stride, padding) in [
        ([5, 3, 7, 7], [4, 3, 3, 3], 1, 1),
        ([2, 3, 28, 28], [8, 3, 3, 3], 1, 1),
        ([1, 2, 40, 33], [4, 2, 3, 3], 2, 1),
        ([70, 2, 2, 2], [3, 2, 1, 1], 1, 0),
    ] {
        let (x, w) = (values(&x, 1), values(&w, 2));
        let (x, w) = (x.to_dtype(DType::F32).unwrap(), w.to_dtype(DType::F32).unwrap());
        let bias = values(&[w.dim(0).unwrap()], 3).to_dtype(DType::F32).unwrap();
        let ours = conv2d(&x, &w, &bias, stride, padding).unwrap();
        let theirs = x.conv2d(&w, padding, stride, 1, 1).unwrap();
        let theirs = theirs.broadcast_add(&bias.reshape((1, (), 1, 1)).unwrap()).unwrap();
        let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);
    }
}

#[test]
fn conv2d_refuses_what_does_not_fit() {
    let x = values(&[1, 2, 4, 4], 1);
    let bias = values(&[3], 2);
    for (w, padding) in [(vec![3, 1, 3, 3], 1), (vec![3, 2, 3, 3], 3), (vec![2, 2, 3, 3], 1)] {
        assert!(conv2d(&x, &values(&w, 3), &bias, 1, padding).is_err());
    }
}

#[test]
fn group_norm_gradients() {
    for activation in [Activation::Identity, Activation::Silu] {
        check(&[&[2, 6, 3, 5], &[2, 6], &[2, 6]], |t| {
            group_norm(&t[0], &t[1], &t[2], 3, 1e-5, activation)
        });
        check(&[&[1, 4, 40], &[1, 4], &[1, 4]], |t| {
            group_norm(&t[0], &t[1], &t[2], 4, 1e-5, activation)
        });
    }
}

#[test]
fn resampling_gradients() {
    check(&[&[2, 3, 4, 6]], |t| upsample2(&t[0]));
    check(&[&[1, 2, 7, 5]], |t| downsample2(&t[0]));
    // The trap in candle's own upsampling: a second path into the same input.
    check(&[&[1, 2, 3, 3]], |t| upsample2(&t[0])? + upsample2(&t[0].sqr()?)?);
}

#[test]
fn resampling_values() {
    let x = Tensor::new(&[[[[1f64, 2., 9.], [3., 6., 9.], [9., 9., 9.]]]], &Device::Cpu).unwrap();
    let down = downsample2(&x).unwrap();
    assert_eq!(down.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [3.0]);
    let up = upsample2(&x.narrow(2, 0, 1).unwrap()).unwrap();
    let expected = [1., 1., 2., 2., 9., 9., 1., 1., 2., 2., 9., 9.];
    assert_eq!(up.flatten_all().unwrap().to_vec1::<f64>().unwrap(), expected);
}

#[test]
fn dropout_gradients_and_values() {
    let mask = Tensor::new(&[0.1, 0.25, 0.3, 0.99], &Device::Cpu).unwrap();
    check(&[&[4]], |t| dropout(&t[0], &mask, 0.25));
    let ones = Tensor::ones(4, DType::F64, &Device::Cpu).unwrap();
    let y = dropout(&ones, &mask, 0.25).unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(y, [0.0, 4.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0]);
}
