//! What the program asks of its surroundings: the model's flash, and a debugger's console by
//! semihosting. On a board of your own, print to its serial port instead.

#![expect(unsafe_code, reason = "the one file that meets the hardware")]

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, exception};

/// Semihosting: write a text that ends in 0; exit with a code.
const SYS_WRITE0: usize = 0x04;
const SYS_EXIT_EXTENDED: usize = 0x20;
/// The reason of an exit by the program's own will.
const APPLICATION_EXIT: usize = 0x2_0026;

unsafe extern "C" {
    // Places of `memory.x`: only their addresses mean something.
    static model_start: u8;
    static model_end: u8;
}

/// The flash that holds the model, and whatever lies after it.
pub fn model_flash() -> &'static [u8] {
    let (start, end) = (&raw const model_start, &raw const model_end);
    // SAFETY: `memory.x` sets this memory apart, and the program never writes to it.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
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

/// Prints a number without the machinery of formatted text.
fn print_number(number: u32) {
    if number > 9 {
        print_number(number / 10);
    }
    print(&[b"0123456789"[number as usize % 10]]);
}

/// The debugger's console, for formatted text.
#[allow(dead_code, reason = "a program may print none")]
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
        let _ = writeln!($crate::board::Console, $($argument)*);
    }};
}

/// Asks the debugger.
///
/// # Safety
/// `argument` must be what `operation` demands.
pub unsafe fn semihost(operation: usize, argument: usize) -> usize {
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
    print(b"error: hard fault at ");
    print_number(frame.pc());
    print(b"\n");
    exit(102)
}

/// A program that cannot go on says where.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print(b"error: panic");
    if let Some(place) = info.location() {
        print(b" in line ");
        print_number(place.line());
        print(b" of ");
        print(place.file().as_bytes());
    }
    print(b"\n");
    exit(101)
}
