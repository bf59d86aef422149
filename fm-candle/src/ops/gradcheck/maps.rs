//! Operations without weights: attention, resampling, joining, dropout.

use candle_core::{DType, Device, Tensor};

use super::{MAPS, apart, channels_first, check, compare, f32_values, values};
use crate::ops::dropout::dropout_where;
use crate::ops::{QkvOrder, add, attention, concat, concat_all, downsample2, upsample2};

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
