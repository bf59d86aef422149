//! The board's timer, which counts instructions under QEMU's `-icount shift=8`.

#![expect(unsafe_code, reason = "beside the board, one of the files that meet the hardware")]

/// Registers of the first timer: control, count (downwards) and the value to start over from.
const TIMER: *mut u32 = 0x4000_0000 as *mut u32;
const COUNT: usize = 1;
const RELOAD: usize = 2;

/// Nanoseconds of a tick of the timer, and of an instruction under QEMU's `-icount shift=8`.
const TICK: u64 = 40;
const INSTRUCTION: u64 = 256;

/// Starts it.
pub fn start() {
    // SAFETY: the registers are those of the board's manual; nothing else touches them.
    unsafe {
        TIMER.add(RELOAD).write_volatile(u32::MAX);
        TIMER.add(COUNT).write_volatile(u32::MAX);
        TIMER.write_volatile(1);
    }
}

/// Count of the timer: 25 million a second, from 0 again after 2^32.
pub fn ticks() -> u32 {
    // SAFETY: reading this register has no effect.
    u32::MAX - unsafe { TIMER.add(COUNT).read_volatile() }
}

/// The instructions that took so many ticks.
pub fn instructions(ticks: u64) -> u64 {
    (ticks * TICK + INSTRUCTION / 2) / INSTRUCTION
}
