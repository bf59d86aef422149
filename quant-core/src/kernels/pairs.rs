//! Products of pairs: the inner loops of integer convolutions.
//!
//! A word holds two signed numbers of 16 bits, those of two neighbouring channels: the first in its low
//! half, the second in its high half for `smlad`, and as `low + 65536 high` for any other CPU, so that words
//! may be added ([`buckets`](super::buckets)). `dot` multiplies the numbers of two words and adds both
//! products to a sum; a Cortex-M4 or M7 has one instruction for it (`smlad`). Sums wrap around; callers
//! bound them.
//!
//! ```text
//! correlate: sums[x] = sum_(i, pair, j) dot(input[i][pair][x stride + j], taps[i][pair][j])
//! mix:       sums[x] = sum_pair dot(input[pair][x], weights[pair])
//! ```
//!
//! Several pixels are computed together, so that a word of weights or of pixels is loaded once for
//! several products: four with three taps, which is as much as thirteen registers hold.

#[cfg(fmq_dsp)]
use super::smlad as cpu;
#[cfg(not(fmq_dsp))]
use plain as cpu;

use super::reach::reach;
#[cfg(fmq_dsp)]
use super::smlad::mix_fours;
#[cfg(fmq_thumb1)]
use super::thumb1::{four, mix_four, three};
use cpu::dot;
pub(crate) use cpu::low;

/// The numbers of a word that is `low + 65536 high`.
#[inline]
pub(crate) const fn split(word: i32) -> (i32, i32) {
    let low = word << 16 >> 16;
    (low, word.wrapping_sub(low) >> 16)
}

/// The products for any CPU.
#[cfg(any(test, not(fmq_dsp)))]
pub(super) mod plain {
    use super::split;

    /// The word whose low number this is, and whose high number is 0; that of a high number is `x << 16`,
    /// and the word of both their sum.
    #[inline]
    pub(crate) const fn low(x: i32) -> i32 {
        x
    }

    /// `sum + a.low b.low + a.high b.high`.
    #[inline]
    pub(crate) const fn dot(sum: i32, a: i32, b: i32) -> i32 {
        let ((a, c), (b, d)) = (split(a), split(b));
        sum.wrapping_add(a.wrapping_mul(b)).wrapping_add(c.wrapping_mul(d))
    }

    /// Adds to the sums of four neighbours the products of three taps.
    #[cfg(any(test, not(fmq_thumb1)))]
    #[inline]
    pub(crate) fn four(
        [s0, s1, s2, s3]: [i32; 4],
        &[x0, x1, x2, x3, x4, x5]: &[i32; 6],
        &[a, b, c]: &[i32; 3],
    ) -> [i32; 4] {
        let add = |sum, x, y, z| dot(dot(dot(sum, x, a), y, b), z, c);
        [add(s0, x0, x1, x2), add(s1, x1, x2, x3), add(s2, x2, x3, x4), add(s3, x3, x4, x5)]
    }

    /// Adds to the sums of four pixels the products of a word of weights.
    #[cfg(any(test, not(fmq_thumb1)))]
    #[inline]
    pub(crate) fn mix_four(
        [s0, s1, s2, s3]: [i32; 4],
        &[x0, x1, x2, x3]: &[i32; 4],
        w: i32,
    ) -> [i32; 4] {
        [dot(s0, x0, w), dot(s1, x1, w), dot(s2, x2, w), dot(s3, x3, w)]
    }

    /// Adds to the sums of three neighbours the products of three taps.
    #[cfg(any(test, not(fmq_thumb1)))]
    #[inline]
    pub(crate) fn three(
        [s0, s1, s2]: [i32; 3],
        &[x0, x1, x2, x3, x4]: &[i32; 5],
        &[a, b, c]: &[i32; 3],
    ) -> [i32; 3] {
        let add = |sum, x, y, z| dot(dot(dot(sum, x, a), y, b), z, c);
        [add(s0, x0, x1, x2), add(s1, x1, x2, x3), add(s2, x2, x3, x4)]
    }
}

/// The loops, written for the eye.
#[cfg(test)]
mod spec {
    use super::plain::dot;

    /// [`correlate`](super::correlate), pixel by pixel.
    pub(crate) fn correlate(
        sums: &mut [i32],
        input: &[i32],
        (width, stride): (usize, usize),
        taps: &[[i32; 3]],
    ) {
        for (x, sum) in sums.iter_mut().enumerate() {
            let taps = taps.as_flattened().iter().enumerate();
            *sum = taps
                .fold(0, |sum, (i, &tap)| dot(sum, input[i / 3 * width + x * stride + i % 3], tap));
        }
    }

    /// [`mix`](super::mix), pixel by pixel.
    pub(crate) fn mix(sums: &mut [i32], input: &[i32], plane: usize, weights: &[i32]) {
        for (x, sum) in sums.iter_mut().enumerate() {
            let products = weights.iter().enumerate();
            *sum = products.fold(0, |sum, (pair, &w)| dot(sum, input[plane * pair + x], w));
        }
    }
}

/// Writes the numbers of a row `[channels, 3, n]` as words `[3, pairs, n]`, or of a row `[channels]` as
/// `[pairs]`; an odd last channel has zeros beside it.
///
/// # Shapes
/// `lines`: 3 or 1; `taps`: the `n` of a line.
pub(crate) fn join<T: Copy>(
    values: &[T],
    (lines, taps): (usize, usize),
    number: impl Fn(T) -> i16,
    out: &mut [i32],
) {
    let channel = (lines * taps).max(1);
    let pairs = values.len().div_ceil(channel).div_ceil(2);
    out.fill(0);
    for (line, out) in out.chunks_exact_mut((pairs * taps).max(1)).enumerate() {
        let mut channels = values.chunks_exact(channel);
        for out in out.chunks_exact_mut(taps.max(1)) {
            let mut next = || {
                let channel = channels.next().and_then(|channel| channel.get(line * taps..));
                channel.unwrap_or_default().iter()
            };
            let (low, high) = (next(), next());
            for (out, &value) in out.iter_mut().zip(low) {
                *out = cpu::low(i32::from(number(value)));
            }
            for (out, &value) in out.iter_mut().zip(high) {
                *out = out.wrapping_add(i32::from(number(value)) << 16);
            }
        }
    }
}

/// [`join`] of an even number of channels of 3 x 3, written out.
pub(crate) fn join_nine<T: Copy>(values: &[T], number: impl Fn(T) -> i16, out: &mut [i32]) {
    let line = out.len() / 3;
    let (above, rest) = out.split_at_mut_checked(line).unwrap_or_default();
    let (here, below) = rest.split_at_mut_checked(line).unwrap_or_default();
    let [above, here, below] = [above, here, below].map(|line| line.as_chunks_mut::<3>().0);
    let lines = above.iter_mut().zip(here).zip(below);
    let number = |value| i32::from(number(value));
    let word = |low, high| cpu::low(number(low)).wrapping_add(number(high) << 16);
    for (&[low, high], ((above, here), below)) in
        values.as_chunks::<9>().0.as_chunks().0.iter().zip(lines)
    {
        let ([a, b, c, d, e, f, g, h, i], [k, l, m, n, o, p, q, r, s]) = (low, high);
        *above = [word(a, k), word(b, l), word(c, m)];
        *here = [word(d, n), word(e, o), word(f, p)];
        *below = [word(g, q), word(h, r), word(i, s)];
    }
}

/// [`join`] of an even number of channels of one weight each, written out.
pub(crate) fn join_one<T: Copy>(values: &[T], number: impl Fn(T) -> i16, out: &mut [i32]) {
    let number = |value| i32::from(number(value));
    for (&[low, high], out) in values.as_chunks().0.iter().zip(out) {
        *out = cpu::low(number(low)).wrapping_add(number(high) << 16);
    }
}

/// Writes a row of sums of 3 x 3 products.
///
/// # Shapes
/// `sums`: `[w]`; `input`: `[3, pairs, width]`, from a margin on; `taps`: `[3, pairs]`.
pub(crate) fn correlate(
    sums: &mut [i32],
    input: &[i32],
    (width, stride): (usize, usize),
    taps: &[[i32; 3]],
) {
    let mut at = input;
    let mut left = sums;
    while !left.is_empty() {
        // Threes where fours alone would leave a rest of one or two.
        let together = match (stride, left.len()) {
            (1, 3 | 6 | 9) => 3,
            (1, len) if len >= 4 => 4,
            _ => 1,
        };
        let (now, rest) = left.split_at_mut_checked(together).unwrap_or_default();
        if let Some(now) = now.as_chunks_mut::<4>().0.first_mut() {
            *now = four(at, width, taps);
        } else if let Some(now) = now.as_chunks_mut::<3>().0.first_mut() {
            *now = three(at, width, taps);
        } else if let Some(now) = now.first_mut() {
            *now = one(at, width, taps);
        }
        at = at.get(together * stride..).unwrap_or_default();
        left = rest;
    }
}

/// The first `N` words of each of so many lines, `step` words apart; none where they are not all there.
///
/// One question in front of the loop, not one in each of its turns.
#[inline]
fn lines<const N: usize>(
    words: &[i32],
    step: usize,
    count: usize,
) -> impl Iterator<Item = &[i32; N]> {
    let count = if reach(words, step, count, N) { count } else { 0 };
    let mut at = words.as_ptr();
    (0..count).map(move |_| {
        #[expect(unsafe_code, reason = "a question in each turn is a tenth of the time")]
        // SAFETY: `at` is `i step` words from the first in turn `i` below `count`, and `reach` found `N` words
        // from `(count - 1) step` on, so they are there before it too; an array of words is aligned as they are.
        let line = unsafe { &*at.cast() };
        at = at.wrapping_add(step);
        line
    })
}

/// Four neighbours of a row.
#[cfg(not(fmq_thumb1))]
#[inline(never)]
fn four(input: &[i32], width: usize, taps: &[[i32; 3]]) -> [i32; 4] {
    let lines = lines(input, width, taps.len()).zip(taps);
    lines.fold([0; 4], |sums, (x, taps)| cpu::four(sums, x, taps))
}

/// Three neighbours of a row.
#[cfg(not(fmq_thumb1))]
#[inline(never)]
fn three(input: &[i32], width: usize, taps: &[[i32; 3]]) -> [i32; 3] {
    let lines = lines(input, width, taps.len()).zip(taps);
    lines.fold([0; 3], |sums, (x, taps)| cpu::three(sums, x, taps))
}

#[inline(never)]
fn one(input: &[i32], width: usize, taps: &[[i32; 3]]) -> i32 {
    let lines = lines(input, width, taps.len()).zip(taps);
    lines.fold(0, |sum, (&[x, y, z], &[a, b, c])| dot(dot(dot(sum, x, a), y, b), z, c))
}

/// Writes sums of products, one for each pixel.
///
/// # Shapes
/// `sums`: `[n]`; `input`: `[pairs, plane]`; `weights`: `[pairs]`.
pub(crate) fn mix(sums: &mut [i32], input: &[i32], plane: usize, weights: &[i32]) {
    let (fours, rest) = sums.as_chunks_mut();
    mix_fours(fours, input, plane, weights);
    let mut at = input.get(fours.as_flattened().len()..).unwrap_or_default();
    for sum in rest {
        let products = lines(at, plane, weights.len()).zip(weights);
        *sum = products.fold(0, |sum, (&[x], &w)| dot(sum, x, w));
        at = at.get(1..).unwrap_or_default();
    }
}

/// Pixels by fours.
#[cfg(not(fmq_dsp))]
fn mix_fours(sums: &mut [[i32; 4]], input: &[i32], plane: usize, weights: &[i32]) {
    let mut at = input;
    for sums in sums {
        *sums = mix_four(at, plane, weights);
        at = at.get(sums.len()..).unwrap_or_default();
    }
}

/// Four pixels.
#[cfg(not(any(fmq_dsp, fmq_thumb1)))]
#[inline(never)]
fn mix_four(input: &[i32], plane: usize, weights: &[i32]) -> [i32; 4] {
    let lines = lines(input, plane, weights.len()).zip(weights);
    lines.fold([0; 4], |sums, (x, &w)| cpu::mix_four(sums, x, w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Words of two numbers from a seed.
    fn numbers(seed: u64, len: usize) -> Vec<i32> {
        let word = |i: usize| {
            let x = seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            crate::num::low_u32(x >> 32).cast_signed()
        };
        (0..len).map(word).collect()
    }

    #[test]
    fn halves_are_signed() {
        let word = |low, high| low + (high << 16);
        assert_eq!(dot(5, word(-3, 4), word(7, -2)), 5 - 21 - 8);
        assert_eq!(dot(0, word(-32_768, 0), word(-32_768, -1)), 1 << 30);
    }

    #[test]
    fn pairs_of_channels_share_words() {
        let mut out = [9; 4];
        join(&[1i16, -2, 3], (1, 1), |x| x, &mut out[..2]);
        assert_eq!(out, [(-2 << 16) + 1, 3, 9, 9]);
        // Three channels of two lines.
        join(&[1i16, -2, 3, 4, 5, 6], (2, 1), |x| x, &mut out);
        assert_eq!(out, [(3 << 16) + 1, 5, (4 << 16) - 2, 6]);
    }

    proptest! {
        #[test]
        fn what_is_written_out_is_join(seed: u64, pairs in 0usize..5) {
            let values = numbers(seed, 18 * pairs);
            let number = |x: i32| crate::num::i16_of(crate::num::f32_of_i32(x >> 16));
            let (mut fast, mut exact) = (vec![7; 9 * pairs], vec![8; 9 * pairs]);
            join_nine(&values, number, &mut fast);
            join(&values, (3, 3), number, &mut exact);
            prop_assert_eq!(fast, exact);
            let (mut fast, mut exact) = (vec![7; 9 * pairs], vec![8; 9 * pairs]);
            join_one(&values, number, &mut fast);
            join(&values, (1, 1), number, &mut exact);
            prop_assert_eq!(fast, exact);
        }

        #[test]
        fn correlate_is_its_specification(
            seed: u64, pairs in 1usize..5, w in 1usize..30, stride in 1usize..3,
        ) {
            let width = stride * w + 2;
            let input = numbers(seed, 3 * pairs * width);
            let taps = numbers(!seed, 9 * pairs);
            let taps = taps.as_chunks().0;
            let (mut fast, mut exact) = (vec![7; w], vec![0; w]);
            correlate(&mut fast, &input, (width, stride), taps);
            spec::correlate(&mut exact, &input, (width, stride), taps);
            prop_assert_eq!(fast, exact);
        }

        #[test]
        fn mix_is_its_specification(seed: u64, pairs in 1usize..9, n in 1usize..40) {
            let (input, weights) = (numbers(seed, pairs * n), numbers(!seed, pairs));
            let (mut fast, mut exact) = (vec![7; n], vec![0; n]);
            mix(&mut fast, &input, n, &weights);
            spec::mix(&mut exact, &input, n, &weights);
            prop_assert_eq!(fast, exact);
        }
    }
}
