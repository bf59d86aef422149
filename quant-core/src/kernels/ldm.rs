//! Bucket sums on a Cortex-M0+ or M3: one instruction loads four words.
//!
//! A Cortex-M0+ loads and computes with eight registers only; to the others it can still add, so that is
//! where the sums lie. LLVM has no operands there; here the registers are named.

#![expect(unsafe_code, reason = "a loop of instructions, named in its comment")]

use core::arch::asm;

/// Adds up words: those at each offset and the three after each of them.
///
/// # Safety
/// At each offset in bytes there are four words of `input`, aligned; `offsets` is not empty.
#[inline]
pub(super) unsafe fn gather(input: &[i32], offsets: &[u16]) -> [i32; 4] {
    let (a, b, c, d);
    // SAFETY: each turn reads one offset and the four words there, which the caller says are in `input`; r4
    // passes the two bytes of the offset, so that it meets the end of `offsets`, of which there is one at least.
    // It writes the registers that are named as outputs, and the flags, which no option keeps.
    unsafe {
        asm!(
            "mov r8, r0",
            "mov r12, r1",
            "movs r5, #0",
            "mov r9, r5",
            "mov r10, r5",
            "mov r11, r5",
            "mov lr, r5",
            "2:",
            "ldrh r5, [r4]",
            "adds r4, #2",
            "add r5, r8",
            "ldm r5!, {{r0, r1, r2, r3}}",
            "add r9, r0",
            "add r10, r1",
            "add r11, r2",
            "add lr, r3",
            "cmp r4, r12",
            "bne 2b",
            "mov r0, r9",
            "mov r1, r10",
            "mov r2, r11",
            "mov r3, lr",
            inout("r0") input.as_ptr() => a,
            inout("r1") offsets.as_ptr_range().end => b,
            out("r2") c,
            out("r3") d,
            inout("r4") offsets.as_ptr() => _,
            out("r5") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            out("lr") _,
            options(pure, readonly, nostack),
        );
    }
    [a, b, c, d]
}
