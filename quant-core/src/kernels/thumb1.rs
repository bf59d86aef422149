//! Products of pairs on a Cortex-M0+, which loads and computes with eight registers only.
//!
//! To the others it can still add, so that is where the sums lie. LLVM has no operands there, and spills; here
//! the registers are named.
//!
//! | | |
//! |---|---|
//! | r0 to r3 | words, and the two numbers of one |
//! | r4, r5 | where the words lie, and what they are multiplied with |
//! | r6, r7 | the two numbers of a weight |
//! | r8 to r11 | sums |
//! | r12, lr | from line to line, and where the weights end |

#![expect(unsafe_code, reason = "each function is a loop of instructions, named in its comment")]

use core::arch::asm;

use super::reach::reach;

/// Loads a weight and takes its numbers apart.
macro_rules! weight {
    ($at:literal) => {
        concat!("ldr r7, [r5, #", $at, "]\nsxth r6, r7\nsubs r7, r7, r6\nasrs r7, r7, #16")
    };
}

/// Adds the products of that weight and of a word to a sum.
macro_rules! word {
    ($at:literal $sum:literal) => {
        concat!(
            "ldr r0, [r4, #",
            $at,
            "]\nsxth r1, r0\nsubs r0, r0, r1\nasrs r0, r0, #16\n",
            "muls r1, r6, r1\nmuls r0, r7, r0\nadd ",
            $sum,
            ", r1\nadd ",
            $sum,
            ", r0"
        )
    };
}

/// The sums of four products with lines of words, `$step` bytes apart, from `$first` on: as many as there are
/// `$weights`, `$bytes` each, at least one.
///
/// Turn `i` reads weight `i`, whose `$bytes` bytes r5 then passes, and of line `i`, `$step` bytes of r4 after
/// the one before, the words that `$products` name. It ends where r5 is the end of the weights, which it meets
/// as it goes by whole weights. It writes no memory but the stack, for r6 and r7, which it restores; all other
/// registers that it writes are outputs, and so are the flags, as no option says otherwise.
macro_rules! sums {
    ($first:expr, $step:expr, $weights:expr, $bytes:literal, $($products:expr),*) => {{
        let (a, b, c, d): (i32, i32, i32, i32);
        asm!(
            "push {{r6, r7}}",
            "mov r12, r2",
            "mov lr, r3",
            "movs r0, #0",
            "mov r8, r0",
            "mov r9, r0",
            "mov r10, r0",
            "mov r11, r0",
            "2:",
            $($products,)*
            "add r4, r12",
            concat!("adds r5, #", $bytes),
            "cmp r5, lr",
            "bne 2b",
            "pop {{r6, r7}}",
            "mov r0, r8",
            "mov r1, r9",
            "mov r2, r10",
            "mov r3, r11",
            out("r0") a,
            out("r1") b,
            inout("r2") $step => c,
            inout("r3") $weights.as_ptr_range().end => d,
            inout("r4") $first.as_ptr() => _,
            inout("r5") $weights.as_ptr() => _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            out("lr") _,
        );
        [a, b, c, d]
    }};
}

/// Four neighbours of a row, as [`pairs::correlate`](super::pairs::correlate) multiplies them.
#[inline(never)]
pub(super) fn four(input: &[i32], width: usize, taps: &[[i32; 3]]) -> [i32; 4] {
    if !reach(input, width, taps.len(), 6) {
        return [0; 4];
    }
    // SAFETY: there is a tap at least, and in each of their lines there are the words 0 to 5 that the products
    // name, all of which `reach` found; a tap has three words, 12 bytes.
    unsafe {
        sums!(
            input,
            WORD * width,
            taps,
            "12",
            weight!("0"),
            word!("0" "r8"),
            word!("4" "r9"),
            word!("8" "r10"),
            word!("12" "r11"),
            weight!("4"),
            word!("4" "r8"),
            word!("8" "r9"),
            word!("12" "r10"),
            word!("16" "r11"),
            weight!("8"),
            word!("8" "r8"),
            word!("12" "r9"),
            word!("16" "r10"),
            word!("20" "r11")
        )
    }
}

/// Three neighbours of a row, as [`pairs::correlate`](super::pairs::correlate) multiplies them.
#[inline(never)]
pub(super) fn three(input: &[i32], width: usize, taps: &[[i32; 3]]) -> [i32; 3] {
    if !reach(input, width, taps.len(), 5) {
        return [0; 3];
    }
    // SAFETY: there is a tap at least, and in each of their lines there are the words 0 to 4 that the products
    // name, all of which `reach` found; a tap has three words, 12 bytes.
    let [a, b, c, _] = unsafe {
        sums!(
            input,
            WORD * width,
            taps,
            "12",
            weight!("0"),
            word!("0" "r8"),
            word!("4" "r9"),
            word!("8" "r10"),
            weight!("4"),
            word!("4" "r8"),
            word!("8" "r9"),
            word!("12" "r10"),
            weight!("8"),
            word!("8" "r8"),
            word!("12" "r9"),
            word!("16" "r10")
        )
    };
    [a, b, c]
}

/// Four pixels, as [`pairs::mix`](super::pairs::mix) multiplies them.
#[inline(never)]
pub(super) fn mix_four(input: &[i32], plane: usize, weights: &[i32]) -> [i32; 4] {
    if !reach(input, plane, weights.len(), 4) {
        return [0; 4];
    }
    // SAFETY: there is a weight at least, and in each of their lines there are the words 0 to 3 that the
    // products name, all of which `reach` found; a weight is a word, 4 bytes.
    unsafe {
        sums!(
            input,
            WORD * plane,
            weights,
            "4",
            weight!("0"),
            word!("0" "r8"),
            word!("4" "r9"),
            word!("8" "r10"),
            word!("12" "r11")
        )
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<i32>();
