//! `fmq train`: files and flags, and what it refuses.
//!
//! | module | idea |
//! |---|---|
//! | [`evaluation`] | `--eval_only`, and the distance at evaluations |
//! | [`resume`] | runs that are cut and go on |

mod evaluation;
mod resume;

use super::*;

/// `n` images of 8x8 pixels.
fn images(n: u32) -> Images {
    let pixels = (0..n * 64).map(|i| (i * 31 % 256) as u8).collect();
    Images::new([1, 8, 8], pixels, (0..n).map(|i| i % 10).collect()).unwrap()
}

/// Writes `n` images as the two IDX files of a training set into the folder `name`.
fn set(dir: &Path, name: &str, n: u32) {
    let [images, labels] = mnist::encode(&images(n)).unwrap();
    fs::create_dir(dir.join(name)).unwrap();
    fs::write(dir.join(name).join("train-images-idx3-ubyte"), images).unwrap();
    fs::write(dir.join(name).join("train-labels-idx1-ubyte"), labels).unwrap();
}

/// 20 images of 8x8 pixels in `mnist/`, as IDX files.
pub(super) fn idx(dir: &Path) {
    set(dir, "mnist", 20);
    fs::write(dir.join("tiny.json"), config::to_json(&tiny())).unwrap();
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

/// Runs `fmq train` with further flags, expects success, and returns its stderr.
fn told(dir: &Path, more: &[&str]) -> String {
    let output = fmq(dir, &[&TRAIN[..], more].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{more:?}: {stderr}");
    stderr
}

/// The updates that the optimizer in a checkpoint has made.
fn updates(path: &Path) -> f32 {
    let (moments, _) = checkpoint::Source::open_training(path).unwrap().unwrap();
    let step = moments.tensors().iter().position(|info| info.name == "state.0.step").unwrap();
    moments.read(step).unwrap().to_scalar().unwrap()
}

#[test]
fn train_writes_its_files_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
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
    let error = fails(dir, &other);
    assert!(error.contains("--skewed_timesteps, but the run was started without"), "{error}");
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
}

#[test]
fn what_remains_of_an_epoch_makes_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    // As upstream, what remains of an epoch makes no update.
    let stderr = told(dir, &["--accum_iter", "3", "--epochs", "2"]);
    assert!(stderr.contains("the last 1 of 4 batches of an epoch make no update"), "{stderr}");
    assert_eq!(updates(&dir.join("run/checkpoint.pth")), 2.0);
    // A test run makes the one update that it is to test.
    told(dir, &["--accum_iter", "3", "--test_run", "--output_dir", "test"]);
    assert_eq!(updates(&dir.join("test/checkpoint.pth")), 1.0);
    assert!(dir.join("test/snapshots/0_3.png").exists());
}

#[test]
fn an_output_that_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    for args in [&["demo", "-o", "tiny.json"][..], &["man", "tiny.json"]] {
        let error = fails(dir, args);
        assert!(error.contains("is a file, and the output is a folder"), "{args:?}: {error}");
    }
    // The folder that one is in is one, empty or not.
    fs::create_dir(dir.join("here")).unwrap();
    let args = ["--output_dir=.", "--data_path=../mnist", "--arch=../tiny.json", "--epochs=1"];
    told(&dir.join("here"), &[&args[..], &["--resume=auto"]].concat());
    assert!(dir.join("here/model.safetensors").exists());
    let warned = told(dir, &["--epochs=1", "--save_fid_samples", "--output_dir", "new/"]);
    assert!(warned.contains("--save_fid_samples has no effect without --compute_fid"), "{warned}");
}

#[test]
fn processes_that_would_train_alone_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fmq"));
        command.args(TRAIN).args(["--test_run", "--resume", "auto"]).current_dir(dir);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for rank in ["0", "1"] {
        let torchrun = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")];
        let (code, stderr) = run(&torchrun);
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains("one of several processes of torchrun"), "{stderr}");
        assert!(stderr.contains("mpirun"), "{stderr}");
    }
    assert!(!dir.join("run").exists());
    assert_eq!(run(&[("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")]).0, Some(0));
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
