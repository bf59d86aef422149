//! The contents of a `fmq_model`: the parsed file, and the image under way.

use super::span::{Arena, Span};
use super::types::status::CapiResult;
use super::types::{FmqModel, FmqStatus};
use crate::error::Error;
use crate::format::Model;
use crate::infer::{Plan, Sampler, Settings};
use core::ffi::c_void;

/// Marks the memory of an open model: ASCII, from the last byte.
const OPEN: u64 = u64::from_be_bytes(*b"fmq open");

/// An open model.
#[repr(C)]
pub(super) struct Session {
    /// First, so that it can be read before anything else is known.
    tag: u64,
    pub(super) model: Model<'static>,
    pub(super) file: Span,
    pub(super) run: Option<Run>,
}

const _: () = assert!(size_of::<Session>() <= size_of::<FmqModel>());
const _: () = assert!(align_of::<Session>() <= align_of::<FmqModel>());

/// An image under way, but for the numbers in its arena.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) settings: Settings,
    pub(super) arena: Arena,
    pub(super) done: u32,
}

impl Run {
    /// The sampler that goes on with it.
    pub(super) fn sampler<'m, 'a>(
        &self,
        model: &'m Model<'m>,
        floats: &'a mut [f32],
    ) -> CapiResult<Sampler<'m, 'a>> {
        let sampler = Sampler::resume(model, &self.plan, self.settings, floats, self.done);
        sampler.map_err(|error| match error {
            Error::Length { .. } => FmqStatus::Length,
            _ => FmqStatus::Settings,
        })
    }
}

impl Session {
    pub(super) const fn new(model: Model<'static>, file: Span) -> Self {
        Self { tag: OPEN, model, file, run: None }
    }

    /// The span of memory of the model itself.
    pub(super) fn own(&self) -> CapiResult<Span> {
        Span::of(core::ptr::from_ref(self).cast::<FmqModel>(), 1)
    }

    /// An arena apart from the model and its file.
    pub(super) fn arena(&self, start: *mut c_void, bytes: usize) -> CapiResult<Arena> {
        let arena = Arena::of(start.cast(), bytes)?;
        arena.span().check_apart(self.own()?)?;
        arena.span().check_apart(self.file)?;
        Ok(arena)
    }
}

/// The session in a model.
///
/// # Safety
/// The pointer must be null or of a model that is zeroed or has been given to `fmq_open`, which nothing
/// else changes while the session is used.
pub(super) unsafe fn session<'a>(model: *const FmqModel) -> CapiResult<&'a Session> {
    Span::of(model, 1)?;
    let session = model.cast::<Session>();
    // SAFETY: `Span::of` found it not null and aligned; the caller says that it is a model's memory, zeroed or
    // given to `fmq_open`, which zeroes it: its first word can be read.
    if unsafe { (&raw const (*session).tag).read() } != OPEN {
        return Err(FmqStatus::Order);
    }
    // SAFETY: the memory holds zeros or what `fmq_open` wrote, and that writes this tag as part of a whole
    // session; the caller says that nothing changes it meanwhile.
    Ok(unsafe { &*session })
}

/// The session in a model, to be changed.
///
/// # Safety
/// As [`session`], and nothing else may read it.
pub(super) unsafe fn session_mut<'a>(model: *mut FmqModel) -> CapiResult<&'a mut Session> {
    // SAFETY: the caller's promise is that of `session`.
    unsafe { session(model) }?;
    // SAFETY: `session` found one there, and the reference that it returned is dropped; the caller says that
    // there is no other.
    Ok(unsafe { &mut *model.cast::<Session>() })
}
