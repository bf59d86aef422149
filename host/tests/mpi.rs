//! Commands in several processes, under Open MPI's `mpirun`.
//!
//! Compiled as a test of the package `fmq`, with its feature `mpi`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use core::time::Duration;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use fm_candle::checkpoint;
use fm_candle::data::{Images, mnist};
use fm_candle::device::Device;
use fm_candle::fid::inception::Inception;
use fm_candle::model::{RandomInit, UNet, UNetConfig, config};
use serde_json::Value;
use tempfile::TempDir;

const FMQ: &str = env!("CARGO_BIN_EXE_fmq");

/// What every run here is told: it accumulates, averages, drops labels and flips.
const TRAIN: [&str; 12] = [
    "train",
    "--dataset=mnist",
    "--data_path=mnist",
    "--arch=tiny.json",
    "--accum_iter=2",
    "--use_ema",
    "--class_drop_prob=0.5",
    "--ode_options={\"step_size\": 0.5}",
    "--eval_frequency=0",
    "--resume=auto",
    "--threads=1",
    "--device=cpu",
];

/// A folder with 47 images of 8x8 pixels, no multiple of two processes' batches, and a small
/// conditional net with dropout.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::create_dir(path.join("mnist")).unwrap();
    save_images(path, "train", 47);
    let net = UNetConfig {
        in_channels: 1,
        out_channels: 1,
        model_channels: 32,
        num_res_blocks: 1,
        attention_resolutions: [1].into(),
        channel_mult: [1.0].into(),
        num_classes: Some(10),
        dropout: 0.2,
        use_scale_shift_norm: true,
        image_size: Some(8),
        ..UNetConfig::default()
    };
    fs::write(path.join("tiny.json"), config::to_json(&net)).unwrap();
    dir
}

/// Writes `n` images of 8x8 pixels as a half of MNIST.
fn save_images(dir: &Path, half: &str, n: u32) {
    let pixels = (0..n * 64).map(|i| (i * 31 % 251) as u8).collect();
    let images = Images::new([1, 8, 8], pixels, (0..n).map(|i| i % 10).collect()).unwrap();
    let [images, labels] = mnist::encode(&images).unwrap();
    fs::write(dir.join(format!("mnist/{half}-images-idx3-ubyte")), images).unwrap();
    fs::write(dir.join(format!("mnist/{half}-labels-idx1-ubyte")), labels).unwrap();
}

/// Adds a net of `tiny.json` that does something, `net.safetensors`.
fn save_net(dir: &Path) {
    let json = fs::read_to_string(dir.join("tiny.json")).unwrap();
    let mut initial = RandomInit::new(3, &Device::Cpu);
    UNet::new(&config::from_json(&json).unwrap(), &mut initial).unwrap();
    let tensors: Vec<_> = initial
        .vars
        .iter()
        .map(|(name, var)| (name.clone(), (var.as_tensor().detach() + 0.01).unwrap()))
        .collect();
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    checkpoint::safetensors::save(&dir.join("net.safetensors"), &tensors, &metadata).unwrap();
}

/// A running program, which neither outlives its test nor hangs it.
struct Job {
    child: Child,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Job {
    fn start(program: &str, dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, stderr: Some(stderr) }
    }

    /// One process that no launcher has started.
    fn alone(dir: &Path, own: &[&str]) -> Self {
        Self::start(FMQ, dir, &[&TRAIN[..], own].concat())
    }

    /// Two processes, each with arguments of its own.
    fn two(dir: &Path, first: &[&str], second: &[&str]) -> Self {
        let mpirun = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"];
        // Asked to end, mpirun waits so many seconds, tells the processes, waits again and kills.
        let patience = ["--mca", "odls_base_sigkill_timeout", "4"];
        let one = ["-n", "1", FMQ];
        let parts = [&mpirun[..], &patience, &one, &TRAIN, first, &[":"], &one, &TRAIN, second];
        Self::start("mpirun", dir, &parts.concat())
    }

    /// `count` processes of a command other than `train`.
    fn several(dir: &Path, count: &str, args: &[&str]) -> Self {
        let mpirun =
            ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", count, FMQ];
        Self::start("mpirun", dir, &[&mpirun[..], args].concat())
    }

    /// Two processes with the same arguments.
    fn pair(dir: &Path, own: &[&str]) -> Self {
        Self::two(dir, own, own)
    }

    /// Waits for its end, at most `seconds`: whether it was a good one, and what it said.
    fn end(mut self, seconds: u64) -> (bool, String) {
        let status = within(seconds, || self.child.try_wait().unwrap());
        let stderr = self.stderr.take().unwrap().join().unwrap();
        (status.success(), stderr)
    }

    /// Waits for a good end.
    fn ok(self) -> String {
        let (success, stderr) = self.end(300);
        assert!(success, "{stderr}");
        stderr
    }

    /// Waits for a bad end, which must come soon.
    fn fails(self) -> String {
        let (success, stderr) = self.end(30);
        assert!(!success, "{stderr}");
        stderr
    }

    fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }
}

impl Drop for Job {
    /// mpirun, asked twice, kills its processes.
    fn drop(&mut self) {
        for _ in 0..2 {
            if self.child.try_wait().unwrap().is_none() {
                self.signal("INT");
                thread::sleep(Duration::from_secs(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {name} {process}");
}

/// Waits until there is something, at most `seconds`.
fn within<T>(seconds: u64, mut there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(seconds), "nothing within {seconds} s");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The losses that a run's log tells, epoch by epoch.
fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.txt")).unwrap_or_default();
    let entry = |line: &str| serde_json::from_str::<Value>(line).ok()?["train_loss"].as_f64();
    log.lines().filter_map(entry).collect()
}

/// Waits until a run has trained for some epochs.
fn wait_for_epochs(run: &Path, epochs: usize) {
    within(120, || (losses(run).len() >= epochs).then_some(()));
}

/// The values of all tensors in a file, the moving average of a run.
fn values(file: &Path) -> Vec<f32> {
    let tensors = checkpoint::load(file, false).unwrap().tensors;
    tensors.iter().flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

/// The names of a run's files, but for the one that the process is part of.
fn files(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.map(|n| n.split(".tfevents").next().unwrap().into()).collect();
    names.sort();
    names
}

#[test]
fn two_processes_train_as_one_of_twice_the_batch() {
    let dir = folder();
    let dir = dir.path();
    Job::alone(dir, &["--output_dir=one", "--batch_size=10", "--epochs=4"]).ok();
    let said = Job::pair(dir, &["--output_dir=two", "--batch_size=5", "--epochs=4"]).ok();
    assert_eq!(said.matches("epoch 3:").count(), 1, "the first process alone tells: {said}");

    let (one, two) = (dir.join("one"), dir.join("two"));
    let (expected, found) = (losses(&one), losses(&two));
    assert_eq!((expected.len(), found.len()), (4, 4));
    for (a, b) in expected.iter().zip(&found) {
        assert!((a / b - 1.0).abs() < 1e-5, "{expected:?}, {found:?}");
    }
    assert_eq!(files(&one), files(&two));
    let snapshot = "snapshots/3_16.png";
    assert_eq!(
        fs::read(one.join(snapshot)).unwrap().len(),
        fs::read(two.join(snapshot)).unwrap().len()
    );
    let args: Value = serde_json::from_slice(&fs::read(two.join("args.json")).unwrap()).unwrap();
    assert_eq!((args["world_size"].as_u64(), args["distributed"].as_bool()), (Some(2), Some(true)));

    // A run moves its weights by a thousandth. Where a gradient is nothing but rounding, AdamW may
    // make a whole step of it.
    let (a, b) = (values(&one.join("model.safetensors")), values(&two.join("model.safetensors")));
    assert_eq!(a.len(), b.len());
    let mut differences: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
    differences.sort_by(f32::total_cmp);
    let (most, all) = (differences[a.len() / 100 * 99], differences[a.len() - 1]);
    assert!(most < 1e-7 && all < 1e-4, "99 in 100 differ by {most} at most, all by {all}");
}

/// Writes an untrained Inception net as `inception.safetensors`.
fn inception(dir: &Path) {
    let mut weights = RandomInit::new(1, &Device::Cpu);
    Inception::new(&mut weights, &Device::Cpu).unwrap();
    let tensors: Vec<_> =
        weights.vars.into_iter().map(|(name, var)| (name, var.into_inner())).collect();
    checkpoint::safetensors::save(&dir.join("inception.safetensors"), &tensors, &[]).unwrap();
}

/// The FID that a run's log tells of its last epoch.
fn fid(run: &Path) -> Option<f64> {
    let log = fs::read_to_string(run.join("log.txt")).unwrap();
    serde_json::from_str::<Value>(log.lines().last()?).ok()?["eval_fid"].as_f64()
}

/// What a run is told that measures FID.
const FID: [&str; 4] =
    ["--compute_fid", "--weights=inception.safetensors", "--fid_samples=21", "--save_fid_samples"];

#[test]
fn two_processes_measure_the_same_fid_as_one() {
    let dir = folder();
    let dir = dir.path();
    inception(dir);
    for run in ["--output_dir=one", "--output_dir=two"] {
        Job::alone(dir, &[run, "--batch_size=10", "--epochs=1"]).ok();
    }
    // Steps of the solver's own choice depend on the images that are drawn together.
    let solver = ["--ode_method=dopri5", "--ode_options={\"atol\": 1e-3, \"rtol\": 1e-3}"];
    let own = [&FID[..], &solver, &["--eval_only"]].concat();
    Job::alone(dir, &[&own[..], &["--output_dir=one", "--batch_size=10"]].concat()).ok();
    let said = Job::pair(dir, &[&own[..], &["--output_dir=two", "--batch_size=5"]].concat()).ok();
    assert_eq!(said.matches("epoch 0: FID").count(), 1, "the first process alone tells: {said}");

    let (one, two) = (dir.join("one"), dir.join("two"));
    let (expected, found) = (fid(&one).unwrap(), fid(&two).unwrap());
    assert!(expected > 0.0 && expected.to_bits() == found.to_bits(), "{expected}, {found}");
    let bytes = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
    assert!(bytes(&one, "fid_reference.npz") == bytes(&two, "fid_reference.npz"));
    assert_eq!(files(&one.join("fid_samples")).len(), 21);
    for name in files(&one.join("fid_samples")) {
        let name = format!("fid_samples/{name}");
        assert!(bytes(&one, &name) == bytes(&two, &name), "{name}");
    }
}

#[test]
fn a_signal_stops_the_measuring_of_fid() {
    let dir = folder();
    let dir = dir.path();
    inception(dir);
    let own = [&FID[..], &["--output_dir=cut", "--batch_size=5", "--epochs=1"]].concat();
    let job = Job::pair(dir, &own);
    // The first round has begun, of several: the statistics of the training set are there.
    within(120, || dir.join("cut/fid_samples").exists().then_some(()));
    job.signal("USR1");
    let (success, said) = job.end(60);
    assert!(success && said.contains("stopped by a signal, saved"), "{said}");
    assert_eq!(fid(&dir.join("cut")), None);
    Job::pair(dir, &own).ok();
    assert!(fid(&dir.join("cut")).is_some(), "a run that was cut there begins with it");
}

#[test]
fn a_signal_saves_and_the_run_goes_on_bit_for_bit() {
    let dir = folder();
    let dir = dir.path();
    let cut = ["--output_dir=cut", "--batch_size=5", "--epochs=100000"];
    // mpirun passes USR1 on, and then ends as its processes do; TERM ends mpirun as an error.
    for (signal, good) in [("USR1", true), ("TERM", false)] {
        let before = losses(&dir.join("cut")).len();
        let job = Job::pair(dir, &cut);
        wait_for_epochs(&dir.join("cut"), before + 2);
        job.signal(signal);
        let (success, said) = job.end(60);
        assert_eq!(success, good, "{said}");
        assert!(said.contains("stopped by a signal, saved"), "{said}");
    }
    let epochs = format!("--epochs={}", losses(&dir.join("cut")).len() + 2);
    let rest = |run: &str| {
        Job::pair(dir, &[&format!("--output_dir={run}"), "--batch_size=5", &epochs]).ok();
        let run = dir.join(run);
        (losses(&run), values(&run.join("checkpoint.pth")), values(&run.join("model.safetensors")))
    };
    assert!(rest("cut") == rest("whole"), "a cut run and an unbroken one differ");
}

/// The second process of a job.
fn second(job: &Job) -> u32 {
    let second = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let process = entry.unwrap().path();
        let parent = format!("PPid:\t{}\n", job.child.id());
        let text = |name| fs::read(process.join(name)).unwrap_or_default();
        let ours = String::from_utf8_lossy(&text("status")).contains(&parent);
        let rank = b"\0OMPI_COMM_WORLD_RANK=1\0";
        let found = ours && text("environ").windows(rank.len()).any(|part| part == rank);
        found.then(|| process.file_name()?.to_str()?.parse().ok())?
    });
    second.unwrap()
}

#[test]
fn a_killed_process_ends_the_others() {
    let dir = folder();
    let dir = dir.path();
    let job = Job::pair(dir, &["--output_dir=run", "--batch_size=5", "--epochs=100000"]);
    wait_for_epochs(&dir.join("run"), 1);
    signal("KILL", second(&job));
    job.fails();
}

#[test]
fn an_error_of_one_process_ends_all() {
    let dir = folder();
    let dir = dir.path();
    let run = ["--output_dir=run", "--batch_size=5", "--epochs=2"];
    let with = |own: &'static str| [&run[..], &[own]].concat();
    let said = Job::two(dir, &run, &with("--data_path=nowhere")).fails();
    assert!(said.contains("error: process 1 of 2: ") && said.contains("nowhere"), "{said}");
    let said = Job::two(dir, &run, &with("--no_flip")).fails();
    assert!(said.contains("do not all train the same run"), "{said}");
    let said = Job::pair(dir, &with("--lr=1e30")).fails();
    assert!(said.contains("the loss is") && said.contains("images ["), "{said}");
}

#[test]
fn two_processes_tune_as_one_does() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    let tune = "tune net.safetensors --bits=2 --keep=*bias=16 --steps=3 --batch-size=5 --trajectories=2 --code-lr=0 \
        --threads=1 --device=cpu -o";
    let tune: Vec<&str> = tune.split_whitespace().collect();
    Job::start(FMQ, dir, &[&tune[..], &["alone.fmq"]].concat()).ok();
    let said = Job::several(dir, "2", &[&tune[..], &["two.fmq"]].concat()).ok();
    // The first alone speaks and writes.
    assert_eq!(said.matches("wrote `two.fmq`").count(), 1, "{said}");
    let load = |name: &str| checkpoint::load(&dir.join(name), true).unwrap().tensors;
    for ((name, alone), (_, two)) in load("alone.fmq").iter().zip(load("two.fmq")) {
        let off = (alone - two).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-3, "{name}");
    }
    // A process of another run ends both.
    let other = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "1", FMQ];
    let parts = [&other[..], &tune, &["x.fmq", ":", "-n", "1", FMQ], &tune, &["x.fmq", "--lr=1"]];
    let said = Job::start("mpirun", dir, &parts.concat()).fails();
    assert!(said.contains("do not all tune the same run"), "{said}");
    assert!(!dir.join("x.fmq").exists());
}

#[test]
fn any_number_of_processes_draws_the_same_images() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    // Steps of the solver's own choice depend on the images that are drawn together.
    let draw = [
        "sample",
        "net.safetensors",
        "-n=75",
        "--ode-method=dopri5",
        "--ode-options={\"atol\": 1e-3, \"rtol\": 1e-3}",
        "--threads=1",
        "--device=cpu",
        "-o",
    ];
    let bytes = |name: &str| fs::read(dir.join(name)).unwrap();
    for out in ["x.npz", "x.safetensors", "x/"] {
        let name = |count: &str| format!("{count}{out}");
        Job::start(FMQ, dir, &[&draw[..], &[&name("1")]].concat()).ok();
        for count in ["2", "3"] {
            let said = Job::several(dir, count, &[&draw[..], &[&name(count)]].concat()).ok();
            assert_eq!(said.matches("75 images").count(), 1, "the first alone tells: {said}");
            if out == "x/" {
                let pictures = files(&dir.join(name("1")));
                assert_eq!((pictures.len(), &pictures), (75, &files(&dir.join(name(count)))));
                for picture in pictures {
                    assert!(bytes(&(name("1") + &picture)) == bytes(&(name(count) + &picture)));
                }
            } else {
                assert!(bytes(&name("1")) == bytes(&name(count)), "{}", name(count));
            }
        }
    }
    let left = files(dir).into_iter().filter(|name| name.contains(".parts")).count();
    assert_eq!(left, 0, "parts that nobody needs");
    let mixed = [&["-n", "1", FMQ][..], &draw, &["m.npz", ":", "-n", "1", FMQ], &draw, &["m.npz"]];
    let mpirun = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"];
    let args = [&mpirun[..], &mixed.concat(), &["--seed=1"]].concat();
    let said = Job::start("mpirun", dir, &args).fails();
    assert!(said.contains("not started with the same arguments"), "{said}");
}

#[test]
fn any_number_of_processes_measures_and_sweeps_the_same() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    inception(dir);
    for half in ["train", "t10k"] {
        save_images(dir, half, 8);
    }
    let features = "--data-path=mnist --features=inception --weights=inception.safetensors --threads=1 \
                    --device=cpu";
    let with = |args: &str, more: &str| {
        let all = format!("{args} {features} {more}");
        all.split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    let run = |count: &str, args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if count == "1" { Job::start(FMQ, dir, &args) } else { Job::several(dir, count, &args) }
    };
    let fid = "fid net.safetensors mnist:train -n 8 --kid --kid-subset-size 5 --cache cache";
    let sweep =
        "sweep net.safetensors --data=mnist --schemes=ot,lloyd-max --bits=2,3 -n 6 --steps=2";
    let bytes = |name: String| fs::read(dir.join(name)).unwrap();
    for count in ["1", "2", "3"] {
        run(count, with(fid, &format!("--save-stats={count}.npz"))).ok();
        assert!(bytes("1.npz".into()) == bytes(format!("{count}.npz")), "fid, {count}");
        run(count, with(sweep, &format!("-o {count}"))).ok();
        let rows = |count: &str| {
            let results: Value =
                serde_json::from_slice(&bytes(format!("{count}/results.json"))).unwrap();
            let mut rows = results["rows"].as_array().unwrap().clone();
            for row in &mut rows {
                row["seconds"] = Value::Null;
            }
            (rows, results["fid_full"].as_f64().unwrap().to_bits())
        };
        assert_eq!(rows("1").0.len(), 4);
        assert!(rows("1") == rows(count), "sweep, {count}");
        assert!(!dir.join(count).join("rows").exists());
    }
}

#[test]
fn a_sweep_whose_process_was_killed_goes_on() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    inception(dir);
    for half in ["train", "t10k"] {
        save_images(dir, half, 8);
    }
    let sweep = "sweep net.safetensors --data=mnist --data-path=mnist --features=inception --no-analyses \
                 --weights=inception.safetensors --threads=1 --device=cpu --schemes=ot,uniform,pwl --bits=2,3,4,5 -n 2 -o out";
    let sweep: Vec<&str> = sweep.split_whitespace().collect();
    let job = Job::several(dir, "2", &sweep);
    let rows = || files(&dir.join("out/rows")).into_iter().filter(|name| name.contains(".json"));
    within(300, || (dir.join("out/rows").is_dir() && rows().count() > 2).then_some(()));
    signal("KILL", second(&job));
    job.fails();
    let before: Vec<(String, Vec<u8>)> = rows()
        .map(|name| (name.clone(), fs::read(dir.join("out/rows").join(name)).unwrap()))
        .collect();
    Job::several(dir, "3", &sweep).ok();
    let results: Value =
        serde_json::from_slice(&fs::read(dir.join("out/results.json")).unwrap()).unwrap();
    let all = results["rows"].as_array().unwrap();
    assert_eq!(all.len(), 3 * 4);
    for (name, row) in before {
        let row: Value = serde_json::from_slice(&row).unwrap();
        assert!(all.contains(&row["row"]), "{name}: computed again");
    }
}
