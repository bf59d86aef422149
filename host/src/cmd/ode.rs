//! `--ode-options`: a solver's settings as JSON.

use anyhow::{Context, Result, bail};
use fm_candle::solver::{Control, Method, edm_grid, uniform_grid};

/// The time grid and the tolerances of `--ode-options` and `--edm-schedule`.
///
/// An adaptive solver's steps are its own: the grid is where it reports.
pub(crate) fn steps(
    method: Method,
    options: &str,
    edm: bool,
    step_size: f64,
) -> Result<(Vec<f64>, Control)> {
    const KNOWN: [&str; 4] = ["step_size", "nfe", "atol", "rtol"];
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(options)
        .with_context(|| format!("--ode-options `{options}` must be a JSON object"))?;
    if let Some(key) = json.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        bail!(
            "--ode-options: unknown `{key}`; known are step_size, nfe for the EDM schedule, atol \
             and rtol for an adaptive solver"
        );
    }
    if let Some(key) = ["atol", "rtol"].into_iter().find(|key| json.contains_key(*key))
        && !method.is_adaptive()
    {
        bail!("--ode-options: {method} takes no {key}; it is an adaptive solver's");
    }
    // Upstream's default options hold a step size even where the EDM schedule sets the steps.
    if json.contains_key("nfe") && !edm {
        bail!("--ode-options: nfe is the EDM schedule's; add --edm-schedule or give step_size");
    }
    let number = |key: &str, default: f64| match json.get(key) {
        None => Ok(default),
        Some(value) => {
            value.as_f64().with_context(|| format!("--ode-options: {key} = {value} is no number"))
        }
    };
    let base = Control::default();
    let control =
        Control { atol: number("atol", base.atol)?, rtol: number("rtol", base.rtol)?, ..base };
    if edm {
        let nfe = number("nfe", 50.0)?;
        if nfe.fract() != 0.0 || !(2.0..=1e6).contains(&nfe) {
            bail!("--ode-options: nfe = {nfe} must be a whole number from 2 to 1000000");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        return Ok((edm_grid(nfe as usize)?, control));
    }
    Ok((uniform_grid(number("step_size", step_size)?)?, control))
}
