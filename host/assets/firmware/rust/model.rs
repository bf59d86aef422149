//! The packed file, at the start of the model's flash.
//!
//! The compiler does not see these bytes, so it takes nothing for granted that a new model changes.

#![expect(unsafe_code, reason = "places bytes in a section of their own")]

core::arch::global_asm!(
    ".section .model, \"a\"",
    ".balign 64",
    concat!(".incbin \"", env!("CARGO_MANIFEST_DIR"), "/model.fmq\""),
    ".text",
);
