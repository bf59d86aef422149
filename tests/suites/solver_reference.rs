//! Every solver equals torchdiffeq's: states, evaluations, steps.

#![allow(clippy::unwrap_used, reason = "a suite: it panics to fail")]

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Result, Tensor};
use fm_candle::solver::{Adams, Control, Interpolation, Method, SolverOptions, Trace, solve};
use fmq_tests::{json, max_difference, ran, tensors};
use serde_json::Value;

type Tensors = HashMap<String, Tensor>;

/// The reference's fields, in the precision of the state.
fn field<'a>(name: &str, inputs: &'a Tensors) -> impl FnMut(&Tensor, f64) -> Result<Tensor> + 'a {
    let name = name.to_string();
    move |x, t| {
        let input = |name: &str| inputs[name].to_dtype(x.dtype());
        match name.as_str() {
            "linear" => x.matmul(&input("A")?.t()?),
            "nonlinear" => {
                let swing = (x * (3.0 * t).sin())?;
                let damp = ((x * 2.0)?.sin()? * 0.8)?;
                (swing - damp)?.broadcast_add(&(input("w")? * (5.0 * t).cos())?)
            }
            "stiff" => x.affine(-30.0, 30.0 * t.cos() - t.sin()),
            "blowup" => x.powf(3.0)? + 1.0,
            "kink" => (input("w")? * (t - 0.37).abs())?.broadcast_sub(x),
            other => panic!("unknown field {other}"),
        }
    }
}

fn times(case: &Value) -> Vec<f64> {
    case["time_grid"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect()
}

fn dtype(name: &Value) -> DType {
    if name == "float64" { DType::F64 } else { DType::F32 }
}

fn options(case: &Value) -> SolverOptions {
    let number = |key: &str| case["options"][key].as_f64();
    let base = Control::default();
    let control = Control {
        atol: case["atol"].as_f64().unwrap(),
        rtol: case["rtol"].as_f64().unwrap(),
        first_step: number("first_step"),
        min_step: number("min_step").unwrap_or(base.min_step),
        max_step: number("max_step").unwrap_or(base.max_step),
        safety: number("safety").unwrap_or(base.safety),
        ifactor: number("ifactor").unwrap_or(base.ifactor),
        dfactor: number("dfactor").unwrap_or(base.dfactor),
        ..base
    };
    let whole = |key: &str, default: usize| {
        case["options"][key].as_u64().map_or(default, |it| usize::try_from(it).unwrap())
    };
    let list = |key: &str| -> Vec<f64> {
        let values = case["options"][key].as_array();
        values.map_or(vec![], |values| values.iter().map(|t| t.as_f64().unwrap()).collect())
    };
    let adams = Adams::default();
    SolverOptions {
        step_size: case["step_size"].as_f64(),
        time: dtype(&case["grid_dtype"]),
        interpolation: match case["options"]["interp"].as_str() {
            None => Interpolation::Linear,
            Some("cubic") => Interpolation::Cubic,
            Some(other) => panic!("unknown interpolation {other}"),
        },
        perturb: case["options"]["perturb"].as_bool().unwrap_or(false),
        adams: Adams {
            max_order: whole("max_order", adams.max_order),
            max_iters: whole("max_iters", adams.max_iters),
        },
        control,
        step_t: list("step_t"),
        jump_t: list("jump_t"),
    }
}

/// The case's start: zeros for the cases named so.
fn start(name: &str, case: &Value, inputs: &Tensors) -> Tensor {
    let x0 = inputs["x0"].to_dtype(dtype(&case["dtype"])).unwrap();
    if name.contains(".zero_") { x0.zeros_like().unwrap() } else { x0 }
}

/// How far the states are off, and what differs from the reference by more than it may.
fn differences(
    name: &str,
    case: &Value,
    states: &[Tensor],
    trace: &Trace,
    expected: &Tensors,
) -> (f64, Vec<String>) {
    let mut found = Vec::new();
    let double = case["dtype"] == "float64";
    let adaptive = case["accepted"].is_u64();
    let moved = 20.0 * case["y_change_under_last_bit_perturbation"].as_f64().unwrap();
    let tolerance = match (double, adaptive) {
        (true, _) => moved.max(1e-10 * case["y_abs_max"].as_f64().unwrap().max(1.0)),
        (false, true) => moved.max(1e-4),
        (false, false) => moved.max(1e-5),
    };
    let solution = &expected[name];
    let off = max_difference(&Tensor::stack(states, 0).unwrap(), solution);
    if off.is_nan() || off > tolerance {
        found.push(format!("states off by {off:e}, {tolerance:e} allowed"));
    }

    let nfe = trace.evaluations.len() as u64;
    let expected_nfe = case["nfe"].as_u64().unwrap();
    let known = case["nfe_under_last_bit_perturbation"].as_array().unwrap();
    // A borderline step or correction may fall to either side in single precision.
    let margin = match case["method"].as_str().unwrap() {
        _ if double || !adaptive => 0,
        "dopri8" => 13,
        "dopri5" => 6,
        "bosh3" => 3,
        "fehlberg2" => 2,
        _ => 1,
    };
    let near = |it: &Value| it.as_u64().unwrap().abs_diff(nfe) <= margin;
    if double && nfe != expected_nfe || !known.iter().any(near) {
        found.push(format!("{nfe} evaluations for {expected_nfe}, or one of {known:?}"));
    }

    if double {
        let exact = time_tolerance(case["method"].as_str().unwrap());
        if let Some(t_evals) = expected.get(&format!("{name}.t_evals")) {
            let t_evals = t_evals.to_vec1::<f64>().unwrap();
            let off = apart(&trace.evaluations, &t_evals);
            if off > exact {
                found.push(format!("evaluated up to {off:e} beside the times"));
            }
        }
        if let Some(steps) = expected.get(&format!("{name}.steps")) {
            let steps = steps.to_vec2::<f64>().unwrap();
            let column = |i: usize| steps.iter().map(|row| row[i]).collect::<Vec<_>>();
            let starts: Vec<f64> = trace.steps.iter().map(|step| step.t).collect();
            let lengths: Vec<f64> = trace.steps.iter().map(|step| step.h.abs()).collect();
            let taken: Vec<f64> =
                trace.steps.iter().map(|step| f64::from(u8::from(step.accepted))).collect();
            let off = apart(&starts, &column(0)).max(apart(&lengths, &column(1)));
            if off > exact || apart(&taken, &column(2)) > 0.0 {
                found.push(format!("steps off by {off:e}, or accepted otherwise"));
            }
        }
    }
    if double && adaptive {
        let accepted = trace.steps.iter().filter(|step| step.accepted).count() as u64;
        let rejected = trace.steps.len() as u64 - accepted;
        let (a, r) = (case["accepted"].as_u64().unwrap(), case["rejected"].as_u64().unwrap());
        if (accepted, rejected) != (a, r) {
            found.push(format!("{accepted} steps and {rejected} rejected for {a} and {r}"));
        }
    }
    (off, found)
}

/// How far the times of evaluations and steps may lie apart.
///
/// An error estimate is a sum that nearly cancels, most of all that of `dopri8`; the digits lost
/// there, which depend on the order of summation, move the length of the next step. They hardly
/// move the states, whose error the estimate bounds.
fn time_tolerance(method: &str) -> f64 {
    match method {
        "dopri8" => 2e-6,
        "dopri5" | "bosh3" | "fehlberg2" | "adaptive_heun" => 2e-9,
        _ => 1e-12,
    }
}

/// The largest difference; infinite for lists of different lengths.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// What was seen of a method: cases, those with the reference's evaluations, and how far the
/// states were off at most in double and in single precision.
#[derive(Default)]
struct Seen {
    cases: usize,
    equal: usize,
    off: [Option<f64>; 2],
}

#[test]
fn solutions_and_their_cost_equal_torchdiffeq() {
    let reference = json("solver/solver.json");
    let (inputs, expected) =
        (tensors("solver/inputs.safetensors"), tensors("solver/solutions.safetensors"));
    let (mut wrong, mut all) = (Vec::new(), BTreeMap::<&str, Seen>::new());
    for (name, case) in reference["cases"].as_object().unwrap() {
        let key = case["method"].as_str().unwrap();
        let x0 = start(name, case, &inputs);
        let mut field = field(case["field"].as_str().unwrap(), &inputs);
        let mut field = |x: &Tensor, t: f64| Ok(field(x, t)?);
        let mut states = vec![x0.clone()];
        let method: Method = key.parse().unwrap();
        let times = times(case);
        let solved = solve(method, &mut field, &x0, &times, &options(case), |x| states.push(x));
        let seen = all.entry(key).or_default();
        seen.cases += 1;
        match solved {
            Ok(trace) => {
                let (off, found) = differences(name, case, &states, &trace, &expected);
                wrong.extend(found.into_iter().map(|found| format!("{name}: {found}")));
                seen.equal += usize::from(case["nfe"] == trace.evaluations.len());
                let worst = &mut seen.off[usize::from(case["dtype"] == "float32")];
                *worst = Some(worst.map_or(off, |worst| worst.max(off)));
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    println!("| method | cases | evaluations equal | off, float64 | off, float32 |");
    println!("|---|---:|---:|---:|---:|");
    for (method, Seen { cases, equal, off }) in &all {
        let [double, single] = off.map(|off| off.map_or("-".into(), |off| format!("{off:.1e}")));
        println!("| `{method}` | {cases} | {equal} | {double} | {single} |");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ran("solutions", all.values().map(|seen| seen.cases).sum(), 187, 187);
    assert_eq!(all.len(), Method::ALL.len(), "methods");
}

#[test]
fn what_torchdiffeq_refuses_is_refused() {
    let inputs = tensors("solver/inputs.safetensors");
    let x0 = inputs["x0"].to_dtype(DType::F64).unwrap();
    let run = |name: &str, method: Method, times: &[f64]| {
        let mut field = field(name, &inputs);
        let mut field = |x: &Tensor, t: f64| Ok(field(x, t)?);
        solve(method, &mut field, &x0, times, &SolverOptions::default(), |_| ())
    };
    let blowup = run("blowup", Method::Dopri5, &[0.0, 1.0]).unwrap_err().to_string();
    assert!(blowup.contains("failed at t = 0."), "{blowup}");
    assert!(run("linear", Method::Dopri5, &[0.0, 0.5, 0.25]).is_err());
    assert!(run("linear", Method::Euler, &[0.0, 0.5, 0.5, 1.0]).is_err());
    assert!("edm_heun".parse::<Method>().is_err());
}
