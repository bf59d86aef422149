//! `fmq quantize`: every scheme and description, sizes that are the file's, refusals.

use serde_json::Value;
use std::fs;

use super::*;

#[test]
fn samples_of_a_packed_file_equal_those_of_its_unpacked_tensors() {
    let dir = folder();
    let dir = dir.path();
    for (scheme, granularity) in [
        ("ot", "channel"),
        ("uniform", "channel"),
        ("pwl", "group:3"),
        ("log", "channel"),
        ("uniform-mse", "tensor"),
        ("lloyd-max", "auto"),
        ("ecq", "channel"),
    ] {
        let quantize = ["quantize", "net.safetensors", "--scheme", scheme, "--bits", "3"];
        ok(dir, &[&quantize[..], &["--granularity", granularity, "-o", "q.fmq"]].concat());
        ok(dir, &["unpack", "q.fmq", "-o", "q.safetensors"]);
        let sample = |input: &str, output: &str| {
            ok(
                dir,
                &["sample", input, "-n", "3", "-o", output, "--seed", "5", "--cfg-scale", "0.5"],
            );
            let file = checkpoint::load(&dir.join(output), true).unwrap();
            file.tensors.into_iter().find(|(name, _)| name == "samples").unwrap().1
        };
        let (packed, dense) =
            (sample("q.fmq", "a.safetensors"), sample("q.safetensors", "b.safetensors"));
        assert_eq!(packed.dims(), [3, 1, 8, 8]);
        let difference = (packed - dense).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5, "{scheme}");
    }
}

#[test]
fn quantize_prints_the_promised_json() {
    let dir = folder();
    let dir = dir.path();
    let args =
        ["quantize", "net.safetensors", "--scheme", "ot", "--bits", "4", "-o", "q.fmq", "--json"];
    let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    for key in [
        "parameters",
        "quantized_parameters",
        "mse",
        "sqnr_db",
        "psnr_db",
        "w2",
        "bits_per_weight",
        "packed_bytes",
        "dense_bytes",
        "ratio",
        "seconds",
    ] {
        assert!(json[key].is_number(), "{key}");
    }
    assert_eq!((json["scheme"].as_str(), json["bits"].as_u64()), (Some("ot"), Some(4)));
    let bytes = fs::metadata(dir.join("q.fmq")).unwrap().len();
    assert_eq!(json["packed_bytes"].as_u64(), Some(bytes));
    assert_eq!(json["dense_bytes"].as_u64().unwrap(), 4 * json["parameters"].as_u64().unwrap());
    for key in ["name", "shape", "scheme", "bits", "mse", "sqnr_db", "bits_per_weight"] {
        assert!(!json["tensors"][0][key].is_null(), "tensors[0].{key}");
    }

    let inspected: Value = serde_json::from_str(&ok(dir, &["inspect", "q.fmq", "--json"])).unwrap();
    let tensors = inspected["tensors"].as_array().unwrap();
    let records: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert_eq!(records + inspected["packed"]["header_bytes"].as_u64().unwrap(), bytes);
}

#[test]
fn a_packed_net_says_what_it_takes_on_a_device() {
    let dir = folder();
    let dir = dir.path();
    let quantize = |extra: &[&str], out: &str| {
        let plain = ["quantize", "net.safetensors", "--scheme", "ot", "--bits", "3", "-o", out];
        ok(dir, &[&plain, extra].concat());
        let inspected = ok(dir, &["inspect", out, "--json"]);
        serde_json::from_str::<Value>(&inspected).unwrap()["packed"].take()
    };
    let plain = quantize(&[], "plain.fmq");
    let device = &plain["device"];
    assert_eq!(device["flash_bytes"], fs::metadata(dir.join("plain.fmq")).unwrap().len());
    for key in ["arena_bytes", "stack_bytes", "macs"] {
        assert!(device[key].as_u64().unwrap() > 1000, "{key}: {device}");
    }
    assert_eq!(device["golden"], false);
    let golden = quantize(&["--golden"], "golden.fmq");
    assert_eq!(golden["device"]["golden"], true);
    assert_eq!(golden["device"]["arena_bytes"], device["arena_bytes"]);
    let sections = |packed: &Value| -> Vec<String> {
        let sections = packed["sections"].as_array().unwrap();
        sections.iter().map(|section| section["name"].as_str().unwrap().into()).collect()
    };
    assert_eq!(sections(&plain), ["net", "memory plan"]);
    let vector = quantize(&["--golden=vector"], "vector.fmq");
    assert_eq!(sections(&vector), ["net", "memory plan", "self-test vector"]);
    assert_eq!(sections(&golden), ["net", "memory plan", "self-test checksum"]);
}

#[test]
fn keep_and_only_choose_the_tensors() {
    let dir = folder();
    let report = |args: &[&str]| -> Value {
        let mut all = vec![
            "quantize",
            "net.safetensors",
            "--scheme",
            "ot",
            "--bits",
            "2",
            "-o",
            "q.fmq",
            "--json",
        ];
        all.extend(args);
        serde_json::from_str(&ok(dir.path(), &all)).unwrap()
    };
    let scheme = |json: &Value, name: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap()["scheme"].as_str().unwrap().to_string()
    };
    let json = report(&["--keep", "time_embed.*=16", "--keep", "*.bias=32"]);
    assert_eq!(scheme(&json, "time_embed.0.weight"), "f16");
    assert_eq!(scheme(&json, "out.2.bias"), "f32");
    assert_eq!(scheme(&json, "out.2.weight"), "ot");
    let json = report(&["--only", "out.*"]);
    assert_eq!(scheme(&json, "out.2.weight"), "ot");
    assert_eq!(scheme(&json, "time_embed.0.weight"), "f32");
}

/// The report of a quantization to 3 bits with these flags.
fn report(dir: &Path, flags: &[&str]) -> Value {
    let base = ["quantize", "net.safetensors", "--bits", "3", "-o", "q.fmq", "--json"];
    serde_json::from_str(&ok(dir, &[&base[..], flags].concat())).unwrap()
}

#[test]
fn better_schemes_make_less_error_and_smaller_books_less_size() {
    let dir = folder();
    let dir = dir.path();
    let of = |flags: &[&str], key: &str| report(dir, flags)[key].as_f64().unwrap();
    let mse = |scheme: &str| of(&["--scheme", scheme], "mse");
    let best = mse("lloyd-max");
    assert!(["ot", "uniform", "pwl", "log", "uniform-mse", "ecq"].iter().all(|s| mse(s) >= best));
    assert!(mse("uniform-mse") < mse("uniform"));
    let size = |flags: &[&str]| of(&[&["--scheme", "lloyd-max"], flags].concat(), "packed_bytes");
    let books = ["f32", "f16", "i8"].map(|dtype| size(&["--codebook-dtype", dtype]));
    assert!(books[0] > books[1] && books[1] > books[2], "{books:?}");
    assert!(size(&["--granularity", "auto"]) < books[0]);
}

#[test]
fn three_levels_lie_between_one_bit_and_two() {
    let folder = folder();
    let dir = folder.path();
    let of = |bits: &str| -> Value {
        let line = format!(
            "quantize net.safetensors --scheme lloyd-max --granularity auto --bits {bits} \
             -o q.fmq --json"
        );
        serde_json::from_str(&ok(dir, &line.split_whitespace().collect::<Vec<_>>())).unwrap()
    };
    let [one, three, two] = ["1", "1.58", "2"].map(|bits| {
        let json = of(bits);
        let number = |key: &str| json[key].as_f64().unwrap();
        (number("bits"), number("mse"), most_levels(&dir.join("q.fmq")))
    });
    assert_eq!([one.0, three.0, two.0], [1.0, 1.58, 2.0]);
    assert!(one.1 > three.1 && three.1 > two.1, "{one:?} {three:?} {two:?}");
    assert_eq!([one.2, three.2, two.2], [2, 3, 4]);
}

#[test]
fn a_price_on_entropy_lowers_it() {
    let dir = folder();
    let entropy = |lambda: &str| {
        let json = report(dir.path(), &["--scheme", "ecq", "--lambda", lambda]);
        json["entropy_bits"].as_f64().unwrap()
    };
    let entropies = ["0", "0.05", "0.3"].map(entropy);
    assert!(entropies[0] <= 3.0 && entropies.is_sorted_by(|a, b| a > b), "{entropies:?}");
}

#[test]
fn what_is_recommended_is_kept_at_sixteen_bits() {
    let dir = folder();
    let json = report(dir.path(), &["--scheme", "ot", "--keep", "*.0.bias=2", "recommended"]);
    let of = |name: &str, key: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap()[key].clone()
    };
    for name in ["input_blocks.0.0.weight", "out.2.weight", "time_embed.2.weight", "out.2.bias"] {
        assert_eq!(of(name, "scheme"), "f16", "{name}");
    }
    assert_eq!(of("middle_block.0.in_layers.2.weight", "scheme"), "ot");
    // The first flag that matches counts.
    assert_eq!((of("out.0.bias", "scheme"), of("out.0.bias", "bits")), ("ot".into(), 2.into()));
}

#[test]
fn the_packed_file_has_the_order_of_the_net() {
    let dir = folder();
    let dir = dir.path();
    let mut file = checkpoint::load(&dir.join("net.safetensors"), false).unwrap();
    let names: Vec<String> = file.tensors.iter().map(|(name, _)| name.clone()).collect();
    file.tensors.reverse();
    let metadata: Vec<_> = file.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let reversed = dir.join("reversed.safetensors");
    checkpoint::safetensors::save(&reversed, &file.tensors, &metadata).unwrap();
    let base = ["quantize", "reversed.safetensors", "--scheme", "uniform", "--bits", "2"];
    ok(dir, &[&base[..], &["-o", "q.fmq"]].concat());
    let packed = checkpoint::load(&dir.join("q.fmq"), false).unwrap();
    assert!(packed.tensors.iter().map(|(name, _)| name).eq(&names));
}

/// The tensors of a file by name, with their bytes.
fn values(path: &Path, raw_weights: bool) -> Vec<(String, Vec<u8>)> {
    let file = checkpoint::load(path, raw_weights).unwrap();
    let bytes = |tensor: &Tensor| checkpoint::Elements::of(tensor).unwrap().bytes().to_vec();
    file.tensors.iter().map(|(name, tensor)| (name.clone(), bytes(tensor))).collect()
}

#[test]
fn a_torch_file_has_the_values_of_the_safetensors_file() {
    let dir = folder();
    let dir = dir.path();
    let base = ["--scheme", "ot", "--bits", "2", "--keep", "*.bias=16", "-o"];
    let quantize =
        |from: &str, to: &str| ok(dir, &[&["quantize", from], &base[..], &[to]].concat());
    quantize("net.safetensors", "a.safetensors");
    quantize("net.safetensors", "a.pth");
    quantize("net.safetensors", "q.fmq");
    ok(dir, &["unpack", "q.fmq", "-o", "b.pth"]);
    let expected = values(&dir.join("a.safetensors"), false);
    assert!(values(&dir.join("a.pth"), false) == expected);
    assert!(values(&dir.join("b.pth"), false) == expected);
    // And once more, from torch to torch.
    quantize("b.pth", "c.safetensors");
    quantize("b.pth", "c.pth");
    let mut again = values(&dir.join("c.pth"), false);
    let mut expected = values(&dir.join("c.safetensors"), false);
    again.sort();
    expected.sort();
    assert!(again == expected);
}

#[test]
fn a_torch_file_has_raw_weights_and_average_quantized() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/checkpoint/training.pth");
    let input = data.to_str().unwrap();
    let base = ["--scheme", "uniform", "--bits", "2", "--only", "conv.*"];
    ok(dir, &[&["quantize", input, "-o", "q.pth"], &base[..]].concat());
    for raw_weights in [false, true] {
        let flags: &[&str] = if raw_weights { &["--raw-weights"] } else { &[] };
        ok(dir, &[&["quantize", input, "-o", "q.safetensors"], &base[..], flags].concat());
        let dense = values(&dir.join("q.safetensors"), true);
        let (was, is) = (values(&data, raw_weights), values(&dir.join("q.pth"), raw_weights));
        for ((name, was), (_, is)) in was.iter().zip(&is) {
            if name.starts_with("conv.") {
                assert!(is != was, "{name}");
                let (_, expected) = dense.iter().find(|(other, _)| other == name).unwrap();
                assert!(is == expected, "{name}");
            } else {
                assert!(is == was, "{name}");
            }
        }
    }
    let refused = [&["quantize", input, "-o", "x.pth", "--raw-weights"], &base[..]].concat();
    assert!(fails(dir, &refused).contains("--raw-weights"));
}

#[test]
fn calibrate_adds_scales_and_changes_nothing_else() {
    let dir = folder();
    let dir = dir.path();
    ok(
        dir,
        &["quantize", "net.safetensors", "--scheme", "lloyd-max", "--bits", "4", "-o", "q.fmq"],
    );
    let said = ok(dir, &["calibrate", "q.fmq", "-o", "c.fmq", "--images", "2", "--steps", "2"]);
    assert!(said.contains("an arena of") && said.contains("`c.fmq`"), "{said}");
    let inspect = |file: &str| -> Value {
        serde_json::from_str(&ok(dir, &["inspect", file, "--json"])).unwrap()
    };
    let [before, after] = ["q.fmq", "c.fmq"].map(inspect);
    assert_eq!(before["tensors"], after["tensors"]);
    let sections = after["packed"]["sections"].as_array().unwrap();
    assert!(sections.iter().any(|section| section["name"] == "activation scales"), "{after}");
    // Once more, in place and by the same images: the same file.
    let once = fs::read(dir.join("c.fmq")).unwrap();
    ok(dir, &["calibrate", "c.fmq", "-o", "c.fmq", "--images", "2", "--steps", "2"]);
    assert!(fs::read(dir.join("c.fmq")).unwrap() == once);
}

#[test]
fn feedback_brings_samples_nearer_in_a_file_of_the_same_size() {
    let dir = folder();
    let dir = dir.path();
    let samples = |net: &str| -> Tensor {
        ok(dir, &["sample", net, "-n", "8", "--steps", "4", "-o", "s.safetensors"]);
        let file = checkpoint::load(&dir.join("s.safetensors"), true).unwrap();
        file.tensors.into_iter().find(|(name, _)| name == "samples").unwrap().1
    };
    let full = samples("net.safetensors");
    let error = |net: &str| -> f32 {
        let error = (samples(net) - &full).unwrap().sqr().unwrap().mean_all().unwrap();
        error.to_scalar().unwrap()
    };
    for (scheme, granularity) in [("lloyd-max", "auto"), ("ot", "channel")] {
        let quantize = ["quantize", "net.safetensors", "--scheme", scheme, "--bits", "2"];
        let quantize = [&quantize[..], &["--granularity", granularity]].concat();
        ok(dir, &[&quantize[..], &["-o", "plain.fmq"]].concat());
        ok(dir, &[&quantize[..], &["-o", "fed.fmq", "--feedback", "16"]].concat());
        let [plain, fed] = ["plain.fmq", "fed.fmq"];
        let size = |file: &str| fs::metadata(dir.join(file)).unwrap().len();
        assert_eq!(size(plain), size(fed));
        let (plain, fed) = (error(plain), error(fed));
        assert!(fed < 0.7 * plain, "{scheme}: {fed} {plain}");
        // The same weights in the other kinds of output.
        let packed = weights(dir, "fed.fmq");
        for output in ["fed.safetensors", "fed.pth"] {
            ok(dir, &[&quantize[..], &["-o", output, "--feedback", "16"]].concat());
            assert_eq!(weights(dir, output), packed, "{output}");
        }
    }
}
