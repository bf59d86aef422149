//! The engine for programs in C: the functions of `include/fmq.h`, which cbindgen makes of this module.
//!
//! ```c
//! static fmq_model model;
//! static float arena[ARENA_FLOATS], image[28 * 28];
//! fmq_settings settings;
//! fmq_defaults(&settings);
//! settings.label = 7;
//! fmq_status status = fmq_open(&model, file, sizeof file);
//! if (status == FMQ_STATUS_OK) status = fmq_init(&model, &settings, arena, sizeof arena);
//! while (status == FMQ_STATUS_OK && (status = fmq_step(&model)) == FMQ_STATUS_MORE) status = FMQ_STATUS_OK;
//! if (status == FMQ_STATUS_OK) status = fmq_finish(&model, image, 28 * 28);
//! if (status != FMQ_STATUS_OK) puts(fmq_error_text(status));
//! ```
//!
//! No function keeps a reference into the caller's memory but for the file, which is only read: each
//! call makes its slices anew from pointers that it has checked. What cannot be checked, the header
//! asks for: that memory is as long as was said, that the file does not change, and one call at a time.

#![expect(unsafe_code, reason = "pointers from C, which its functions check first")]

mod session;
mod span;
#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests;
mod types;

use crate::error::Error;
use crate::format::{Model, file_at};
use crate::infer::{STACK_BYTES, SelfTest};
use crate::num::u32_of;
use core::ffi::{c_char, c_void};
use session::{Run, Session, session, session_mut};
use span::Span;
use types::status::CapiResult;

pub use types::{
    FMQ_EULER, FMQ_FLOAT, FMQ_HEUN2, FMQ_INTEGER, FMQ_MIDPOINT, FMQ_MODEL_WORDS, FMQ_NO_LABEL,
    FmqModel, FmqNeeds, FmqSettings, FmqStatus,
};

fn status(result: CapiResult<FmqStatus>) -> FmqStatus {
    result.unwrap_or_else(|status| status)
}

/// Checks the packed file at the start of `memory` from end to end and opens it. `memory` may go on
/// after the file, as a flash does: the file's header says how long it is.
///
/// On success `model` refers to the file until it is opened again: the file must stay and not change.
///
/// # Safety
/// `model` must be null or memory of a `fmq_model`; `memory` must be null or hold `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_open(
    model: *mut FmqModel,
    memory: *const u8,
    len: usize,
) -> FmqStatus {
    let open = || {
        let (own, given) = (Span::of(model, 1)?, Span::of(memory, len)?);
        own.check_apart(given)?;
        // SAFETY: `Span::of` found `model` not null and aligned; the caller says that it is a model's memory,
        // whose words may have any bits.
        unsafe { model.write_bytes(0, 1) };
        // SAFETY: `Span::of` found `memory` not null and of no more bytes than a slice may have, and
        // `check_apart` found it apart from the model, the only memory that is written here; the caller says
        // that the bytes are there and stay as they are.
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(memory, len) };
        let file = file_at(bytes);
        let parsed = Model::parse(file).map_err(|error| match error {
            Error::Crc { .. } => FmqStatus::Checksum,
            Error::UnsupportedVersion { .. }
            | Error::UnknownFeatures { .. }
            | Error::Encoding { .. } => FmqStatus::Version,
            _ => FmqStatus::File,
        })?;
        let session = Session::new(parsed, Span::of(file.as_ptr(), file.len())?);
        // SAFETY: `model` is not null and aligned, as above; a session is no larger and no more aligned than
        // a model, which `session.rs` asserts.
        unsafe { model.cast::<Session>().write(session) };
        Ok(FmqStatus::Ok)
    };
    status(open())
}

/// Fills in the settings: their size, 16 steps of Euler's method, no label, no guidance, seed 0.
///
/// # Safety
/// `settings` must be null or memory of a `fmq_settings`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_defaults(settings: *mut FmqSettings) -> FmqStatus {
    status(Span::of(settings, 1).map(|_| {
        // SAFETY: `Span::of` found it not null and aligned; the caller says that it is the memory of settings.
        unsafe { settings.write(FmqSettings::default()) };
        FmqStatus::Ok
    }))
}

/// Says what drawing takes with `settings`, or with the defaults where they are null. `needs.size` must
/// be set to `sizeof(fmq_needs)` before.
///
/// # Safety
/// `model` must be null, zeroed, or have been given to `fmq_open`; `settings` and `needs` must be null
/// or have as many bytes as their first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_plan(
    model: *const FmqModel,
    settings: *const FmqSettings,
    needs: *mut FmqNeeds,
) -> FmqStatus {
    let fill = || {
        // SAFETY: the model is null, zeroed or was given to `fmq_open`, and the settings are null or as long as
        // they say: the caller's promise, which is what the two calls ask for. No other call runs.
        let (session, settings) = unsafe { (session(model)?, FmqSettings::read(settings)?) };
        let plan = settings.plan(&session.model)?;
        // A plan is of a net.
        let net = session.model.net().ok_or(FmqStatus::Net)?;
        let (height, width) = plan.image_size();
        let pixels = height.saturating_mul(width);
        let image_len = pixels.saturating_mul(net.out_channels);
        let inputs = pixels.saturating_mul(net.in_channels);
        let tested = plan.arena_len().saturating_add(inputs);
        let floats = settings.engine()?.arena_len(&plan, &session.model).max(tested);
        let found = FmqNeeds {
            size: types::NEEDS_BYTES,
            arena_align: u32_of(align_of::<f32>()),
            arena_bytes: floats.saturating_mul(size_of::<f32>()),
            stack_bytes: STACK_BYTES,
            file_bytes: session.file.bytes(),
            image_len,
            channels: u32_of(net.out_channels),
            height: u32_of(height),
            width: u32_of(width),
            classes: u32_of(net.num_classes.unwrap_or(0)),
            golden: u32::from(session.model.has_self_test()),
            reserved: 0,
            macs: plan.macs(),
        };
        // SAFETY: `needs` is null or as long as its first field says: the caller's promise.
        unsafe { found.write(needs, [session.own()?, session.file]) }?;
        Ok(FmqStatus::Ok)
    };
    status(fill())
}

/// Computes the velocity that the file holds for this purpose and compares: whether this build on this
/// device does what the net does, in the precision of `settings`, or of the defaults where they are null.
/// To be called before `fmq_init`.
///
/// # Safety
/// As `fmq_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_self_test(
    model: *mut FmqModel,
    settings: *const FmqSettings,
    arena: *mut c_void,
    arena_bytes: usize,
) -> FmqStatus {
    let test = || {
        // SAFETY: the model is null, zeroed or was given to `fmq_open`: the caller's promise. No other call runs,
        // and none leaves a reference to it.
        let session = unsafe { session_mut(model) }?;
        if session.run.is_some() {
            return Err(FmqStatus::Order);
        }
        // SAFETY: the settings are null or as long as their first field says: the caller's promise.
        let settings = unsafe { FmqSettings::read(settings) }?;
        let arena = session.arena(arena, arena_bytes)?;
        let plan = settings.plan(&session.model)?;
        // SAFETY: `Session::arena` found it not null, aligned and apart from the model and the file; the caller
        // says that its bytes are there and that nothing else uses them.
        let floats = unsafe { arena.cleared() };
        match plan.self_test(&session.model, floats) {
            Ok(SelfTest::Passed { .. }) => Ok(FmqStatus::Ok),
            Ok(SelfTest::Absent) => Err(FmqStatus::NoGolden),
            Ok(SelfTest::NotComparable) => Err(FmqStatus::NotComparable),
            Err(Error::SelfTest { .. } | Error::Crc { .. }) => Err(FmqStatus::SelfTest),
            Err(Error::Length { what: "arena in floats", .. }) => Err(FmqStatus::Length),
            Err(_) => Err(FmqStatus::Net),
        }
    };
    status(test())
}

/// Starts an image from the noise of `settings`, or of the defaults where they are null. The arena is
/// the model's until `fmq_finish`, an error, or the next `fmq_init`.
///
/// # Safety
/// `model` must be null, zeroed, or have been given to `fmq_open`; `settings` must be null or have as
/// many bytes as its first field says; `arena` must be null or `arena_bytes` bytes of memory, which
/// nothing else may write to until `fmq_finish`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_init(
    model: *mut FmqModel,
    settings: *const FmqSettings,
    arena: *mut c_void,
    arena_bytes: usize,
) -> FmqStatus {
    let init = || {
        // SAFETY: the model is null, zeroed or was given to `fmq_open`: the caller's promise. No other call runs,
        // and none leaves a reference to it.
        let session = unsafe { session_mut(model) }?;
        session.run = None;
        // SAFETY: the settings are null or as long as their first field says: the caller's promise.
        let settings = unsafe { FmqSettings::read(settings) }?;
        let arena = session.arena(arena, arena_bytes)?;
        let engine = settings.engine()?;
        let plan = settings.plan(&session.model)?;
        let run = Run { plan, settings: engine, arena, done: 0 };
        // SAFETY: `Session::arena` found it not null, aligned and apart from the model and the file; the caller
        // says that its bytes are there and that nothing else uses them.
        let floats = unsafe { run.arena.cleared() };
        run.sampler(&session.model, floats)?.noise(settings.seed, settings.image);
        session.run = Some(run);
        Ok(FmqStatus::Ok)
    };
    status(init())
}

/// Does one step of the solver: `FMQ_STATUS_MORE` while there are more, `FMQ_STATUS_OK` after the
/// last. An error ends the image.
///
/// # Safety
/// `model` must be null, zeroed, or have been given to `fmq_open`; the arena of `fmq_init` must be there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_step(model: *mut FmqModel) -> FmqStatus {
    let step = || {
        // SAFETY: the model is null, zeroed or was given to `fmq_open`: the caller's promise. No other call runs,
        // and none leaves a reference to it.
        let session = unsafe { session_mut(model) }?;
        let mut run = session.run.take().ok_or(FmqStatus::Order)?;
        // SAFETY: a run is begun by `fmq_init` alone, which checked and cleared its arena; the caller says that
        // it is still there and that nothing else uses it. No slice of an earlier call is left.
        let floats = unsafe { run.arena.floats() };
        let more = run.sampler(&session.model, floats)?.step().map_err(|error| match error {
            Error::NonFinite { .. } => FmqStatus::NonFinite,
            Error::Range { .. } => FmqStatus::Settings,
            _ => FmqStatus::Net,
        })?;
        run.done = run.settings.steps.min(run.done.saturating_add(1));
        session.run = Some(run);
        Ok(if more { FmqStatus::More } else { FmqStatus::Ok })
    };
    status(step())
}

/// Writes the finished image, `[channels][height][width]`, about -1 to 1, and gives the arena back.
///
/// # Safety
/// As `fmq_step`; `image` must be null or hold `len` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmq_finish(
    model: *mut FmqModel,
    image: *mut f32,
    len: usize,
) -> FmqStatus {
    let finish = || {
        // SAFETY: the model is null, zeroed or was given to `fmq_open`: the caller's promise. No other call runs,
        // and none leaves a reference to it.
        let session = unsafe { session_mut(model) }?;
        let run = session.run.filter(|run| run.done == run.settings.steps);
        let run = run.ok_or(FmqStatus::Order)?;
        let given = Span::of(image, len)?;
        for other in [session.own()?, session.file, run.arena.span()] {
            given.check_apart(other)?;
        }
        // SAFETY: a run is begun by `fmq_init` alone, which checked and cleared its arena; the caller says that
        // it is still there and that nothing else uses it. No slice of an earlier call is left.
        let floats = unsafe { run.arena.floats() };
        let sampler = run.sampler(&session.model, floats)?;
        let drawn = sampler.image();
        if len < drawn.len() {
            return Err(FmqStatus::Length);
        }
        // SAFETY: `image` is not null and aligned (`Span::of`), apart from the arena that `drawn` lies in
        // (`check_apart`), and `drawn.len()` floats are no more than the `len` that the caller says are there.
        unsafe { image.copy_from_nonoverlapping(drawn.as_ptr(), drawn.len()) };
        session.run = None;
        Ok(FmqStatus::Ok)
    };
    status(finish())
}

/// Text of a status, with what would be right; it ends in 0 and stays.
#[unsafe(no_mangle)]
pub extern "C" fn fmq_error_text(status: i32) -> *const c_char {
    FmqStatus::text(status).as_ptr()
}
