//! The outcome of a call.

use core::ffi::CStr;

/// A value, or the outcome that tells why there is none.
pub(in crate::capi) type CapiResult<T> = Result<T, FmqStatus>;

/// Outcome of a call: at least 0 where it did what it should.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FmqStatus {
    /// Done.
    Ok = 0,
    /// A step is done, and there are more.
    More = 1,
    /// A pointer is null.
    Null = -1,
    /// A pointer is not aligned as its type must be.
    Alignment = -2,
    /// A buffer is too short, or longer than the address space.
    Length = -3,
    /// Two buffers overlap.
    Overlap = -4,
    /// The call is not due: no model is open, no image was begun, or its steps are not all done.
    Order = -5,
    /// A field of the settings is outside its range, or their size is another version's.
    Settings = -6,
    /// The memory does not start with a packed file, or the file breaks a rule of its format.
    File = -7,
    /// The file is damaged: a checksum does not match.
    Checksum = -8,
    /// The file is of a later version of the format or needs a feature that this library lacks.
    Version = -9,
    /// The file holds no net that this library can draw images of a known size with.
    Net = -10,
    /// The state is not finite: the net does not fit its settings.
    NonFinite = -11,
    /// The device does not compute what the file says the net does.
    SelfTest = -12,
    /// The file holds nothing to test the device with.
    NoGolden = -13,
    /// The file holds no scales to compute in integers with.
    NoScales = -14,
    /// The file's self-test is of another version of the arithmetic: it says nothing of the device.
    NotComparable = -15,
}

impl FmqStatus {
    /// The text of a status by its number.
    pub(in crate::capi) const fn text(status: i32) -> &'static CStr {
        match status {
            0 => c"done",
            1 => c"a step is done: there are more",
            -1 => c"a pointer is null: must point to memory",
            -2 => c"a pointer is not aligned: must be as its type asks",
            -3 => c"a buffer has a wrong length: must be what fmq_plan says",
            -4 => c"two buffers overlap: must lie apart",
            -5 => c"a call out of turn: must be fmq_open, fmq_init, fmq_step until it is done, fmq_finish",
            -6 => c"a field of the settings is outside its range: must be as fmq.h says",
            -7 => c"no packed file: must be what fmq quantize writes",
            -8 => c"the file is damaged: its checksums must match",
            -9 => c"the file is of a later version: must be one that this library reads",
            -10 => c"the file has no net to draw with: must have one with the size of its images",
            -11 => c"the image is not finite: must be drawn with other settings or another net",
            -12 => c"self-test failed: must compute the velocity of the file's self-test",
            -13 => c"the file has no self-test: must be made by fmq quantize --golden",
            -14 => c"the file has no activation scales: must be made by fmq calibrate",
            -15 => c"the self-test is of another arithmetic: must be made by this version's fmq",
            _ => c"unknown status",
        }
    }
}
