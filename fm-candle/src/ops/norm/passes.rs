//! The passes of GroupNorm over memory, block by block of pixels.

use pulp::{Arch, Simd};

use super::super::lanes::{Fill, Function, PIECE, Sum, TILE, pieces};
use super::super::simd::Lanes;

/// Sizes of one call: `n` images of `pixels` pixels of `groups` groups of `channels` values; passes
/// go over blocks of at most `block` pixels.
pub(super) struct NormGeometry {
    pub n: usize,
    pub pixels: usize,
    pub groups: usize,
    pub channels: usize,
    pub block: usize,
}

/// Mean of a group and `1 / sqrt(var + eps)`.
#[derive(Clone, Copy)]
pub(super) struct GroupMoments {
    pub mean: f64,
    pub rstd: f64,
}

/// Mean of a group in a block, and the sum of squares around it.
#[derive(Clone, Copy, Default)]
struct BlockMoments {
    mean: f64,
    squares: f64,
}

impl NormGeometry {
    pub(super) fn new(n: usize, pixels: usize, groups: usize, channels: usize) -> Self {
        // At least two tiles, so that the sums over channels do not cost more than the pixels.
        let most = (PIECE / (groups * channels).max(1)).max(2 * TILE);
        let blocks = pixels.div_ceil(most).max(1);
        Self { n, pixels, groups, channels, block: pixels.div_ceil(blocks) }
    }

    /// Channels.
    pub(super) fn c(&self) -> usize {
        self.groups * self.channels
    }

    /// Blocks of an image.
    fn blocks(&self) -> usize {
        self.pixels.div_ceil(self.block)
    }

    /// The values of block number `i` of the batch.
    fn values<'a, T>(&self, x: &'a [T], i: usize) -> &'a [T] {
        let (image, first) = (i / self.blocks(), i % self.blocks() * self.block);
        let pixels = self.block.min(self.pixels - first);
        &x[(image * self.pixels + first) * self.c()..][..pixels * self.c()]
    }

    /// Moments of each group of each image.
    ///
    /// Those of the blocks, around the blocks' own means, become those of the image by
    /// `sum (x - m)^2 = sum over blocks of sum (x - m_i)^2 + count_i (m_i - m)^2`.
    ///
    /// # Shapes: `x: [n, pixels, c]`, result `[n, groups]`
    pub(super) fn moments<T: Lanes>(&self, x: &[T], eps: f64) -> Vec<GroupMoments> {
        let arch = Arch::new();
        let mut of_blocks = vec![BlockMoments::default(); self.n * self.blocks() * self.groups];
        pieces(&mut of_blocks, self.groups, x.len(), |i, moments| {
            let x = self.values(x, i);
            self.block_moments(arch, x, moments);
        });
        let mut result = Vec::with_capacity(self.n * self.groups);
        let count = (self.pixels * self.channels) as f64;
        for image in of_blocks.chunks_exact(self.blocks() * self.groups) {
            for group in 0..self.groups {
                let blocks = || {
                    let moments = image.iter().skip(group).step_by(self.groups);
                    moments.enumerate().map(|(i, m)| {
                        let pixels = self.block.min(self.pixels - i * self.block);
                        ((pixels * self.channels) as f64, m)
                    })
                };
                let mean = blocks().map(|(k, m)| k * m.mean).sum::<f64>() / count;
                let squares: f64 =
                    blocks().map(|(k, m)| m.squares + k * (m.mean - mean).powi(2)).sum();
                result.push(GroupMoments { mean, rstd: 1.0 / (squares / count + eps).sqrt() });
            }
        }
        result
    }

    /// # Shapes: `x: [pixels of a block, c]`, `moments: [groups]`
    fn block_moments<T: Lanes>(&self, arch: Arch, x: &[T], moments: &mut [BlockMoments]) {
        let mut sums = vec![T::zero(); self.c()];
        arch.dispatch(Sum { maps: [x], rows: [], sums: [&mut sums], f: &PlainValues });
        let mut means = vec![T::zero(); self.c()];
        let count = (x.len() / self.groups) as f64;
        for (group, moments) in moments.iter_mut().enumerate() {
            let channels = group * self.channels..(group + 1) * self.channels;
            let sum: f64 = sums[channels.clone()].iter().map(|x| x.to_f64()).sum();
            let mean = T::from_f64(sum / count);
            means[channels].fill(mean);
            moments.mean = mean.to_f64();
        }
        sums.fill(T::zero());
        arch.dispatch(Sum { maps: [x], rows: [&means[..]], sums: [&mut sums], f: &Squares });
        for (moments, sums) in moments.iter_mut().zip(sums.chunks_exact(self.channels)) {
            moments.squares = sums.iter().map(|x| x.to_f64()).sum();
        }
    }

    /// `y = act(x scale + shift)`, the activation being SiLU or none.
    ///
    /// # Shapes: `x: [n, pixels, c]`, `rows: [n, 2, c]` with scale and shift, result as `x`
    pub(super) fn normalize<T: Lanes, const SILU: bool>(&self, x: &[T], rows: &[T]) -> Vec<T> {
        self.map::<T, 1, 2>([x], rows, &Normalized::<SILU>)
    }

    /// Sums of `dz` and of `dz (x - mean)` over the pixels of an image.
    ///
    /// # Shapes: `x, gy: [n, pixels, c]`, `rows: [n, 3, c]` with scale, shift and mean, result
    /// `[n, 2, c]`
    pub(super) fn gradient_sums<T: Lanes, const SILU: bool>(
        &self,
        x: &[T],
        gy: &[T],
        rows: &[T],
    ) -> Vec<f64> {
        let (arch, c) = (Arch::new(), self.c());
        let mut of_blocks = vec![T::zero(); self.n * self.blocks() * 2 * c];
        pieces(&mut of_blocks, 2 * c, x.len(), |i, sums| {
            let (x, gy) = (self.values(x, i), self.values(gy, i));
            let rows = self.rows(rows, i / self.blocks());
            let (sum, product) = sums.split_at_mut(c);
            let (maps, sums) = ([x, gy], [sum, product]);
            arch.dispatch(Sum { maps, rows, sums, f: &GradientTerms::<SILU> });
        });
        let mut sums = vec![0.0; self.n * 2 * c];
        pieces(&mut sums, 2 * c, of_blocks.len(), |image, sums| {
            let size = self.blocks() * 2 * c;
            for block in of_blocks[image * size..][..size].chunks_exact(2 * c) {
                for (sum, value) in sums.iter_mut().zip(block) {
                    *sum += value.to_f64();
                }
            }
        });
        sums
    }

    /// `dx = dz scale + x along + constant`.
    ///
    /// # Shapes: `x, gy: [n, pixels, c]`, `rows: [n, 4, c]` with scale, shift, along and constant,
    /// result as `x`
    pub(super) fn gradient<T: Lanes, const SILU: bool>(
        &self,
        x: &[T],
        gy: &[T],
        rows: &[T],
    ) -> Vec<T> {
        self.map::<T, 2, 4>([x, gy], rows, &Gradient::<SILU>)
    }

    /// `f` of each value.
    ///
    /// # Shapes: `maps: [n, pixels, c]` each, `rows: [n, R, c]`, result as `maps`
    fn map<T: Lanes, const N: usize, const R: usize>(
        &self,
        maps: [&[T]; N],
        rows: &[T],
        f: &impl Function<T, N, R, 1>,
    ) -> Vec<T> {
        let (arch, c, values) = (Arch::new(), self.c(), maps[0].len());
        let (size, block) = (self.pixels * c, self.block * c);
        let mut y = vec![T::zero(); values];
        pieces(&mut y, size, values, |image, y| {
            let rows = self.rows(rows, image);
            pieces(y, block, size, |i, out| {
                let maps = maps.map(|map| &map[image * size + i * block..][..out.len()]);
                arch.dispatch(Fill { c, out, maps, rows, f });
            });
        });
        y
    }

    /// Rows of coefficients from those of channel `i % c` of image `i / c`: `[n, R, c]`.
    pub(super) fn make_rows<T: Lanes, const R: usize>(
        &self,
        coefficients: impl Fn(usize) -> [f64; R],
    ) -> Vec<T> {
        let c = self.c();
        let mut rows = vec![T::zero(); self.n * R * c];
        for (image, rows) in rows.chunks_exact_mut(R * c).enumerate() {
            for channel in 0..c {
                let values = coefficients(image * c + channel);
                for k in 0..R {
                    rows[k * c + channel] = T::from_f64(values[k]);
                }
            }
        }
        rows
    }

    /// The rows of an image: `rows: [n, R, c]`.
    #[inline(always)]
    fn rows<'a, T, const R: usize>(&self, rows: &'a [T], image: usize) -> [&'a [T]; R] {
        let c = self.c();
        let mut result = [&[][..]; R];
        for k in 0..R {
            result[k] = &rows[(image * R + k) * c..][..c];
        }
        result
    }
}

/// The values themselves.
struct PlainValues;

impl<T: Lanes> Function<T, 1, 0, 1> for PlainValues {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        _simd: S,
        x: [T::Register<S>; 1],
        []: [T::Register<S>; 0],
    ) -> [T::Register<S>; 1] {
        x
    }
}

/// `(x - mean)^2`.
struct Squares;

impl<T: Lanes> Function<T, 1, 1, 1> for Squares {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x]: [T::Register<S>; 1],
        [mean]: [T::Register<S>; 1],
    ) -> [T::Register<S>; 1] {
        let centred = T::minus(simd, x, mean);
        [T::times(simd, centred, centred)]
    }
}

/// See [`NormGeometry::normalize`].
struct Normalized<const SILU: bool>;

impl<T: Lanes, const SILU: bool> Function<T, 1, 2, 1> for Normalized<SILU> {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x]: [T::Register<S>; 1],
        [scale, shift]: [T::Register<S>; 2],
    ) -> [T::Register<S>; 1] {
        let z = T::times_plus(simd, x, scale, shift);
        [if SILU { T::times(simd, z, T::sigmoid(simd, z)) } else { z }]
    }
}

/// See [`NormGeometry::gradient_sums`].
struct GradientTerms<const SILU: bool>;

impl<T: Lanes, const SILU: bool> Function<T, 2, 3, 2> for GradientTerms<SILU> {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x, gy]: [T::Register<S>; 2],
        [scale, shift, mean]: [T::Register<S>; 3],
    ) -> [T::Register<S>; 2] {
        let dz = slope::<S, T, SILU>(simd, [x, gy], [scale, shift]);
        [dz, T::times(simd, dz, T::minus(simd, x, mean))]
    }
}

/// See [`NormGeometry::gradient`].
struct Gradient<const SILU: bool>;

impl<T: Lanes, const SILU: bool> Function<T, 2, 4, 1> for Gradient<SILU> {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x, gy]: [T::Register<S>; 2],
        [scale, shift, along, constant]: [T::Register<S>; 4],
    ) -> [T::Register<S>; 1] {
        let dz = slope::<S, T, SILU>(simd, [x, gy], [scale, shift]);
        [T::times_plus(simd, dz, scale, T::times_plus(simd, x, along, constant))]
    }
}

/// `dz = gy act'(z)` with `z = x scale + shift`; that of SiLU is `s + z s (1 - s)`, s its sigmoid.
#[inline(always)]
fn slope<S: Simd, T: Lanes, const SILU: bool>(
    simd: S,
    [x, gy]: [T::Register<S>; 2],
    [scale, shift]: [T::Register<S>; 2],
) -> T::Register<S> {
    if !SILU {
        return gy;
    }
    let z = T::times_plus(simd, x, scale, shift);
    let s = T::sigmoid(simd, z);
    let rest = T::minus(simd, T::splat(simd, T::one()), s);
    let slope = T::times_plus(simd, T::times(simd, z, s), rest, s);
    T::times(simd, gy, slope)
}
