//! A microcontroller draws the host's digits, bit by bit: the firmware in Rust and the one in C, in QEMU, on
//! Cortex-M4, M7 and M3, and what is built for a Cortex-M0+ on an M3, which has all its instructions.
//!
//! `./ci.sh chip` builds the firmware and then runs this suite, which fails without QEMU or a program.

#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a suite: it says what it measured, and panics to fail"
)]

use core::time::Duration;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use candle_core::{Device, Tensor};
use fm_candle::checkpoint;
use fm_candle::model::{StateDict, UNet, config};
use fm_candle::quantize::{
    Calibration, PackedNet, SelfTestForm, TensorPolicy, calibrate, quantize_to_file,
};
use fm_candle::sample::BatchSampler;
use fm_candle::solver::{self, Method, uniform_grid};
use fmq_tests::width;
use quant_core::format::{Model, SectionKind, SelfTestVector, with_section};
use quant_core::infer::{self, Plan, Precision, Settings};
use quant_core::quantize::{Granularity, QuantizeOptions};
use quant_core::scheme::Scheme;

const BITS: [u8; 4] = [2, 3, 4, 8];
const MACHINES: [Machine; 2] = [
    Machine { name: "mps2-an386", target: "thumbv7em-none-eabihf" },
    Machine { name: "mps2-an500", target: "thumbv7em-none-eabihf" },
];
/// QEMU has no Cortex-M0+ with so much memory.
const SMALL: [Machine; 2] = [
    Machine { name: "mps2-an385", target: "thumbv6m-none-eabi" },
    Machine { name: "mps2-an385", target: "thumbv7m-none-eabi" },
];
/// Where `digit/memory.x` has the model.
const MODEL_AT: &str = "0x100000";
const CLASS: u32 = 3;
const SEED: u64 = 42;
const STEPS: u32 = 16;

/// A board as QEMU names it, and the target that programs for it are built for.
#[derive(Clone, Copy)]
struct Machine {
    name: &'static str,
    target: &'static str,
}

impl Machine {
    /// A program that `./ci.sh chip` has built for it.
    fn program(self, name: &str) -> PathBuf {
        let path = firmware("target").join(self.target).join("release").join(name);
        assert!(path.is_file(), "no {}: ./ci.sh chip builds it", path.display());
        path
    }
}

fn firmware(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware").join(path)
}

/// The embedded net, packed with a self-test and calibrated.
fn pack(dir: &Path, bits: u8) -> PathBuf {
    pack_with(dir, bits, SelfTestForm::Checksum)
}

fn pack_with(dir: &Path, bits: u8, form: SelfTestForm) -> PathBuf {
    let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/assets/mnist-micro.safetensors");
    let net = checkpoint::load(&net, false).unwrap();
    let config = config::from_json(net.net().unwrap()).unwrap();
    let options = QuantizeOptions::new(Scheme::LloydMax, width(bits));
    let options = QuantizeOptions { granularity: Granularity::Auto, ..options };
    let all: Vec<usize> = (0..net.tensors.len()).collect();
    let packed = Some(PackedNet { config: &config, self_test: Some(form) });
    let path = dir.join(format!("micro-{bits}bit.fmq"));
    let policy = |_: &str, _: &[usize]| TensorPolicy::Quantize(options);
    quantize_to_file(&path, &net.tensors[..], &all, packed, policy, |_, _| Ok(())).unwrap();
    let by = Calibration { images: 11, steps: 8, seed: 0 };
    let file = calibrate(&std::fs::read(&path).unwrap(), by, || {}).unwrap();
    std::fs::write(&path, file).unwrap();
    path
}

/// The program in Rust, and the one in C.
const RUST: &str = "digit";
const C: &str = "c-digit";

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

/// Runs a program with a model in the machine's flash and words on its command line.
fn run(program: &str, machine: Machine, model: &Path, words: &str) -> Said {
    let console = "enable=on,target=native,chardev=console,arg=digit";
    let console = words.split(' ').fold(console.to_string(), |all, word| all + ",arg=" + word);
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", machine.name, "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-icount", "shift=8,sleep=off", "-chardev", "stdio,id=console"])
        .args(["-semihosting-config", &console, "-device"])
        .arg(format!("loader,file={},addr={MODEL_AT},force-raw=on", model.display()))
        .arg("-kernel")
        .arg(machine.program(program))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-arm");
    let mut stdout = qemu.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + Duration::from_mins(5);
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
    let net = Model::parse(file).unwrap().net().unwrap().clone();
    let tensors = checkpoint::load(path, false).unwrap().tensors;
    let net = UNet::new(&net, &mut StateDict::new(tensors, &Device::Cpu)).unwrap();
    let mut x0 = vec![0.0; 784];
    quant_core::noise::fill_normal(SEED, 0, 0, &mut x0);
    let x0 = Tensor::from_vec(x0, (1, 1, 28, 28), &Device::Cpu).unwrap();
    let sampler = BatchSampler {
        method: Method::Euler,
        grid: uniform_grid(1.0 / f64::from(STEPS)).unwrap(),
        options: solver::SolverOptions::default(),
        cfg_scale: 0.0,
        batch_size: 1,
    };
    let samples = sampler.run(&net, &x0, Some(&[CLASS]), false, |_| {}).unwrap();
    samples.images.flatten_all().unwrap().to_vec1().unwrap()
}

/// A model with the host's image of it.
struct Drawn {
    path: PathBuf,
    file: Vec<u8>,
    precision: Precision,
    image: Vec<f32>,
    macs: u64,
}

impl Drawn {
    fn new(dir: &Path, bits: u8, precision: Precision) -> Self {
        let path = pack(dir, bits);
        let file = std::fs::read(&path).unwrap();
        let (image, macs) = host(&file, precision);
        Self { path, file, precision, image, macs }
    }

    /// Draws it by a program on a machine, and holds what that says to the host's.
    fn again(&self, program: &str, machine: Machine) -> Said {
        let word = if self.precision == Precision::Integer { "integer " } else { "" };
        let words = format!("{CLASS} {SEED} {STEPS} {word}bits");
        let said = run(program, machine, &self.path, &words);
        let place = format!("{} on {}:\n{}", self.path.display(), machine.name, said.text);
        assert_eq!(said.code, Some(0), "{place}");
        let image: Vec<u32> = self.image.iter().map(|value| value.to_bits()).collect();
        assert!(said.image() == image, "another image: {place}");
        assert!(said.text.contains("self-test passed"), "{place}");
        assert_eq!(said.number("macs"), self.macs, "{place}");
        assert!(said.number("stack") < infer::STACK_BYTES as u64, "{place}");
        said
    }

    /// The same by the program in Rust, which counts: its instructions a multiplication.
    fn pace(&self, machine: Machine) -> (f64, Said) {
        let said = self.again(RUST, machine);
        let pace = said.number("instructions") as f64 / self.macs as f64;
        println!("{} on {}: {pace:.2} a multiplication", self.path.display(), machine.name);
        (pace, said)
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn draws_the_hosts_digit() {
    let dir = tempfile::tempdir().unwrap();
    for bits in BITS {
        let drawn = Drawn::new(dir.path(), bits, Precision::Float);
        let candles = candle(&drawn.path, &drawn.file);
        let off = drawn.image.iter().zip(&candles).map(|(a, b)| (a - b).abs());
        let off = off.fold(0f32, f32::max);
        assert!(off < 1e-3, "{bits} bits: {off} from candle's");
        for machine in MACHINES {
            let (pace, _) = drawn.pace(machine);
            assert!(pace > 1.0, "{bits} bits on {}: {pace}", machine.name);
        }
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn integers_draw_the_hosts_digit() {
    let dir = tempfile::tempdir().unwrap();
    for bits in BITS {
        let drawn = Drawn::new(dir.path(), bits, Precision::Integer);
        for machine in MACHINES {
            let (pace, said) = drawn.pace(machine);
            assert!(pace < 2.5, "{bits} bits on {}: {pace}", machine.name);
            assert!(said.number("arena") <= 44 << 10, "{}", said.text);
        }
    }
}

/// The bytes of flash of a program: what its ELF file has to be loaded.
fn flash(program: &Path) -> usize {
    let elf = std::fs::read(program).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()) as usize;
    // Program headers: their offset, length and number; type and bytes in the file of each.
    let (start, len, count) = (word(28), half(42), half(44));
    let headers = (0..count).map(|i| start + i * len);
    headers.filter(|&at| word(at) == 1).map(|at| word(at + 16)).sum()
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn programs_of_one_arithmetic_link_one() {
    let both = MACHINES[0].program(RUST);
    for (program, precision, most) in
        [("floats", Precision::Float, 58 << 10), ("integers", Precision::Integer, 67 << 10)]
    {
        let dir = tempfile::tempdir().unwrap();
        let drawn = Drawn::new(dir.path(), 4, precision);
        let said = run(program, MACHINES[0], &drawn.path, "");
        assert_eq!(said.code, Some(0), "{}", said.text);
        let image: Vec<u32> = drawn.image.iter().map(|value| value.to_bits()).collect();
        assert!(said.image() == image, "{program}: another image");
        let bytes = flash(&MACHINES[0].program(program));
        println!("{program}: {bytes} bytes, both: {}", flash(&both));
        assert!(bytes < most, "{program}: {bytes} bytes of flash");
    }
}

/// At two bits by bucket sums, at others by products.
#[test]
#[ignore = "needs QEMU and the firmware"]
fn chips_without_products_of_pairs_draw_the_hosts_digit() {
    let dir = tempfile::tempdir().unwrap();
    let drawn = [2, 4].map(|bits| Drawn::new(dir.path(), bits, Precision::Integer));
    for machine in SMALL {
        let [two, four] = drawn.each_ref().map(|drawn| drawn.pace(machine).0);
        assert!(two < four && four < 13.0, "{}: {two} {four}", machine.target);
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn two_runs_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let model = pack(dir.path(), 4);
    let [first, second] =
        ["7 1 2 bits", "7 1 2 bits"].map(|words| run(RUST, MACHINES[0], &model, words));
    assert_eq!(first.text, second.text);
    let other = run(RUST, MACHINES[0], &model, "7 2 2 bits");
    assert!(first.image().len() == 784 && first.image() != other.image());
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn a_damaged_model_is_refused() {
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
        let said = run(RUST, MACHINES[0], &path, "3 42 1");
        assert_eq!(said.code, Some(1), "byte {at}:\n{}", said.text);
        assert!(said.text.starts_with(&format!("error: {why}")), "byte {at}:\n{}", said.text);
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn a_failed_self_test_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for form in [SelfTestForm::Vector, SelfTestForm::Checksum] {
        let path = pack_with(dir.path(), 2, form);
        let file = std::fs::read(&path).unwrap();
        let model = Model::parse(&file).unwrap();
        let (kind, section, why) = match (model.self_test_vector(), model.self_test_checksum()) {
            (Some(&SelfTestVector { input, tolerance, size, .. }), _) => {
                let mut velocity: Vec<f32> = model.self_test_vector().unwrap().velocity().collect();
                velocity[700] += 0.01;
                let section = SelfTestVector::emit(input, tolerance, size, &velocity).unwrap();
                (SectionKind::SELF_TEST, section, "700")
            }
            (None, checksum) => {
                let mut section = checksum.unwrap().emit().to_vec();
                section[16] ^= 1;
                section[20] ^= 1;
                (SectionKind::SELF_TEST_CHECKSUM, section, "self-test velocity: checksum")
            }
        };
        std::fs::write(&path, with_section(&file, kind, &section).unwrap()).unwrap();
        let said = run(RUST, MACHINES[0], &path, "3 42 1");
        assert_eq!(said.code, Some(1), "{}", said.text);
        assert!(said.text.contains(why), "{}", said.text);
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn a_wrong_order_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = pack(dir.path(), 2);
    for (words, why) in [
        ("11", "label is 11: must be 0 to 10"),
        ("3 42 0", "steps of the solver is 0"),
        ("three", "the words must be"),
        ("3 42 1 bytes", "the words must be"),
        ("3 42 1 bits integer", "the words must be"),
    ] {
        let said = run(RUST, MACHINES[0], &model, words);
        assert_eq!(said.code, Some(1), "{words}:\n{}", said.text);
        assert!(said.text.contains(why), "{words}:\n{}", said.text);
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn c_draws_the_hosts_digit() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, machine, precision) in [
        (2, MACHINES[0], Precision::Float),
        (4, MACHINES[1], Precision::Float),
        (4, MACHINES[0], Precision::Integer),
    ] {
        Drawn::new(dir.path(), bits, precision).again(C, machine);
    }
}

#[test]
#[ignore = "needs QEMU and the firmware"]
fn c_refuses_what_rust_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = pack(dir.path(), 2);
    let file = std::fs::read(&path).unwrap();
    let refused = |words: &str, why: &str| {
        let said = run(C, MACHINES[0], &path, words);
        assert_eq!(said.code, Some(1), "{words}:\n{}", said.text);
        assert!(said.text.starts_with(&format!("error: {why}")), "{words}:\n{}", said.text);
    };
    refused("11", "a field of the settings");
    refused("3 42 0", "a field of the settings");
    refused("three", "the words must be");
    refused("3 42 1 bytes", "the words must be");
    for (at, why) in
        [(file.len() - 70, "the file is damaged"), (0, "no packed file"), (4, "the file is of a")]
    {
        let mut file = file.clone();
        file[at] ^= 0x10;
        std::fs::write(&path, &file).unwrap();
        refused("3 42 1", why);
    }
}
