//! Nets, labels, dtypes and devices that do not fit together: one line that says which and why.

use fm_candle::device::Device;

use super::*;

/// Writes the untrained net of `config`, naming it in the file or not.
pub(super) fn write(path: &Path, config: &UNetConfig, named: bool) -> Vec<(String, Tensor)> {
    let mut initial = RandomInit::new(7, &Device::Cpu);
    UNet::new(config, &mut initial).unwrap();
    let vars = initial.vars.into_iter();
    let tensors: Vec<_> = vars.map(|(name, var)| (name, var.as_tensor().clone())).collect();
    let json = config::to_json(config);
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    checkpoint::safetensors::save(path, &tensors, if named { &metadata } else { &[] }).unwrap();
    tensors
}

/// Writes a point for a net of one channel, with other tensors instead or in addition.
pub(super) fn points(path: &Path, others: &[(&str, Tensor)]) {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let mut tensors = HashMap::from([("x", zeros(&[1, 1, 8, 8])), ("t", zeros(&[1]))]);
    tensors.extend(others.iter().cloned());
    let tensors: Vec<_> = tensors.into_iter().map(|(name, x)| (name.to_string(), x)).collect();
    checkpoint::safetensors::save(path, &tensors, &[]).unwrap();
}

fn velocity<'a>(net: &'a str, others: &[&'a str]) -> Vec<&'a str> {
    [&["velocity", net, "--inputs", "in.safetensors", "-o", "v.safetensors"], others].concat()
}

#[test]
fn json_is_an_object_in_utf_8() {
    let dir = folder();
    let dir = dir.path();
    points(&dir.join("in.safetensors"), &[]);
    write(&dir.join("bare.safetensors"), &tiny(), false);
    let arch = |bytes: &[u8]| {
        fs::write(dir.join("net.json"), bytes).unwrap();
        velocity("bare.safetensors", &["--arch", "net.json"])
    };
    let json = config::to_json(&tiny());
    let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, fault) in [
        (&b"[1, 32, 1]"[..], "found a list, a JSON object is due"),
        (b"", "found nothing, a JSON object is due"),
        (&wide, "is UTF-16 text; save it as UTF-8"),
    ] {
        let error = fails(dir, &arch(bytes));
        assert!(error.contains("`net.json`") && error.contains(fault), "{error}");
    }
    ok(dir, &arch(format!("\u{feff}{json}").as_bytes()));

    let sample = ["sample", "net.safetensors", "-n", "1", "-o", "x.png", "--ode-options"];
    ok(dir, &[&sample[..], &["\u{feff}{\"step_size\": 1}"]].concat());
}

#[test]
fn an_adaptive_solvers_steps_are_bounded() {
    let dir = folder();
    let dir = dir.path();
    let run = |steps: &'static str, output| {
        let args = ["sample", "net.safetensors", "-n", "1", "-o", output, "--ode-method", "dopri5"];
        [&args[..], &["--ode-options", steps]].concat()
    };
    let error = fails(dir, &run(r#"{"max_num_steps": 2}"#, "x.safetensors"));
    assert!(error.contains("step 2: max_num_steps 2 does not lead to the end"), "{error}");
    ok(dir, &run(r#"{"max_num_steps": 1000}"#, "x.safetensors"));
    ok(dir, &run("{}", "y.safetensors"));
    let read = |name| fs::read(dir.join(name)).unwrap();
    assert!(read("x.safetensors") == read("y.safetensors"));
}

#[test]
fn shapes_that_fit_no_preset_are_told_with_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    points(&dir.join("in.safetensors"), &[]);
    let config = UNetConfig::preset("mnist-small").unwrap();
    let mut tensors = write(&dir.join("bare.safetensors"), &config, false);
    ok(dir, &velocity("bare.safetensors", &[]));
    fs::remove_file(dir.join("v.safetensors")).unwrap();

    tensors[0].1 = tensors[0].1.t().unwrap().contiguous().unwrap();
    tensors[1].0 = "one".into();
    tensors.remove(3);
    tensors.push(("two".into(), tensors[0].1.clone()));
    checkpoint::safetensors::save(&dir.join("bare.safetensors"), &tensors, &[]).unwrap();
    let three = "differ: `time_embed.0.weight` is [32, 128], not [128, 32]; `time_embed.0.bias` is \
                 missing; `time_embed.2.bias` is missing\n";
    let expected = three.replace(
        "differ:",
        "no preset fits (give --arch); the closest, \
        mnist-small, differs in 5 tensors:",
    );
    for command in [
        velocity("bare.safetensors", &[]),
        vec!["sample", "bare.safetensors", "-n", "1", "-o", "x.png"],
    ] {
        let error = fails(dir, &command);
        assert!(error.contains("`bare.safetensors`") && error.ends_with(&expected), "{error}");
    }
    let error = fails(dir, &velocity("bare.safetensors", &["--arch", "mnist-small"]));
    assert!(error.contains("`bare.safetensors`"), "{error}");
    assert!(error.ends_with(&format!("not the net's parameters, 5 {three}")), "{error}");
}

#[test]
fn the_label_after_the_last_is_none() {
    let dir = folder();
    let labels = [3, 10].map(|label: i64| Tensor::new(&[label], &Device::Cpu).unwrap());
    for label in labels {
        points(&dir.path().join("in.safetensors"), &[("label", label)]);
        ok(dir.path(), &velocity("net.safetensors", &[]));
    }
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let dir = folder();
    let dir = dir.path();
    points(&dir.join("in.safetensors"), &[]);
    let error = fails(dir, &velocity("net.safetensors", &["--device", "cuda:255"]));
    assert!(error.contains("--device cuda"), "{error}");
    let half = fails(dir, &velocity("net.safetensors", &["--device", "cpu", "--dtype", "bf16"]));
    assert!(half.contains("--dtype bf16") && half.contains("--device cuda"), "{half}");
    for device in ["tpu", "cuda:", "cuda:256", ""] {
        let output = fmq(dir, &velocity("net.safetensors", &["--device", device]));
        assert_eq!(output.status.code(), Some(2), "{device}");
    }
}
