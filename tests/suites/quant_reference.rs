//! The quantizers against reference results: the paper's four schemes, and the exact optimum of
//! one-dimensional k-means. `data/quant/README.md` tells where the numbers come from.

#![allow(clippy::float_cmp, reason = "results are compared exactly where they are exact")]
#![allow(clippy::cast_precision_loss, reason = "lengths of small tensors")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "helpers of tests do as tests do")]

use fmq_tests::{json, ran, reference, width};
use quant_core::fit::{self, Fit, Group};
use quant_core::matrix::rows_of;
use quant_core::quantize::{QuantizeOptions, quantize_tensor};
use quant_core::scheme::Scheme;
use safetensors::SafeTensors;
use std::fs;

const PAPER: [Scheme; 4] =
    [Scheme::Uniform, Scheme::EqualMass, Scheme::Piecewise, Scheme::Logarithmic];

fn read(name: &str) -> Vec<u8> {
    let path = reference(&format!("quant/{name}"));
    fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

fn numbers<T, const N: usize>(file: &SafeTensors<'_>, name: &str, of: fn([u8; N]) -> T) -> Vec<T> {
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    tensor.data().as_chunks().0.iter().copied().map(of).collect()
}

/// The distance of two floats in units of the last place.
fn ulps(a: f32, b: f32) -> u32 {
    let ordered = |x: f32| {
        let bits = x.to_bits().cast_signed();
        if bits < 0 { i32::MIN - bits } else { bits }
    };
    ordered(a).abs_diff(ordered(b))
}

fn squared_error(weights: &[f32], values: &[f32]) -> f64 {
    weights.iter().zip(values).map(|(&w, &v)| (f64::from(w) - f64::from(v)).powi(2)).sum()
}

fn fit(scheme: Scheme, bits: u8, weights: &[f32], numel: usize) -> (Fit, Vec<u8>, Vec<f32>) {
    let fitted = fit::fit(scheme, &Group { numel, ..Group::new(weights, width(bits)) }).unwrap();
    let values = fitted.dequantized(weights).collect();
    (fitted.fit, fitted.codes, values)
}

/// Compares each channel of each tensor at 2 to 8 bits. Only a constant channel may name its one
/// level otherwise: under `log` the reference repeats it and names the last copy.
fn compare(scheme: Scheme, max_ulps: u32) {
    let (inputs, expected) = (read("inputs.safetensors"), read(&format!("{scheme}.safetensors")));
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let facts = json("quant/quant.json");
    let (mut worst, mut compared) = (0, 0);
    for name in inputs.names() {
        let weights = numbers(&inputs, name, f32::from_le_bytes);
        let shape = inputs.tensor(name).unwrap().shape().to_vec();
        let (_, row_len) = rows_of(&shape).unwrap();
        for bits in 2..=8 {
            let case = format!("{scheme} {name} at {bits} bits");
            let deq = numbers(&expected, &format!("{name}.b{bits}.deq"), f32::from_le_bytes);
            let idx = numbers(&expected, &format!("{name}.b{bits}.idx"), i16::from_le_bytes);
            let errors = &facts["mse"][format!("{scheme}.{name}.b{bits}")];
            let mut all = Vec::new();
            for (at, row) in weights.chunks(row_len).enumerate() {
                let (fit, codes, values) = fit(scheme, bits, row, weights.len());
                for (i, (&w, &value)) in row.iter().zip(&values).enumerate() {
                    let (deq, idx) = (deq[at * row_len + i], idx[at * row_len + i]);
                    compared += 1;
                    if idx < 0 {
                        assert_eq!(value, w, "{case}: copied");
                    } else {
                        assert_ne!(fit, Fit::Copied, "{case}");
                        let constant = row.iter().all(|&other| other == w);
                        let code = codes[i];
                        let same = i16::from(code) == idx || constant;
                        assert!(same, "{case}: {w} has {code}, not {idx}");
                    }
                    worst = worst.max(ulps(value, deq));
                    assert!(ulps(value, deq) <= max_ulps, "{case}: {value:e}, not {deq:e}");
                }
                // None is kept of `wide_range`.
                if let Some(expected) = errors[at].as_f64() {
                    let mse = squared_error(row, &values) / row.len() as f64;
                    // A last place more or less of each value.
                    let same = (mse - expected).abs() <= 1e-6 * expected;
                    assert!(same, "{case}: mean squared error {mse:e}, not {expected:e}");
                }
                all.extend(values);
            }
            let stored =
                quantize_tensor(&weights, &shape, &QuantizeOptions::new(scheme, width(bits)))
                    .unwrap();
            assert_eq!(stored.dequantized(), all, "{case}: stored");
        }
    }
    println!("{scheme}: {compared} weights, worst {worst} ulp");
    let all = facts["tensors"].as_object().unwrap().len();
    ran(scheme.name(), inputs.len(), all, all);
}

#[test]
fn uniform_is_bit_exact() {
    compare(Scheme::Uniform, 0);
}

#[test]
fn ot_has_the_same_codes() {
    compare(Scheme::EqualMass, 1);
}

#[test]
fn pwl_has_the_same_codes() {
    compare(Scheme::Piecewise, 1);
}

#[test]
fn log_has_the_same_codes() {
    compare(Scheme::Logarithmic, 2);
}

#[test]
fn lloyd_max_is_the_optimum_of_k_means() {
    let data = read("kmeans.safetensors");
    let channels = SafeTensors::deserialize(&data).unwrap();
    let cases = json("quant/quant.json");
    let mut worst = 0.0_f64;
    for (case, facts) in cases["kmeans"].as_object().unwrap() {
        let (channel, _) = case.split_once('.').unwrap();
        let weights = numbers(&channels, channel, f32::from_le_bytes);
        let count = facts["K"].as_u64().unwrap();
        let bits = u8::try_from(count.ilog2()).unwrap();
        let mse = |values: &[f32]| {
            squared_error(&weights, values) / f64::from(u32::try_from(weights.len()).unwrap())
        };
        let (_, codes, values) = fit(Scheme::LloydMax, bits, &weights, weights.len());
        let optimal = facts["optimal_mse"].as_f64().unwrap();
        let deviation = (mse(&values) / optimal - 1.0).abs();
        worst = worst.max(deviation);
        assert!(deviation < 1e-9, "{case}: {deviation:e}");

        let sizes = (0..count).map(|c| codes.iter().filter(|&&code| u64::from(code) == c).count());
        let expected = facts["cluster_sizes"].as_array().unwrap().iter();
        assert!(
            sizes.eq(expected.map(|n| usize::try_from(n.as_u64().unwrap()).unwrap())),
            "{case}"
        );
        let centers = numbers(&channels, &format!("{case}.centers"), f64::from_le_bytes);
        for (&code, &value) in codes.iter().zip(&values) {
            assert!((centers[usize::from(code)] - f64::from(value)).abs() < 1e-6, "{case}");
        }
        for rival in PAPER {
            let reference = facts[&format!("mse_{rival}")].as_f64().unwrap();
            assert!(mse(&values) <= reference, "{case}: {rival}");
        }
    }
    let all = cases["kmeans"].as_object().unwrap().len();
    ran("k-means", all, all, all);
    println!("lloyd-max: worst relative deviation of the mean squared error {worst:e}");
}

#[test]
fn no_scheme_beats_lloyd_max() {
    let data = read("inputs.safetensors");
    let inputs = SafeTensors::deserialize(&data).unwrap();
    for name in inputs.names() {
        let weights = numbers(&inputs, name, f32::from_le_bytes);
        let (_, row_len) = rows_of(inputs.tensor(name).unwrap().shape()).unwrap();
        for (row, bits) in weights.chunks(row_len).flat_map(|row| (2..=8).map(move |b| (row, b))) {
            let (_, _, best) = fit(Scheme::LloydMax, bits, row, weights.len());
            for rival in Scheme::ALL {
                let (fit, _, values) = fit(rival, bits, row, weights.len());
                if fit == Fit::Copied {
                    continue; // not K levels
                }
                // CodebookDtype are rounded to f32: each may cost a square of half its last place.
                let rounding: f64 = row.iter().map(|&w| (f64::from(w) * 6e-8).powi(2)).sum();
                let (best, rival_error) = (squared_error(row, &best), squared_error(row, &values));
                let bound = rival_error * (1.0 + 1e-9) + rounding;
                assert!(best <= bound, "{name} at {bits} bits: {best:e}, {rival} {rival_error:e}");
            }
        }
    }
}

#[test]
fn clipping_never_costs() {
    let data = read("inputs.safetensors");
    let inputs = SafeTensors::deserialize(&data).unwrap();
    for name in inputs.names() {
        let weights = numbers(&inputs, name, f32::from_le_bytes);
        let (_, row_len) = rows_of(inputs.tensor(name).unwrap().shape()).unwrap();
        for (row, bits) in weights.chunks(row_len).flat_map(|row| (2..=8).map(move |b| (row, b))) {
            let [own, uniform] = [Scheme::UniformMse, Scheme::Uniform]
                .map(|scheme| squared_error(row, &fit(scheme, bits, row, weights.len()).2));
            assert!(own <= uniform, "{name} at {bits} bits: {own:e}, uniform {uniform:e}");
        }
    }
}
