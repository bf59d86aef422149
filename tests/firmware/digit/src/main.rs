//! Draws a digit on a microcontroller: no heap, no operating system, one packed model in flash.
//!
//! ```text
//! fmq quantize ../../host/assets/mnist-micro.safetensors --scheme lloyd-max --bits 4 \
//!     --granularity auto --golden -o micro-4bit.fmq
//! fmq calibrate micro-4bit.fmq -o micro-4bit.fmq # for `integer`
//! cargo build --release --target thumbv7em-none-eabihf
//! qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -icount shift=8,sleep=off \
//!     -chardev stdio,id=console \
//!     -semihosting-config enable=on,target=native,chardev=console,arg=digit,arg=3,arg=42,arg=16 \
//!     -device loader,file=micro-4bit.fmq,addr=0x100000,force-raw=on \
//!     -kernel target/thumbv7em-none-eabihf/release/digit
//! ```
//!
//! The words after the program's name are the class, the seed and the steps, then `integer` to draw
//! with maps of bytes (the model must have been through `fmq calibrate`) and `bits` to have the image's
//! values too. The model lies where `memory.x` says, so one program serves all models.
//!
//! The code it ends with: 0 as asked, 1 for an error, which it prints, 101 for a panic, 102 for a
//! fault of the memory.

#![no_std]
#![no_main]

mod bits;
// Both are what `fmq export --firmware` writes too.
#[path = "../../../../host/assets/firmware/rust/board.rs"]
mod board;
mod chip;
#[path = "../../../../host/assets/firmware/rust/picture.rs"]
mod picture;
mod timer;

use cortex_m_rt::entry;
use quant_core::Result;
use quant_core::format::{Model, file_at};
use quant_core::infer::{Plan, Precision, Sampler, SelfTest, Settings};

/// Floats of the arena, all the memory that computing takes: 112 KiB.
const ARENA_LEN: usize = 28 << 10;

/// Defaults of the command line.
const CLASS: u64 = 3;
const SEED: u64 = 42;
const STEPS: u64 = 16;

#[entry]
fn main() -> ! {
    // The attribute makes it a reference, the only one.
    static mut ARENA: [f32; ARENA_LEN] = [0.0; ARENA_LEN];
    timer::start();
    let mut line = [0; 128];
    let Some(order) = Order::read(chip::command_line(&mut line)) else {
        say!("error: the words must be CLASS SEED STEPS integer bits; the last may be left out");
        board::exit(1)
    };
    match draw(ARENA, &order) {
        Ok(()) => board::exit(0),
        Err(error) => {
            say!("error: {error}");
            board::exit(1)
        }
    }
}

/// An order to draw.
struct Order {
    class: u32,
    seed: u64,
    steps: u32,
    precision: Precision,
    bits: bool,
}

impl Order {
    /// Reads the words after the program's name; none where one is not what it should be.
    fn read(line: &[u8]) -> Option<Self> {
        let mut words = line.split(u8::is_ascii_whitespace).skip(1);
        let mut next = |default| words.next().map_or(Some(default), number);
        let [class, seed, steps] = [next(CLASS)?, next(SEED)?, next(STEPS)?];
        let mut words = words.peekable();
        let precision = match words.next_if_eq(&&b"integer"[..]) {
            Some(_) => Precision::Integer,
            None => Precision::Float,
        };
        let bits = words.next_if_eq(&&b"bits"[..]).is_some();
        let (class, steps) = (class.try_into().ok()?, steps.try_into().ok()?);
        words.next().is_none().then_some(Self { class, seed, steps, precision, bits })
    }
}

/// The number that decimal digits make.
fn number(digits: &[u8]) -> Option<u64> {
    let all = digits.iter().try_fold(0u64, |all, &digit| {
        let digit = u64::from(digit.checked_sub(b'0').filter(|&digit| digit < 10)?);
        all.checked_mul(10)?.checked_add(digit)
    });
    all.filter(|_| !digits.is_empty())
}

/// Prints the digit that is asked for, and says what it took.
fn draw(arena: &mut [f32], order: &Order) -> Result<()> {
    let model = Model::parse(file_at(board::model_flash()))?;
    let plan = Plan::with_precision(&model, order.precision)?;
    let settings = Settings { steps: order.steps, label: Some(order.class), ..Settings::default() };
    let tested = matches!(plan.self_test(&model, arena)?, SelfTest::Passed { .. });
    let (needed, there) = (settings.arena_len(&plan, &model), arena.len());
    let mut sampler = Sampler::new(&model, &plan, settings, arena)?;

    let mut ticks = 0;
    sampler.noise(order.seed, 0);
    loop {
        let start = timer::ticks();
        let more = sampler.step()?;
        ticks += u64::from(timer::ticks().wrapping_sub(start));
        if !more {
            break;
        }
    }

    picture::print(sampler.image(), plan.image_size());
    let stack = chip::stack();
    say!("self-test {}", if tested { "passed" } else { "not in the file" });
    say!("class {} seed {} steps {}", order.class, order.seed, order.steps);
    say!("arena {} of {} bytes", size_of::<f32>() * needed, size_of::<f32>() * there);
    say!("stack {} of {} bytes", stack.0, stack.1);
    say!("macs {}", plan.macs() * u64::from(order.steps));
    say!("instructions {}", timer::instructions(ticks));
    if order.bits {
        bits::print(sampler.image(), plan.image_size().1);
    }
    Ok(())
}
