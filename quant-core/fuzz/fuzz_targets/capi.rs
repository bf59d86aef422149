#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quant_core::capi::{
    FmqModel, FmqNeeds, FmqSettings, FmqStatus, fmq_defaults, fmq_error_text, fmq_finish, fmq_init,
    fmq_open, fmq_plan, fmq_self_test, fmq_step,
};
use quant_core_fuzz::{drawable, fix_up};
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// A file, edited, and calls in any order.
#[derive(Arbitrary, Debug)]
struct Input {
    edits: Vec<(u16, u8)>,
    cut: Option<u16>,
    right_checksums: bool,
    start: Start,
    calls: Vec<Call>,
}

/// How far right calls lead before the others.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Start {
    Nothing,
    Opened,
    Begun,
    Drawn,
    Finished,
}

impl Start {
    /// The right calls.
    fn calls(self) -> Vec<Call> {
        let wish = Wish { method: 0, steps: 2, label: Some(3), ..Wish::default() };
        let calls = [
            (Self::Opened, Call::Open(Place::Right, Length::All)),
            (Self::Begun, Call::Init(Some(wish), Place::Right, Length::All)),
            (Self::Drawn, Call::Run),
            (Self::Finished, Call::Finish(Place::Right, Length::All)),
        ];
        calls.into_iter().filter(|&(state, _)| state <= self).map(|(_, call)| call).collect()
    }
}

#[derive(Arbitrary, Debug)]
enum Call {
    Open(Place, Length),
    Plan(Option<Wish>, bool),
    SelfTest(Place, Length),
    Init(Option<Wish>, Place, Length),
    Step,
    /// Steps to the end, a few at most.
    Run,
    Finish(Place, Length),
    /// The model is copied elsewhere.
    Move,
    /// The model's memory is cleared.
    Clear,
    /// Somebody else writes to the arena.
    Scribble(u8),
}

/// Where a pointer points, and by how many bytes it is off.
#[derive(Arbitrary, Debug)]
enum Place {
    Null,
    Right,
    Off(u8),
    Model(u8),
    File(u8),
    Arena(u8),
    Image(u8),
}

/// A length that is true, or that no memory has.
#[derive(Arbitrary, Debug)]
enum Length {
    All,
    Less(u16),
    Huge(u8),
}

#[derive(Arbitrary, Debug, Default)]
struct Wish {
    size: Option<u8>,
    method: u8,
    steps: u8,
    label: Option<u8>,
    guidance: u32,
    precision: u8,
    seed: u64,
}

impl Wish {
    fn settings(&self) -> FmqSettings {
        let mut settings = FmqSettings::default();
        // The size must not promise more memory than there is.
        settings.size = self.size.map_or(settings.size, u32::from).min(settings.size);
        settings.method = u32::from(self.method % 4);
        settings.steps = u32::from(self.steps % 8);
        settings.label = self.label.map_or(settings.label, u32::from);
        settings.guidance = f32::from_bits(self.guidance);
        settings.precision = u32::from(self.precision % 3);
        settings.seed = self.seed;
        settings
    }
}

/// All the memory of a program, its parts as bytes.
struct Program {
    model: Box<FmqModel>,
    file: Vec<u8>,
    /// Of a size that the unedited file's image needs, and not much more.
    arena: Vec<u64>,
    image: Vec<u64>,
}

impl Program {
    fn place(&mut self, place: &Place, right: (*mut u8, usize)) -> (*mut u8, usize) {
        let model = (&raw mut *self.model).cast::<u8>();
        let (start, bytes, off) = match *place {
            Place::Null => return (null_mut(), 16),
            Place::Right => return right,
            Place::Off(off) => (right.0, right.1, off),
            Place::Model(off) => (model, size_of::<FmqModel>(), off),
            Place::File(off) => (self.file.as_mut_ptr(), self.file.len(), off),
            Place::Arena(off) => (self.arena.as_mut_ptr().cast(), 8 * self.arena.len(), off),
            Place::Image(off) => (self.image.as_mut_ptr().cast(), 8 * self.image.len(), off),
        };
        let off = usize::from(off).min(bytes);
        (start.wrapping_add(off), bytes - off)
    }
}

/// A true length in elements of `size` bytes, or one beyond every memory.
fn length(length: &Length, bytes: usize, size: usize) -> usize {
    match *length {
        Length::All => bytes / size,
        Length::Less(by) => (bytes / size).saturating_sub(by.into()),
        Length::Huge(by) => usize::MAX - usize::from(by),
    }
}

fn base() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(drawable)
}

fuzz_target!(|input: Input| {
    let mut file = base().to_vec();
    for &(at, byte) in &input.edits {
        let at = usize::from(at) % file.len();
        file[at] ^= byte;
    }
    if let Some(cut) = input.cut {
        file.truncate(cut.into());
    }
    file.shrink_to_fit();
    if input.right_checksums {
        fix_up(&mut file);
    }
    let mut program = Program {
        model: Box::new(FmqModel::CLOSED),
        file,
        arena: vec![!0; 2500],
        image: vec![!0; 40],
    };
    // Whether a model is open, how many steps of its image are left, if one was begun.
    let (mut open, mut left) = (false, None);
    for call in input.start.calls().iter().chain(input.calls.iter().take(32)) {
        let model = &raw mut *program.model;
        let own = (program.file.as_mut_ptr(), program.file.len());
        let arena = (program.arena.as_mut_ptr().cast::<u8>(), 8 * program.arena.len());
        let image = (program.image.as_mut_ptr().cast::<u8>(), 8 * program.image.len());
        // SAFETY: lengths are true or refused, and what is open is overwritten by no call that succeeds.
        let status = unsafe {
            match call {
                Call::Open(place, len) => {
                    let (at, bytes) = program.place(place, own);
                    let status = fmq_open(model, at, length(len, bytes, 1));
                    // A file where others write is no file of ours: it is not used.
                    let ours =
                        at as usize >= own.0 as usize && at as usize <= own.0 as usize + own.1;
                    if status == FmqStatus::Ok && !ours {
                        *model = FmqModel::CLOSED;
                        (open, left) = (false, None);
                    } else if status == FmqStatus::Ok {
                        (open, left) = (true, None);
                    } else if !matches!(
                        status,
                        FmqStatus::Null | FmqStatus::Length | FmqStatus::Overlap
                    ) {
                        (open, left) = (false, None);
                    }
                    status
                }
                Call::Plan(wish, right) => {
                    let settings = wish.as_ref().map(Wish::settings);
                    let settings =
                        settings.as_ref().map_or(null(), |settings| &raw const *settings);
                    let mut needs = [0u64; 16];
                    needs[0] = if *right { size_of::<FmqNeeds>() as u64 } else { 8 };
                    let status = fmq_plan(model, settings, needs.as_mut_ptr().cast());
                    assert!(open || status == FmqStatus::Order);
                    status
                }
                Call::SelfTest(place, len) => {
                    let (at, bytes) = program.place(place, arena);
                    let bytes = length(len, bytes, 1);
                    let status = fmq_self_test(model, null(), at.cast::<c_void>(), bytes);
                    assert!((open && left.is_none()) || status == FmqStatus::Order);
                    status
                }
                Call::Init(wish, place, len) => {
                    let settings = wish.as_ref().map(Wish::settings);
                    let steps = settings.map_or(FmqSettings::default().steps, |it| it.steps);
                    let settings =
                        settings.as_ref().map_or(null(), |settings| &raw const *settings);
                    let (at, bytes) = program.place(place, arena);
                    let bytes = length(len, bytes, 1);
                    let status = fmq_init(model, settings, at.cast::<c_void>(), bytes);
                    assert!(open || status == FmqStatus::Order);
                    // Whatever comes of it, the image under way is given up.
                    match status {
                        FmqStatus::Ok => left = Some(steps),
                        _ if open => left = None,
                        _ => {}
                    }
                    status
                }
                Call::Step => {
                    let status = fmq_step(model);
                    follow(&mut left, status);
                    status
                }
                Call::Run => {
                    let mut status = fmq_step(model);
                    follow(&mut left, status);
                    for _ in 0..8 {
                        if status == FmqStatus::More {
                            status = fmq_step(model);
                            follow(&mut left, status);
                        }
                    }
                    status
                }
                Call::Finish(place, length_given) => {
                    let (at, bytes) = program.place(place, image);
                    let len = length(length_given, bytes, 4);
                    let status = fmq_finish(model, at.cast(), len);
                    assert!(left == Some(0) || status == FmqStatus::Order);
                    let right = matches!((place, length_given), (Place::Right, Length::All));
                    assert!(!right || left != Some(0) || status == FmqStatus::Ok);
                    if status == FmqStatus::Ok {
                        left = None;
                    }
                    status
                }
                Call::Move => {
                    let mut other = Box::new(FmqModel::CLOSED);
                    core::ptr::swap(model, &raw mut *other);
                    program.model = other;
                    FmqStatus::Ok
                }
                Call::Clear => {
                    *model = FmqModel::CLOSED;
                    (open, left) = (false, None);
                    fmq_defaults(null_mut())
                }
                Call::Scribble(byte) => {
                    program.arena.fill(u64::from_ne_bytes([*byte; 8]));
                    FmqStatus::Ok
                }
            }
        };
        // SAFETY: a text that ends in 0.
        let text = unsafe { CStr::from_ptr(fmq_error_text(status as i32)) };
        assert_ne!(text, c"unknown status");
    }
});

/// What a step makes of the steps that are left.
fn follow(left: &mut Option<u32>, status: FmqStatus) {
    match (*left, status) {
        (None, status) => assert_eq!(status, FmqStatus::Order),
        (Some(steps), FmqStatus::More) => *left = Some(steps - 1),
        (Some(steps), FmqStatus::Ok) => {
            assert!(steps <= 1);
            *left = Some(0);
        }
        (Some(_), FmqStatus::NonFinite | FmqStatus::Settings | FmqStatus::Net) => *left = None,
        (Some(_), status) => panic!("{status:?} of a step"),
    }
}
