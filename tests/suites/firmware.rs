//! A microcontroller draws the host's digits, bit by bit: the firmware in Rust and the one in C, in QEMU, on
//! Cortex-M4 and M7.
//!
//! `ci.sh` builds the firmware; this suite runs what is there. Without the firmware or QEMU it passes
//! and says so, unless `FMQ_FIRMWARE=required`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a suite: it says what it left out, and panics to fail"
)]

use core::time::Duration;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use candle_core::{Device, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{Stored, UNet, UNetConfig};
use fm_candle::quantize::{Calibration, PackedNet, Treatment, calibrate, quantize_to_file};
use fm_candle::sample::Sampler;
use fm_candle::solver::{self, Method, uniform_grid};
use quant_core::format::{Kind, Model, fill_section};
use quant_core::infer::{self, Plan, Precision, Settings};
use quant_core::quantize::{Granularity, Options};
use quant_core::scheme::Scheme;

const BITS: [u8; 4] = [2, 3, 4, 8];
const MACHINES: [&str; 2] = ["mps2-an386", "mps2-an500"];
/// Where `digit/memory.x` has the model.
const MODEL_AT: &str = "0x100000";
const CLASS: u32 = 3;
const SEED: u64 = 42;
const STEPS: u32 = 16;

fn firmware(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware").join(path)
}

/// The embedded net, packed with a golden pair and calibrated.
fn pack(dir: &Path, bits: u8) -> PathBuf {
    let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/assets/mnist-micro.safetensors");
    let net = checkpoint::load(&net, false).unwrap();
    let config = UNetConfig::from_json(net.net().unwrap()).unwrap().to_packed().unwrap();
    let options = Options::new(Scheme::LloydMax, bits);
    let options = Options { granularity: Granularity::Auto, ..options };
    let all: Vec<usize> = (0..net.tensors.len()).collect();
    let packed = Some(PackedNet { config: &config, golden: true });
    let path = dir.join(format!("micro-{bits}bit.fmq"));
    let treat = |_: &str, _: &[usize]| Treatment::Quantize(options);
    quantize_to_file(&path, &net.tensors[..], &all, packed, treat, |_, _| Ok(())).unwrap();
    let by = Calibration { images: 11, steps: 8, seed: 0 };
    let file = calibrate(&std::fs::read(&path).unwrap(), by, || {}).unwrap();
    std::fs::write(&path, file).unwrap();
    path
}

/// The program in Rust, and the one in C.
const RUST: &str = "digit";
const C: &str = "c-digit";

/// Whether the firmware and its machine are there.
fn ready() -> bool {
    ready_for(RUST)
}

/// The same for one of the programs.
fn ready_for(program: &str) -> bool {
    let built = firmware("target/thumbv7em-none-eabihf/release").join(program).is_file();
    let asked = Command::new("qemu-system-arm").arg("--version").stdout(Stdio::null()).status();
    let ready = built && asked.is_ok_and(|status| status.success());
    let required = std::env::var("FMQ_FIRMWARE").is_ok_and(|value| value == "required");
    assert!(ready || !required, "no {program} (built: {built}) or no qemu-system-arm");
    if !ready {
        println!("skipped: no {program} (built: {built}) or no qemu-system-arm");
    }
    ready
}

/// What the firmware said, and the code that it ended with.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    /// The first number behind a word at the start of a line.
    fn number(&self, word: &str) -> u64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no `{word}` in:\n{}", self.text));
        line.split(' ').next().unwrap().parse().unwrap()
    }

    /// The bits of the image.
    fn image(&self) -> Vec<u32> {
        let rows = self.text.lines().filter_map(|line| line.strip_prefix("image "));
        let digits: String = rows.collect();
        let values = digits.as_bytes().chunks(8);
        values.map(|v| u32::from_str_radix(str::from_utf8(v).unwrap(), 16).unwrap()).collect()
    }
}

/// Runs the firmware in Rust with a model in its flash and words on its command line.
fn run(machine: &str, model: &Path, words: &str) -> Said {
    run_program(RUST, machine, model, words)
}

/// The same for one of the programs.
fn run_program(program: &str, machine: &str, model: &Path, words: &str) -> Said {
    let console = "enable=on,target=native,chardev=console,arg=digit";
    let console = words.split(' ').fold(console.to_string(), |all, word| all + ",arg=" + word);
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", machine, "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-icount", "shift=8,sleep=off", "-chardev", "stdio,id=console"])
        .args(["-semihosting-config", &console, "-device"])
        .arg(format!("loader,file={},addr={MODEL_AT},force-raw=on", model.display()))
        .arg("-kernel")
        .arg(firmware("target/thumbv7em-none-eabihf/release").join(program))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = qemu.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + Duration::from_secs(300);
    let status = loop {
        if let Some(status) = qemu.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            qemu.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Said { code: status.code(), text: reader.join().unwrap() }
}

/// The host's image from the same engine, and the multiplications of its making.
fn host(file: &[u8], precision: Precision) -> (Vec<f32>, u64) {
    let model = Model::parse(file).unwrap();
    let plan = Plan::with_precision(&model, precision).unwrap();
    let settings = Settings { steps: STEPS, label: Some(CLASS), ..Settings::default() };
    let mut arena = vec![f32::NAN; settings.arena_len(&plan, &model)];
    let mut sampler = infer::Sampler::new(&model, &plan, settings, &mut arena).unwrap();
    sampler.noise(SEED, 0);
    while sampler.step().unwrap() {}
    (sampler.image().to_vec(), plan.macs() * u64::from(STEPS))
}

/// The image that candle makes of the same weights.
fn candle(path: &Path, file: &[u8]) -> Vec<f32> {
    let net = UNetConfig::from_packed(Model::parse(file).unwrap().net().unwrap()).unwrap();
    let tensors = checkpoint::load(path, false).unwrap().tensors;
    let net = UNet::new(&net, &mut Stored::new(tensors, &Device::Cpu)).unwrap();
    let mut x0 = vec![0.0; 784];
    quant_core::noise::fill_normal(SEED, 0, 0, &mut x0);
    let x0 = Tensor::from_vec(x0, (1, 1, 28, 28), &Device::Cpu).unwrap();
    let sampler = Sampler {
        method: Method::Euler,
        grid: uniform_grid(1.0 / f64::from(STEPS)).unwrap(),
        options: solver::Options::default(),
        cfg_scale: 0.0,
        batch_size: 1,
    };
    let samples = sampler.run(&net, &x0, Some(&[CLASS]), false, |_| {}).unwrap();
    samples.images.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn draws_the_hosts_digit() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for bits in BITS {
        let path = pack(dir.path(), bits);
        let file = std::fs::read(&path).unwrap();
        let (image, macs) = host(&file, Precision::Float);
        let candles = candle(&path, &file);
        let off = image.iter().zip(&candles).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(off < 1e-3, "{bits} bits: {off} from candle's");
        let image: Vec<u32> = image.iter().map(|value| value.to_bits()).collect();
        for machine in MACHINES {
            let said = run(machine, &path, &format!("{CLASS} {SEED} {STEPS} bits"));
            let text = &said.text;
            assert_eq!(said.code, Some(0), "{bits} bits on {machine}:\n{text}");
            assert!(said.image() == image, "{bits} bits on {machine}: another image:\n{text}");
            assert!(text.contains("self-test passed"), "{text}");
            assert_eq!(said.number("macs"), macs);
            let count = said.number("instructions");
            println!("{bits} bits on {machine}: {count} instructions, {off:.1e} from candle's");
            assert!(count > macs, "{bits} bits on {machine}: {count} instructions");
            assert!(said.number("stack") < infer::STACK_BYTES as u64, "{text}");
        }
    }
}

#[test]
fn integers_draw_the_hosts_digit() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for bits in BITS {
        let path = pack(dir.path(), bits);
        let file = std::fs::read(&path).unwrap();
        let (image, macs) = host(&file, Precision::Integer);
        let image: Vec<u32> = image.iter().map(|value| value.to_bits()).collect();
        for machine in MACHINES {
            let said = run(machine, &path, &format!("{CLASS} {SEED} {STEPS} integer bits"));
            let text = &said.text;
            assert_eq!(said.code, Some(0), "{bits} bits on {machine}:\n{text}");
            assert!(said.image() == image, "{bits} bits on {machine}: another image:\n{text}");
            assert!(text.contains("self-test passed"), "{text}");
            assert_eq!(said.number("macs"), macs);
            let (count, arena) = (said.number("instructions"), said.number("arena"));
            println!("{bits} bits on {machine}: {count} instructions, arena {arena}");
            assert!(2 * count < 5 * macs, "{bits} bits on {machine}: {count} instructions");
            assert!(arena <= 48 << 10, "{text}");
            assert!(said.number("stack") < infer::STACK_BYTES as u64, "{text}");
        }
    }
}

#[test]
fn two_runs_are_equal() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = pack(dir.path(), 4);
    let [first, second] = ["7 1 2 bits", "7 1 2 bits"].map(|words| run(MACHINES[0], &model, words));
    assert_eq!(first.text, second.text);
    let other = run(MACHINES[0], &model, "7 2 2 bits");
    assert!(first.image().len() == 784 && first.image() != other.image());
}

#[test]
fn a_damaged_model_is_refused() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = pack(dir.path(), 2);
    let file = std::fs::read(&path).unwrap();
    // In the last codes, in a tensor's record, in the length of the file, in its first byte.
    for (at, bit, why) in [
        (file.len() - 70, 0x10, "payload: checksum"),
        (200, 1, "head: checksum"),
        (16, 4, "head: checksum"),
        (0, 1, "first bytes"),
    ] {
        let mut file = file.clone();
        file[at] ^= bit;
        std::fs::write(&path, &file).unwrap();
        let said = run(MACHINES[0], &path, "3 42 1");
        assert_eq!(said.code, Some(1), "byte {at}:\n{}", said.text);
        assert!(said.text.starts_with(&format!("error: {why}")), "byte {at}:\n{}", said.text);
    }
}

#[test]
fn a_failed_self_test_is_said() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = pack(dir.path(), 2);
    let mut file = std::fs::read(&path).unwrap();
    let model = Model::parse(&file).unwrap();
    let golden = model.golden().unwrap();
    let mut velocity: Vec<f32> = golden.velocity().collect();
    velocity[700] += 0.01;
    let velocity = velocity.iter().flat_map(|v| v.to_le_bytes());
    let section: Vec<u8> = golden.head().into_iter().chain(velocity).collect();
    let head = u32::from_le_bytes(file[24..28].try_into().unwrap()) as usize;
    fill_section(&mut file[..head], Kind::GOLDEN, &section).unwrap();
    std::fs::write(&path, &file).unwrap();
    let said = run(MACHINES[0], &path, "3 42 1");
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("700"), "{}", said.text);
}

#[test]
fn a_wrong_order_is_refused() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = pack(dir.path(), 2);
    for (words, why) in [
        ("11", "label is 11: must be 0 to 10"),
        ("3 42 0", "steps of the solver is 0"),
        ("three", "the words must be"),
        ("3 42 1 bytes", "the words must be"),
        ("3 42 1 bits integer", "the words must be"),
    ] {
        let said = run(MACHINES[0], &model, words);
        assert_eq!(said.code, Some(1), "{words}:\n{}", said.text);
        assert!(said.text.contains(why), "{words}:\n{}", said.text);
    }
}

#[test]
fn c_draws_the_hosts_digit() {
    if !ready_for(C) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (bits, machine, precision, word) in [
        (2, MACHINES[0], Precision::Float, ""),
        (4, MACHINES[1], Precision::Float, ""),
        (4, MACHINES[0], Precision::Integer, "integer "),
    ] {
        let path = pack(dir.path(), bits);
        let (image, macs) = host(&std::fs::read(&path).unwrap(), precision);
        let image: Vec<u32> = image.iter().map(|value| value.to_bits()).collect();
        let said = run_program(C, machine, &path, &format!("{CLASS} {SEED} {STEPS} {word}bits"));
        let text = &said.text;
        assert_eq!(said.code, Some(0), "{bits} bits on {machine}:\n{text}");
        assert!(said.image() == image, "{bits} bits on {machine}: another image:\n{text}");
        assert!(text.contains("self-test passed"), "{text}");
        assert_eq!(said.number("macs"), macs);
        assert!(said.number("stack") < infer::STACK_BYTES as u64, "{text}");
    }
}

#[test]
fn c_refuses_what_rust_refuses() {
    if !ready_for(C) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = pack(dir.path(), 2);
    let file = std::fs::read(&path).unwrap();
    let run = |words: &str, why: &str| {
        let said = run_program(C, MACHINES[0], &path, words);
        assert_eq!(said.code, Some(1), "{words}:\n{}", said.text);
        assert!(said.text.starts_with(&format!("error: {why}")), "{words}:\n{}", said.text);
    };
    run("11", "a field of the settings");
    run("3 42 0", "a field of the settings");
    run("three", "the words must be");
    run("3 42 1 bytes", "the words must be");
    for (at, why) in
        [(file.len() - 70, "the file is damaged"), (0, "no packed file"), (4, "the file is of a")]
    {
        let mut file = file.clone();
        file[at] ^= 0x10;
        std::fs::write(&path, &file).unwrap();
        run("3 42 1", why);
    }
}
