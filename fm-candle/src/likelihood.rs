//! The log-likelihood of data under a velocity field: the change of volume along the path back.
//!
//! ```text
//! dx/dt = v(x, t),  d log p(x(t))/dt = -div v(x, t)
//! log p1(x1) = log p0(x0) - integral from 0 to 1 of div v(x(t), t) dt
//! ```
//! Both are solved together from t = 1 to 0 (Chen et al., Neural Ordinary Differential Equations,
//! 2018, theorem 1; `flow_matching`'s `ODESolver.compute_likelihood`). The divergence is exact, or
//! Hutchinson's estimate `z' J z` with one `z` for the whole path (Grathwohl et al., FFJORD, 2019).

use core::f64::consts::{LN_2, TAU};

use candle_core::{DType, Tensor, Var};
use quant_core::noise::Stream;

use crate::error::{Error, Result};
use crate::random::Domain;
use crate::solver::{Control, Method, SolverOptions, Trace, Velocity, solve};

/// The method of computing the divergence `sum_i dv_i/dx_i`.
#[derive(Clone, Debug)]
pub enum Divergence {
    /// One backward pass for each element of a row.
    Exact,
    /// `z' J z` in one backward pass, with this `z` of the state's shape; unbiased where its
    /// elements are independent with mean 0 and variance 1, as [`rademacher`]'s and [`normal`]'s.
    Hutchinson(Tensor),
}

/// The settings of the likelihood computation.
#[derive(Clone, Debug)]
pub struct Likelihood {
    /// The solver's method.
    pub method: Method,
    /// Times from 1 to 0: a fixed-step method's grid, unless the options hold a step size.
    pub grid: Vec<f64>,
    /// The solver's settings.
    pub options: SolverOptions,
    /// The method of computing the divergence.
    pub divergence: Divergence,
}

/// Log-likelihoods of data under the net's flow, and the noise that the data come from.
#[derive(Clone, Debug)]
pub struct LogLikelihood {
    /// The source of each row, in the shape of the data.
    pub x0: Tensor,
    /// `log p1(x1)` in nats, `[n]`.
    pub log_p: Tensor,
    /// Evaluations and steps of the solution.
    pub trace: Trace,
}

impl Likelihood {
    /// The likelihood of `x1` where the source is standard normal; see [`Likelihood::run_from`].
    ///
    /// # Errors
    /// As [`Likelihood::run_from`].
    pub fn run(&self, v: &mut dyn Velocity, x1: &Tensor) -> Result<LogLikelihood> {
        self.run_from(v, x1, standard_normal)
    }

    /// The likelihood of `x1` where `base` gives the source's `log p0(x0)`, `[n]`.
    ///
    /// The field must be made of operations that candle can differentiate, and treat rows apart.
    /// No graph outlives an evaluation of it. The error of an adaptive method's step is the larger
    /// of the states' and the volumes'.
    ///
    /// # Shapes: `x1: [n, ...]`, F32 or F64
    ///
    /// # Errors
    /// A grid that does not lead from 1 to 0, no rows, a probe of another shape, a field without
    /// gradient, and whatever solving may meet.
    pub fn run_from(
        &self,
        v: &mut dyn Velocity,
        x1: &Tensor,
        base: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<LogLikelihood> {
        if self.grid.first() != Some(&1.0) || self.grid.last() != Some(&0.0) {
            return Err(Error::Config("a likelihood's times must lead from 1 to 0".into()));
        }
        let (n, size) = (rows(x1)?, x1.elem_count());
        let volume = Tensor::zeros(n, x1.dtype(), x1.device())?;
        let start = Tensor::cat(&[&x1.detach().flatten_all()?, &volume], 0)?;
        let mut field = |state: &Tensor, t: f64| -> Result<Tensor> {
            let x = state.narrow(0, 0, size)?.reshape(x1.shape())?;
            let (v, divergence) = divergence(v, &x, t, &self.divergence)?;
            Ok(Tensor::cat(&[&v.flatten_all()?, &divergence], 0)?)
        };
        let control = Control { split: Some(size), ..self.options.control };
        let options = SolverOptions { control, ..self.options.clone() };
        let mut end = start.clone();
        let trace = solve(self.method, &mut field, &start, &self.grid, &options, |x| end = x)?;
        let x0 = end.narrow(0, 0, size)?.reshape(x1.shape())?;
        let log_p = (base(&x0)? + end.narrow(0, size, n)?)?;
        Ok(LogLikelihood { x0, log_p, trace })
    }
}

/// The velocity at `x` and its divergence in each row, free of any graph.
///
/// # Shapes: `x`, the velocity: `[n, ...]`; the divergence: `[n]`
///
/// # Errors
/// As [`Likelihood::run_from`].
pub fn divergence(
    v: &mut dyn Velocity,
    x: &Tensor,
    t: f64,
    how: &Divergence,
) -> Result<(Tensor, Tensor)> {
    let n = rows(x)?;
    let d = x.elem_count() / n;
    let x = Var::from_tensor(x)?;
    let v = v.velocity(x.as_tensor(), t)?;
    if v.shape() != x.shape() {
        let (v, x) = (v.shape(), x.shape());
        return Err(Error::Config(format!("the velocity is {v:?}, the state {x:?}")));
    }
    let flat = v.reshape((n, d))?;
    let gradient = |of: &Tensor| -> Result<Option<Tensor>> {
        match of.sum_all()?.backward()?.get(&x) {
            Some(gradient) => Ok(Some(gradient.reshape((n, d))?.detach())),
            None => Ok(None),
        }
    };
    let divergence = match how {
        Divergence::Exact => {
            let mut sum: Option<Tensor> = None;
            for i in 0..d {
                let Some(gradient) = gradient(&flat.narrow(1, i, 1)?)? else { continue };
                let term = gradient.narrow(1, i, 1)?.squeeze(1)?;
                sum = Some(match sum {
                    Some(sum) => (sum + term)?,
                    None => term,
                });
            }
            sum
        }
        Divergence::Hutchinson(z) => {
            if z.shape() != x.shape() {
                let (z, x) = (z.shape(), x.shape());
                return Err(Error::Config(format!("the probe is {z:?}, the state {x:?}")));
            }
            let z = z.to_dtype(x.dtype())?.reshape((n, d))?.detach();
            match gradient(&(flat * &z)?)? {
                Some(gradient) => Some((gradient * &z)?.sum(1)?),
                None => None,
            }
        }
    };
    match divergence {
        Some(divergence) => Ok((v.detach(), divergence)),
        None => Err(Error::Config(
            "the field has no gradient in its state: it must be made of it, by operations that \
             can be differentiated"
                .into(),
        )),
    }
}

/// The number of rows, at least one.
fn rows(x: &Tensor) -> Result<usize> {
    match x.dims() {
        [n, ..] if x.elem_count() > 0 => Ok(*n),
        dims => Err(Error::Config(format!("{dims:?} holds no rows to find a likelihood of"))),
    }
}

/// `log p(x) = -(|x|² + d ln 2π) / 2` of the standard normal in `d` dimensions.
///
/// # Shapes: `x: [n, ...]`; result `[n]`
///
/// # Errors
/// No rows.
pub fn standard_normal(x: &Tensor) -> Result<Tensor> {
    let n = rows(x)?;
    let d = x.elem_count() / n;
    let squares = x.reshape((n, d))?.sqr()?.sum(1)?;
    Ok(squares.affine(-0.5, -0.5 * d as f64 * TAU.ln())?)
}

/// Bits per dimension of `d` pixels on the scale 0 to 255, from `log p` of the same on [-1, 1].
///
/// A pixel `y = 127.5 (x + 1)` has `1/127.5` of the density of `x`, so
///
/// ```text
/// bpd = -log p / (d ln 2) + log2 127.5
/// ```
/// For whole `y` it bounds the bits of a code from above if uniform noise of [0, 1) was added to
/// them first (Theis et al., A note on the evaluation of generative models, 2016).
pub fn bits_per_dimension(log_p: f64, d: usize) -> f64 {
    -log_p / (d as f64 * LN_2) + 127.5f64.log2()
}

/// A probe of -1 and 1 with equal probability in the shape of `x`, a function of (seed, row,
/// element) alone; the first row is that of image `first`.
///
/// Of all probes that Hutchinson's estimator takes, it has the least variance.
///
/// # Errors
/// No rows.
pub fn rademacher(seed: u64, first: u64, x: &Tensor) -> Result<Tensor> {
    probe(seed, first, x, |stream, row, out| {
        for (element, z) in (0..).zip(out) {
            *z = if stream.below(row, element, 2) == 0 { -1.0 } else { 1.0 };
        }
    })
}

/// A standard normal probe; otherwise as [`rademacher`].
///
/// # Errors
/// No rows.
pub fn normal(seed: u64, first: u64, x: &Tensor) -> Result<Tensor> {
    probe(seed, first, x, |stream, row, out| stream.fill_normal(row, 0, out))
}

fn probe(
    seed: u64,
    first: u64,
    x: &Tensor,
    fill: impl Fn(Stream, u64, &mut [f32]),
) -> Result<Tensor> {
    let d = x.elem_count() / rows(x)?;
    let stream = Domain::Probe.stream(seed);
    let mut values = vec![0f32; x.elem_count()];
    for (row, out) in (first..).zip(values.chunks_mut(d)) {
        fill(stream, row, out);
    }
    Ok(Tensor::from_vec(values, x.shape(), x.device())?.to_dtype(float(x.dtype()))?)
}

/// The type itself, or F32 for one that is not of floats.
fn float(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::F32 }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn data() -> Tensor {
        Tensor::new(&[[0.5f64, -1.0, 2.0], [0.0, 0.25, -0.75]], &Device::Cpu).unwrap()
    }

    fn plan(method: Method, divergence: Divergence) -> Likelihood {
        let control = Control { atol: 1e-9, rtol: 1e-9, ..Control::default() };
        let options = SolverOptions { step_size: Some(0.01), control, ..SolverOptions::default() };
        Likelihood { method, grid: vec![1.0, 0.0], options, divergence }
    }

    #[test]
    fn a_linear_fields_likelihood_is_the_closed_form() {
        // v = a x by element: x0 = x1 exp(-a), div v = sum a.
        let a = Tensor::new(&[0.5f64, -0.3, 0.9], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, _: f64| Ok(x.broadcast_mul(&a)?);
        let x1 = data();
        let x0 = x1.broadcast_mul(&a.neg().unwrap().exp().unwrap()).unwrap();
        let expected = (standard_normal(&x0).unwrap() - 1.1).unwrap();
        // Rademacher's estimate of a diagonal Jacobian is exact.
        let probe = rademacher(3, 0, &x1).unwrap();
        for method in [Method::Rk4, Method::ImplicitAdams, Method::Dopri5] {
            for divergence in [Divergence::Exact, Divergence::Hutchinson(probe.clone())] {
                let found = plan(method, divergence).run(&mut field, &x1).unwrap();
                for (a, b) in numbers(&found.log_p).iter().zip(numbers(&expected)) {
                    assert!((a - b).abs() < 1e-7, "{method}: {a} for {b}");
                }
                for (a, b) in numbers(&found.x0).iter().zip(numbers(&x0)) {
                    assert!((a - b).abs() < 1e-7, "{method}: {a} for {b}");
                }
                assert!(!found.x0.track_op() && !found.log_p.track_op(), "no graph is left");
            }
        }
    }

    #[test]
    fn no_evaluation_sees_the_graph_of_another() {
        let mut field = |x: &Tensor, _: f64| {
            assert!(x.is_variable());
            Ok(x.sin()?)
        };
        let found = plan(Method::Euler, Divergence::Exact).run(&mut field, &data()).unwrap();
        assert_eq!(found.trace.evaluations.len(), 100);
        let (v, divergence) = divergence(&mut field, &data(), 0.0, &Divergence::Exact).unwrap();
        assert!(!v.track_op() && !divergence.track_op());
    }

    #[test]
    fn probes_have_mean_0_and_variance_1_and_their_place_alone() {
        let x = Tensor::zeros((64, 100), DType::F32, &Device::Cpu).unwrap();
        for draw in [rademacher, normal] {
            let z = draw(5, 0, &x).unwrap();
            let mean = |z: &Tensor| z.mean_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(mean(&z).abs() < 0.05 && (mean(&z.sqr().unwrap()) - 1.0).abs() < 0.06);
            let later = draw(5, 7, &x.narrow(0, 0, 3).unwrap()).unwrap();
            let same = z.narrow(0, 7, 3).unwrap();
            assert_eq!(later.to_vec2::<f32>().unwrap(), same.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn uniform_pixels_need_eight_bits_each() {
        // Density 1/2 on [-1, 1], 1/255 on 0 to 255.
        let log_p = 3.0 * 0.5f64.ln();
        assert!((bits_per_dimension(log_p, 3) - 255f64.log2()).abs() < 1e-12);
    }

    #[test]
    fn senseless_requests_are_refused() {
        let mut field = |x: &Tensor, _: f64| Ok(x.sin()?);
        let good = plan(Method::Euler, Divergence::Exact);
        let wrong = Likelihood { grid: vec![0.0, 1.0], ..good.clone() };
        assert!(wrong.run(&mut field, &data()).is_err());
        let none = data().narrow(0, 0, 0).unwrap();
        assert!(good.run(&mut field, &none).is_err());
        let probe = Divergence::Hutchinson(data().t().unwrap());
        assert!(plan(Method::Euler, probe).run(&mut field, &data()).is_err());
        let mut cut = |x: &Tensor, _: f64| Ok(x.detach());
        let error = good.run(&mut cut, &data()).unwrap_err().to_string();
        assert!(error.contains("no gradient"), "{error}");
    }
}
