//! The board: memory, timer, and the debugger's console by semihosting.

#![expect(unsafe_code, reason = "the one file that meets the hardware")]

use core::arch::asm;
use core::fmt;
use cortex_m_rt::{ExceptionFrame, STACK_PAINT_VALUE, exception};

/// Semihosting: write a text that ends in 0; fetch the command line; exit with a code.
const SYS_WRITE0: usize = 0x04;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT_EXTENDED: usize = 0x20;
/// The reason of an exit by the program's own will.
const APPLICATION_EXIT: usize = 0x2_0026;

/// Registers of the first timer: control, count (downwards) and the value to start over from.
const TIMER: *mut u32 = 0x4000_0000 as *mut u32;
const COUNT: usize = 1;
const RELOAD: usize = 2;

unsafe extern "C" {
    // Places of the linker's scripts, `memory.x` and cortex-m-rt's: only their addresses mean something.
    static model_start: u8;
    static model_end: u8;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// Starts the timer.
pub fn start_timer() {
    // SAFETY: the registers are those of the board's manual; nothing else touches them.
    unsafe {
        TIMER.add(RELOAD).write_volatile(u32::MAX);
        TIMER.add(COUNT).write_volatile(u32::MAX);
        TIMER.write_volatile(1);
    }
}

/// The flash that holds the model, and whatever lies behind it.
pub fn model_flash() -> &'static [u8] {
    let (start, end) = (&raw const model_start, &raw const model_end);
    // SAFETY: `memory.x` sets this memory apart, and the program never writes to it.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// The timer's count: 25 million a second, from 0 again after 2^32.
pub fn ticks() -> u32 {
    // SAFETY: reading this register has no effect.
    u32::MAX - unsafe { TIMER.add(COUNT).read_volatile() }
}

/// The most bytes of the stack that were in use at once so far, and the bytes there are.
pub fn stack() -> (usize, usize) {
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    let len = (start.addr() - end.addr()) / size_of::<u32>();
    // SAFETY: between these places lies the stack; a word that changes under the loop is in use anyway.
    let untouched =
        (0..len).take_while(|&i| unsafe { end.add(i).read_volatile() } == STACK_PAINT_VALUE);
    (size_of::<u32>() * (len - untouched.count()), size_of::<u32>() * len)
}

/// The line that the debugger was given for the program; none where it is longer than the buffer.
pub fn command_line(buffer: &mut [u8]) -> &[u8] {
    let mut block = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    // SAFETY: the block names a buffer and its length, as this call demands.
    let failed = unsafe { semihost(SYS_GET_CMDLINE, (&raw mut block).expose_provenance()) } != 0;
    buffer.get(..if failed { 0 } else { block[1] }).unwrap_or_default()
}

/// Ends the program.
pub fn exit(code: u8) -> ! {
    let block = [APPLICATION_EXIT, usize::from(code)];
    loop {
        // SAFETY: the block is that of this call.
        unsafe { semihost(SYS_EXIT_EXTENDED, (&raw const block).expose_provenance()) };
    }
}

/// Prints text on the debugger's console.
pub fn print(text: &[u8]) {
    for part in text.chunks(63) {
        let mut line = [0; 64];
        line.iter_mut().zip(part).for_each(|(to, &byte)| *to = byte);
        // SAFETY: the text ends in 0.
        unsafe { semihost(SYS_WRITE0, line.as_ptr().expose_provenance()) };
    }
}

/// The debugger's console, for formatted text.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print(text.as_bytes());
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The console takes everything.
        let _ = writeln!($crate::chip::Console, $($argument)*);
    }};
}

/// Asks the debugger.
///
/// # Safety
/// `argument` must be what `operation` demands.
unsafe fn semihost(operation: usize, argument: usize) -> usize {
    let result;
    // SAFETY: this is the instruction by which a debugger is asked; it changes r0 and, as the caller
    // knows, what the argument points to.
    unsafe {
        asm!("bkpt 0xab", inout("r0") operation => result, in("r1") argument, options(nostack))
    };
    result
}

/// Memory that is not there, or an instruction that is none.
// SAFETY: it does not return to what failed.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    say!("error: hard fault at {:#x}", frame.pc());
    exit(102)
}
