//! AdamW and the moving average of the weights, in one pass over memory.

use core::cell::RefCell;
use std::borrow::Cow;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::moments::{AdamMoments, MomentState};
use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::ops::cuda;

/// Elements of a job; its values stay in the cache between the update and the average.
const PIECE: usize = 1 << 14;

/// Settings of [`AdamW`]; the defaults are upstream's.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    /// Decay of the gradient's mean and of its square's.
    pub betas: (f64, f64),
    /// Added to the root in the denominator.
    pub eps: f64,
    /// Decoupled weight decay, in units of the learning rate.
    pub weight_decay: f64,
    /// Highest decay of the moving average of the weights; none keeps no average.
    pub ema_decay: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.01, ema_decay: None }
    }
}

/// AdamW (Loshchilov and Hutter, 2019) as torch computes it, then upstream's EMA:
///
/// ```text
/// w <- w (1 - lr weight_decay)
/// m <- b1 m + (1 - b1) g          s <- b2 s + (1 - b2) g^2
/// w <- w - lr / (1 - b1^k) m / (sqrt(s / (1 - b2^k)) + eps)
/// a <- a - (1 - d) (a - w),       d = min(ema_decay, (1 + n) / (10 + n))
/// ```
pub struct AdamW {
    config: AdamWConfig,
    /// Updates so far, `k`.
    pub updates: u64,
    /// Updates that the average has seen, `n`: those of the run, but for checkpoints of training in
    /// half precision, where an update may be skipped.
    pub averaged: u64,
    /// One state per parameter, in the parameters' order.
    states: Vec<MomentState>,
}

impl AdamW {
    /// A fresh state for these parameters.
    ///
    /// # Errors
    /// Parameters that are not f32.
    pub fn new(config: AdamWConfig, vars: &[(String, Var)]) -> Result<Self> {
        let states = vars
            .iter()
            .map(|(_, var)| {
                let values = var.flatten_all()?.to_vec1::<f32>()?;
                let zeros = vec![0.0; values.len()];
                let average = if config.ema_decay.is_some() { values } else { Vec::new() };
                let moments = AdamMoments { mean: zeros.clone(), square: zeros, average };
                MomentState::new(moments, var.device())
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, updates: 0, averaged: 0, states })
    }

    /// The settings.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// The states of the parameters, in their order, as read from the device.
    pub fn moments(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, AdamMoments>>> {
        self.states.iter().map(MomentState::read)
    }

    /// Replaces the state of a parameter.
    ///
    /// # Errors
    /// A device without room.
    pub(crate) fn set_moments(
        &mut self,
        index: usize,
        moments: AdamMoments,
        var: &Var,
    ) -> Result<()> {
        self.states[index] = MomentState::new(moments, var.device())?;
        Ok(())
    }

    /// Replaces the moving average of a parameter.
    ///
    /// # Errors
    /// As [`set_moments`](Self::set_moments).
    pub(super) fn set_average(&mut self, index: usize, average: Vec<f32>, var: &Var) -> Result<()> {
        let moments = self.states[index].read()?.into_owned();
        self.set_moments(index, AdamMoments { average, ..moments }, var)
    }

    /// Goes on with these settings, but for the average's.
    pub(super) fn take_up(&mut self, config: &AdamWConfig) {
        self.config = AdamWConfig { ema_decay: self.config.ema_decay, ..*config };
    }

    /// One update; a parameter without a gradient is treated as having a zero one, as upstream's
    /// label embedding in an unconditional batch.
    ///
    /// # Errors
    /// A gradient whose shape is not its parameter's.
    pub fn step(
        &mut self,
        vars: &[(String, Var)],
        grads: &[Option<Tensor>],
        lr: f64,
    ) -> Result<()> {
        self.updates += 1;
        self.averaged += 1;
        let step = Coefficients::new(&self.config, self.updates, self.averaged, lr);
        let jobs = vars.par_iter().zip(grads).zip(&mut self.states);
        jobs.with_min_len(per_thread(vars)).try_for_each(|(((_, var), grad), state)| {
            let grad = match grad {
                Some(grad) => grad.contiguous()?,
                None => var.zeros_like()?,
            };
            Ok(var.inplace_op2(&grad, &Update::new(&step, state))?)
        })
    }

    /// An update that is not made: the average alone follows the weights once more, as upstream's
    /// does.
    ///
    /// # Errors
    /// Weights that cannot be read from the device.
    pub fn skip(&mut self, vars: &[(String, Var)]) -> Result<()> {
        self.averaged += 1;
        let ema_rate = Coefficients::new(&self.config, 1, self.averaged, 0.0).ema_rate;
        if self.config.ema_decay.is_none() {
            return Ok(());
        }
        let jobs = vars.par_iter().zip(&mut self.states).with_min_len(per_thread(vars));
        jobs.try_for_each(|((_, var), state)| match state {
            MomentState::Host(AdamMoments { average, .. }) => {
                let values = var.flatten_all()?.to_vec1::<f32>()?;
                for (a, w) in average.iter_mut().zip(values) {
                    *a -= ema_rate * (*a - w);
                }
                Ok(())
            }
            #[cfg(feature = "cuda")]
            MomentState::Gpu(moments) => Ok(cuda::ema_update(moments, var, ema_rate)?),
        })
    }
}

/// Least parameters of a thread: a GPU is told what to do by one.
fn per_thread(vars: &[(String, Var)]) -> usize {
    if vars.first().is_some_and(|(_, var)| !var.device().is_cpu()) { vars.len() } else { 1 }
}

/// The gradients of the parameters, in their order.
pub fn of_parameters(vars: &[(String, Var)], mut grads: GradStore) -> Vec<Option<Tensor>> {
    vars.iter().map(|(_, var)| grads.remove(var)).collect()
}

/// Adds the gradients of one graph to the sums of several, parameter by parameter; on the CPU in
/// the memory of the sums, which are the gradients of the first graph.
///
/// # Errors
/// A gradient whose shape is not its sum's.
pub fn add_gradients(sums: &mut [Option<Tensor>], grads: Vec<Option<Tensor>>) -> Result<()> {
    sums.par_iter_mut().zip(grads).try_for_each(|(sum, grad)| {
        *sum = match (sum.take(), grad) {
            (Some(sum), Some(grad)) if sum.device().is_cpu() && sum.is_contiguous() => {
                sum.inplace_op2(&grad.contiguous()?, &Addition)?;
                Some(sum)
            }
            (Some(sum), Some(grad)) => Some((sum + grad)?),
            (sum, grad) => sum.or(grad),
        };
        Ok(())
    })
}

/// Euclidean norm of all gradients together; one that is missing counts as zero.
///
/// # Errors
/// An allocation that fails on the device.
pub fn norm(grads: &[Option<Tensor>]) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if grads.iter().flatten().any(|grad| grad.device().is_cuda()) {
        let grads: Vec<&Tensor> = grads.iter().flatten().collect();
        return Ok(cuda::sum_of_squares(&grads)?.sqrt());
    }
    let squares = grads.par_iter().flatten().map(|grad| -> Result<f64> {
        let (storage, layout) = grad.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        else {
            drop(storage);
            return Ok(f64::from(grad.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()?));
        };
        let square = |piece: &[f32]| piece.iter().map(|&g| f64::from(g * g)).sum::<f64>();
        let pieces: Vec<f64> = values[start..end].par_chunks(PIECE).map(square).collect();
        Ok(pieces.iter().sum())
    });
    let squares: Vec<f64> = squares.collect::<Result<_>>()?;
    Ok(squares.iter().sum::<f64>().sqrt())
}

/// The factors of one update.
struct Coefficients {
    /// `1 - lr weight_decay`.
    decay: f32,
    beta1: f32,
    beta2: f32,
    /// The learning rate with the first moment's bias correction, `lr / (1 - beta1^k)`.
    rate: f32,
    /// That of the second moment's root, `1 / sqrt(1 - beta2^k)`.
    bias_correction: f32,
    eps: f32,
    /// `1 - decay` of the average.
    ema_rate: f32,
}

impl Coefficients {
    #[expect(clippy::cast_possible_truncation, reason = "factors near 1")]
    fn new(config: &AdamWConfig, updates: u64, averaged: u64, lr: f64) -> Self {
        let k = i32::try_from(updates).unwrap_or(i32::MAX);
        let (b1, b2) = config.betas;
        let n = averaged as f64;
        let ema_decay = config.ema_decay.unwrap_or(1.0).min((1.0 + n) / (10.0 + n));
        Self {
            decay: (1.0 - lr * config.weight_decay) as f32,
            beta1: b1 as f32,
            beta2: b2 as f32,
            rate: (lr / (1.0 - b1.powi(k))) as f32,
            bias_correction: (1.0 / (1.0 - b2.powi(k)).sqrt()) as f32,
            eps: config.eps as f32,
            ema_rate: (1.0 - ema_decay) as f32,
        }
    }

    /// The arguments of the GPU kernel.
    #[cfg(feature = "cuda")]
    fn on_gpu(&self) -> cuda::AdamStep {
        let Self { decay, beta1, beta2, rate, bias_correction, eps, ema_rate } = *self;
        cuda::AdamStep { decay, beta1, beta2, rate, bias_correction, eps, ema_rate }
    }

    /// The update of one parameter, in parallel pieces.
    fn apply(&self, values: &mut [f32], grad: &[f32], state: &mut AdamMoments) {
        let AdamMoments { mean, square, average } = state;
        let arch = Arch::new();
        let moments = mean.par_chunks_mut(PIECE).zip(square.par_chunks_mut(PIECE));
        let pieces = values.par_chunks_mut(PIECE).zip(grad.par_chunks(PIECE)).zip(moments);
        if average.is_empty() {
            pieces.for_each(|((values, grad), (mean, square))| {
                arch.dispatch(
                    #[inline(always)]
                    || self.update(values, grad, mean, square),
                );
            });
        } else {
            let pieces = pieces.zip(average.par_chunks_mut(PIECE));
            pieces.for_each(|(((values, grad), (mean, square)), average)| {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        self.update(values, grad, mean, square);
                        for (a, &w) in average.iter_mut().zip(&*values) {
                            *a -= self.ema_rate * (*a - w);
                        }
                    },
                );
            });
        }
    }

    #[inline(always)]
    fn update(&self, values: &mut [f32], grad: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let moments = mean.iter_mut().zip(square);
        for ((w, &g), (m, s)) in values.iter_mut().zip(grad).zip(moments) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *s = self.beta2 * *s + (1.0 - self.beta2) * g * g;
            *w = *w * self.decay - self.rate * *m / (s.sqrt() * self.bias_correction + self.eps);
        }
    }
}

/// [`Coefficients::apply`] in a parameter's own memory.
struct Update<'a> {
    step: &'a Coefficients,
    /// In a cell, as an op gets itself by a shared reference.
    state: RefCell<&'a mut MomentState>,
}

impl<'a> Update<'a> {
    fn new(step: &'a Coefficients, state: &'a mut MomentState) -> Self {
        Self { step, state: RefCell::new(state) }
    }
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        values: &mut CpuStorage,
        lv: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        let (values, grad) = slices(self.name(), (values, lv), (grad, lg))?;
        match &mut **self.state.borrow_mut() {
            MomentState::Host(moments) => self.step.apply(values, grad, moments),
            #[cfg(feature = "cuda")]
            MomentState::Gpu(_) => bail!("adamw: the state is on a GPU, the parameter is not"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        values: &mut candle_core::CudaStorage,
        lv: &Layout,
        grad: &candle_core::CudaStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        match &mut **self.state.borrow_mut() {
            MomentState::Gpu(moments) => {
                cuda::adamw((values, lv), (grad, lg), moments, &self.step.on_gpu())
            }
            MomentState::Host(_) => bail!("adamw: the parameter is on a GPU, its state is not"),
        }
    }
}

/// `sum <- sum + gradient`.
struct Addition;

impl InplaceOp2 for Addition {
    fn name(&self) -> &'static str {
        "add_gradients"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        ls: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        let (sum, grad) = slices(self.name(), (sum, ls), (grad, lg))?;
        let arch = Arch::new();
        sum.par_chunks_mut(PIECE).zip(grad.par_chunks(PIECE)).for_each(|(sum, grad)| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for (sum, &g) in sum.iter_mut().zip(grad) {
                        *sum += g;
                    }
                },
            );
        });
        Ok(())
    }
}

/// The elements of a tensor under change and of a gradient for it.
fn slices<'a>(
    name: &str,
    (values, lv): (&'a mut CpuStorage, &Layout),
    (grad, lg): (&'a CpuStorage, &Layout),
) -> candle_core::Result<(&'a mut [f32], &'a [f32])> {
    if lv.shape() != lg.shape() {
        bail!("{name}: a gradient of shape {:?} for {:?}", lg.dims(), lv.dims())
    }
    match (values, lv.contiguous_offsets(), grad, lg.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((v0, v1)), CpuStorage::F32(grad), Some((g0, g1))) => {
            Ok((&mut values[v0..v1], &grad[g0..g1]))
        }
        _ => bail!("{name}: contiguous f32 tensors are needed"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn var(name: &str, values: &[f32], shape: (usize, usize)) -> (String, Var) {
        (name.into(), Var::from_slice(values, shape, &Device::Cpu).unwrap())
    }

    #[test]
    fn an_update_equals_the_formulas_in_all_pieces() {
        let n = 2 * PIECE + 5;
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let grads: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
        let vars = [var("w", &values, (1, n)), var("unused", &[1.0, -2.0], (2, 1))];
        let config = AdamWConfig { ema_decay: Some(0.999), ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(config, &vars).unwrap();
        let grad = Tensor::from_slice(&grads, (1, n), &Device::Cpu).unwrap();
        optimizer.step(&vars, &[Some(grad), None], 0.01).unwrap();

        // After one step the unbiased moments are g and g^2; the average follows by 1 - 2/11.
        let updated = vars[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let moments = optimizer.moments().next().unwrap().unwrap();
        for (i, (&w, &g)) in values.iter().zip(&grads).enumerate() {
            let expected = w * (1.0 - 1e-4) - 0.01 * g / (g.abs() + 1e-8);
            assert!((updated[i] - expected).abs() < 1e-5, "{i}: {} not {expected}", updated[i]);
            let average = w + 9.0 / 11.0 * (expected - w);
            assert!((moments.average[i] - average).abs() < 1e-5);
        }
        let unused = vars[1].1.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(unused, [1.0 - 1e-4, -2.0 * (1.0 - 1e-4)]);
    }

    #[test]
    fn a_transposed_gradient_is_read_in_its_own_order() {
        let vars = [var("w", &[0.0; 6], (2, 3))];
        let grad = Tensor::new(&[[1f32, -1.0], [1.0, 1.0], [-1.0, 1.0]], &Device::Cpu).unwrap();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &vars).unwrap();
        optimizer.step(&vars, &[Some(grad.t().unwrap())], 1.0).unwrap();
        let signs = vars[0].1.to_vec2::<f32>().unwrap().concat();
        let signs: Vec<f32> = signs.into_iter().map(f32::signum).collect();
        assert_eq!(signs, [-1.0, -1.0, 1.0, 1.0, -1.0, -1.0]);
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let vars = [var("w", &[0.0; 6], (2, 3))];
        let grad = Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &vars).unwrap();
        assert!(optimizer.step(&vars, &[Some(grad)], 1.0).is_err());
    }

    #[test]
    fn the_norm_is_over_all_parameters() {
        let column = Tensor::from_vec(vec![2f32; 3 * PIECE], (3, PIECE), &Device::Cpu).unwrap();
        let turned = Tensor::new(&[[6f32, 0.0], [0.0, 8.0]], &Device::Cpu).unwrap().t().unwrap();
        let expected = (4.0 * 3.0 * PIECE as f64 + 100.0).sqrt();
        let found = norm(&[Some(column), None, Some(turned)]).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} for {expected}");
    }

    /// Both gradients of a sum are the same values; adding in place needs memory of their own.
    #[test]
    fn gradients_add_up_over_graphs() {
        let vars = [var("a", &[1.0, 2.0], (1, 2)), var("b", &[3.0, 4.0], (1, 2))];
        let mut sums = vec![None; 2];
        for _ in 0..3 {
            let y = (vars[0].1.as_tensor() + vars[1].1.as_tensor()).unwrap();
            let grads = of_parameters(&vars, y.sum_all().unwrap().backward().unwrap());
            add_gradients(&mut sums, grads).unwrap();
        }
        for sum in sums {
            assert_eq!(sum.unwrap().to_vec2::<f32>().unwrap(), [[3.0, 3.0]]);
        }
    }
}
