//! AdamW and the moving average of the weights, in one pass over memory.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use pulp::Arch;
use rayon::prelude::*;

use crate::error::Result;

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

/// The running state of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of the gradient.
    pub mean: Vec<f32>,
    /// Mean of its square.
    pub square: Vec<f32>,
    /// Moving average of the parameter; empty where none is kept.
    pub average: Vec<f32>,
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
    pub moments: Vec<Moments>,
}

impl AdamW {
    /// A fresh state for these parameters.
    ///
    /// # Errors
    /// Parameters that are not f32.
    pub fn new(config: AdamWConfig, vars: &[(String, Var)]) -> Result<Self> {
        let moments = vars
            .iter()
            .map(|(_, var)| {
                let values = var.flatten_all()?.to_vec1::<f32>()?;
                let zeros = vec![0.0; values.len()];
                let average = if config.ema_decay.is_some() { values } else { Vec::new() };
                Ok(Moments { mean: zeros.clone(), square: zeros, average })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, updates: 0, averaged: 0, moments })
    }

    /// The settings.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
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
        vars.par_iter().zip(grads).zip(&mut self.moments).try_for_each(
            |(((_, var), grad), state)| {
                let mut values = var.flatten_all()?.to_vec1::<f32>()?;
                let grad = match grad {
                    Some(grad) => grad.flatten_all()?.to_vec1::<f32>()?,
                    None => vec![0.0; values.len()],
                };
                Arch::new().dispatch(
                    #[inline(always)]
                    || step.apply(&mut values, &grad, state),
                );
                var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
                Ok(())
            },
        )
    }
}

/// Adds the gradients of one graph to the sums of several, parameter by parameter.
///
/// # Errors
/// A gradient whose shape is not its sum's.
pub fn add_gradients(
    sums: &mut [Option<Tensor>],
    vars: &[(String, Var)],
    mut grads: GradStore,
) -> Result<()> {
    for ((_, var), sum) in vars.iter().zip(sums) {
        *sum = match (sum.take(), grads.remove(var)) {
            (Some(sum), Some(grad)) => Some((sum + grad)?),
            (sum, grad) => sum.or(grad),
        };
    }
    Ok(())
}

/// The factors of one update.
struct Coefficients {
    shrink: f32,
    beta1: f32,
    beta2: f32,
    rate: f32,
    unbias: f32,
    eps: f32,
    follow: f32,
}

impl Coefficients {
    #[expect(clippy::cast_possible_truncation, reason = "factors near 1")]
    fn new(config: &AdamWConfig, updates: u64, averaged: u64, lr: f64) -> Self {
        let k = i32::try_from(updates).unwrap_or(i32::MAX);
        let (b1, b2) = config.betas;
        let n = averaged as f64;
        let decay = config.ema_decay.unwrap_or(1.0).min((1.0 + n) / (10.0 + n));
        Self {
            shrink: (1.0 - lr * config.weight_decay) as f32,
            beta1: b1 as f32,
            beta2: b2 as f32,
            rate: (lr / (1.0 - b1.powi(k))) as f32,
            unbias: (1.0 / (1.0 - b2.powi(k)).sqrt()) as f32,
            eps: config.eps as f32,
            follow: (1.0 - decay) as f32,
        }
    }

    #[inline(always)]
    fn apply(&self, values: &mut [f32], grad: &[f32], state: &mut Moments) {
        let moments = state.mean.iter_mut().zip(&mut state.square);
        for ((w, &g), (m, s)) in values.iter_mut().zip(grad).zip(moments) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *s = self.beta2 * *s + (1.0 - self.beta2) * g * g;
            *w = *w * self.shrink - self.rate * *m / (s.sqrt() * self.unbias + self.eps);
        }
        for (a, &w) in state.average.iter_mut().zip(&*values) {
            *a -= self.follow * (*a - w);
        }
    }
}
