//! Bucket sums: convolutions by weights of few bits, almost without multiplications.
//!
//! The words of two channels that meet a row of weights are sorted by the codes of their two weights. The
//! words of a bucket are added up as they are, both halves at once, and multiplied once:
//!
//! ```text
//! S_ab = sum of the words whose weights have the codes a and b
//! sum  = sum_(a, b) level_a low(S_ab) + level_b high(S_ab)
//! ```
//!
//! A word is `low + 65536 high` here, and a half has 16 bits: only so many words are added before both halves
//! are taken out. What comes out is what [`pairs`](super::pairs) makes of the same levels, bit by bit, as sums
//! wrap around in both. It pays on chips that have no instruction for two products, and where buckets are
//! few.

use super::pairs::split;

/// The most bits of a code, and the buckets of two such codes: with three bits, pairs are faster.
const MOST: u8 = 2;
const BUCKETS: usize = 1 << (2 * MOST);

/// Pixels that are computed together.
const TOGETHER: usize = 4;

/// Bytes of a word.
const WORD: usize = size_of::<i32>();

/// Layout of the input words that a row of weights meets, counted from the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputLayout {
    /// Lines of weights, and their length: 3 or 1.
    pub(crate) side: usize,
    /// Words from one line to the next.
    pub(crate) next_line: usize,
    /// Words from one pair of channels to the next.
    pub(crate) next_pair: usize,
}

/// Returns whether this chip had better add up buckets, for so many weights of so many bits: for few,
/// buckets are hardly more than words.
pub(crate) const fn pay(bits: u8, layout: InputLayout, weights: usize) -> bool {
    cfg!(fmq_buckets) && weights >= 16 * BUCKETS && fit(bits, layout, weights)
}

/// Returns whether so many weights of so many bits can be sorted: 16 bits must say where their words lie.
const fn fit(bits: u8, layout: InputLayout, weights: usize) -> bool {
    let InputLayout { side, next_line, next_pair } = layout;
    let pairs = match weights.checked_div(2 * side * side) {
        Some(pairs) => pairs.saturating_add(1),
        None => usize::MAX,
    };
    let words = side.saturating_mul(next_line).saturating_add(pairs.saturating_mul(next_pair));
    bits <= MOST && words <= u16::MAX as usize / WORD
}

/// The words of one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    len: u16,
    /// Multipliers of the low and the high half of their sum.
    levels: [i16; 2],
}

/// The words that a row of weights meets, sorted.
#[derive(Debug)]
pub(crate) struct Buckets<'a> {
    sorted: [Bucket; BUCKETS],
    /// Buckets of which there may be words.
    count: usize,
    /// Offsets of the words in bytes, bucket after bucket.
    offsets: &'a [u16],
    /// Words up to the farthest.
    reach: usize,
    /// Words whose halves may be added.
    room: usize,
}

impl<'a> Buckets<'a> {
    /// Sorts a row of codes `[channels, side, side]` that [`fit`], and leaves something else in their place.
    ///
    /// # Shapes
    /// `levels`: what the codes mean; `most`: the largest magnitude of a half of a word; `memory`: at
    /// least as many as words meet the row.
    pub(crate) fn sort(
        (codes, bits): (&mut [u8], u8),
        levels: &[i16; 256],
        most: i32,
        layout: InputLayout,
        memory: &'a mut [u16],
    ) -> Self {
        let InputLayout { side, next_line, next_pair } = layout;
        // Nothing else, so that the compiler sees that there are no chunks of nothing.
        let (side, taps) = if side == 3 { (3, 9) } else { (1, 1) };
        let count = 1usize << (2 * bits.min(MOST));
        // The two codes of a word, in the place of the first, say its bucket.
        let mut lens = [0u16; BUCKETS];
        for channels in codes.chunks_mut(2 * taps) {
            let few = taps.min(channels.len());
            let (low, high) = channels.split_at_mut_checked(few).unwrap_or_default();
            // Beside an odd last channel there are zeros, whatever their level.
            let mut high = high.iter();
            for low in low {
                *low = *low << bits | high.next().copied().unwrap_or(0);
                let len = &mut lens[usize::from(*low) & (count - 1) & (BUCKETS - 1)];
                *len = len.wrapping_add(1);
            }
        }
        let (mut buckets, mut start) = ([Bucket::default(); BUCKETS], 0u16);
        for (which, (bucket, next)) in buckets.iter_mut().zip(&mut lens).take(count).enumerate() {
            let len = core::mem::replace(next, start);
            let level = |code: usize| levels.get(code).copied().unwrap_or(0);
            let levels = [level(which >> bits), level(which & ((1 << bits) - 1))];
            *bucket = Bucket { len, levels };
            start = start.wrapping_add(len);
        }
        let offsets = memory.get_mut(..usize::from(start)).unwrap_or_default();
        // Whatever happens below, no offset goes beyond `reach`.
        offsets.fill(0);
        let mut reach = 0;
        for (pair, channels) in codes.chunks(2 * taps).enumerate() {
            for (line, buckets) in channels.chunks(side).take(side).enumerate() {
                let at = line * next_line + pair * next_pair;
                reach = reach.max(at + side - 1);
                let mut at = u16::try_from(WORD * at).unwrap_or(0);
                for &bucket in buckets {
                    let next = &mut lens[usize::from(bucket) & (count - 1) & (BUCKETS - 1)];
                    if let Some(offset) = offsets.get_mut(usize::from(*next)) {
                        *offset = at;
                    }
                    *next = next.wrapping_add(1);
                    at = at.wrapping_add(4);
                }
            }
        }
        let room = i16::MAX.unsigned_abs().checked_div(u16::try_from(most).unwrap_or(u16::MAX));
        let room = room.map_or(1, |room| usize::from(room.max(1)));
        Self { sorted: buckets, count, offsets, reach, room }
    }

    /// Writes a row of sums of products.
    ///
    /// # Shapes
    /// `sums`: `[w]`; `input`: words, the first of them the first that the first pixel meets; `stride`:
    /// words from one pixel to the next, 1 or 2.
    pub(crate) fn correlate(&self, sums: &mut [i32], input: &[i32], stride: usize) {
        // The last tile may overlap the one before: it writes the same again.
        let last = sums.len().saturating_sub(TOGETHER);
        for at in (0..sums.len()).step_by(TOGETHER) {
            let at = at.min(last);
            let out = sums.get_mut(at..).unwrap_or_default();
            let input = input.get(at * stride..).unwrap_or_default();
            match (out.first_chunk_mut(), stride) {
                (Some(out), 1) => *out = self.tile::<4, 1>(input),
                (Some(out), _) => *out = self.tile::<7, 2>(input),
                (None, _) => {
                    for (x, out) in out.iter_mut().enumerate() {
                        [*out, ..] = self.tile::<1, 0>(input.get(x * stride..).unwrap_or_default());
                    }
                }
            }
        }
    }

    /// The sums of four pixels, `STRIDE` words apart, which are in a window of `SPAN` words.
    #[inline(never)]
    fn tile<const SPAN: usize, const STRIDE: usize>(&self, input: &[i32]) -> [i32; TOGETHER] {
        // Four neighbours are four words, which the chips load by one instruction.
        const { assert!(STRIDE != 1 || SPAN >= TOGETHER) };
        let mut sums = [0i32; TOGETHER];
        if self.reach + SPAN > input.len() {
            return sums;
        }
        let mut left = self.offsets;
        for &Bucket { len, levels } in self.sorted.iter().take(self.count) {
            let mut len = usize::from(len);
            while len > 0 {
                let now = len.min(self.room);
                let Some((part, rest)) = left.split_at_checked(now) else { return sums };
                (left, len) = (rest, len - now);
                #[cfg(fmq_buckets)]
                let words = if STRIDE == 1 {
                    #[expect(
                        unsafe_code,
                        reason = "a question at each word is a third of the time"
                    )]
                    // SAFETY: `sort` writes no offset beyond that of word `reach`, and all are multiples of
                    // `WORD`; the input was found to have `SPAN` words from there on, which are four at least
                    // where `STRIDE` is 1, as asserted above. The part is not empty: `len` is above 0 in this
                    // loop and `room` is 1 at least, so `now` is too.
                    unsafe {
                        super::ldm::gather(input, part)
                    }
                } else {
                    gather::<SPAN, STRIDE>(input, part)
                };
                #[cfg(not(fmq_buckets))]
                let words = gather::<SPAN, STRIDE>(input, part);
                let ([s, t, u, v], [a, b, c, d]) = (sums, words);
                sums = [add(s, a, levels), add(t, b, levels), add(u, c, levels), add(v, d, levels)];
            }
        }
        sums
    }
}

/// Adds the product of a bucket.
#[inline]
fn add(sum: i32, words: i32, [a, b]: [i16; 2]) -> i32 {
    let (low, high) = split(words);
    let low = i32::from(a).wrapping_mul(low);
    sum.wrapping_add(low).wrapping_add(i32::from(b).wrapping_mul(high))
}

/// Adds up the words of four pixels.
#[inline]
fn gather<const SPAN: usize, const STRIDE: usize>(
    input: &[i32],
    offsets: &[u16],
) -> [i32; TOGETHER] {
    let [mut a, mut b, mut c, mut d] = [0i32; TOGETHER];
    for &at in offsets {
        let window = input.get(usize::from(at) / WORD..).and_then(|words| words.first_chunk());
        let Some(words): Option<&[i32; SPAN]> = window else { continue };
        a = a.wrapping_add(words[0]);
        b = b.wrapping_add(words[STRIDE]);
        c = c.wrapping_add(words[2 * STRIDE]);
        d = d.wrapping_add(words[3 * STRIDE]);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::super::pairs;
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Numbers from a seed.
    fn numbers(seed: u64, len: usize) -> impl Iterator<Item = u32> {
        let number = move |i: usize| {
            let x = seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            crate::num::low_u32(x >> 32)
        };
        (0..len).map(number)
    }

    /// Words of two halves up to a magnitude.
    fn words(seed: u64, len: usize, most: i32) -> Vec<i32> {
        let half = |x: u32| i32::try_from(x % (2 * most.unsigned_abs() + 1)).unwrap() - most;
        numbers(seed, len).map(|x| (half(x >> 16) << 16) + half(x & 0xffff)).collect()
    }

    proptest! {
        /// An odd number of channels has zeros in its last high halves, as `gather` leaves them.
        #[test]
        fn buckets_are_pairs(
            seed: u64,
            bits in 1u8..=MOST,
            channels in 1usize..12,
            w in 1usize..20,
            (side, stride) in prop::sample::select(vec![(3, 1), (3, 2), (1, 1)]),
            most in 1i32..=0x7fff,
        ) {
            let pairs = channels.div_ceil(2);
            let width = stride * w + side - 1;
            let mut input = words(seed, side * pairs * width, most);
            if channels % 2 == 1 {
                for line in input.chunks_exact_mut(pairs * width) {
                    line[(pairs - 1) * width..].iter_mut().for_each(|x| *x = split(*x).0);
                }
            }
            let mut codes: Vec<u8> = numbers(!seed, channels * side * side)
                .map(|x| u8::try_from(x % (1 << bits)).unwrap())
                .collect();
            let mut levels = [0x5555; 256];
            for (level, x) in levels.iter_mut().zip(numbers(seed ^ 5, 1 << bits)) {
                let [a, b, ..] = x.to_le_bytes();
                *level = i16::from_le_bytes([a, b]);
            }
            let mut taps = vec![0; pairs * side * side];
            pairs::join(&codes, (side, side), |code| levels[usize::from(code)], &mut taps);
            let mut expected = vec![0; w];
            if side == 3 {
                pairs::correlate(&mut expected, &input, (width, stride), taps.as_chunks().0);
            } else {
                pairs::mix(&mut expected, &input, width, &taps);
            }

            let layout = InputLayout { side, next_line: pairs * width, next_pair: width };
            let mut memory = vec![u16::MAX; pairs * side * side];
            prop_assert!(fit(bits, layout, codes.len()));
            let buckets = Buckets::sort((&mut codes, bits), &levels, most, layout, &mut memory);
            let mut sums = vec![7; w];
            buckets.correlate(&mut sums, &input, stride);
            prop_assert_eq!(sums, expected);
        }
    }

    #[test]
    fn rows_fit_whose_words_16_bits_reach() {
        let layout = |next_pair| InputLayout { side: 1, next_line: 0, next_pair };
        assert!(fit(2, layout(5461), 4) && !fit(2, layout(5462), 4) && !fit(3, layout(1), 4));
        assert!(!fit(2, layout(usize::MAX), 1));
        assert!(!fit(2, InputLayout { side: 3, next_line: usize::MAX, next_pair: 1 }, 9));
    }
}
