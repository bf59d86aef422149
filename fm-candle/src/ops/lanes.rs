//! Loops over values in memory: pieces in parallel, and SIMD lanes inside a piece.
//!
//! Where memory is cut depends on its size alone, never on the number of threads, so neither do
//! results.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::simd::Lanes;

/// Pixels whose values are added in registers before they join the sums in memory.
pub(super) const TILE: usize = 8;

/// Values of a piece: 32 KB of f32, which a core's first cache holds.
pub(super) const PIECE: usize = 8192;

/// Work on fewer values than these is done before another thread has woken up.
const FEW: usize = 16384;

/// Calls `f` with the number and the contents of each piece of `size` elements, in parallel where
/// the work is over many `values`.
pub(super) fn pieces<T: Send>(
    out: &mut [T],
    size: usize,
    values: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if values < FEW || out.len() <= size {
        out.chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    } else {
        out.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    }
}

/// A function of the values of `N` maps at one place, and of `R` coefficients of its channel, with
/// `O` results.
pub(super) trait Function<T: Lanes, const N: usize, const R: usize, const O: usize>:
    Sync
{
    fn of<S: Simd>(
        &self,
        simd: S,
        maps: [T::Register<S>; N],
        rows: [T::Register<S>; R],
    ) -> [T::Register<S>; O];
}

/// `f(x_i, y_i)` of each pair of elements.
pub(super) fn zip<T: Lanes>(x: &[T], y: &[T], f: &impl Function<T, 2, 0, 1>) -> Vec<T> {
    let mut out = vec![T::zero(); x.len()];
    let arch = Arch::new();
    pieces(&mut out, PIECE, x.len(), |i, out| {
        let range = i * PIECE..i * PIECE + out.len();
        let (c, maps) = (out.len(), [&x[range.clone()], &y[range]]);
        arch.dispatch(Fill { c, out, maps, rows: [], f });
    });
    out
}

/// `out = f(maps, rows)`, pixel by pixel.
///
/// # Shapes: `out: [pixels, c]`, `maps: [pixels, c]` each, `rows: [c]` each
pub(super) struct Fill<'a, T, F, const N: usize, const R: usize> {
    pub c: usize,
    pub out: &'a mut [T],
    pub maps: [&'a [T]; N],
    pub rows: [&'a [T]; R],
    pub f: &'a F,
}

impl<T, F, const N: usize, const R: usize> WithSimd for Fill<'_, T, F, N, R>
where
    T: Lanes,
    F: Function<T, N, R, 1>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (pixel, out) in self.out.chunks_exact_mut(self.c).enumerate() {
            fill(simd, out, cut(self.maps, pixel, self.c), self.rows, self.f);
        }
    }
}

/// `out_i = f(maps_i, rows_i)`.
#[inline(always)]
pub(super) fn fill<S: Simd, T: Lanes, const N: usize, const R: usize>(
    simd: S,
    out: &mut [T],
    maps: [&[T]; N],
    rows: [&[T]; R],
    f: &impl Function<T, N, R, 1>,
) {
    let (out, out_rest) = T::registers_mut::<S>(out);
    let full_maps = registers::<S, T, N>(maps, out.len());
    let full_rows = registers::<S, T, R>(rows, out.len());
    for (v, out) in out.iter_mut().enumerate() {
        let (map, row) = (at::<S, T, N>(simd, full_maps, v), at::<S, T, R>(simd, full_rows, v));
        [*out] = f.of(simd, map, row);
    }
    if !out_rest.is_empty() {
        let [last] = f.of(simd, rest(simd, maps), rest(simd, rows));
        T::store(simd, out_rest, last);
    }
}

/// `sums[k][channel] += sum over the pixels of f(maps, rows)[k]`.
///
/// # Shapes: `maps: [pixels, c]` each, `rows, sums: [c]` each
pub(super) struct Sum<'a, T, F, const N: usize, const R: usize, const O: usize> {
    pub maps: [&'a [T]; N],
    pub rows: [&'a [T]; R],
    pub sums: [&'a mut [T]; O],
    pub f: &'a F,
}

impl<T, F, const N: usize, const R: usize, const O: usize> WithSimd for Sum<'_, T, F, N, R, O>
where
    T: Lanes,
    F: Function<T, N, R, O>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.sums[0].len();
        let (registers, rest) = T::registers::<S>(self.sums[0]);
        let (vectors, whole) = (registers.len(), rest.is_empty());
        let pixels = self.maps[0].len() / c;
        if whole {
            self.tiles(simd, vectors, pixels);
        } else {
            self.pixels(simd, vectors, pixels);
        }
    }
}

impl<T, F, const N: usize, const R: usize, const O: usize> Sum<'_, T, F, N, R, O>
where
    T: Lanes,
    F: Function<T, N, R, O>,
{
    /// Channels that fill registers: the pixels of a tile are added in one.
    #[inline(always)]
    fn tiles<S: Simd>(mut self, simd: S, vectors: usize, pixels: usize) {
        let rows = registers::<S, T, R>(self.rows, vectors);
        let maps = registers::<S, T, N>(self.maps, pixels * vectors);
        for start in (0..pixels).step_by(TILE) {
            let end = pixels.min(start + TILE);
            for v in 0..vectors {
                let row = at::<S, T, R>(simd, rows, v);
                let mut total = [T::splat(simd, T::zero()); O];
                for pixel in start..end {
                    let map = at::<S, T, N>(simd, maps, pixel * vectors + v);
                    let terms = self.f.of(simd, map, row);
                    for k in 0..O {
                        total[k] = T::plus(simd, total[k], terms[k]);
                    }
                }
                for (sums, total) in self.sums.iter_mut().zip(total) {
                    let sum = &mut T::registers_mut::<S>(sums).0[v];
                    *sum = T::plus(simd, *sum, total);
                }
            }
        }
    }

    /// Any number of channels.
    #[inline(always)]
    fn pixels<S: Simd>(mut self, simd: S, vectors: usize, pixels: usize) {
        let c = self.sums[0].len();
        let rows = registers::<S, T, R>(self.rows, vectors);
        let last_row = rest(simd, self.rows);
        for pixel in 0..pixels {
            let values = cut(self.maps, pixel, c);
            let maps = registers::<S, T, N>(values, vectors);
            for v in 0..vectors {
                let (map, row) = (at::<S, T, N>(simd, maps, v), at::<S, T, R>(simd, rows, v));
                let terms = self.f.of(simd, map, row);
                for (sums, term) in self.sums.iter_mut().zip(terms) {
                    let sum = &mut T::registers_mut::<S>(sums).0[v];
                    *sum = T::plus(simd, *sum, term);
                }
            }
            let terms = self.f.of(simd, rest(simd, values), last_row);
            for (sums, term) in self.sums.iter_mut().zip(terms) {
                let (_, sum) = T::registers_mut::<S>(sums);
                let total = T::plus(simd, T::load(simd, sum), term);
                T::store(simd, sum, total);
            }
        }
    }
}

/// The values of a pixel: `maps: [pixels, c]` each.
#[inline(always)]
fn cut<T, const N: usize>(mut maps: [&[T]; N], pixel: usize, c: usize) -> [&[T]; N] {
    for map in &mut maps {
        *map = &map[pixel * c..][..c];
    }
    maps
}

/// The first `count` registers of each.
#[inline(always)]
fn registers<S: Simd, T: Lanes, const N: usize>(
    slices: [&[T]; N],
    count: usize,
) -> [&[T::Register<S>]; N] {
    let mut result = [&[][..]; N];
    for k in 0..N {
        result[k] = &T::registers::<S>(slices[k]).0[..count];
    }
    result
}

/// Register `v` of each.
#[inline(always)]
fn at<S: Simd, T: Lanes, const N: usize>(
    simd: S,
    slices: [&[T::Register<S>]; N],
    v: usize,
) -> [T::Register<S>; N] {
    let mut values = [T::splat(simd, T::zero()); N];
    for k in 0..N {
        values[k] = slices[k][v];
    }
    values
}

/// The rest of each slice that does not fill a register, padded by zeros.
#[inline(always)]
fn rest<S: Simd, T: Lanes, const N: usize>(simd: S, slices: [&[T]; N]) -> [T::Register<S>; N] {
    let mut values = [T::splat(simd, T::zero()); N];
    for k in 0..N {
        values[k] = T::load(simd, T::registers::<S>(slices[k]).1);
    }
    values
}
