//! Gradients against central finite differences in f64, and values against candle's own ops.
//!
//! | module | idea |
//! |---|---|
//! | [`conv2d`] | convolution, and the frozen one |
//! | [`maps`] | operations without weights: attention, resampling, joining, dropout |
//! | [`norm`] | group norm |

mod conv2d;
mod maps;
mod norm;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::dropout::dropout_where;
use super::{Activation, add, concat, downsample2, group_norm, upsample2};

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

pub(super) fn f32_values(shape: &[usize], salt: u64) -> Tensor {
    values(shape, salt).to_dtype(DType::F32).unwrap()
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

/// Shapes of maps: small, odd, many blocks of pixels, channels that are no power of two.
const MAPS: [[usize; 4]; 3] = [[2, 7, 5, 32], [1, 32, 32, 256], [3, 4, 4, 96]];

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

/// Greatest difference of two tensors, relative to the greatest value of the second.
pub(super) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let most = |x: &Tensor| x.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    let a = a.to_dtype(DType::F64).unwrap();
    let b = b.to_dtype(DType::F64).unwrap();
    most(&(&a - &b).unwrap()).unwrap() / most(&b).unwrap()
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
