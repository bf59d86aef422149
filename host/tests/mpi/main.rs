//! Commands in several processes, under Open MPI's `mpirun`.
//!
//! Compiled as a test of the package `fmq`, with its feature `mpi`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

mod share;
mod train;

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

/// The names of a run's files, but for the one that the process is part of.
fn files(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.map(|n| n.split(".tfevents").next().unwrap().into()).collect();
    names.sort();
    names
}

/// Writes an untrained Inception net as `inception.safetensors`.
fn inception(dir: &Path) {
    let mut weights = RandomInit::new(1, &Device::Cpu);
    Inception::new(&mut weights, &Device::Cpu).unwrap();
    let tensors: Vec<_> =
        weights.vars.into_iter().map(|(name, var)| (name, var.into_inner())).collect();
    checkpoint::safetensors::save(&dir.join("inception.safetensors"), &tensors, &[]).unwrap();
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

/// A [`folder`] with what a small sweep takes: both halves of a set, a net, and a net of features.
fn sweep_folder() -> TempDir {
    let folder = folder();
    let dir = folder.path();
    save_net(dir);
    inception(dir);
    for half in ["train", "t10k"] {
        save_images(dir, half, 8);
    }
    folder
}
