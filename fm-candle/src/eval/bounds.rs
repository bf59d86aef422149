//! The error of samples, measured and as Lipschitz constants bound it.
//!
//! Let `x(t)` and `y(t)` be the trajectories of the full-precision and of the quantized net from the
//! same noise, `e(t)` the root mean square of `|y(t) - x(t)|` over images, `d(t)` that of
//! `|v_q(y, t) - v(y, t)|`, and `L(t)` a Lipschitz constant of `v` in `x`. Then `e' <= L e + d`, and
//! Grönwall's inequality gives
//!
//! ```text
//! e(1) <= ∫₀¹ d(t) exp(∫ₜ¹ L(s) ds) dt,      d(t) <= M(t) |Δθ|
//! ```
//!
//! with `M(t)` a Lipschitz constant of `v` in the weights. As the two trajectories are a coupling,
//! the same numbers bound the 2-Wasserstein distance between the two distributions of samples.
//!
//! The constants are estimated: the greatest norms of the derivatives at points of trajectories,
//! where a bound needs their supremum. So the results are what the theory promises at best. They and
//! `d` are taken in the middle of each step of the solver's grid, between the states at its ends, and
//! integrals are sums over steps: at t = 1 itself the velocity is as steep as the data are narrow, and
//! no solver looks there.

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::null_is_infinite;
use crate::error::{Error, Result};
use crate::model::{Cast, UNet, UNetConfig};
use crate::random::Domain;
use crate::sample::BatchSampler;

/// Rounds of a power iteration.
const ROUNDS: usize = 12;
/// Length of a step over which a derivative is taken: of an image, in units of `sqrt(d)`; of the
/// weights, in units of their norm.
const STEP_X: f64 = 1e-3;
const STEP_THETA: f64 = 3e-4;

/// Root mean square errors over samples, in the norm of a whole image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Norm of the change of all weights, `|Δθ|`.
    pub weights: f64,
    /// Measured error of the samples.
    pub error: f64,
    /// Grönwall's bound of it from the measured error of the velocity.
    #[serde(deserialize_with = "null_is_infinite")]
    pub from_velocity: f64,
    /// Grönwall's bound of it from the weights: `|Δθ|` times the velocity's Lipschitz constant in
    /// them.
    #[serde(deserialize_with = "null_is_infinite")]
    pub from_weights: f64,
}

/// Trajectories of one net from noise to images.
pub struct Trajectories<'a> {
    /// The sampler that drew them, and whose velocities are meant.
    pub sampler: &'a BatchSampler,
    /// The states at the sampler's times, `[times, n, c, h, w]`.
    pub states: &'a Tensor,
    /// The labels, `[n]`, or none.
    pub labels: Option<&'a Tensor>,
}

impl Trajectories<'_> {
    /// The middles of the steps between the sampler's times.
    fn middles(&self) -> Vec<f64> {
        self.sampler.grid.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect()
    }

    /// The state half way between times `i` and `i + 1`, `[n, c, h, w]`.
    fn middle(&self, i: usize) -> Result<Tensor> {
        Ok(self.states.narrow(0, i, 2)?.mean(0)?)
    }

    /// The state at the last time.
    fn end(&self) -> Result<Tensor> {
        Ok(self.states.narrow(0, self.states.dim(0)? - 1, 1)?.squeeze(0)?)
    }

    fn velocity(&self, net: &UNet, x: &Tensor, t: f64) -> Result<Tensor> {
        self.sampler.velocity(net, x, t, self.labels)
    }
}

impl Bounds {
    /// The error of the quantized net's trajectories, and its bounds.
    ///
    /// `weights` is `|Δθ|`, and `constants` are those of the full-precision net.
    ///
    /// # Errors
    /// Trajectories or constants of other times or shapes; images that do not fit the nets.
    pub fn measure(
        constants: &Lipschitz,
        weights: f64,
        (full, full_net): (&Trajectories<'_>, &UNet),
        (quantized, quantized_net): (&Trajectories<'_>, &UNet),
    ) -> Result<Self> {
        let (grid, middles) = (&full.sampler.grid, full.middles());
        if constants.t != middles || quantized.states.dims() != full.states.dims() {
            return Err(Error::Config("bounds need trajectories at the same times".into()));
        }
        let mut velocity = Vec::with_capacity(middles.len());
        for (i, &t) in middles.iter().enumerate() {
            let y = quantized.middle(i)?;
            let found = quantized.velocity(quantized_net, &y, t)?;
            velocity.push(rms_norm(&(found - full.velocity(full_net, &y, t)?)?)?);
        }
        let from_weights: Vec<f64> = constants.theta.iter().map(|m| m * weights).collect();
        Ok(Self {
            weights,
            error: rms_norm(&(quantized.end()? - full.end()?)?)?,
            from_velocity: groenwall(grid, &constants.x, &velocity),
            from_weights: groenwall(grid, &constants.x, &from_weights),
        })
    }
}

/// `∫ d(t) exp(∫ₜ L) dt` over the grid, on each step of which `l` and `d` are constant.
fn groenwall(grid: &[f64], l: &[f64], d: &[f64]) -> f64 {
    let (mut growth, mut integral) = (0.0, 0.0);
    for (step, (l, d)) in grid.windows(2).zip(l.iter().zip(d)).rev() {
        let length = (step[1] - step[0]).abs();
        let factor = if *l == 0.0 { length } else { (l * length).exp_m1() / l };
        integral += d * factor * f64::exp(growth);
        growth += length * l;
    }
    integral
}

/// Estimates of the velocity's Lipschitz constants, in the middle of each step of a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lipschitz {
    /// The times.
    pub t: Vec<f64>,
    /// In the image: the greatest `|∂v/∂x|` (spectral norm) among the images.
    pub x: Vec<f64>,
    /// In the weights: the spectral norm of `∂v/∂θ` of all images together over the square root of
    /// their number, so that it bounds the root mean square over images.
    pub theta: Vec<f64>,
}

impl Lipschitz {
    /// The constants along the trajectories of a full-precision net, by power iteration: `∂v` applied
    /// by central differences, its transpose by the gradient.
    ///
    /// `tensors` are the net's weights. `done` is called after each time.
    ///
    /// # Errors
    /// Weights that do not fit the configuration, trajectories that do not fit the net.
    pub fn estimate(
        config: &UNetConfig,
        tensors: &[(String, Tensor)],
        along: &Trajectories<'_>,
        done: impl Fn(),
    ) -> Result<Self> {
        let vars = tensors.iter().map(|(name, tensor)| {
            let tensor = tensor.to_device(along.states.device())?.to_dtype(DType::F32)?;
            Ok((name.clone(), Var::from_tensor(&tensor)?))
        });
        let vars: Vec<(String, Var)> = vars.collect::<Result<_>>()?;
        let net = UNet::new(config, &mut Cast::new(&vars, DType::F32))?;
        let t = along.middles();
        let (mut x, mut theta) = (Vec::new(), Vec::new());
        for (i, &t) in t.iter().enumerate() {
            let state = along.middle(i)?;
            x.push(in_image(&state, |x| along.velocity(&net, x, t))?);
            let n = state.dim(0)? as f64;
            theta.push(
                in_weights(config, &vars, &net, |net| along.velocity(net, &state, t))? / n.sqrt(),
            );
            done();
        }
        Ok(Self { t, x, theta })
    }
}

/// The greatest spectral norm of `∂v/∂x` among the images `x`, each of which has its own iteration.
fn in_image(x: &Tensor, v: impl Fn(&Tensor) -> Result<Tensor>) -> Result<f64> {
    let (n, d) = (x.dim(0)?, x.elem_count() / x.dim(0)?);
    let step = STEP_X * (d as f64).sqrt();
    let mut start = vec![0f32; n * d];
    Domain::Analysis.stream(0).fill_normal(1, 0, &mut start);
    let mut u = unit_rows(&Tensor::from_vec(start, x.shape(), x.device())?)?;
    let mut greatest = 0.0;
    for _ in 0..ROUNDS {
        let ahead = v(&(x + (&u * step)?)?)?.detach();
        let behind = v(&(x - (&u * step)?)?)?.detach();
        let pushed = ((ahead - behind)? / (2.0 * step))?;
        let norms = row_norms(&pushed)?;
        greatest = norms.max_all()?.to_scalar::<f32>()?;
        let x = Var::from_tensor(x)?;
        let product = (v(x.as_tensor())? * pushed)?.sum_all()?;
        let gradients = product.backward()?;
        let Some(pulled) = gradients.get(&x) else { return Ok(0.0) };
        u = unit_rows(&pulled.detach())?;
    }
    Ok(f64::from(greatest))
}

/// The spectral norm of `∂v/∂θ` for all outputs together.
fn in_weights(
    config: &UNetConfig,
    vars: &[(String, Var)],
    net: &UNet,
    v: impl Fn(&UNet) -> Result<Tensor>,
) -> Result<f64> {
    let size = |tensors: &[Tensor]| -> Result<f64> {
        let squares = tensors
            .iter()
            .map(|tensor| Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?)));
        Ok(squares.sum::<Result<f64>>()?.sqrt())
    };
    let weights: Vec<Tensor> = vars.iter().map(|(_, var)| var.as_detached_tensor()).collect();
    let step = STEP_THETA * size(&weights)?;
    // The velocity with the weights moved by `by` along `u`.
    let moved = |u: &[Tensor], by: f64| -> Result<Tensor> {
        let vars = vars.iter().zip(&weights).zip(u).map(|(((name, _), weight), u)| {
            Ok((name.clone(), Var::from_tensor(&(weight + (u * by)?)?)?))
        });
        let vars: Vec<(String, Var)> = vars.collect::<Result<_>>()?;
        Ok(v(&UNet::new(config, &mut Cast::new(&vars, DType::F32))?)?.detach())
    };
    let output = v(net)?;
    let mut start = vec![0f32; output.elem_count()];
    Domain::Analysis.stream(0).fill_normal(2, 0, &mut start);
    let mut pushed = Tensor::from_vec(start, output.shape(), output.device())?;
    let mut norm = 0.0;
    for _ in 0..ROUNDS {
        let gradients = (v(net)? * &pushed)?.sum_all()?.backward()?;
        let pulled = vars.iter().map(|(_, var)| match gradients.get(var) {
            Some(gradient) => Ok(gradient.detach()),
            None => Ok(var.as_tensor().zeros_like()?.detach()),
        });
        let pulled: Vec<Tensor> = pulled.collect::<Result<_>>()?;
        let length = size(&pulled)?;
        if length == 0.0 {
            return Ok(0.0);
        }
        let u: Vec<Tensor> =
            pulled.iter().map(|tensor| Ok((tensor / length)?)).collect::<Result<_>>()?;
        pushed = ((moved(&u, step)? - moved(&u, -step)?)? / (2.0 * step))?;
        norm = size(core::slice::from_ref(&pushed))?;
    }
    Ok(norm)
}

/// The norm of each row, `[n]`.
fn row_norms(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?)
}

/// The rows at length 1; one without length stays.
fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let norms = (row_norms(x)? + 1e-30)?;
    Ok(x.broadcast_div(&norms.reshape((x.dim(0)?, 1, 1, 1))?)?)
}

/// Root mean square of the rows' norms.
fn rms_norm(x: &Tensor) -> Result<f64> {
    let square = x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
    Ok((square / x.dim(0)? as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::fixtures::{changed, net, sampler, tensors};
    use super::*;
    use crate::model::config::tiny;
    use crate::sample::start_noise;
    use crate::solver::Method;

    #[test]
    fn groenwalls_integral_has_its_closed_form() {
        // d constant, L constant: d (e^L - 1) / L, however the steps are cut.
        let expected = 0.5 * (3f64.exp() - 1.0) / 3.0;
        assert!((groenwall(&[0.0, 1.0], &[3.0], &[0.5]) - expected).abs() < 1e-12);
        assert!((groenwall(&[0.0, 0.3, 1.0], &[3.0; 2], &[0.5; 2]) - expected).abs() < 1e-12);
        // An early error grows by the later steps.
        let found = groenwall(&[0.0, 0.5, 1.0], &[0.0, 2.0], &[1.0, 0.0]);
        assert!((found - 0.5 * 1f64.exp()).abs() < 1e-12, "{found}");
        assert_eq!(groenwall(&[0.0, 0.5, 1.0], &[0.0; 2], &[1.0, 3.0]), 2.0);
    }

    #[test]
    fn a_linear_map_has_the_constant_of_its_greatest_factor() {
        // v = A x for a diagonal A: the spectral norm is its greatest entry.
        let factors: Vec<f32> = (0..16).map(|i| 0.5 + i as f32 / 10.0).collect();
        let factors = Tensor::from_vec(factors, (1, 1, 4, 4), &Device::Cpu).unwrap();
        let x = start_noise(3, 0, 4, (1, 4, 4), &Device::Cpu).unwrap();
        let found = in_image(&x, |x| Ok(x.broadcast_mul(&factors)?)).unwrap();
        assert!((found - 2.0).abs() < 0.006, "{found}");
    }

    #[test]
    fn measured_errors_lie_below_their_bounds() {
        let sampler = sampler(Method::Midpoint, 0.1);
        let tensors = tensors(&tiny());
        let (other, change) = changed(&tensors);
        let (full_net, other_net) = (net(&tiny(), &tensors), net(&tiny(), &other));
        let noise = start_noise(1, 0, 4, (1, 8, 8), &Device::Cpu).unwrap();
        let states =
            |net: &UNet| sampler.run(net, &noise, None, true, |_| {}).unwrap().trajectory.unwrap();
        let (a, b) = (states(&full_net), states(&other_net));
        let full = Trajectories { sampler: &sampler, states: &a, labels: None };
        let quantized = Trajectories { sampler: &sampler, states: &b, labels: None };
        let constants = Lipschitz::estimate(&tiny(), &tensors, &full, || {}).unwrap();
        assert!(constants.x.iter().chain(&constants.theta).all(|&l| l > 1e-3), "{constants:?}");
        let bounds =
            Bounds::measure(&constants, change, (&full, &full_net), (&quantized, &other_net))
                .unwrap();
        assert!(bounds.error > 1e-4, "{bounds:?}");
        assert!(bounds.error < bounds.from_velocity, "{bounds:?}");
        assert!(bounds.from_velocity < bounds.from_weights, "{bounds:?}");
        let shorter = states(&other_net).narrow(1, 0, 2).unwrap();
        let other = Trajectories { states: &shorter, ..quantized };
        let sides = ((&full, &full_net), (&other, &other_net));
        assert!(Bounds::measure(&constants, 1.0, sides.0, sides.1).is_err());
    }
}
