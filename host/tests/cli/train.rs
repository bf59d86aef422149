//! `fmq train`: files, flags, and runs that are cut.

use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use fm_candle::data::ImageSet;
use fm_candle::device::Device;
use fm_candle::fid::npz;
use fm_candle::train::{TrainConfig, Trainer};

use super::*;

/// `n` images of 8x8 pixels.
fn images(n: u32) -> Images {
    let pixels = (0..n * 64).map(|i| (i * 31 % 256) as u8).collect();
    Images::new([1, 8, 8], pixels, (0..n).map(|i| i % 10).collect()).unwrap()
}

/// The same as IDX files in the folder `name`.
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

/// What a run with these flags more says on stderr; it must be a success.
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
fn an_evaluation_asks_nothing_of_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    told(dir, &["--epochs", "2"]);
    let evaluate = |file: &str, to: &str, more: &[&str]| {
        let args =
            ["train", "--eval_only", "--dataset=mnist", "--data_path=mnist", "--batch_size=5"];
        let args = [&args[..], &["--ode_options", r#"{"step_size": 0.5}"#], more].concat();
        ok(dir, &[&args[..], &["--resume", file, "--output_dir", to]].concat());
        let read = |path: &str| fs::read(dir.join(path)).unwrap();
        let model = format!("{to}/model.safetensors");
        assert!(read(&model) == read("run/model.safetensors"), "{file}: other weights");
        let picture = names(&dir.join(to).join("snapshots")).remove(0);
        assert!(
            fs::read(&picture).unwrap() == read("run/snapshots/1_8.png"),
            "{file}: another picture"
        );
        picture.file_name().unwrap().to_str().unwrap().to_string()
    };
    assert_eq!(evaluate("run/checkpoint.pth", "a", &[]), "1_8.png");
    assert_eq!(evaluate("run/model.safetensors", "b", &[]), "0_0.png");
    let others = [
        "--lr=0",
        "--accum_iter=99",
        "--epochs=1",
        "--class_drop_prob=7",
        "--skewed_timesteps",
        "--precision=bf16",
        "--device=cpu",
        "--arch=tiny.json",
    ];
    assert_eq!(evaluate("run/checkpoint-1.pth", "c", &others), "1_8.png");

    let refused = |args: &[&str]| {
        let all = ["train", "--eval_only", "--dataset=mnist", "--data_path=mnist", "--resume"];
        fails(dir, &[&all[..], args].concat())
    };
    let deep = UNetConfig { num_res_blocks: 2, ..tiny() };
    fs::write(dir.join("deep.json"), config::to_json(&deep)).unwrap();
    let error = refused(&["run/checkpoint.pth", "--arch=deep.json"]);
    let expected = "--arch: num_res_blocks 2, but the file's net has num_res_blocks 1";
    assert!(error.contains(expected), "{error}");
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
    args.truncate(args.len() - 3);
    args[at] = "7";
    // An evaluation in another folder has a line of its own.
    args.extend(["--eval_only", "--resume", "run/checkpoint.pth", "--output_dir", "again"]);
    ok(dir, &args);
    let log = fs::read_to_string(dir.join("again/log.txt")).unwrap();
    let again: Value = serde_json::from_str(&log).unwrap();
    assert_eq!((&again["epoch"], &again["eval_fid"]), (&line["epoch"], &line["eval_fid"]));
}
