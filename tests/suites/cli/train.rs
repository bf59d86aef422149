//! `fmq train`: files, flags, and runs that are cut.

use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use fm_candle::fid::npz;

use super::*;

/// 20 images of 8x8 pixels in `mnist/`, as IDX files.
pub(super) fn idx(dir: &Path) {
    let pixels = (0..20 * 64u32).map(|i| (i * 31 % 256) as u8).collect();
    let labels = (0..20).map(|i| i % 10).collect();
    let images = Images::new([1, 8, 8], pixels, labels).unwrap();
    let [images, labels] = mnist::encode(&images).unwrap();
    fs::create_dir(dir.join("mnist")).unwrap();
    fs::write(dir.join("mnist/train-images-idx3-ubyte"), images).unwrap();
    fs::write(dir.join("mnist/train-labels-idx1-ubyte"), labels).unwrap();
    fs::write(dir.join("tiny.json"), tiny().to_json()).unwrap();
}

/// A run of a small net over these images, four batches an epoch.
pub(super) const TRAIN: [&str; 16] = [
    "train",
    "--dataset=mnist",
    "--data_path=mnist",
    "--arch",
    "tiny.json",
    "--batch-size",
    "5",
    "--no-flip",
    "--use_ema",
    "--ode_options",
    r#"{"step_size": 0.5}"#,
    "--eval_frequency",
    "1",
    "--output_dir",
    "run",
    "--decay_lr",
];

#[test]
fn train_writes_its_files_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let nothing = [&TRAIN[..], &["--eval_only", "--resume", "auto"]].concat();
    assert!(fails(dir, &nothing).contains("no such run"));
    let train = |epochs: &'static str| {
        let mut args = TRAIN.to_vec();
        args.extend(["--epochs", epochs, "--resume", "auto"]);
        ok(dir, &args)
    };
    train("1");
    train("2");
    let log = fs::read_to_string(dir.join("run/log.txt")).unwrap();
    let epochs: Vec<u64> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, [0, 1]);
    for file in [
        "args.json",
        "model.safetensors",
        "checkpoint.pth",
        "checkpoint-1.pth",
        "snapshots/1_8.png",
    ] {
        assert!(dir.join("run").join(file).exists(), "{file}");
    }
    for file in ["run/model.safetensors", "run/checkpoint.pth"] {
        ok(dir, &["sample", file, "-n", "1", "-o", "one.png"]);
    }

    // An earlier checkpoint is evaluated without losing what came after it.
    let earlier = ["--eval_only", "--resume", "run/checkpoint-0.pth"];
    ok(dir, &[&TRAIN[..], &["--epochs", "2"], &earlier].concat());
    assert_eq!(fs::read_to_string(dir.join("run/log.txt")).unwrap(), log);

    // Neither starting over by mistake nor other settings under the same run.
    assert!(fails(dir, &TRAIN).contains("--resume auto"));
    let other = [&TRAIN[..], &["--skewed_timesteps", "--resume", "auto"]].concat();
    assert!(fails(dir, &other).contains("only epochs may change"));
    fs::remove_file(dir.join("run/model.safetensors")).unwrap();
    train("2");
    assert!(dir.join("run/model.safetensors").exists(), "a finished run is evaluated again");
}

#[test]
fn upstreams_launcher_flags_are_named_and_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let mut args = TRAIN.to_vec();
    args.extend(["--test_run", "--nodes=1", "--num-workers", "4", "--pin_mem", "--seed", "3"]);
    let output = fmq(dir, &args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("ignored here: --num_workers, --nodes, --pin_mem"), "{stderr}");

    let mut args = TRAIN.to_vec();
    args.push("--discrete_flow_matching");
    assert_eq!(fmq(dir, &args).status.code(), Some(2));
    let mut args = TRAIN.to_vec();
    args.push("--compute_fid");
    let error = fails(dir, &args);
    assert!(error.contains("fmq data fetch inception") && error.contains("--weights"), "{error}");
}

/// Starts a run that saves after every update.
fn start(dir: &Path, output: &str, epochs: &str) -> Child {
    let mut args = TRAIN.to_vec();
    args.extend(["--output_dir", output, "--epochs", epochs, "--resume", "auto"]);
    args.extend(["--eval_frequency", "5", "--save-seconds", "0"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fmq"));
    command.args(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What a finished run has left.
#[derive(PartialEq)]
struct Outcome {
    weights: Vec<u8>,
    /// The tensors of its checkpoint.
    state: Vec<(String, Vec<f32>)>,
    losses: Vec<f64>,
}

fn outcome(dir: &Path, output: &str) -> Outcome {
    let dir = dir.join(output);
    let checkpoint = checkpoint::Source::open_whole(&dir.join("checkpoint.pth")).unwrap();
    let values = |i| checkpoint.read(i).unwrap().to_dtype(DType::F32).unwrap();
    let state = (0..checkpoint.tensors().len())
        .map(|i| {
            let name = checkpoint.tensors()[i].name.clone();
            (name, values(i).flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect();
    let log = fs::read_to_string(dir.join("log.txt")).unwrap();
    let losses = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["train_loss"].as_f64().unwrap());
    let weights = fs::read(dir.join("model.safetensors")).unwrap();
    Outcome { weights, state, losses: losses.collect() }
}

#[test]
fn a_run_killed_at_any_moment_goes_on_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let epochs = "20";
    let begin = Instant::now();
    assert!(start(dir, "whole", epochs).wait().unwrap().success());
    let whole = begin.elapsed();

    // The moments differ from run to run of this test, as the machine's pace does: where a run comes
    // to its end before 20 kills, another begins with shorter lives.
    let mut kills = 0;
    for shorter in 0..5 {
        if kills == 20 {
            break;
        }
        let _ = fs::remove_dir_all(dir.join("cut"));
        kills = 0;
        for i in 0..20u32 {
            let mut child = start(dir, "cut", epochs);
            thread::sleep(whole * (i * 7 % 20 + 1) / (160 << shorter));
            child.kill().unwrap();
            kills += u32::from(child.wait().unwrap().signal() == Some(9));
        }
    }
    assert_eq!(kills, 20);
    assert!(start(dir, "cut", epochs).wait().unwrap().success());
    let (expected, found) = (outcome(dir, "whole"), outcome(dir, "cut"));
    assert_eq!(expected.losses.len(), 20);
    assert_eq!(found.losses, expected.losses);
    assert!(found.weights == expected.weights, "other weights");
    assert!(found.state == expected.state, "another state");
    let rest: Vec<_> = names(&dir.join("cut")).into_iter().filter(|p| hidden(p)).collect();
    assert_eq!(rest, Vec::<PathBuf>::new(), "what killed writers left");
    for epoch in [4, 9, 14, 19] {
        assert!(dir.join(format!("cut/checkpoint-{epoch}.pth")).exists(), "{epoch}");
        let snapshot = dir.join(format!("cut/snapshots/{epoch}_{}.png", (epoch + 1) * 4));
        assert!(snapshot.exists(), "{}", snapshot.display());
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

#[test]
fn sigterm_saves_and_is_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    assert!(start(dir, "whole", "8").wait().unwrap().success());
    let child = start(dir, "cut", "8");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !dir.join("cut/checkpoint.pth").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(kill.success() && output.status.success(), "{stderr}");
    assert!(stderr.contains("stopped by a signal, saved; go on with --resume auto"), "{stderr}");
    assert!(start(dir, "cut", "8").wait().unwrap().success());
    assert!(outcome(dir, "cut") == outcome(dir, "whole"));
}

#[test]
fn a_full_disk_is_an_error_and_the_last_checkpoint_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    assert!(start(dir, "run", "1").wait().unwrap().success());
    let path = dir.join("run/checkpoint.pth");
    let before = fs::read(&path).unwrap();
    // No file may grow beyond 64 KiB; the checkpoint is larger.
    assert!(before.len() > 1 << 16);
    let limited = format!(
        "trap '' XFSZ; ulimit -f 128; exec {} {} --epochs 2 --resume auto",
        env!("CARGO_BIN_EXE_fmq"),
        TRAIN.map(|arg| format!("'{arg}'")).join(" ")
    );
    let output = Command::new("sh").args(["-c", &limited]).current_dir(dir).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: ") && error.contains("checkpoint"), "{stderr}");
    assert!(fs::read(&path).unwrap() == before, "the checkpoint has changed");
    ok(dir, &[&TRAIN[..], &["--epochs", "2", "--resume", "auto"]].concat());
}

#[test]
fn a_loss_that_is_not_finite_names_its_place_and_the_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let run = |args: &[&str]| {
        let output = fmq(dir, &[&TRAIN[..], args].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["--epochs", "1"]).0, Some(0));
    let weights = fs::read(dir.join("run/checkpoint.pth")).unwrap();
    let (code, stderr) = run(&["--output_dir", "wild", "--lr", "1e30", "--epochs", "2"]);
    let error = stderr.lines().last().unwrap();
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["the loss is ", "in epoch 0, batch 1 ", "images [", "no checkpoint yet"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let (_, stderr) = run(&[
        "--output_dir",
        "wild",
        "--lr",
        "1e30",
        "--resume",
        "run/model.safetensors",
        "--save-seconds",
        "0",
    ]);
    assert!(stderr.contains("the last good checkpoint is `wild/checkpoint.pth`"), "{stderr}");
    assert!(fs::read(dir.join("run/checkpoint.pth")).unwrap() == weights);
}

#[test]
fn the_training_sets_statistics_are_of_the_images_that_are_there() {
    let dir = super::fid::inception();
    let dir = dir.path();
    idx(dir);
    let run = |epochs: &str| {
        let mut args = TRAIN.to_vec();
        args.extend(["--compute_fid", "--weights", "inception.safetensors", "--fid_samples", "2"]);
        args.extend(["--resume", "auto", "--epochs", epochs]);
        let output = fmq(dir, &args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let statistics = npz::read_statistics(&dir.join("run/fid_reference.npz")).unwrap();
        (statistics, told.contains("fid_reference.npz` is of other images"))
    };
    let (first, told) = run("1");
    assert!(!told);
    assert_eq!(run("2"), (first.clone(), false));
    // Other images of the same number and size, under the same names.
    let path = dir.join("mnist/train-images-idx3-ubyte");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16..].iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
    fs::write(&path, bytes).unwrap();
    let (second, told) = run("3");
    assert!(told && second.mean != first.mean);
}

#[test]
fn fid_is_measured_at_evaluations() {
    let dir = super::fid::inception();
    let dir = dir.path();
    idx(dir);
    let mut args = TRAIN.to_vec();
    args.extend(["--compute_fid", "--weights", "inception.safetensors", "--fid_samples", "7"]);
    args.extend(["--save_fid_samples", "--test_run"]);
    ok(dir, &args);
    let log = fs::read_to_string(dir.join("run/log.txt")).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(line["eval_fid"].as_f64().unwrap() > 0.0, "{log}");
    // A test run ends after one batch, of 5.
    assert_eq!(names(&dir.join("run/fid_samples")).len(), 5);
    // Fewer samples leave none of those before.
    let at = args.iter().position(|&argument| argument == "7").unwrap();
    args[at] = "3";
    args.extend(["--resume", "auto", "--eval_only"]);
    ok(dir, &args);
    assert_eq!(names(&dir.join("run/fid_samples")).len(), 3);
}
