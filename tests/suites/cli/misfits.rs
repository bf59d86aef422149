//! Nets, labels, dtypes and devices that do not fit together: one line that says which and why.

use fm_candle::device::Device;

use super::*;

/// Writes the untrained net of `config`, naming it in the file or not.
fn write(path: &Path, config: &UNetConfig, named: bool) -> Vec<(String, Tensor)> {
    let mut initial = RandomInit::new(7, &Device::Cpu);
    UNet::new(config, &mut initial).unwrap();
    let vars = initial.vars.into_iter();
    let tensors: Vec<_> = vars.map(|(name, var)| (name, var.as_tensor().clone())).collect();
    let json = config::to_json(config);
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    checkpoint::safetensors::save(path, &tensors, if named { &metadata } else { &[] }).unwrap();
    tensors
}

/// Writes points for images of one channel.
fn points(path: &Path, others: &[(&str, Tensor)]) {
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
fn an_unknown_net_is_answered_with_the_known_ones() {
    let dir = folder();
    points(&dir.path().join("in.safetensors"), &[]);
    write(&dir.path().join("bare.safetensors"), &tiny(), false);
    let error = fails(dir.path(), &velocity("bare.safetensors", &["--arch", "imagenet2"]));
    assert!(error.contains("`imagenet2`"), "{error}");
    assert!(UNetConfig::PRESETS.iter().all(|preset| error.contains(preset)), "{error}");
    fs::write(dir.path().join("net.json"), r#"{"num_head": 4}"#).unwrap();
    let error = fails(dir.path(), &velocity("bare.safetensors", &["--arch", "net.json"]));
    assert!(error.contains("`net.json`") && error.contains("`num_head`"), "{error}");
    let error = fails(dir.path(), &velocity("net.safetensors", &["--arch", "mnist"]));
    assert!(error.contains("says its own net"), "{error}");
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
    let output = fmq(dir, &[&sample[..], &["[1]"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--ode-options") && stderr.contains("found a list"), "{stderr}");
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
fn labels_that_the_net_does_not_know_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(&dir.join("ten.safetensors"), &tiny(), true);
    write(&dir.join("none.safetensors"), &UNetConfig { num_classes: None, ..tiny() }, true);
    for (label, fault) in
        [(11, "label 11 is no class; use 0 to 10, the last for none"), (-1, "label -1 is no class")]
    {
        points(
            &dir.join("in.safetensors"),
            &[("label", Tensor::new(&[i64::from(label)], &Device::Cpu).unwrap())],
        );
        let error = fails(dir, &velocity("ten.safetensors", &[]));
        assert!(error.contains("`in.safetensors`") && error.contains(fault), "{error}");
        let error = fails(dir, &velocity("none.safetensors", &[]));
        assert!(error.contains("label was given, but the net has no classes"), "{error}");
    }
    for (net, label, fault) in [
        ("ten.safetensors", "11", "label 11"),
        ("none.safetensors", "0", "no classes"),
        ("none.safetensors", "all", "no classes"),
    ] {
        let error = fails(dir, &["sample", net, "-n", "2", "-o", "x.png", "--label", label]);
        assert!(error.contains(fault), "{net}, {label}: {error}");
    }
    let seven = ["sample", "ten.safetensors", "-n", "2", "-o", "x.png", "--label", "seven"];
    assert_eq!(fmq(dir, &seven).status.code(), Some(2));
}

#[test]
fn inputs_of_another_dtype_and_devices_that_are_not_there_are_refused() {
    let dir = folder();
    let dir = dir.path();
    let whole = Tensor::zeros((1, 1, 8, 8), DType::I64, &Device::Cpu).unwrap();
    let half = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    for (name, tensor, fault) in [
        ("x", whole.clone(), "tensor x is I64, expected F32"),
        ("t", Tensor::new(&[0i64], &Device::Cpu).unwrap(), "tensor t is I64, expected F32"),
        ("concat_conditioning", whole, "tensor concat_conditioning is I64, expected F32"),
        ("label", half, "label is F32 [1], expected I64 [1]"),
    ] {
        points(&dir.join("in.safetensors"), &[(name, tensor)]);
        let error = fails(dir, &velocity("net.safetensors", &[]));
        assert!(error.contains("`in.safetensors`") && error.contains(fault), "{error}");
    }
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
