//! Products of pairs on a Cortex-M4 or M7, whose instruction `smlad` adds two of them to a sum.
//!
//! Stable Rust has no name for it but `asm!`. The products of a line of three taps are one block, in the
//! order in which its words are loaded, two at a time: two of them, four sums and three taps are then all
//! that is live, and nothing leaves the registers.
//!
//! ```text
//! x0 x1   s0 += x0 a,  s0 += x1 b,  s1 += x1 a
//! x2 x3   s0 += x2 c,  s1 += x2 b,  s2 += x2 a,  s1 += x3 c,  s2 += x3 b,  s3 += x3 a
//! x4 x5   s2 += x4 c,  s3 += x4 b,  s3 += x5 c
//! ```

#![expect(unsafe_code, reason = "each function is a block of instructions, named in its comment")]

use core::arch::asm;

use super::reach::reach;

/// The word whose low number this is, and whose high number is 0.
#[inline]
pub(crate) const fn low(x: i32) -> i32 {
    x & 0xffff
}

/// `sum + a.low b.low + a.high b.high`.
#[inline]
pub(crate) fn dot(sum: i32, a: i32, b: i32) -> i32 {
    let result;
    // SAFETY: it reads three registers and writes one; `thumbv7em` has it.
    unsafe {
        asm!(
            "smlad {result}, {a}, {b}, {sum}",
            result = lateout(reg) result,
            a = in(reg) a,
            b = in(reg) b,
            sum = in(reg) sum,
            options(pure, nomem, nostack),
        );
    }
    result
}

/// Adds to the sums of four neighbours the products of three taps.
#[inline]
pub(crate) fn four(
    [mut s0, mut s1, mut s2, mut s3]: [i32; 4],
    x: &[i32; 6],
    &[a, b, c]: &[i32; 3],
) -> [i32; 4] {
    // SAFETY: it reads 24 bytes from `x` on, which are its six words, aligned as `ldrd` wants them, and writes
    // the registers that are named as outputs.
    unsafe {
        asm!(
            "ldrd {x0}, {x1}, [{x}]",
            "smlad {s0}, {x0}, {a}, {s0}",
            "smlad {s0}, {x1}, {b}, {s0}",
            "smlad {s1}, {x1}, {a}, {s1}",
            "ldrd {x0}, {x1}, [{x}, #8]",
            "smlad {s0}, {x0}, {c}, {s0}",
            "smlad {s1}, {x0}, {b}, {s1}",
            "smlad {s2}, {x0}, {a}, {s2}",
            "smlad {s1}, {x1}, {c}, {s1}",
            "smlad {s2}, {x1}, {b}, {s2}",
            "smlad {s3}, {x1}, {a}, {s3}",
            "ldrd {x0}, {x1}, [{x}, #16]",
            "smlad {s2}, {x0}, {c}, {s2}",
            "smlad {s3}, {x0}, {b}, {s3}",
            "smlad {s3}, {x1}, {c}, {s3}",
            x = in(reg) x.as_ptr(),
            a = in(reg) a,
            b = in(reg) b,
            c = in(reg) c,
            s0 = inout(reg) s0,
            s1 = inout(reg) s1,
            s2 = inout(reg) s2,
            s3 = inout(reg) s3,
            x0 = out(reg) _,
            x1 = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    [s0, s1, s2, s3]
}

/// Adds a line of three taps to three pixels.
#[inline]
pub(crate) fn three(
    [mut s0, mut s1, mut s2]: [i32; 3],
    x: &[i32; 5],
    &[a, b, c]: &[i32; 3],
) -> [i32; 3] {
    // SAFETY: it reads 20 bytes from `x` on, which are its five words, aligned as `ldrd` wants them, and writes
    // the registers that are named as outputs.
    unsafe {
        asm!(
            "ldrd {x0}, {x1}, [{x}]",
            "smlad {s0}, {x0}, {a}, {s0}",
            "smlad {s0}, {x1}, {b}, {s0}",
            "smlad {s1}, {x1}, {a}, {s1}",
            "ldrd {x0}, {x1}, [{x}, #8]",
            "smlad {s0}, {x0}, {c}, {s0}",
            "smlad {s1}, {x0}, {b}, {s1}",
            "smlad {s2}, {x0}, {a}, {s2}",
            "smlad {s1}, {x1}, {c}, {s1}",
            "smlad {s2}, {x1}, {b}, {s2}",
            "ldr {x0}, [{x}, #16]",
            "smlad {s2}, {x0}, {c}, {s2}",
            x = in(reg) x.as_ptr(),
            a = in(reg) a,
            b = in(reg) b,
            c = in(reg) c,
            s0 = inout(reg) s0,
            s1 = inout(reg) s1,
            s2 = inout(reg) s2,
            x0 = out(reg) _,
            x1 = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    [s0, s1, s2]
}

/// Pixels by fours, as [`pairs::mix`](super::pairs::mix) multiplies them: two words of weights together.
pub(super) fn mix_fours(sums: &mut [[i32; 4]], input: &[i32], plane: usize, weights: &[i32]) {
    let (twos, last) = weights.as_chunks::<2>();
    if !reach(input, plane, weights.len(), sums.as_flattened().len()) {
        return sums.fill([0; 4]);
    }
    for (tile, sums) in sums.iter_mut().enumerate() {
        let at = input.get(4 * tile..).unwrap_or_default();
        let [mut s0, mut s1, mut s2, mut s3] = match last {
            &[w] => {
                let x = at.get(2 * twos.len() * plane..).and_then(|words| words.first_chunk());
                x.copied().unwrap_or([0; 4]).map(|x| dot(0, x, w))
            }
            _ => [0; 4],
        };
        if !twos.is_empty() {
            // SAFETY: `reach` found a word for each pixel in as many lines as there are weights, and `at` starts
            // at the tile's first pixel, so each line has four words there. Each turn reads two weights and the
            // four words of two lines, and the loop ends where `w` is the end of the twos, of which there is one
            // at least; `ldrd` wants words aligned, which they are. It writes the registers that are named.
            unsafe {
                asm!(
                    "2:",
                    "ldrd {a}, {b}, [{w}], #8",
                    "ldrd {x0}, {x1}, [{x}]",
                    "smlad {s0}, {x0}, {a}, {s0}",
                    "smlad {s1}, {x1}, {a}, {s1}",
                    "ldrd {x0}, {x1}, [{x}, #8]",
                    "smlad {s2}, {x0}, {a}, {s2}",
                    "smlad {s3}, {x1}, {a}, {s3}",
                    "add {x}, {x}, {step}",
                    "ldrd {x0}, {x1}, [{x}]",
                    "smlad {s0}, {x0}, {b}, {s0}",
                    "smlad {s1}, {x1}, {b}, {s1}",
                    "ldrd {x0}, {x1}, [{x}, #8]",
                    "smlad {s2}, {x0}, {b}, {s2}",
                    "smlad {s3}, {x1}, {b}, {s3}",
                    "add {x}, {x}, {step}",
                    "cmp {w}, {end}",
                    "bne 2b",
                    w = inout(reg) twos.as_ptr() => _,
                    end = in(reg) twos.as_ptr_range().end,
                    x = inout(reg) at.as_ptr() => _,
                    step = in(reg) size_of::<i32>() * plane,
                    a = out(reg) _,
                    b = out(reg) _,
                    s0 = inout(reg) s0,
                    s1 = inout(reg) s1,
                    s2 = inout(reg) s2,
                    s3 = inout(reg) s3,
                    x0 = out(reg) _,
                    x1 = out(reg) _,
                    options(pure, readonly, nostack),
                );
            }
        }
        *sums = [s0, s1, s2, s3];
    }
}
