//! Memory that a caller names: where it lies and how long it is, once that can be.

use super::types::status::{CapiResult, FmqStatus};

/// A range of addresses, not empty of an address: not null, aligned for what it was made for, no longer
/// than a slice may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: usize,
    bytes: usize,
}

impl Span {
    /// The memory of `len` values at a pointer.
    pub(super) fn of<T>(at: *const T, len: usize) -> CapiResult<Self> {
        if at.is_null() {
            return Err(FmqStatus::Null);
        }
        if !at.is_aligned() {
            return Err(FmqStatus::Alignment);
        }
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or(FmqStatus::Length)?;
        let start = at.addr();
        start.checked_add(bytes).ok_or(FmqStatus::Length)?;
        Ok(Self { start, bytes })
    }

    /// Length in bytes.
    pub(super) const fn bytes(self) -> usize {
        self.bytes
    }

    /// Fails where both have a byte in common.
    pub(super) const fn check_apart(self, other: Self) -> CapiResult<()> {
        // Neither wraps around.
        let after = self.start >= other.start + other.bytes;
        if after || other.start >= self.start + self.bytes {
            Ok(())
        } else {
            Err(FmqStatus::Overlap)
        }
    }
}

/// Memory for the engine, checked by [`Arena::of`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Arena {
    start: *mut f32,
    span: Span,
}

impl Arena {
    /// The whole floats of `bytes` bytes at a pointer.
    pub(super) fn of(start: *mut f32, bytes: usize) -> CapiResult<Self> {
        let span = Span::of(start, bytes / size_of::<f32>())?;
        Ok(Self { start, span })
    }

    /// The span of memory of the arena.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// The floats of the arena, all zero.
    ///
    /// # Safety
    /// As [`Arena::floats`], but that the memory may hold anything.
    pub(super) unsafe fn cleared<'a>(&self) -> &'a mut [f32] {
        // SAFETY: `start` is not null and aligned, as `Arena::of` made it of a span of these bytes; the caller
        // says that they are there.
        unsafe { self.start.cast::<u8>().write_bytes(0, self.span.bytes) };
        // SAFETY: the bytes were just written, and zeros are floats; the rest is the caller's promise, as here.
        unsafe { self.floats() }
    }

    /// The floats of the arena.
    ///
    /// # Safety
    /// The memory must be there, have been cleared once, and have no other reference while the slice
    /// is used.
    pub(super) unsafe fn floats<'a>(&self) -> &'a mut [f32] {
        let len = self.span.bytes / size_of::<f32>();
        // SAFETY: `start` is not null and aligned and `len` floats are no more than a slice may have, which
        // `Span::of` found; the caller says that they are there, were cleared and have no other reference.
        unsafe { core::slice::from_raw_parts_mut(self.start, len) }
    }
}
