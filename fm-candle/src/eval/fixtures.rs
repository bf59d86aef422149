//! Small nets and a sampler for the tests of this module.

use candle_core::{Device, Tensor};

use crate::model::{RandomInit, StateDict, UNet, UNetConfig};
use crate::random::Domain;
use crate::sample::BatchSampler;
use crate::solver::{Method, SolverOptions, uniform_grid};

/// Weights by name.
pub(super) type Tensors = Vec<(String, Tensor)>;

/// Weights of a net whose last convolution, zero at the start, does something.
pub(super) fn tensors(config: &UNetConfig) -> Tensors {
    let mut initial = RandomInit::new(5, &Device::Cpu);
    UNet::new(config, &mut initial).unwrap();
    let stir = |(i, (name, var)): (usize, (String, candle_core::Var))| {
        let mut noise = vec![0f32; var.elem_count()];
        Domain::Analysis.stream(9).fill_normal(i as u64, 0, &mut noise);
        let noise = Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap();
        (name, (var.as_tensor() + (noise * 0.05).unwrap()).unwrap().detach())
    };
    initial.vars.into_iter().enumerate().map(stir).collect()
}

/// The weights with a small error, and its norm.
pub(super) fn changed(tensors: &Tensors) -> (Tensors, f64) {
    let mut square = 0.0;
    let changed = tensors.iter().map(|(name, tensor)| {
        let error = (tensor.sin().unwrap() * 0.01).unwrap();
        square += f64::from(error.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        (name.clone(), (tensor + error).unwrap())
    });
    (changed.collect(), square.sqrt())
}

/// The net of these weights.
pub(super) fn net(config: &UNetConfig, tensors: &Tensors) -> UNet {
    UNet::new(config, &mut StateDict::new(tensors.clone(), &Device::Cpu)).unwrap()
}

/// A sampler by a fixed-step method.
pub(super) fn sampler(method: Method, step: f64) -> BatchSampler {
    BatchSampler {
        method,
        grid: uniform_grid(step).unwrap(),
        options: SolverOptions::default(),
        cfg_scale: 0.0,
        batch_size: 4,
    }
}
