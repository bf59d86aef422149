//! Promise: files of other training programs give the weights of the net in them, and whatever is
//! no weight is named and never run. `tests/data/cases/make.py` made the files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]
#![expect(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "integers are small, and values are kept or not"
)]

use std::collections::BTreeMap;
use std::fs;

use fm_candle::checkpoint::{Choice, Source, load};
use fm_candle::quantize::{TensorPolicy, quantize_to_torch};
use fmq_tests::{data, width};
use quant_core::quantize::QuantizeOptions;
use quant_core::scheme::Scheme;
use serde_json::Value;

/// The values of the tensors of a source by the names that the net has for them.
fn values(source: &Source) -> BTreeMap<String, Vec<f64>> {
    let value = |(index, name): (usize, &String)| {
        let elements = source.elements(index).unwrap();
        let values = match elements.i64s() {
            Some(integers) => integers.into_iter().map(|value| value as f64).collect(),
            None => (0..elements.len()).map(|index| elements.f64_at(index)).collect(),
        };
        (name.clone(), values)
    };
    source.net_names().iter().enumerate().map(value).collect()
}

fn cases() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(data("cases/cases.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap().as_object().unwrap().clone()
}

#[test]
fn the_nets_weights_are_found_with_their_values() {
    for (file, facts) in cases() {
        let source = Source::open(&data(&format!("cases/{file}")), false).unwrap();
        let expected: BTreeMap<String, Vec<f64>> =
            serde_json::from_value(facts["tensors"].clone()).unwrap();
        assert_eq!(values(&source), expected, "{file}");
        let mut left_out: Vec<_> = source.left_out().iter().map(|it| it.name.as_str()).collect();
        left_out.sort_unstable();
        let expected: Vec<String> = serde_json::from_value(facts["left_out"].clone()).unwrap();
        assert_eq!(left_out, expected, "{file}");
    }
}

#[test]
fn raw_weights_and_keys_choose_the_net() {
    // The raw weights begin at 1, the averages at 2.
    let first = |file: &str, choice: &Choice<'_>| {
        let source = Source::open_net(&data(&format!("cases/{file}")), choice);
        source.map(|source| (values(&source)["conv.weight"][0], source.ema()))
    };
    for file in ["several.pth", "ema_class.pth", "shadow_list.pth"] {
        assert_eq!(first(file, &Choice::default()).unwrap(), (2.0, true), "{file}");
        let raw = Choice { raw_weights: true, ..Choice::default() };
        assert_eq!(first(file, &raw).unwrap(), (1.0, false), "{file}");
    }
    let by_key = |key| first("several.pth", &Choice { key: Some(key), ..Choice::default() });
    assert_eq!(by_key("net_model").unwrap(), (1.0, false));
    let error = by_key("model").unwrap_err().to_string();
    assert!(error.contains("no net under `model`, but `net_model`, `ema_model`"), "{error}");
    let source = Source::open(&data("cases/several.pth"), false).unwrap();
    let nets: Vec<_> =
        source.nets().iter().map(|net| (net.key.as_str(), net.average, net.taken)).collect();
    assert_eq!(nets, [("net_model", false, false), ("ema_model", true, true)]);
    let source = Source::open(&data("cases/compiled.pth"), false).unwrap();
    assert_eq!(source.prefix(), "module._orig_mod");
}

#[test]
fn a_quantized_torch_file_changes_the_weights_of_its_nets_alone() {
    let dir = tempfile::tempdir().unwrap();
    let untouched = ["u16", "u32", "u64", "integers_negated", "e4m3", "e5m2"];
    for (file, nets) in [
        ("several.pth", 2),
        ("lightning.pth", 1),
        ("ema_class.pth", 3),
        ("shadow_list.pth", 2),
        ("averaged_model.pth", 1),
        ("objects.pth", 1),
        ("kinds.pth", 1),
    ] {
        let input = data(&format!("cases/{file}"));
        let output = dir.path().join(file);
        let source = Source::open_whole(&input, &Choice::default()).unwrap();
        let indices: Vec<usize> = (0..source.tensors().len()).collect();
        let mut names = Vec::new();
        let uniform = |name: &str, _: &[usize]| {
            assert!(name.starts_with("conv.") || file == "kinds.pth", "{file}: {name}");
            TensorPolicy::Quantize(QuantizeOptions::new(Scheme::Uniform, width(1)))
        };
        quantize_to_torch(&output, &source, &indices, uniform, |info, _| {
            names.push(info.name.clone());
            Ok(())
        })
        .unwrap();
        if file != "kinds.pth" {
            let weights = names.iter().filter(|name| name.contains("conv.weight")).count();
            assert_eq!(weights + usize::from(file == "shadow_list.pth"), nets, "{file}: {names:?}");
        }
        let (was, is) =
            (Source::open(&input, false).unwrap(), Source::open(&output, false).unwrap());
        for ((name, was), (_, is)) in values(&was).into_iter().zip(values(&is)) {
            // Of one bit: the least and the greatest of each row stay.
            if name == "conv.weight" {
                let distinct = |row: &[f64]| row.windows(2).filter(|two| two[0] != two[1]).count();
                assert!(is.chunks(6).all(|row| distinct(row) == 1), "{file}: {is:?}");
                assert_eq!((is[0], is[5], is[23]), (was[0], was[5], was[23]), "{file}");
            } else if name == "negated" || untouched.contains(&name.as_str()) {
                let kept = [was[0], was[was.len() - 1]];
                assert_eq!([is[0], is[is.len() - 1]], kept, "{file}: {name}");
            }
        }
        let (a, b) = (fs::read(&input).unwrap(), fs::read(&output).unwrap());
        assert_eq!(a.len(), b.len(), "{file}");
    }
    // Adam's moments are the bytes that they were.
    let moments = |path: &std::path::Path| {
        let source = Source::open_training(path).unwrap().unwrap().0;
        values(&source)
    };
    let path = dir.path().join("shadow_list.pth");
    assert_eq!(moments(&path), moments(&data("cases/shadow_list.pth")));
}

#[test]
fn programs_are_told_the_way_out() {
    for (file, reasons) in [
        ("script.pt", ["TorchScript", "state_dict()"]),
        ("module.pth", ["`mine.Net`", "state_dict()"]),
    ] {
        let error = load(&data(&format!("cases/{file}")), false).unwrap_err().to_string();
        assert!(reasons.iter().all(|reason| error.contains(reason)), "{error}");
    }
}
