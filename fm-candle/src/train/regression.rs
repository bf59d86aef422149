//! Regression of a net's velocity on targets: loss and gradients of batches of points.

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use super::config::TrainPrecision;
use super::optimizer::{add_gradients, of_parameters};
use crate::error::Result;
use crate::model::{BlockInputs, Cast, Masks, Mode, UNet};
use crate::path::loss;

/// Points of a shard on the CPU; see [`Regression::accumulate`].
const SHARD: usize = 8;
/// Parameters from which on a batch is not cut: summing the gradients would cost too much.
const SMALL_NET: usize = 4_000_000;

/// Points on paths, with the velocities that the net should have there.
pub struct Points {
    /// States, `[n, c, h, w]`.
    pub x: Tensor,
    /// Times, `[n]`.
    pub t: Tensor,
    /// Classes, `[n]`; `None` for points without any.
    pub label: Option<Tensor>,
    /// Velocities, `[n, c, h, w]`.
    pub u: Tensor,
}

impl Points {
    /// Number of points.
    ///
    /// # Errors
    /// Times that are no vector.
    pub(crate) fn len(&self) -> Result<usize> {
        Ok(self.t.dim(0)?)
    }

    /// Points `first..first + n`.
    pub(crate) fn narrow(&self, first: usize, n: usize) -> Result<Self> {
        let cut = |x: &Tensor| x.narrow(0, first, n);
        Ok(Self {
            x: cut(&self.x)?,
            t: cut(&self.t)?,
            label: self.label.as_ref().map(cut).transpose()?,
            u: cut(&self.u)?,
        })
    }
}

/// A net whose parameters are fitted, and the gradients gathered since the last update.
pub struct Regression {
    /// The net, with the parameters as its weights.
    pub(crate) net: UNet,
    /// Names and parameters in state-dict order.
    pub(crate) vars: Vec<(String, Var)>,
    /// Gradients of the parameters.
    pub(crate) pending: Vec<Option<Tensor>>,
    precision: TrainPrecision,
    recompute: bool,
    device: Device,
}

impl Regression {
    /// A net of these parameters, computing in `precision`; `recompute` saves memory by computing each
    /// block again for its gradients.
    pub fn new(
        net: UNet,
        vars: Vec<(String, Var)>,
        precision: TrainPrecision,
        recompute: bool,
        device: &Device,
    ) -> Self {
        let pending = vec![None; vars.len()];
        Self { net, vars, pending, precision, recompute, device: device.clone() }
    }

    /// Adds the gradients of the mean squared error at `points`, multiplied by `scale`; returns the
    /// error. `masks` gives the dropout of the points from a first one on; `None` is off.
    ///
    /// The batch of a small net is cut into shards of a few points, each with a graph of its own: they
    /// run side by side and their activations stay in the caches.
    ///
    /// # Errors
    /// Tensors that do not fit the net.
    pub fn accumulate(
        &mut self,
        points: &Points,
        scale: f64,
        masks: impl Fn(usize) -> Option<Masks> + Sync,
    ) -> Result<f64> {
        let n = points.len()?;
        let small = self.vars.iter().map(|(_, var)| var.elem_count()).sum::<usize>() < SMALL_NET;
        let shard = if small && self.device.is_cpu() { SHARD } else { n };
        let firsts: Vec<usize> = (0..n).step_by(shard).collect();
        let cast = self.cast()?;
        let net = cast.as_ref().unwrap_or(&self.net);
        let part = |first: usize| {
            let shard = points.narrow(first, shard.min(n - first))?;
            let part = shard.len()? as f64 / n as f64;
            let (loss, grads) = self.gradients(net, &shard, part * scale, masks(first).as_ref())?;
            Ok((loss / scale, grads))
        };
        let parts: Vec<(f64, Vec<Option<Tensor>>)> = match firsts[..] {
            // On this thread, which holds the handles of a GPU's libraries.
            [first] => vec![part(first)?],
            _ => firsts.into_par_iter().map(part).collect::<Result<_>>()?,
        };
        let mut value = 0.0;
        for (part, grads) in parts {
            value += part;
            add_gradients(&mut self.pending, grads)?;
        }
        Ok(value)
    }

    /// The net in the type to compute in, where that is not the parameters' own.
    fn cast(&self) -> Result<Option<UNet>> {
        let dtype = match self.precision {
            TrainPrecision::F32 => return Ok(None),
            TrainPrecision::Bf16 => DType::BF16,
            TrainPrecision::F16 => DType::F16,
        };
        Ok(Some(UNet::new(self.net.config(), &mut Cast::new(&self.vars, dtype))?))
    }

    /// Loss and gradients of a shard, both multiplied by `part`.
    fn gradients(
        &self,
        net: &UNet,
        shard: &Points,
        part: f64,
        masks: Option<&Masks>,
    ) -> Result<(f64, Vec<Option<Tensor>>)> {
        let loss = |v: &Tensor| -> Result<Tensor> { Ok((loss(v, &shard.u)? * part)?) };
        let (x, t, label) = (&shard.x, &shard.t, shard.label.as_ref());
        let mut grads = vec![None; self.vars.len()];
        // A store also holds gradients of what is constant, as large as maps.
        let mut keep = |store| add_gradients(&mut grads, of_parameters(&self.vars, store));
        let loss = match masks {
            Some(masks) if self.recompute => {
                net.backward_by_blocks(BlockInputs { x, t, label }, masks, loss, keep)?
            }
            _ => {
                let loss = loss(&net.forward(
                    x,
                    t,
                    label,
                    None,
                    masks.map_or(Mode::Eval, Mode::Train),
                )?)?;
                keep(loss.backward()?)?;
                loss
            }
        };
        Ok((f64::from(loss.to_scalar::<f32>()?), grads))
    }
}
