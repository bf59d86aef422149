//! Embedded Runge-Kutta methods with steps of their own (torchdiffeq's `RKAdaptiveStepsizeODESolver`).
//!
//! ```text
//! f = v(x, t), h from the first slopes
//! until the asked time is passed:
//!     x1, error, slopes = the tableau's step of length h
//!     ratio = |error / (atol + rtol max(|x|, |x1|))|, root of the mean square
//!     ratio <= 1: x = x1, t = t + h, f = the last slope
//!     h = h min(10, max(0.9 / ratio^(1/order), 0.2; 1 where ratio < 1))
//! ```
//! The last step goes past the last time, and a polynomial of degree 4 leads back to it. Stages at
//! the end of a step see the last float before its time. Time is double, whatever the state is. A
//! step that would pass a prescribed time ends there; where the field jumps at that time, the next
//! step starts with the slope at the first float after it.

use candle_core::Tensor;

use super::control::Control;
use super::dense::{Knots, Quartic};
use super::field::Field;
use super::options::SolverOptions;
use super::tableau::Tableau;
use crate::error::{Error, Result};
use crate::ops::is_finite;

/// A step that an adaptive method tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SolverStep {
    /// Time at which it starts.
    pub t: f64,
    /// Its length, negative backward in time.
    pub h: f64,
    /// True if its error was within the tolerances.
    pub accepted: bool,
}

/// Carries `x` along `times`, the solver's, growing; `each` gets the state at every time after the
/// first. Returns the steps, in true time.
pub(super) fn solve(
    pair: &'static Tableau,
    field: &mut Field<'_>,
    x: &Tensor,
    times: &[f64],
    options: &SolverOptions,
    each: &mut dyn FnMut(Tensor),
) -> Result<Vec<SolverStep>> {
    let control = &options.control;
    control.check()?;
    let [start, asked @ ..] = times else { return Ok(Vec::new()) };
    let start = *start;
    let f = field.at(x, start)?;
    let h = match control.first_step {
        Some(h) => h,
        None => control.initial_step(field, start, x, &f, pair.order)?,
    };
    let mut run = Integration {
        pair,
        control,
        stops: stops(field, options, start)?,
        now: TrajectoryPoint { t: start, x: x.clone(), f },
        last: None,
        h,
        steps: Vec::new(),
    };
    for &t in asked {
        while t > run.now.t {
            run.step(field)?;
        }
        each(run.between(field, t)?);
    }
    Ok(run.steps)
}

/// A time at which a step must end.
#[derive(Clone, Copy)]
struct Stop {
    t: f64,
    /// True if the field jumps there.
    jump: bool,
}

/// The prescribed times from `start` on, in the solver's time and order.
fn stops(field: &Field<'_>, options: &SolverOptions, start: f64) -> Result<Vec<Stop>> {
    let all = |times: &[f64], jump| -> Vec<Stop> {
        times.iter().map(|&t| Stop { t: field.flip(t), jump }).collect()
    };
    let mut stops = [all(&options.step_t, false), all(&options.jump_t, true)].concat();
    stops.retain(|stop| stop.t >= start || stop.t.is_nan());
    stops.sort_by(|a, b| a.t.total_cmp(&b.t));
    if let Some(stop) = stops.iter().find(|stop| !stop.t.is_finite()) {
        return Err(Error::Config(format!("step_t and jump_t hold {}, not a time", stop.t)));
    }
    if let Some(pair) = stops.windows(2).find(|pair| pair[0].t >= pair[1].t) {
        let t = field.flip(pair[0].t);
        return Err(Error::Config(format!("step_t and jump_t hold {t} twice; give it once")));
    }
    Ok(stops)
}

/// A state, its time and its slope.
struct TrajectoryPoint {
    t: f64,
    x: Tensor,
    f: Tensor,
}

/// The last accepted step: its start and its slopes, for what lies between.
struct Interval {
    t0: f64,
    h: f64,
    x0: Tensor,
    slopes: Vec<Tensor>,
}

struct Integration<'a> {
    pair: &'static Tableau,
    control: &'a Control,
    stops: Vec<Stop>,
    now: TrajectoryPoint,
    last: Option<Interval>,
    /// The length of the next step.
    h: f64,
    steps: Vec<SolverStep>,
}

impl Integration<'_> {
    /// Tries one step, and takes it if its error is small enough.
    fn step(&mut self, field: &mut Field<'_>) -> Result<()> {
        let Control { min_step, max_step, max_num_steps, .. } = *self.control;
        let t0 = self.now.t;
        if self.steps.len() as u64 >= max_num_steps {
            let reason = format!(
                "max_num_steps {max_num_steps} does not lead to the end: allow more steps, or a \
                 larger error by atol and rtol"
            );
            return Err(self.failure(field, &reason));
        }
        let h = if self.h.is_finite() { self.h } else { min_step }.clamp(min_step, max_step);
        let t1 = t0 + h;
        if t1 <= t0 {
            let reason = format!("the step of {h:e} is too short to move on");
            return Err(self.failure(field, &reason));
        }
        let stop = self.stops.iter().copied().find(|stop| stop.t > t0).filter(|stop| stop.t < t1);
        let (t1, h) = stop.map_or((t1, h), |stop| (stop.t, stop.t - t0));
        let rounded = field.round(h);
        let (slopes, end) = self.slopes(field, t1, rounded)?;
        let x1 = match self.pair.solution {
            Some(weights) => (&self.now.x + combine(&slopes, weights, field, rounded)?)?,
            None => end,
        };
        let error = combine(&slopes, self.pair.error, field, rounded)?;
        let ratio = self.control.ratio(&error, &self.now.x, &x1)?;
        if ratio.is_nan() {
            let reason = format!("the error of a step of {h:e} is not a number");
            return Err(self.failure(field, &reason));
        }
        let accepted = ratio <= 1.0 || h <= min_step;
        if accepted && !is_finite(&x1)? {
            let reason = format!("the state after a step of {h:e} is not finite");
            return Err(self.failure(field, &reason));
        }
        self.steps.push(SolverStep { t: field.flip(t0), h: field.flip(h), accepted });
        self.h = self.control.next_step(h, ratio, self.pair.order);
        if accepted {
            let f = match stop {
                Some(Stop { t, jump: true }) => field.after(&x1, t)?,
                _ => slopes[slopes.len() - 1].clone(),
            };
            let x0 = core::mem::replace(&mut self.now, TrajectoryPoint { t: t1, x: x1, f }).x;
            self.last = Some(Interval { t0, h: rounded, x0, slopes });
        }
        Ok(())
    }

    /// The slopes of a step, and the state of the last stage.
    fn slopes(&self, field: &mut Field<'_>, t1: f64, h: f64) -> Result<(Vec<Tensor>, Tensor)> {
        let TrajectoryPoint { t: t0, x, f } = &self.now;
        let (mut slopes, mut stage) = (vec![f.clone()], x.clone());
        for (&node, weights) in self.pair.nodes.iter().zip(self.pair.stages) {
            stage = (x + combine(&slopes, weights, field, h)?)?;
            slopes.push(if node < 1.0 {
                let passed = field.round(field.round(node) * h);
                field.at(&stage, field.round(*t0) + passed)?
            } else {
                field.before(&stage, t1)?
            });
        }
        Ok((slopes, stage))
    }

    /// The state at a time of the last step.
    fn between(&self, field: &Field<'_>, t: f64) -> Result<Tensor> {
        let Some(Interval { t0, h, x0, slopes }) = &self.last else {
            return Ok(self.now.x.clone());
        };
        let middle = (x0 + combine(slopes, self.pair.middle, field, *h)?)?;
        let (f0, f1) = (&slopes[0], &slopes[slopes.len() - 1]);
        let knots = Knots { y0: x0, middle: &middle, y1: &self.now.x, f0, f1 };
        Quartic::fit(&knots, *h)?.at((t - t0) / (self.now.t - t0))
    }

    /// An error at the present time and step.
    fn failure(&self, field: &Field<'_>, reason: &str) -> Error {
        field.failure(self.now.t, self.steps.len(), reason)
    }
}

/// `h sum_j weights_j slopes_j`; the weights count in the state's precision.
fn combine(slopes: &[Tensor], weights: &[f64], field: &Field<'_>, h: f64) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (slope, &weight) in slopes.iter().zip(weights) {
        if weight != 0.0 {
            let term = (slope * (field.round(weight) * h))?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
    }
    match sum {
        Some(sum) => Ok(sum),
        None => Ok(slopes[0].zeros_like()?),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use crate::error::{Error, Result};
    use crate::solver::{Control, Method, SolverOptions, solve};

    const ADAPTIVE: [(Method, u32); 5] = [
        (Method::AdaptiveHeun, 2),
        (Method::Fehlberg2, 2),
        (Method::Bosh3, 3),
        (Method::Dopri5, 5),
        (Method::Dopri8, 8),
    ];

    /// Error at t = 4 of `x' = -x`, `x(0) = 1`, in steps of one length.
    fn error(method: Method, steps: u32) -> f64 {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let h = 4.0 / f64::from(steps);
        let control =
            Control { first_step: Some(h), max_step: h, min_step: h, ..Control::default() };
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok(x.neg()?) };
        let options = SolverOptions { control, ..SolverOptions::default() };
        let mut end = x.clone();
        let trace = solve(method, &mut field, &x, &[0.0, 4.0], &options, |x| end = x).unwrap();
        assert_eq!(trace.steps.len(), steps as usize);
        (end.to_vec1::<f64>().unwrap()[0] - (-4f64).exp()).abs()
    }

    #[test]
    fn errors_shrink_with_the_order_of_the_method() {
        for (method, order) in ADAPTIVE {
            // Few steps at high order: the error must stay above that of rounding.
            let steps = if order == 8 { 8 } else { 64 };
            let ratio = error(method, steps) / error(method, 2 * steps);
            let expected = f64::from(1 << order);
            assert!(ratio > 0.8 * expected, "{method}: {ratio} for {expected}");
            assert!(ratio < 4.0 * expected, "{method}: {ratio} for {expected}");
        }
    }

    #[test]
    fn there_and_back_again_within_the_tolerance() {
        let x = Tensor::new(&[[1f64, -0.5], [0.25, 2.0]], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, t: f64| -> Result<Tensor> { Ok((x.sin()? * (1.0 + t))?) };
        let control = Control { atol: 1e-7, rtol: 1e-7, ..Control::default() };
        let options = SolverOptions { control, ..SolverOptions::default() };
        for (method, _) in ADAPTIVE {
            let mut through = |x: &Tensor, times: [f64; 2]| {
                let mut end = x.clone();
                solve(method, &mut field, x, &times, &options, |x| end = x).unwrap();
                end
            };
            let end = through(&x, [0.0, 1.0]);
            let again = through(&end, [1.0, 0.0]);
            let off = (again - &x).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f64>().unwrap() < 1.5e-4, "{method}");
        }
    }

    #[test]
    fn a_blow_up_is_an_error_that_says_where() {
        // x' = x², x(0) = 1 has a pole at t = 1.
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok(x.sqr()?) };
        for (method, _) in ADAPTIVE {
            let times = [0.0, 2.0];
            let control = Control { atol: 1e-3, rtol: 1e-3, ..Control::default() };
            let options = SolverOptions { control, ..SolverOptions::default() };
            let error = solve(method, &mut field, &x, &times, &options, |_| ()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("failed at t = ") && text.contains(", step "), "{text}");
        }
    }

    #[test]
    fn the_number_of_steps_is_bounded() {
        let x = Tensor::new(&[1f64], &Device::Cpu).unwrap();
        let run = |times: &[f64], max_num_steps| {
            let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok(x.neg()?) };
            let control = Control { max_num_steps, ..Control::default() };
            let options = SolverOptions { control, ..SolverOptions::default() };
            solve(Method::Bosh3, &mut field, &x, times, &options, |_| ())
        };
        for times in [&[0.0, 1.0][..], &[1.0, 0.5, 0.0]] {
            let free = run(times, Control::default().max_num_steps).unwrap();
            let steps = free.steps.len() as u64;
            assert_eq!(run(times, steps).unwrap(), free);
            let error = run(times, steps - 1).unwrap_err().to_string();
            let named = format!("step {0}: max_num_steps {0} does not", steps - 1);
            assert!(error.contains("failed at t = 0.") && error.contains(&named), "{error}");
        }
    }

    #[test]
    fn a_field_without_values_is_an_error() {
        let x = Tensor::new(&[1f32], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, _t: f64| -> Result<Tensor> { Ok((x * f64::NAN)?) };
        let times = [0.0, 1.0];
        assert!(
            solve(Method::Dopri5, &mut field, &x, &times, &SolverOptions::default(), |_| ())
                .is_err()
        );
    }

    #[test]
    fn prescribed_times_end_steps_and_jumps_are_seen_from_behind() {
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let run = |step_t: &[f64], jump_t: &[f64], times: [f64; 2]| {
            // 1 up to t = 1/2, 2 behind it.
            let jump = |t: f64| if t <= 0.5 { 1.0 } else { 2.0 };
            let mut field = |x: &Tensor, t: f64| -> Result<Tensor> { Ok(x.affine(0.0, jump(t))?) };
            let control = Control { first_step: Some(0.25), ..Control::default() };
            let (step_t, jump_t) = (step_t.to_vec(), jump_t.to_vec());
            let options = SolverOptions { control, step_t, jump_t, ..SolverOptions::default() };
            let mut end = x.clone();
            let trace = solve(Method::Dopri5, &mut field, &x, &times, &options, |x| end = x)?;
            let end = end.to_vec1::<f64>().unwrap()[0];
            let starts: Vec<f64> = trace.steps.iter().map(|step| step.t).collect();
            let accepted = trace.steps.iter().all(|step| step.accepted);
            Ok::<_, Error>((end, starts, accepted))
        };
        let (end, starts, accepted) = run(&[0.75], &[0.5], [0.0, 1.0]).unwrap();
        assert!(accepted && (end - 1.5).abs() < 1e-12, "{end}");
        assert_eq!(starts, [0.0, 0.25, 0.5, 0.75]);
        let (end, starts, accepted) = run(&[0.75, 2.0], &[0.5], [1.0, 0.0]).unwrap();
        assert!(accepted && (end + 1.5).abs() < 1e-12, "{end}");
        assert_eq!(starts, [1.0, 0.75, 0.5]);
        // Without them the jump has to be found by steps that fail.
        assert!(!run(&[], &[], [0.0, 1.0]).unwrap().2);

        let twice = run(&[0.5], &[0.5], [0.0, 1.0]).unwrap_err().to_string();
        assert!(twice.contains("0.5 twice"), "{twice}");
        assert!(run(&[f64::NAN], &[], [0.0, 1.0]).is_err());
    }

    #[test]
    fn a_step_that_ends_on_a_prescribed_time_does_not_hide_the_next() {
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let mut field = |x: &Tensor, _: f64| -> Result<Tensor> { Ok(x.affine(0.0, 1.0)?) };
        let control = Control { first_step: Some(0.25), max_step: 0.25, ..Control::default() };
        let options =
            SolverOptions { control, step_t: vec![0.25, 0.6], ..SolverOptions::default() };
        let trace = solve(Method::Dopri5, &mut field, &x, &[0.0, 0.7], &options, |_| ()).unwrap();
        let starts: Vec<f64> = trace.steps.iter().map(|step| step.t).collect();
        assert_eq!(starts, [0.0, 0.25, 0.5, 0.6]);
    }
}
