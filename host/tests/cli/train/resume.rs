//! Runs that are cut, killed or without room go on as if they had not been, with the settings that they had.

use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use fm_candle::data::ImageSet;
use fm_candle::device::Device;
use fm_candle::train::{TrainConfig, Trainer};

use super::*;

/// Writes the run of `TRAIN` after some batches of its first epoch.
fn cut(path: &Path, batches: usize) {
    let config =
        TrainConfig { batch_size: 5, flip: false, use_ema: true, ..TrainConfig::default() };
    let mut trainer = Trainer::new(&tiny(), &config, &Device::Cpu).unwrap();
    let data: Arc<dyn ImageSet> = Arc::new(images(20));
    let mut loader = trainer.loader(&data).unwrap();
    for _ in 0..batches {
        trainer.next_batch(&mut loader).unwrap();
    }
    trainer.save(path, &serde_json::Map::new()).unwrap();
}

#[test]
fn a_run_is_cut_and_goes_on_inside_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    set(dir, "few", 10);
    cut(&dir.join("cut.pth"), 3);
    let fails = |args: &[&str]| fails(dir, &[&TRAIN[..], &["--resume", "cut.pth"], args].concat());
    let error = fails(&["--data_path", "few"]);
    assert!(error.contains("saved after batch 3 of an epoch, which has only 2"), "{error}");
    let error = fails(&["--batch_size", "4"]);
    let expected =
        "--batch_size 4, but the run was started with --batch_size 5 and saved after batch 3";
    assert!(error.contains(expected), "{error}");
    // A test run trains on one batch more.
    told(dir, &["--resume", "cut.pth", "--test_run"]);
    assert_eq!(updates(&dir.join("run/checkpoint.pth")), 4.0);
}

#[test]
fn a_run_keeps_its_settings_and_says_which_one_differs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let deep = UNetConfig { num_res_blocks: 2, ..tiny() };
    fs::write(dir.join("deep.json"), config::to_json(&deep)).unwrap();
    let train: Vec<&str> =
        TRAIN.into_iter().filter(|arg| !["--no-flip", "--use_ema"].contains(arg)).collect();
    ok(dir, &[&train[..], &["--epochs", "1"]].concat());
    let resume = ["--resume", "auto", "--epochs", "1"];
    let named = fails(dir, &[&train[..], &resume, &["--seed=3"]].concat());
    assert!(named.starts_with("error: --resume: `run/checkpoint.pth`: --seed 3, but"), "{named}");
    for (flags, difference) in [
        (&["--seed", "3"][..], "--seed 3, but the run was started with --seed 0"),
        (&["--accum_iter=2"], "--accum_iter 2, but the run was started with --accum_iter 1"),
        (
            &["--class_drop_prob=1"],
            "--class_drop_prob 1.0, but the run was started with --class_drop_prob 0.2",
        ),
        (
            &["--skewed_timesteps"],
            "--skewed_timesteps, but the run was started without --skewed_timesteps",
        ),
        (&["--use_ema"], "--use_ema, but the run was started without --use_ema"),
        (&["--no-flip"], "--no-flip, but the run was started without --no-flip"),
        (
            &["--arch=deep.json"],
            "--arch: num_res_blocks 2, but the file's net has num_res_blocks 1",
        ),
        (
            &["--dataset=fashionmnist"],
            "--dataset fashionmnist, but the run was started with --dataset mnist",
        ),
    ] {
        let error = fails(dir, &[&train[..], &resume, flags].concat());
        assert!(error.contains(difference), "{flags:?}: {error}");
    }
    // What need not be as it was.
    let free =
        ["--data_path=./mnist", "--batch_size=4", "--lr=1e-3", "--device=cpu", "--threads=1"];
    let others = ["--gradient-checkpointing", "--ode_method=euler", "--eval_frequency=2"];
    let output = fmq(dir, &[&train[..], &resume, &free, &others, &["--epochs=2"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("resumed at epoch 1") && stderr.contains("--lr 0.0001"), "{stderr}");
    assert!(
        stderr.contains("falls over 1 epochs") && stderr.contains("stays at 1.0e-8"),
        "{stderr}"
    );

    // Nor is a run silent that has nothing to do.
    let output = fmq(dir, &[&train[..], &resume, &["--epochs=2"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("has its 2 epochs: there is nothing to train"), "{stderr}");
    let error = fails(dir, &[&train[..], &resume].concat());
    assert!(error.contains("--epochs 1: the run is at epoch 2"), "{error}");
    // Without its switches a run with them does not go on either.
    told(dir, &["--epochs=1", "--output_dir=with"]);
    let error = fails(dir, &[&train[..], &resume, &["--output_dir=with"]].concat());
    for flag in ["--no-flip", "--use_ema"] {
        assert!(
            error.contains(&format!("no {flag}, but the run was started with {flag}")),
            "{error}"
        );
    }
}

#[test]
fn weights_alone_start_a_run_of_the_same_net() {
    let dir = folder();
    let dir = dir.path();
    idx(dir);
    let from = ["--resume", "net.safetensors", "--epochs", "1"];
    assert!(told(dir, &from).contains("holds weights alone: a new run starts from them"));
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

/// Weights, checkpoint tensors and losses that a finished training run wrote.
#[derive(PartialEq)]
struct Outcome {
    weights: Vec<u8>,
    /// The tensors of its checkpoint.
    state: Vec<(String, Vec<f32>)>,
    losses: Vec<f64>,
}

fn outcome(dir: &Path, output: &str) -> Outcome {
    let dir = dir.join(output);
    let checkpoint =
        checkpoint::Source::open_whole(&dir.join("checkpoint.pth"), &checkpoint::Choice::default())
            .unwrap();
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
    let deadline = Instant::now() + Duration::from_mins(1);
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
