//! The types and constants of the header: the model's memory, settings, needs and codes.

use self::status::CapiResult;
use super::span::Span;
use crate::format::Model;
use crate::infer::{Method, Plan, Settings};
use crate::num::index;
use core::mem::MaybeUninit;

/// Words of 64 bits of a `fmq_model`.
pub const FMQ_MODEL_WORDS: usize = 96;

/// The label that stands for none.
pub const FMQ_NO_LABEL: u32 = 0xffff_ffff;

/// `x + h v(x, t)`: one evaluation of the net a step.
pub const FMQ_EULER: u32 = 0;
/// `x + h v(x + h/2 v(x, t), t + h/2)`: two evaluations a step.
pub const FMQ_MIDPOINT: u32 = 1;
/// `x + h/2 (k1 + k2)`, `k1 = v(x, t)`, `k2 = v(x + h k1, t + h)`: two evaluations a step.
pub const FMQ_HEUN2: u32 = 2;

/// The arithmetics of this build.
const FLOATS: bool = cfg!(feature = "capi-float");
const INTEGERS: bool = cfg!(feature = "capi-integer");

/// Computing in floats.
pub const FMQ_FLOAT: u32 = 0;
/// Computing in integers: fewer instructions, less memory, as exact as `fmq calibrate` made it.
pub const FMQ_INTEGER: u32 = 1;

/// An open model and the image that is being drawn from it. It may be copied and moved; its contents
/// are the library's own.
#[repr(C)]
#[derive(Debug)]
pub struct FmqModel {
    pub(super) opaque: [MaybeUninit<u64>; FMQ_MODEL_WORDS],
}

impl FmqModel {
    /// A model that is not open.
    pub const CLOSED: Self = Self { opaque: [MaybeUninit::new(0); FMQ_MODEL_WORDS] };
}

/// Settings by which an image is drawn. `fmq_defaults` fills them in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FmqSettings {
    /// `sizeof(fmq_settings)`: later versions of the library add fields after the last.
    pub size: u32,
    /// `FMQ_EULER`, `FMQ_MIDPOINT` or `FMQ_HEUN2`.
    pub method: u32,
    /// Steps from noise to image, 1 to 2^24.
    pub steps: u32,
    /// The class, or `FMQ_NO_LABEL`.
    pub label: u32,
    /// Guidance `s`: the velocity is `(1 + s) v(x, t, label) - s v(x, t, none)`; 0 is off.
    pub guidance: f32,
    /// `FMQ_FLOAT`, or `FMQ_INTEGER` for a file that has been through `fmq calibrate`.
    pub precision: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// Which of the seed's images, from 0.
    pub image: u64,
}

impl Default for FmqSettings {
    fn default() -> Self {
        let Settings { steps, guidance, .. } = Settings::default();
        Self {
            size: SETTINGS_BYTES,
            method: FMQ_EULER,
            steps,
            label: FMQ_NO_LABEL,
            guidance,
            precision: if FLOATS { FMQ_FLOAT } else { FMQ_INTEGER },
            seed: 0,
            image: 0,
        }
    }
}

const _: () = assert!(FMQ_EULER == Method::Euler as u32);
const _: () = assert!(FMQ_MIDPOINT == Method::Midpoint as u32);
const _: () = assert!(FMQ_HEUN2 == Method::Heun2 as u32);
const SETTINGS_BYTES: u32 = 40;
pub(super) const NEEDS_BYTES: u32 = if size_of::<usize>() == 8 { 72 } else { 56 };
const _: () = assert!(size_of::<FmqSettings>() == SETTINGS_BYTES as usize);
const _: () = assert!(size_of::<FmqNeeds>() == NEEDS_BYTES as usize);

impl FmqSettings {
    /// The settings at a pointer, the defaults where it is null.
    ///
    /// # Safety
    /// The pointer must be null or have as many bytes as its first field says.
    pub(super) unsafe fn read(given: *const Self) -> CapiResult<Self> {
        if given.is_null() {
            return Ok(Self::default());
        }
        Span::of(given, 1)?;
        // SAFETY: `Span::of` found it not null and aligned; the caller says that the first field is there.
        if unsafe { (&raw const (*given).size).read() } != SETTINGS_BYTES {
            return Err(FmqStatus::Settings);
        }
        // SAFETY: not null and aligned, as above; the first field says that all of these settings are there,
        // and any bits are numbers.
        Ok(unsafe { given.read() })
    }

    /// The settings as the engine takes them.
    pub(super) fn engine(&self) -> CapiResult<Settings> {
        let method = Method::ALL.get(index(self.method)).ok_or(FmqStatus::Settings)?;
        let method = Some(*method).filter(|method| method.is_on_device());
        let method = method.ok_or(FmqStatus::Settings)?;
        let label = Some(self.label).filter(|&label| label != FMQ_NO_LABEL);
        Ok(Settings { method, steps: self.steps, label, guidance: self.guidance })
    }
}

impl FmqSettings {
    /// The plan for drawing from a model so.
    pub(super) fn plan(&self, model: &Model<'_>) -> CapiResult<Plan> {
        let plan = match self.precision {
            FMQ_FLOAT if FLOATS => Plan::new(model),
            FMQ_INTEGER if INTEGERS && model.activations().is_none() => {
                return Err(FmqStatus::NoScales);
            }
            FMQ_INTEGER if INTEGERS => Plan::with_arithmetic::<i8>(model),
            _ => return Err(FmqStatus::Settings),
        };
        plan.map_err(|_| FmqStatus::Net)
    }
}

/// Needs of drawing, and the size of its image.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FmqNeeds {
    /// `sizeof(fmq_needs)`, to be set before `fmq_plan`.
    pub size: u32,
    /// Alignment of the arena's address.
    pub arena_align: u32,
    /// Bytes of the arena, for `fmq_init` and `fmq_self_test` with these settings.
    pub arena_bytes: usize,
    /// Bytes of stack that a call takes, about: as measured on a Cortex-M4.
    pub stack_bytes: usize,
    /// Bytes of the file.
    pub file_bytes: usize,
    /// Floats of an image: `channels * height * width`.
    pub image_len: usize,
    /// Channels of an image.
    pub channels: u32,
    /// Rows of an image.
    pub height: u32,
    /// Columns of an image.
    pub width: u32,
    /// Number of classes, whose labels start at 0; 0 for a net without labels.
    pub classes: u32,
    /// 1 where the file can test its device, else 0.
    pub golden: u32,
    /// 0.
    pub reserved: u32,
    /// Multiplications of one evaluation of the net.
    pub macs: u64,
}

impl FmqNeeds {
    /// Writes to a pointer that must be apart from others.
    ///
    /// # Safety
    /// The pointer must be null or have as many bytes as its first field says.
    pub(super) unsafe fn write(self, to: *mut Self, others: [Span; 2]) -> CapiResult<()> {
        let given = Span::of(to, 1)?;
        others.iter().try_for_each(|&other| given.check_apart(other))?;
        // SAFETY: `Span::of` found it not null and aligned; the caller says that the first field is there.
        if unsafe { (&raw const (*to).size).read() } != NEEDS_BYTES {
            return Err(FmqStatus::Length);
        }
        // SAFETY: not null and aligned, as above; the first field says that all of the needs is there.
        unsafe { to.write(self) };
        Ok(())
    }
}

pub(super) mod status;

pub use status::FmqStatus;
