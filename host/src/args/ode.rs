//! The solver's arguments: `--ode-method`, `--ode-options`, `--edm-schedule`.

use core::str::FromStr;

use anyhow::Result;
use clap::Arg;
use fm_candle::json;
use fm_candle::solver::{
    Adams, Control, Interpolation, Method, SolverOptions, edm_grid, steps_grid, uniform_grid,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Usage;

/// Step of the solver of `sample` and `encode`, where none is given.
pub(crate) const STEP: f64 = 0.05;
/// Step of the commands that solve many times to compare nets: `sweep`, `latent`, `tune`, `demo`.
pub(crate) const COARSE_STEP: f64 = 0.1;

/// The solver, and the number of its steps.
#[derive(clap::Args)]
pub(crate) struct OdeArgs {
    #[command(flatten)]
    pub(crate) solver: SolverArgs,
    #[command(flatten)]
    count: Steps,
}

/// The solver of a command that draws samples.
#[derive(clap::Args)]
pub(crate) struct SolverArgs {
    /// Solver: euler, midpoint, heun2, heun3, rk4; explicit_adams, implicit_adams; adaptive_heun,
    /// fehlberg2, bosh3, dopri5, dopri8
    #[arg(long, default_value = "midpoint")]
    pub(crate) ode_method: Method,
    #[arg(
        long,
        help = options_help(STEP),
        default_value = "{}",
        hide_default_value = true,
        value_name = "JSON"
    )]
    pub(crate) ode_options: OdeOptions,
    /// Use the EDM time grid
    #[arg(long)]
    pub(crate) edm_schedule: bool,
}

/// Help of `--ode-options` where steps of `step` are the default.
fn options_help(step: f64) -> String {
    format!(
        "JSON: {{\"step_size\": {step}}}, the default, or with --edm-schedule {{\"nfe\": 50}}. Adaptive \
         solvers: atol and rtol, 1e-5 each by default, first_step, min_step, max_step, max_num_steps, \
         safety, ifactor, dfactor, step_t, jump_t; the others: perturb, interp; Adams: max_order, and \
         if implicit max_iters, atol, rtol"
    )
}

/// `--ode-options` of a command with steps of [`COARSE_STEP`].
pub(crate) fn coarse(ode_options: Arg) -> Arg {
    ode_options.help(options_help(COARSE_STEP))
}

impl OdeArgs {
    /// See [`SolverArgs::steps`].
    pub(crate) fn steps(&self, step_size: f64) -> Result<(Vec<f64>, SolverOptions)> {
        let SolverArgs { ode_method, edm_schedule, .. } = self.solver;
        let (grid, options) = self.solver.steps(step_size)?;
        Ok((self.count.grid(ode_method, edm_schedule, grid)?, options))
    }
}

impl SolverArgs {
    /// See [`OdeOptions::steps`]; a step size is refused where the EDM schedule sets the steps.
    pub(crate) fn steps(&self, step_size: f64) -> Result<(Vec<f64>, SolverOptions)> {
        if let (true, Some(step)) = (self.edm_schedule, self.ode_options.step_size) {
            let text = format!(
                "--ode-options: step_size {step} has no effect on the time grid of --edm-schedule; give nfe"
            );
            return Err(Usage(text).into());
        }
        self.ode_options.steps(self.ode_method, self.edm_schedule, step_size)
    }
}

/// The number of the solver's steps.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Steps {
    /// Steps of the solver, all of one length but on the EDM time grid; in place of step_size and nfe
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "ode_options",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    steps: Option<u32>,
}

impl Steps {
    /// The number that was given.
    pub(crate) const fn given(self) -> Option<u32> {
        self.steps
    }

    /// The time grid of so many steps; `otherwise` where no number is given.
    pub(crate) fn grid(self, method: Method, edm: bool, otherwise: Vec<f64>) -> Result<Vec<f64>> {
        let Some(steps) = self.steps else { return Ok(otherwise) };
        if method.is_adaptive() {
            let text =
                format!("--steps {steps}: {method} chooses its own steps; give atol and rtol");
            return Err(Usage(text).into());
        }
        if edm && steps < 2 {
            return Err(Usage(format!("--steps {steps}: the EDM schedule needs at least 2")).into());
        }
        let steps = steps as usize;
        Ok(if edm { edm_grid(steps)? } else { steps_grid(steps)? })
    }
}

/// The settings of `--ode-options`: torchdiffeq's and upstream's names, each value checked.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OdeOptions {
    step_size: Option<f64>,
    nfe: Option<usize>,
    atol: Option<f64>,
    rtol: Option<f64>,
    max_order: Option<usize>,
    max_iters: Option<usize>,
    perturb: Option<bool>,
    /// Of no effect: the asked times are the grid's, where both kinds give the state itself.
    interp: Option<Interpolation>,
    first_step: Option<f64>,
    min_step: Option<f64>,
    max_step: Option<f64>,
    max_num_steps: Option<u64>,
    safety: Option<f64>,
    ifactor: Option<f64>,
    dfactor: Option<f64>,
    step_t: Option<Vec<f64>>,
    jump_t: Option<Vec<f64>>,
    /// The names that were given.
    #[serde(skip)]
    given: Vec<String>,
}

/// torchdiffeq's options that are no JSON or that the method decides, and what to do without them.
const REFUSED: [(&str, &str); 4] = [
    ("norm", "errors count by the root of their mean square, torchdiffeq's own norm; leave it out"),
    ("dtype", "time is counted in double, as torchdiffeq does by itself; leave it out"),
    ("grid_constructor", "give step_size, or nfe with --edm-schedule"),
    ("implicit", "the method says so: explicit_adams or implicit_adams"),
];

impl FromStr for OdeOptions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let like = |error: String| format!("{error}; give one like {{\"step_size\": 0.05}}");
        let object = json::object(text).map_err(like)?;
        let json: Map<String, Value> = serde_json::from_str(object)
            .map_err(|error| like(format!("is no JSON object: {error}")))?;
        for (key, value) in &json {
            if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == key) {
                return Err(format!("{key} is not taken: {reason}"));
            }
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            let read = serde_json::from_value::<Self>(Value::Object(alone));
            read.map_err(|error| format!("{key}: {error}"))?;
        }
        let given = json.iter().filter(|(_, value)| !value.is_null());
        let given = given.map(|(key, _)| key.clone()).collect();
        let mut options: Self =
            serde_json::from_value(Value::Object(json)).map_err(|error| error.to_string())?;
        options.given = given;
        let solver = options.solver();
        let checked = options
            .grid(false, 1.0)
            .and_then(|_| options.grid(true, 1.0))
            .and_then(|_| solver.control.check())
            .and_then(|()| solver.adams.check());
        checked.map_err(|error| error.to_string())?;
        Ok(options)
    }
}

impl OdeOptions {
    /// The options that were given, as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        json
    }

    /// The time grid, in steps of `step_size` where nothing else is given, and the solver's settings.
    ///
    /// An adaptive solver's steps are its own: the grid is where it reports.
    pub(crate) fn steps(
        &self,
        method: Method,
        edm: bool,
        step_size: f64,
    ) -> Result<(Vec<f64>, SolverOptions)> {
        for key in &self.given {
            if let Some(owner) = stranger(key, method, edm) {
                let text = format!("--ode-options: {method} takes no {key} here; it is {owner}");
                return Err(Usage(text).into());
            }
        }
        Ok((self.grid(edm, step_size)?, self.solver()))
    }

    /// Upstream's default options of training hold a step size even where the EDM schedule sets the
    /// steps.
    fn grid(&self, edm: bool, step_size: f64) -> fm_candle::Result<Vec<f64>> {
        if edm {
            edm_grid(self.nfe.unwrap_or(50))
        } else {
            uniform_grid(self.step_size.unwrap_or(step_size))
        }
    }

    fn solver(&self) -> SolverOptions {
        let (adams, control) = (Adams::default(), Control::default());
        SolverOptions {
            perturb: self.perturb.unwrap_or(false),
            adams: Adams {
                max_order: self.max_order.unwrap_or(adams.max_order),
                max_iters: self.max_iters.unwrap_or(adams.max_iters),
            },
            control: Control {
                atol: self.atol.unwrap_or(control.atol),
                rtol: self.rtol.unwrap_or(control.rtol),
                first_step: self.first_step,
                min_step: self.min_step.unwrap_or(control.min_step),
                max_step: self.max_step.unwrap_or(control.max_step),
                safety: self.safety.unwrap_or(control.safety),
                ifactor: self.ifactor.unwrap_or(control.ifactor),
                dfactor: self.dfactor.unwrap_or(control.dfactor),
                max_num_steps: self.max_num_steps.unwrap_or(control.max_num_steps),
                ..control
            },
            step_t: self.step_t.clone().unwrap_or_default(),
            jump_t: self.jump_t.clone().unwrap_or_default(),
            ..SolverOptions::default()
        }
    }
}

/// The owner of the option, where `method` does not take it.
fn stranger(key: &str, method: Method, edm: bool) -> Option<&'static str> {
    let adaptive = method.is_adaptive();
    let implicit = method == Method::ImplicitAdams;
    let (known, owner) = match key {
        "nfe" => (edm, "the EDM schedule's: add --edm-schedule, or give step_size"),
        "atol" | "rtol" => (adaptive || implicit, "an adaptive solver's or implicit_adams'"),
        "max_order" => (method.is_multistep(), "explicit_adams' and implicit_adams'"),
        "max_iters" => (implicit, "implicit_adams'"),
        "perturb" | "interp" => (!adaptive, "that of solvers on a given grid"),
        "step_size" => (true, ""),
        _ => (adaptive, "an adaptive solver's"),
    };
    (!known).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<OdeOptions, String> {
        text.parse()
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_right() {
        for (text, right) in [
            ("0.05", "JSON object"),
            ("[0.05]", "found a list, a JSON object is due"),
            ("{'nfe': 5}", "is no JSON object: key must be a string"),
            (r#"{"stepsize": 0.05}"#, "step_size"),
            (r#"{"step_size": 0}"#, "(0, 1]"),
            (r#"{"step_size": "x"}"#, "step_size: invalid type: string \"x\", expected f64"),
            (r#"{"nfe": 1}"#, "at least 2"),
            (r#"{"atol": -1}"#, "at least 0"),
            (r#"{"max_order": 0}"#, "2 to 12"),
            (r#"{"max_iters": 0}"#, "at least 1"),
            (r#"{"safety": 0}"#, "above 0"),
            (r#"{"max_num_steps": 0}"#, "at least 1"),
            (r#"{"max_num_steps": 2.5}"#, "max_num_steps: invalid type"),
            (r#"{"interp": "spline"}"#, "expected `linear` or `cubic`"),
            (r#"{"norm": "max"}"#, "norm is not taken: errors count by the root"),
            (r#"{"dtype": "float32"}"#, "dtype is not taken: time is counted in double"),
            (r#"{"grid_constructor": null}"#, "give step_size"),
            (r#"{"implicit": true}"#, "explicit_adams or implicit_adams"),
        ] {
            let error = parse(text).err().expect(text);
            assert!(error.contains(right) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_step_size_is_refused_where_the_edm_schedule_sets_the_steps() {
        let solver = |text: &str| SolverArgs {
            ode_method: Method::Midpoint,
            ode_options: parse(text).unwrap(),
            edm_schedule: true,
        };
        assert!(solver(r#"{"step_size": 0.1}"#).steps(STEP).unwrap_err().is::<Usage>());
        assert_eq!(solver(r#"{"nfe": 5}"#).steps(STEP).unwrap().0.len(), 6);
    }

    #[test]
    fn options_of_other_solvers_are_refused() {
        let steps = |text: &str, method, edm| parse(text).unwrap().steps(method, edm, 0.5);
        let (euler, dopri5) = (Method::Euler, Method::Dopri5);
        assert!(steps(r#"{"atol": 1e-3}"#, euler, false).is_err());
        assert!(steps(r#"{"max_order": 4}"#, euler, false).is_err());
        assert!(steps(r#"{"max_iters": 4}"#, Method::ExplicitAdams, false).is_err());
        assert!(steps(r#"{"perturb": true}"#, dopri5, false).is_err());
        assert!(steps(r#"{"jump_t": [0.5]}"#, euler, false).is_err());
        assert!(steps(r#"{"max_num_steps": 5}"#, euler, false).is_err());
        assert!(steps(r#"{"interp": "cubic"}"#, dopri5, false).is_err());
        assert!(steps(r#"{"interp": "cubic"}"#, euler, false).is_ok());
        assert!(steps(r#"{"nfe": 5}"#, euler, false).is_err());
        assert_eq!(steps(r#"{"nfe": 5}"#, euler, true).unwrap().0.len(), 6);
        assert_eq!(steps(r#"{"step_size": null}"#, euler, false).unwrap().0, [0.0, 0.5, 1.0]);
        let text = r#"{"jump_t": [0.5], "atol": 0.1, "max_num_steps": 7}"#;
        let (_, options) = steps(&format!("\u{feff}{text}"), dopri5, false).unwrap();
        let Control { atol, max_num_steps, .. } = options.control;
        assert_eq!((options.jump_t, atol, max_num_steps), (vec![0.5], 0.1, 7));
        let adams = steps(r#"{"max_order": 5, "rtol": 0.1}"#, Method::ImplicitAdams, false);
        let (_, options) = adams.unwrap();
        assert_eq!((options.adams.max_order, options.control.rtol), (5, 0.1));
    }
}
