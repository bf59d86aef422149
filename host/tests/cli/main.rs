//! The command line as users and scripts call it: real runs of the binary.
//!
//! They send signals and make links and sockets, so they need Unix.

#![cfg(unix)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

mod data;
mod encode;
mod errors;
mod export;
mod fid;
mod folders;
mod hub;
mod misfits;
mod paper;
mod quantize;
mod read_fmq;
mod report;
mod sample;
mod sweep;
mod train;
mod tune;
mod velocity;
mod wrapped;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fm_candle::data::{Images, mnist};
use fm_candle::model::{RandomInit, UNet, UNetConfig, config};
use fm_candle::{DType, Tensor, checkpoint};
use serde_json::Value;
use tempfile::TempDir;
use train::{TRAIN, idx};

/// Runs `fmq` in `dir`.
fn fmq(dir: &Path, args: &[&str]) -> Output {
    let mut fmq = Command::new(env!("CARGO_BIN_EXE_fmq"));
    // The suite's servers are on this machine.
    fmq.env("NO_PROXY", "127.0.0.1").env_remove("no_proxy");
    fmq.args(args).current_dir(dir).output().unwrap()
}

/// Runs `fmq` and expects success; returns what it wrote to stdout.
fn ok(dir: &Path, args: &[&str]) -> String {
    let output = fmq(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fmq {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `fmq` and expects exit code 1 and one line on stderr; returns the line.
fn fails(dir: &Path, args: &[&str]) -> String {
    let (code, stderr) = refusal(dir, args);
    assert_eq!(code, 1, "fmq {args:?}: {stderr}");
    stderr
}

/// Runs `fmq` and expects exit code 1 and one line on stderr, or 2 for wrong usage, and no new file.
fn refusal(dir: &Path, args: &[&str]) -> (i32, String) {
    let before = names(dir);
    let output = fmq(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    assert!(code == 2 || code == 1 && stderr.lines().count() == 1, "fmq {args:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "fmq {args:?}: {stderr}");
    assert_eq!(names(dir), before, "fmq {args:?} left a file");
    (code, stderr)
}

/// The weights of a file by name.
fn weights(dir: &Path, name: &str) -> Vec<(String, Vec<f32>)> {
    let mut tensors = checkpoint::load(&dir.join(name), true).unwrap().tensors;
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let flat =
        |(name, tensor): (String, Tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap());
    tensors.into_iter().map(flat).collect()
}

/// Weights in a file, as `fmq inspect` counts them.
fn parameters(dir: &Path, name: &str) -> u64 {
    let json: Value = serde_json::from_str(&ok(dir, &["inspect", name, "--json"])).unwrap();
    json["parameters"].as_u64().unwrap()
}

/// Expects bits per weight and the ratio of a packed file to be over so many weights in f32.
fn assert_sizes_are_over(parameters: u64, json: &Value) {
    let (weights, bytes) = (parameters as f64, json["packed_bytes"].as_f64().unwrap());
    assert_eq!(json["bits_per_weight"].as_f64(), Some(8.0 * bytes / weights), "{json}");
    assert_eq!(json["ratio"].as_f64(), Some(4.0 * weights / bytes), "{json}");
    for (key, right) in [("parameters", parameters), ("dense_bytes", 4 * parameters)] {
        assert!(json.get(key).is_none_or(|value| *value == right), "{key}: {json}");
    }
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
}

/// The smallest conditional net that GroupNorm(32) allows, 8x8 pixels, untrained.
fn tiny() -> UNetConfig {
    UNetConfig {
        in_channels: 1,
        out_channels: 1,
        model_channels: 32,
        num_res_blocks: 1,
        attention_resolutions: [1].into(),
        channel_mult: [1.0].into(),
        num_classes: Some(10),
        use_scale_shift_norm: true,
        use_new_attention_order: true,
        image_size: Some(8),
        ..UNetConfig::default()
    }
}

/// A folder with `net.safetensors`, whose zero-initialized layers are filled so that it moves.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(&dir.path().join("net.safetensors"), |_, tensor| tensor);
    dir
}

fn save(path: &Path, change: impl Fn(&str, Tensor) -> Tensor) {
    let mut initial = RandomInit::new(7, &fm_candle::device::Device::Cpu);
    UNet::new(&tiny(), &mut initial).unwrap();
    let tensors: Vec<(String, Tensor)> = initial
        .vars
        .into_iter()
        .map(|(name, var)| {
            let n = var.elem_count();
            let wave: Vec<f32> = (0..n).map(|i| 0.05 * (i as f32 * 0.37).sin()).collect();
            let wave = Tensor::from_vec(wave, var.shape(), var.device()).unwrap();
            let tensor = change(&name, (var.as_tensor() + wave).unwrap());
            (name, tensor)
        })
        .collect();
    let json = config::to_json(&tiny());
    checkpoint::safetensors::save(path, &tensors, &[(checkpoint::NET_KEY, &json)]).unwrap();
}

#[test]
fn noise_depends_on_seed_and_image_alone() {
    let dir = folder();
    let dir = dir.path();
    let sample = |n: &str, batch: &str, output: &str| {
        ok(dir, &["sample", "net.safetensors", "-n", n, "--batch-size", batch, "-o", output]);
        let file = checkpoint::load(&dir.join(output), true).unwrap();
        file.tensors.into_iter().find(|(name, _)| name == "samples").unwrap().1
    };
    let many = sample("5", "2", "a.safetensors").narrow(0, 0, 2).unwrap();
    let few = sample("2", "7", "b.safetensors");
    let difference = (many - few).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);
}

#[test]
fn damaged_packed_files_are_refused_wherever_the_damage_is() {
    let dir = folder();
    let dir = dir.path();
    ok(dir, &["quantize", "net.safetensors", "--scheme", "ot", "--bits", "2", "-o", "q.fmq"]);
    let good = fs::read(dir.join("q.fmq")).unwrap();
    let bad = dir.join("bad.fmq");
    // The same function that every command reads a file with; the binary itself a few times.
    for at in (0..good.len()).step_by(64) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at / 64 % 8);
        for bytes in [&good[..at], &flipped] {
            fs::write(&bad, bytes).unwrap();
            let error = checkpoint::load(&bad, false).unwrap_err().to_string();
            assert!(error.contains("bad.fmq") && !error.contains('\n'), "byte {at}: {error}");
        }
    }
    for at in [0, 8, 64, good.len() / 2, good.len() - 1] {
        fs::write(&bad, &good[..at]).unwrap();
        assert!(fails(dir, &["inspect", "bad.fmq"]).contains("bad.fmq"));
        fails(dir, &["sample", "bad.fmq", "-n", "1", "-o", "x.png"]);
        fails(dir, &["unpack", "bad.fmq", "-o", "x.safetensors"]);
    }
}

#[test]
fn inspect_names_infinite_weights() {
    let dir = folder();
    let dir = dir.path();
    save(&dir.join("bad.safetensors"), |name, tensor| {
        if name == "out.2.bias" { (tensor * f64::NAN).unwrap() } else { tensor }
    });
    assert!(ok(dir, &["inspect", "bad.safetensors"]).contains("infinite weights in: out.2.bias"));
}

#[test]
fn a_solver_that_does_not_converge_is_named_with_time_and_step() {
    let dir = folder();
    let dir = dir.path();
    let sample = |options: &str| {
        let mut args = vec!["sample", "net.safetensors", "-n", "1", "-o", "x.png"];
        args.extend(["--ode-method", "implicit_adams", "--ode-options", options]);
        let output = fmq(dir, &args);
        assert!(output.status.success(), "{options}");
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = sample(r#"{"step_size": 0.25, "max_iters": 1, "atol": 1e-12, "rtol": 1e-12}"#);
    assert!(warned.contains("2 of 4 steps, first at t = 0.5, step 2"), "{warned}");
    assert!(!sample(r#"{"step_size": 0.1, "max_order": 5}"#).contains("warning"));
}

#[test]
fn completions_and_manual_cover_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let script = ok(dir.path(), &["completions", "bash"]);
    assert!(["quantize", "velocity", "--granularity"].iter().all(|word| script.contains(word)));
    ok(dir.path(), &["man", "pages"]);
    let page = |name: &str| fs::read_to_string(dir.path().join("pages").join(name)).unwrap();
    assert!(page("fmq.1").contains("quantize"));
    assert!(page("fmq-quantize.1").contains("codebook"));
    assert_eq!(fmq(dir.path(), &["completions", "tcsh"]).status.code(), Some(2));
    assert_eq!(fmq(dir.path(), &["paint"]).status.code(), Some(2));
}

/// The net of a [`sweep_folder`]: attention over 28 x 28 pixels would take most of the time.
fn sweep_net() -> UNetConfig {
    UNetConfig { image_size: Some(28), attention_resolutions: [].into(), ..tiny() }
}

/// Writes a half of MNIST that is not MNIST: eight images of 28 x 28 under its names.
fn write_half(dir: &Path, half: &str, salt: u32) {
    let pixels = (0..8 * 784u32).map(|i| (i * salt % 256) as u8).collect();
    let images = Images::new([1, 28, 28], pixels, vec![0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    let [images, labels] = mnist::encode(&images).unwrap();
    fs::write(dir.join(format!("{half}-images-idx3-ubyte")), images).unwrap();
    fs::write(dir.join(format!("{half}-labels-idx1-ubyte")), labels).unwrap();
}

/// A folder with `net.safetensors` and images under MNIST's names for a sweep: an untrained net, so that
/// the numbers mean nothing, but the files do.
fn sweep_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_half(dir, "t10k", 13);
    write_half(dir, "train", 7);
    let config = sweep_net();
    let mut initial = RandomInit::new(7, &fm_candle::device::Device::Cpu);
    UNet::new(&config, &mut initial).unwrap();
    let tensors: Vec<(String, Tensor)> =
        initial.vars.into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
    assert!(tensors.iter().all(|(_, tensor)| tensor.dtype() == DType::F32));
    let json = config::to_json(&config);
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    checkpoint::safetensors::save(&dir.join("net.safetensors"), &tensors, &metadata).unwrap();
    folder
}

/// Most distinct values of a row of a weight in a checkpoint.
fn most_levels(path: &Path) -> usize {
    let file = checkpoint::load(path, false).unwrap();
    let matrices = file.tensors.iter().map(|(_, tensor)| tensor).filter(|tensor| tensor.rank() > 1);
    let rows =
        matrices.flat_map(|tensor| tensor.flatten_from(1).unwrap().to_vec2::<f32>().unwrap());
    rows.map(|mut row| {
        row.sort_by(f32::total_cmp);
        row.dedup();
        row.len()
    })
    .max()
    .unwrap()
}
