//! The stack's depth, and the debugger's command line.

#![expect(unsafe_code, reason = "beside the board, one of the files that meet the hardware")]

use crate::board::semihost;
use cortex_m_rt::STACK_PAINT_VALUE;

/// Semihosting: fetch the command line.
const SYS_GET_CMDLINE: usize = 0x15;

unsafe extern "C" {
    // Places of cortex-m-rt's linker script: only their addresses mean something.
    static _stack_end: u32;
    static _stack_start: u32;
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
