//! Files of other training programs: several nets in one, names under prefixes, tensors that cannot
//! be weights. What is taken is said; an option that would do nothing is refused.

use std::collections::BTreeMap;

use super::*;

/// A folder with `net.json`, the configuration of [`tiny`], and `in.safetensors`, points for it.
fn folder_of_nets() -> TempDir {
    let dir = folder();
    fs::write(dir.path().join("net.json"), config::to_json(&tiny())).unwrap();
    let zeros = |shape: &[usize]| Tensor::ones(shape, DType::F32, &fm_candle::device::Device::Cpu);
    let points = [("x", zeros(&[1, 1, 8, 8])), ("t", zeros(&[1]))];
    let points = points.map(|(name, tensor)| (name.to_string(), tensor.unwrap()));
    checkpoint::safetensors::save(&dir.path().join("in.safetensors"), &points, &[]).unwrap();
    dir
}

/// Writes `net.safetensors` once for each prefix, the weights times its factor, and `others`.
fn wrap(dir: &Path, prefixes: &[(&str, f64)], others: &[&str]) {
    let net = checkpoint::load(&dir.join("net.safetensors"), true).unwrap().tensors;
    let mut tensors = Vec::new();
    for (prefix, factor) in prefixes {
        for (name, tensor) in &net {
            tensors.push((format!("{prefix}{name}"), (tensor * *factor).unwrap()));
        }
    }
    tensors.extend(others.iter().map(|name| (name.to_string(), net[1].1.clone())));
    checkpoint::safetensors::save(&dir.join("wrapped.safetensors"), &tensors, &[]).unwrap();
}

/// The velocity of a file's net, and what was said on the way.
fn velocity(dir: &Path, args: &[&str]) -> (Vec<f32>, String) {
    let fixed = ["velocity", "--inputs", "in.safetensors", "-o", "v.safetensors"];
    let output = fmq(dir, &[&fixed[..], args].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    let v = checkpoint::load(&dir.join("v.safetensors"), true).unwrap().tensors.remove(0).1;
    (v.flatten_all().unwrap().to_vec1().unwrap(), stderr)
}

#[test]
fn the_average_of_several_nets_is_taken_and_the_others_are_offered() {
    let dir = folder_of_nets();
    let dir = dir.path();
    let (net, said) = velocity(dir, &["net.safetensors"]);
    assert_eq!(said, "");
    wrap(dir, &[("net_model.", 0.5), ("ema_model.", 1.0)], &["optim.state.0.exp_avg"]);
    let wrapped = ["wrapped.safetensors", "--arch", "net.json"];
    let (average, said) = velocity(dir, &wrapped);
    assert_eq!(average, net);
    assert!(said.contains("taking `ema_model` (averaged), not `net_model`"), "{said}");
    assert!(said.contains("--checkpoint-key"), "{said}");
    for choice in [&["--raw-weights"][..], &["--checkpoint-key", "net_model"]] {
        let (raw, said) = velocity(dir, &[&wrapped[..], choice].concat());
        assert!(raw != net && said.contains("taking `net_model`"), "{said}");
    }
    let missing = ["inspect", "wrapped.safetensors", "--checkpoint-key", "ema"];
    assert!(fails(dir, &missing).contains("`net_model`, `ema_model`"));
    let inspect = ["inspect", "wrapped.safetensors", "--arch", "net.json", "--json"];
    let json: Value = serde_json::from_str(&ok(dir, &inspect)).unwrap();
    let nets = json["nets"].as_array().unwrap();
    assert_eq!(
        (nets[0]["key"].as_str(), nets[0]["taken"].as_bool()),
        (Some("net_model"), Some(false))
    );
    assert_eq!(
        (nets[1]["key"].as_str(), nets[1]["taken"].as_bool()),
        (Some("ema_model"), Some(true))
    );
    assert_eq!(json["ema"], true);
}

#[test]
fn prefixes_of_wrappers_are_left_off_and_said() {
    let dir = folder_of_nets();
    let dir = dir.path();
    let (net, _) = velocity(dir, &["net.safetensors"]);
    let names = |file: &str| -> Vec<String> {
        let tensors = checkpoint::load(&dir.join(file), true).unwrap().tensors;
        tensors.into_iter().map(|(name, _)| name).collect()
    };
    for (prefix, others) in [
        ("module.", &[][..]),
        ("module._orig_mod.", &[]),
        ("model.module.", &[]),
        ("vf.", &["loss.weight"]),
        ("diffusion.net.", &["optimizer.state.0.exp_avg"]),
    ] {
        wrap(dir, &[(prefix, 1.0)], others);
        let (v, said) = velocity(dir, &["wrapped.safetensors", "--arch", "net.json"]);
        assert!(v == net && said.contains(&format!("the prefix `{prefix}`")), "{prefix}: {said}");
        // The options that go by name find their tensors.
        let quantize = [
            "quantize",
            "wrapped.safetensors",
            "--arch",
            "net.json",
            "--scheme",
            "ot",
            "--bits",
            "2",
        ];
        let keep = ["--keep", "recommended", "--golden", "-o", "q.fmq", "--json"];
        let json: Value = serde_json::from_str(&ok(dir, &[&quantize[..], &keep].concat())).unwrap();
        assert_eq!(json["tensors"][0]["name"], "time_embed.0.weight");
        assert_eq!(
            (&json["tensors"][0]["bits"], json["tensors"].as_array().unwrap().len()),
            (&16.into(), names("net.safetensors").len())
        );
        assert!(ok(dir, &["inspect", "q.fmq"]).contains("tests itself"), "{prefix}");
    }
}

#[test]
fn keep_recommended_says_where_it_keeps_vectors_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let matrix = Tensor::ones((2, 3), DType::F32, &fm_candle::device::Device::Cpu).unwrap();
    let vector = matrix.get(0).unwrap();
    let tensors = [("a.weight".to_string(), matrix), ("a.bias".to_string(), vector)];
    checkpoint::safetensors::save(&dir.join("x.safetensors"), &tensors, &[]).unwrap();
    let quantize = ["quantize", "x.safetensors", "--scheme", "ot", "--bits", "1", "-o", "q.fmq"];
    let output = fmq(dir, &[&quantize[..], &["--keep", "recommended"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("keeps vectors alone"), "{said}");
}

#[test]
fn tensors_that_cannot_be_weights_are_named_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/cases");
    fs::copy(cases.join("kinds.pth"), dir.join("kinds.pth")).unwrap();
    let args = ["quantize", "kinds.pth", "--scheme", "uniform", "--bits", "8", "-o", "q.fmq"];
    let output = fmq(dir, &args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("5 tensors are left out"), "{said}");
    let json: Value = serde_json::from_str(&ok(dir, &["inspect", "kinds.pth", "--json"])).unwrap();
    let left_out = json["left_out"].as_array().unwrap().iter();
    let left_out: BTreeMap<&str, &str> =
        left_out.map(|it| (it["name"].as_str().unwrap(), it["reason"].as_str().unwrap())).collect();
    assert!(left_out["sparse"].contains("to_dense()") && left_out["meta"].contains("no values"));
    assert!(
        left_out["complex"].contains("complex") && left_out["quantized"].contains("dequantize")
    );
}

#[test]
fn what_is_not_quantized_may_be_infinite() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cpu = &fm_candle::device::Device::Cpu;
    let mask = [[0.0, f32::NEG_INFINITY], [0.0, 0.0]];
    let tensors = [
        ("mask".to_string(), Tensor::new(&mask, cpu).unwrap()),
        ("weight".to_string(), Tensor::new(&[[1_f32, 2.0, 3.0]], cpu).unwrap()),
    ];
    checkpoint::safetensors::save(&dir.join("net.safetensors"), &tensors, &[]).unwrap();
    let quantize = ["quantize", "net.safetensors", "--scheme", "ot", "--bits", "1", "-o"];
    for choice in [["--only", "weight"], ["--keep", "mask=32"]] {
        for output in ["q.pth", "q.safetensors", "q.fmq"] {
            ok(dir, &[&quantize[..], &[output], &choice].concat());
            let read = checkpoint::load(&dir.join(output), true).unwrap();
            assert_eq!(read.tensor("mask").unwrap().to_vec2::<f32>().unwrap(), mask, "{output}");
        }
    }
    let error = fails(dir, &[&quantize[..], &["no.fmq"]].concat());
    assert!(error.contains("`mask`") && error.contains("-inf"), "{error}");
}
