//! Tests of the net and of its training.

use super::train::{LeNetTraining, cross_entropy, draw, gradients, train};
use super::*;
use crate::model::RandomInit;

/// `n` images of two kinds: a bright upper or a bright lower half, with a pattern.
fn halves(n: usize, channels: usize) -> Images {
    let mut images =
        Images { n, channels, height: SIDE, width: SIDE, pixels: Vec::new(), labels: Vec::new() };
    for i in 0..n {
        let lower = i % 2;
        for at in 0..channels * SIDE * SIDE {
            let bright = (at / SIDE % SIDE) / 14 == lower;
            let pattern = u8::try_from((at * 7 + i) % 50).unwrap();
            images.pixels.push(if bright { 200 } else { 10 } + pattern);
        }
        images.labels.push(if lower == 1 { 7 } else { 3 });
    }
    images
}

#[test]
fn shapes_are_those_of_the_table() {
    let net = LeNet::new(&mut RandomInit::new(1, &Device::Cpu), &Device::Cpu).unwrap();
    let x = input(&halves(3, 1), 0..3, &Device::Cpu).unwrap();
    assert_eq!(net.features(&x).unwrap().dims(), [3, DIM]);
    assert_eq!(net.logits(&x).unwrap().dims(), [3, CLASSES]);
    let error = net.features(&x.narrow(2, 0, 27).unwrap()).unwrap_err().to_string();
    assert!(error.contains("[3, 1, 27, 28]"), "{error}");
}

#[test]
fn every_variable_receives_a_gradient() {
    let mut initial = RandomInit::new(1, &Device::Cpu);
    let net = LeNet::new(&mut initial, &Device::Cpu).unwrap();
    let config = LeNetTraining::default();
    let images = halves(40, 1);
    let indices: Vec<u32> = (0..40).collect();
    let (loss, grads) =
        gradients(&net, &initial.vars, &images, &indices, 0, &config, &Device::Cpu).unwrap();
    assert!((loss - 10.0_f64.ln()).abs() < 0.06, "{loss}");
    for ((name, var), grad) in initial.vars.iter().zip(&grads) {
        let grad = grad.as_ref().expect("every variable gets a gradient");
        assert_eq!(grad.dims(), var.dims());
        let size = grad.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size > 0.0 && size.is_finite(), "{name}");
    }
}

#[test]
fn gradients_match_finite_differences() {
    let mut initial = RandomInit::new(2, &Device::Cpu);
    let net = LeNet::new(&mut initial, &Device::Cpu).unwrap();
    let config = LeNetTraining { shift: 0, ..LeNetTraining::default() };
    let images = halves(4, 1);
    let loss = || {
        let of = |i| gradients(&net, &initial.vars, &images, &[i], 0, &config, &Device::Cpu);
        (0..4).map(|i| of(i).unwrap().0).sum::<f64>() / 4.0
    };
    let all = gradients(&net, &initial.vars, &images, &[0, 1, 2, 3], 0, &config, &Device::Cpu);
    let grads = all.unwrap().1;
    // Along its own gradient, a step of each variable changes the loss by |g|^2.
    for ((name, var), grad) in initial.vars.iter().zip(grads) {
        let grad = grad.unwrap();
        let square = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let step = 1e-2 / f64::from(square).sqrt();
        let at = var.as_tensor().copy().unwrap();
        let side = |sign: f64| {
            var.set(&(&at + (&grad * (sign * step)).unwrap()).unwrap()).unwrap();
            loss()
        };
        let slope = (side(1.0) - side(-1.0)) / (2.0 * step);
        var.set(&at).unwrap();
        let expected = f64::from(square);
        assert!((slope - expected).abs() < 0.02 * expected, "{name}: {slope} {expected}");
    }
}

#[test]
fn cross_entropy_matches_hand_computed_values() {
    let logits = Tensor::new(&[[0_f32, 0.0], [1000.0, 0.0]], &Device::Cpu).unwrap();
    let targets = Tensor::new(&[[1_f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let loss = cross_entropy(&logits, &targets).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - f32::midpoint(2_f32.ln(), 1000.0)).abs() < 1e-3, "{loss}");
}

#[test]
fn a_few_steps_learn_a_tiny_set_and_the_same_seed_repeats_them() {
    let images = halves(64, 1);
    let config = LeNetTraining { epochs: 4, batch_size: 16, ..LeNetTraining::default() };
    let run = || {
        let mut losses = Vec::new();
        let weights = train(&images, &config, &Device::Cpu, |_, loss, _| {
            losses.push(loss);
            Ok(())
        });
        (losses, weights.unwrap())
    };
    let (losses, weights) = run();
    assert_eq!(losses.len(), 4);
    assert!(losses[3] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(run().0, losses);
    let net = LeNet::load(weights.clone(), &Device::Cpu).unwrap();
    assert!((net.accuracy(&images).unwrap() - 1.0).abs() < 1e-9);
    assert!(LeNet::load(weights[1..].to_vec(), &Device::Cpu).is_err());
}

#[test]
fn features_do_not_depend_on_batches_or_further_channels() {
    let net = LeNet::new(&mut RandomInit::new(1, &Device::Cpu), &Device::Cpu).unwrap();
    let images = halves(BATCH + 3, 1);
    let all = net.rows(&images).unwrap();
    assert_eq!(all.len(), images.n * DIM);
    let last = net.rows(&images.subset(&[BATCH + 2]).unwrap()).unwrap();
    for (a, b) in all[(BATCH + 2) * DIM..].iter().zip(&last) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let mut colour = halves(1, 3);
    colour.pixels[SIDE * SIDE..].fill(99);
    let grey = net.rows(&halves(1, 1)).unwrap();
    assert_eq!(net.rows(&colour).unwrap(), grey);
}

#[test]
fn shifts_move_the_image_and_fill_with_black() {
    let mut images = halves(1, 1);
    images.pixels.fill(255);
    let config = LeNetTraining { shift: 3, ..LeNetTraining::default() };
    let mut seen = std::collections::HashSet::new();
    for epoch in 0..400 {
        let (x, _) = draw(&images, &[0], epoch, &config, &Device::Cpu).unwrap();
        let x = x.reshape((SIDE, SIDE)).unwrap().to_vec2::<f32>().unwrap();
        let white = x.iter().flatten().filter(|&&v| v > 0.0).count();
        assert!((25 * 25..=SIDE * SIDE).contains(&white), "{white}");
        seen.insert(white);
    }
    assert_eq!(seen.len(), 10, "all sizes of overlap occur");
}

#[test]
fn refuses_what_it_cannot_take() {
    let net = LeNet::new(&mut RandomInit::new(1, &Device::Cpu), &Device::Cpu).unwrap();
    let mut images = halves(2, 1);
    assert!(net.rows(&halves(2, 2)).is_err());
    images.labels[0] = 10;
    let config = LeNetTraining { batch_size: 2, ..LeNetTraining::default() };
    assert!(train(&images, &config, &Device::Cpu, |_, _, _| Ok(())).is_err());
    let config = LeNetTraining { batch_size: 3, ..LeNetTraining::default() };
    assert!(train(&halves(2, 1), &config, &Device::Cpu, |_, _, _| Ok(())).is_err());
    assert!(LeNet::decode(b"nonsense", &Device::Cpu).is_err());
}
