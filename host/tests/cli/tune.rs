//! `fmq tune`: the packed file is the net that was tuned, runs go on where they stopped.

use core::time::Duration;
use std::process::{Command, Stdio};
use std::thread;

use super::*;

const TUNE: [&str; 8] =
    ["tune", "net.safetensors", "--bits", "2", "--trajectories", "4", "--batch-size", "16"];

fn tune(dir: &Path, more: &[&str]) -> String {
    ok(dir, &[&TUNE[..], more].concat())
}

#[test]
fn tuning_brings_images_nearer_and_the_file_holds_what_was_tuned() {
    let dir = folder();
    let dir = dir.path();
    let steps = ["--steps", "240", "--json", "-o", "t.fmq"];
    let json: Value = serde_json::from_str(&tune(dir, &steps)).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    assert!(number("paired_psnr_db") > number("paired_psnr_before_db") + 0.2, "{json}");
    assert_eq!((&json["scheme"], &json["steps"]), (&"lloyd-max+tune".into(), &240.into()));
    let bytes = fs::metadata(dir.join("t.fmq")).unwrap().len();
    assert_eq!(json["packed_bytes"].as_u64(), Some(bytes));
    assert!(number("bits_per_weight") <= 2.7, "{json}");
    let original = parameters(dir, "net.safetensors");
    assert!(parameters(dir, "t.fmq") < original, "no projection of the embedding");
    assert_sizes_are_over(original, &json);
    let (mut widths, mut vectors) = (Vec::new(), Vec::new());
    for row in json["tensors"].as_array().unwrap() {
        let bits = row["bits"].as_u64().unwrap();
        match row["shape"].as_array().unwrap().len() {
            1 => vectors.push(bits),
            _ => widths.push(bits),
        }
    }
    let (least, most) = (widths.iter().min().unwrap(), widths.iter().max().unwrap());
    assert!(*least == 2 && *most > 2, "{widths:?}");
    assert!(
        vectors.contains(&8) && vectors.iter().all(|bits| [8, 16].contains(bits)),
        "{vectors:?}"
    );

    // The same weights in every kind of output, on any number of threads.
    tune(dir, &["--steps", "240", "-o", "t.safetensors", "--threads", "1"]);
    tune(dir, &["--steps", "240", "-o", "t.pth"]);
    // Its projection of the embedding is multiplied out.
    ok(dir, &["unpack", "t.fmq", "-o", "u.safetensors"]);
    let packed = weights(dir, "u.safetensors");
    assert_eq!(weights(dir, "t.safetensors"), packed);
    assert_eq!(weights(dir, "t.pth"), packed);
}

#[test]
fn every_scheme_and_granularity_can_be_tuned() {
    let dir = folder();
    let dir = dir.path();
    for (scheme, granularity, bits) in [
        ("ot", "channel", "3"),
        ("uniform", "group:3", "2"),
        ("pwl", "tensor", "2"),
        ("log", "channel", "4"),
        ("ecq", "auto", "2"),
        ("lloyd-max", "tensor", "1.58"),
    ] {
        let args = ["--scheme", scheme, "--granularity", granularity, "--steps", "40", "--json"];
        let args = [&args[..], &["--bits", bits, "--keep", "*bias=32", "-o", "t.fmq"]].concat();
        let all = [&["tune", "net.safetensors", "--trajectories", "4"][..], &args].concat();
        let json: Value = serde_json::from_str(&ok(dir, &all)).unwrap();
        let number = |key: &str| json[key].as_f64().unwrap();
        assert!(
            number("paired_psnr_db") >= number("paired_psnr_before_db"),
            "{scheme} {granularity}: {json}"
        );
    }
    // The last: three levels stay three.
    assert_eq!(most_levels(&dir.join("t.fmq")), 3);
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_been() {
    let dir = folder();
    let dir = dir.path();
    let steps = ["--steps", "400", "-q"];
    tune(dir, &[&steps[..], &["-o", "whole.fmq"]].concat());
    let cut = [&TUNE[..], &steps, &["-o", "cut.fmq"]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fmq"))
        .current_dir(dir)
        .args(&cut)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(700));
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(child.wait().unwrap().success());
    if !dir.join("cut.fmq").exists() {
        assert!(dir.join("cut.fmq.tune").exists());
        let other = [&cut[..], &["--resume", "--scheme", "ot"]].concat();
        assert!(
            fails(dir, &[&other[..], &[]].concat()).contains("cut.fmq.tune`: is of another run")
        );
        ok(dir, &[&cut[..], &["--resume"]].concat());
    }
    assert_eq!(fs::read(dir.join("cut.fmq")).unwrap(), fs::read(dir.join("whole.fmq")).unwrap());
    assert!(!dir.join("cut.fmq.tune").exists());
}

#[test]
fn files_have_the_size_that_is_asked_for() {
    let dir = folder();
    let dir = dir.path();
    let quantize =
        ["quantize", "net.safetensors", "--scheme", "lloyd-max", "--granularity", "auto"];
    for budget in [45_000_u64, 60_000, 100_000] {
        let bytes = budget.to_string();
        let args = [&quantize[..], &["--budget", &bytes, "--golden", "-o", "q.fmq"]].concat();
        ok(dir, &args);
        let size = fs::metadata(dir.join("q.fmq")).unwrap().len();
        assert!(size <= budget && size as f64 > 0.99 * budget as f64, "{budget}: {size}");
    }
    let args = [&quantize[..], &["--bits-per-weight", "3.5", "--json", "-o", "q.fmq"]].concat();
    let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    let bits = json["bits_per_weight"].as_f64().unwrap();
    assert!(bits <= 3.5 && bits > 3.46, "{bits}");
    // All at their most.
    ok(dir, &[&quantize[..], &["--budget", "100000000", "-o", "q.fmq"]].concat());
    let tune = ["tune", "net.safetensors", "--trajectories", "4", "--steps", "5"];
    ok(dir, &[&tune[..], &["--budget", "60000", "--golden", "-o", "t.fmq"]].concat());
    let size = fs::metadata(dir.join("t.fmq")).unwrap().len();
    assert!(size <= 60_000 && size > 59_000, "{size}");
    // Over the weights that the net has, of which the file holds fewer.
    let args = ["--bits-per-weight", "3", "--json", "-o", "t.fmq"];
    let json: Value = serde_json::from_str(&ok(dir, &[&tune[..], &args].concat())).unwrap();
    assert!(parameters(dir, "t.fmq") < parameters(dir, "net.safetensors"));
    let bits = json["bits_per_weight"].as_f64().unwrap();
    assert!(bits <= 3.0 && bits > 2.97, "{bits}");
}

#[test]
fn real_images_can_be_tuned_to_if_they_are_of_the_net_s_size() {
    let dir = sweep_folder();
    let dir = dir.path();
    let tune = |net: &'static str| {
        let args = "--bits 2 --keep *bias=16 --trajectories 1 --steps 100 --batch-size 1 --data mnist \
            --data-path .";
        let mut all = vec!["tune", net, "-o", "t.fmq"];
        all.extend(args.split_whitespace());
        all
    };
    ok(dir, &tune("net.safetensors"));
    assert!(dir.join("t.fmq").exists());
}

#[test]
fn the_order_of_a_file_s_tensors_does_not_matter() {
    let dir = folder();
    let dir = dir.path();
    let mut tensors = checkpoint::load(&dir.join("net.safetensors"), true).unwrap().tensors;
    fs::write(dir.join("net.json"), config::to_json(&tiny())).unwrap();
    let commands = [
        ["tune", "--trajectories=2", "--steps=2", "--keep=*bias=16", "--bits=2"],
        ["quantize", "--scheme=ot", "--feedback=2", "--granularity=tensor", "--bits=2"],
        [
            "quantize",
            "--scheme=lloyd-max",
            "--granularity=auto",
            "--keep=*bias=16",
            "--budget=90000",
        ],
    ];
    for [command, options @ ..] in commands {
        let files = ["a", "b"].map(|name| {
            tensors.reverse();
            checkpoint::torch::save_tensors(&dir.join("net.pth"), &tensors).unwrap();
            let output = format!("{name}.fmq");
            let args = [command, "net.pth", "--arch", "net.json", "-o", &output];
            ok(dir, &[&args[..], &options].concat());
            fs::read(dir.join(output)).unwrap()
        });
        assert!(files[0] == files[1], "{command}");
    }
}
