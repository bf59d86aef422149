//! Random numbers that are a function of their place: the same bits on every machine, in any order.
//!
//! A [`Stream`] is a seed and a domain; `index` names an image, a step or a batch, `element` a place
//! within it. There is no state, so images may be drawn in any order and on any number of threads.
//!
//! # The generator
//! Philox4x32-10 (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), with
//!
//! ```text
//! key     = [seed low word, seed high word]
//! counter = [element / 4, domain, index low word, index high word]
//! word    = philox(counter, key)[element mod 4]
//! ```
//!
//! One round turns `[a, b, c, d]` into `[hi(C·c) ^ b ^ k0, lo(C·c), hi(A·a) ^ d ^ k1, lo(A·a)]`, with
//! the 64-bit products of `A = 0xd2511f53` and `C = 0xcd9e8d57`; after each of the ten rounds
//! `k0 += 0x9e3779b9`, `k1 += 0xbb67ae85`.
//!
//! # Uniforms
//! `u = (word >> 8) · 2^-24`, in `[0, 1)`.
//!
//! # Normals
//! Box and Muller's transform of the word pairs (0, 1) and (2, 3) of a block into the normals at
//! the same places, all in f32, each operation rounded in this order:
//!
//! ```text
//! u1 = f32(w0) · 2^-32 + 2^-33         in (0, 1]
//! a  = f32(w1 >> 8) · (2π · 2^-24)     in [0, 2π)
//! r  = sqrt(-2 · ln u1)
//! normals: r · cos a, r · sin a
//! ```
//!
//! `ln`, `sin` and `cos` are those of the crate `libm`. No normal exceeds 6.8 in magnitude.
//!
//! # Test vectors
//! `philox([0; 4], [0; 2])` is `6627e8d5 e169c58d bc57ac4c 9b00dbd8`. The normals of seed 2024,
//! image 7, elements 0 to 3 have the bits `bf692114 3fa7dcf5 be3dd445 bea93cb2`.

use crate::num::{f32_of_u32, high_u32, index as index_of, ln, low_u32, sin_cos, sqrt, u32_of};

/// The domain of the sampler's start noise, used by [`normal`] and [`fill_normal`].
pub const NOISE_DOMAIN: u32 = 0;

/// Philox4x32 with ten rounds.
pub const fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let (p, q) = (a as u64 * 0xd251_1f53, c as u64 * 0xcd9e_8d57);
        [a, b, c, d] = [high_u32(q) ^ b ^ k0, low_u32(q), high_u32(p) ^ d ^ k1, low_u32(p)];
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
        round += 1;
    }
    [a, b, c, d]
}

/// The start noise of an image at one element: a standard normal.
pub fn normal(seed: u64, image: u64, element: u32) -> f32 {
    Stream::new(seed, NOISE_DOMAIN).normal(image, element)
}

/// The start noise of an image from one element on; see [`Stream::fill_normal`].
pub fn fill_normal(seed: u64, image: u64, first_element: u32, out: &mut [f32]) {
    Stream::new(seed, NOISE_DOMAIN).fill_normal(image, first_element, out);
}

/// The random numbers of one seed and one domain.
///
/// Give each use its own domain: times, labels, dropout, shuffles. Elements wrap at 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    seed: u64,
    domain: u32,
}

impl Stream {
    /// The stream of a seed and a domain.
    pub const fn new(seed: u64, domain: u32) -> Self {
        Self { seed, domain }
    }

    /// The key of the generator: the seed's low word, then its high word.
    pub const fn key(self) -> [u32; 2] {
        [low_u32(self.seed), high_u32(self.seed)]
    }

    /// The stream's domain.
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// The four words of a block: those of the elements `4·block` to `4·block + 3`.
    pub const fn block(self, index: u64, block: u32) -> [u32; 4] {
        let counter = [block, self.domain, low_u32(index), high_u32(index)];
        philox(counter, self.key())
    }

    /// The word at an element, uniform over all u32.
    pub const fn word(self, index: u64, element: u32) -> u32 {
        self.block(index, element / 4)[index_of(element % 4)]
    }

    /// A uniform number in `[0, 1)`, a multiple of 2^-24.
    pub const fn uniform(self, index: u64, element: u32) -> f32 {
        unit(self.word(index, element))
    }

    /// A uniform integer in `0..n`, 0 for `n = 0`: `⌊word · n / 2^32⌋`. No value's probability is
    /// off by more than 2^-32.
    pub const fn below(self, index: u64, element: u32, n: u32) -> u32 {
        high_u32(self.word(index, element) as u64 * n as u64)
    }

    /// A standard normal.
    pub fn normal(self, index: u64, element: u32) -> f32 {
        normals(self.block(index, element / 4))[index_of(element % 4)]
    }

    /// Fills `out` with the uniforms from one element on, as [`Stream::uniform`] gives them.
    pub fn fill_uniform(self, index: u64, first_element: u32, out: &mut [f32]) {
        self.fill(index, first_element, out, |words| words.map(unit));
    }

    /// Fills `out` with the normals from one element on, as [`Stream::normal`] gives them.
    pub fn fill_normal(self, index: u64, first_element: u32, out: &mut [f32]) {
        self.fill(index, first_element, out, normals);
    }

    /// Shuffles `items` uniformly (Fisher and Yates; at most 2^32 items): for `i` from the last
    /// down to 1, item `i` changes places with item [`Stream::below`]`(index, i, i + 1)`.
    pub fn shuffle<T>(self, index: u64, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let element = u32_of(i);
            items.swap(i, index_of(self.below(index, element, element.wrapping_add(1))) % (i + 1));
        }
    }

    /// Fills `out` block by block with what `of` makes of the words.
    fn fill(self, index: u64, first: u32, out: &mut [f32], of: impl Fn([u32; 4]) -> [f32; 4]) {
        let skipped = index_of(first % 4);
        let (head, body) = out.split_at_mut(out.len().min((4 - skipped) % 4));
        let mut block = first / 4;
        if !head.is_empty() {
            let values = of(self.block(index, block));
            head.iter_mut().zip(values.into_iter().skip(skipped)).for_each(|(o, v)| *o = v);
            block += 1;
        }
        for four in body.chunks_mut(4) {
            // Blocks wrap where elements do.
            let values = of(self.block(index, block % (1 << 30)));
            four.iter_mut().zip(values).for_each(|(o, v)| *o = v);
            block = block.wrapping_add(1);
        }
    }
}

/// A word as a number in `[0, 1)`.
const fn unit(word: u32) -> f32 {
    const SCALE: f32 = 1.0 / 16_777_216.0;
    f32_of_u32(word >> 8) * SCALE
}

/// The normals of the words of a block.
fn normals([w0, w1, w2, w3]: [u32; 4]) -> [f32; 4] {
    let [n0, n1] = box_muller(w0, w1);
    let [n2, n3] = box_muller(w2, w3);
    [n0, n1, n2, n3]
}

fn box_muller(w0: u32, w1: u32) -> [f32; 2] {
    const SCALE: f32 = 1.0 / 4_294_967_296.0;
    const ANGLE: f32 = core::f32::consts::TAU / 16_777_216.0;
    let u1 = f32_of_u32(w0) * SCALE + SCALE / 2.0;
    let (sin, cos) = sin_cos(f32_of_u32(w1 >> 8) * ANGLE);
    let r = sqrt(-2.0 * ln(u1));
    [r * cos, r * sin]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::f64_of;
    use std::vec;
    use std::vec::Vec;

    /// Known answers of the Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn counter_and_key_are_laid_out_as_documented() {
        let stream = Stream::new(0x299f_31d0_a409_3822, 0x85a3_08d3);
        let words = stream.block(0x0370_7344_1319_8a2e, 0x243f_6a88);
        assert_eq!(words, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
        assert_eq!(Stream::new(0, 0).word(0, 2), 0xbc57_ac4c);
        assert_eq!(Stream::new(0, 0).uniform(0, 3).to_bits(), unit(0x9b00_dbd8).to_bits());
    }

    #[test]
    fn normals_have_fixed_bits() {
        let mut values = [0.0; 8];
        fill_normal(2024, 7, 0, &mut values);
        assert_eq!(
            values.map(f32::to_bits),
            [
                0xbf69_2114,
                0x3fa7_dcf5,
                0xbe3d_d445,
                0xbea9_3cb2,
                0xbf5c_7bc7,
                0x3ffc_fed7,
                0x3ec8_c1ef,
                0x3f32_04bd
            ]
        );
    }

    #[test]
    fn extreme_words_give_finite_normals() {
        for words in [[0, 0], [0, u32::MAX], [u32::MAX, 0], [u32::MAX; 2]] {
            assert!(box_muller(words[0], words[1]).iter().all(|n| n.abs() < 6.8));
        }
        assert!(unit(u32::MAX) < 1.0);
    }

    #[test]
    fn any_start_and_length_give_the_same_values() {
        let stream = Stream::new(5, 6);
        for first in [0, 1, 2, 3, 4, 9, u32::MAX - 5, u32::MAX] {
            for len in 0..14_u32 {
                let mut filled = vec![0.0; index_of(len)];
                stream.fill_normal(3, first, &mut filled);
                let places = (0..len).map(|i| first.wrapping_add(i));
                let single: Vec<f32> = places.map(|e| stream.normal(3, e)).collect();
                assert_eq!(filled, single, "{first} {len}");
            }
        }
        let mut filled = [0.0; 7];
        stream.fill_uniform(3, 2, &mut filled);
        assert_eq!(filled[4].to_bits(), stream.uniform(3, 6).to_bits());
    }

    /// The moments of 400 000 normals; bounds of five standard errors.
    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let n = 400_000;
        let mut x = vec![0.0; n];
        fill_normal(11, 0, 0, &mut x);
        let moment =
            |power: i32| x.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / f64_of(n);
        let error = 5.0 / f64_of(n).sqrt();
        assert!(moment(1).abs() < error);
        assert!((moment(2) - 1.0).abs() < error * 2.0_f64.sqrt());
        assert!(moment(3).abs() < error * 15.0_f64.sqrt());
        assert!((moment(4) - 3.0).abs() < error * 96.0_f64.sqrt());
    }

    #[test]
    fn neighbours_images_seeds_and_domains_are_uncorrelated() {
        let n = 100_000;
        let draw = |seed, domain, image, first| {
            let mut x = vec![0.0; n];
            Stream::new(seed, domain).fill_normal(image, first, &mut x);
            x
        };
        let base = draw(1, 0, 0, 0);
        let others = [
            draw(1, 0, 0, 1),
            draw(1, 0, 0, 2),
            draw(1, 0, 1, 0),
            draw(2, 0, 0, 0),
            draw(1, 1, 0, 0),
            draw(1 << 32 | 1, 0, 0, 0),
            draw(1, 0, 1 << 32, 0),
        ];
        for other in others {
            let pairs = base.iter().zip(&other);
            let product: f64 = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!((product / f64_of(n)).abs() < 5.0 / f64_of(n).sqrt());
        }
    }

    #[test]
    fn shuffles_are_permutations_and_uniform() {
        let mut counts = [[0_u32; 4]; 4];
        for index in 0..8000 {
            let mut items = [0, 1, 2, 3];
            Stream::new(9, 1).shuffle(index, &mut items);
            for (place, &item) in items.iter().enumerate() {
                counts[item][place] += 1;
            }
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3]);
        }
        // 2000 expected, standard deviation 39.
        assert!(counts.iter().flatten().all(|&count| count.abs_diff(2000) < 195), "{counts:?}");
        Stream::new(9, 1).shuffle(0, &mut [(); 0]);
    }

    #[test]
    fn below_stays_below() {
        let stream = Stream::new(1, 2);
        assert!((0..1000).all(|i| stream.below(0, i, 7) < 7));
        assert_eq!((stream.below(0, 1, 0), stream.below(0, 1, 1)), (0, 0));
    }
}
