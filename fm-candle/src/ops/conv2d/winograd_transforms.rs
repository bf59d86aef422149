//! The transforms of Winograd's F(2x2, 3x3), channel by channel in SIMD lanes.
//!
//! ```text
//!       | 1  0 -1  0 |         | 1   0   0 |
//! B^T = | 0  1  1  0 |   G =   | ½   ½   ½ |   A^T = | 1  1  1  0 |
//!       | 0 -1  1  0 |         | ½  -½   ½ |         | 0  1 -1 -1 |
//!       | 0  1  0 -1 |         | 0   0   1 |
//! ```
//! Each is applied to the columns of a square piece, then to its rows. All factors are 0, ±1 and
//! ½, so results are about as exact as those of the direct sum.

use pulp::{Simd, WithSimd};

use super::geometry::{Band, ConvGeometry};
use super::product::COLUMNS;
use super::weight_source::Epilogue;

/// Places of a transformed tile.
pub(super) const PLACES: usize = 16;

/// A transform of `A` values to `B`.
trait Transform<const A: usize, const B: usize> {
    fn line<S: Simd>(simd: S, line: [S::f32s; A]) -> [S::f32s; B];

    /// The transform of columns and rows.
    #[inline(always)]
    fn square<S: Simd>(simd: S, piece: [[S::f32s; A]; A]) -> [[S::f32s; B]; B] {
        let zero = simd.splat_f32s(0.0);
        let mut columns = [[zero; A]; B];
        for x in 0..A {
            let mut column = [zero; A];
            for y in 0..A {
                column[y] = piece[y][x];
            }
            let column = Self::line(simd, column);
            for y in 0..B {
                columns[y][x] = column[y];
            }
        }
        let mut result = [[zero; B]; B];
        for y in 0..B {
            result[y] = Self::line(simd, columns[y]);
        }
        result
    }
}

/// `B^T d`.
struct InputTransform;

impl Transform<4, 4> for InputTransform {
    #[inline(always)]
    fn line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
        [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
    }
}

/// `A^T m`.
struct OutputTransform;

impl Transform<4, 2> for OutputTransform {
    #[inline(always)]
    fn line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
        [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
    }
}

/// `G g`.
struct KernelTransform;

impl Transform<3, 4> for KernelTransform {
    #[inline(always)]
    fn line<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
        let half = simd.splat_f32s(0.5);
        let ends = simd.mul_f32s(simd.add_f32s(a, c), half);
        let middle = simd.mul_f32s(b, half);
        [a, simd.add_f32s(ends, middle), simd.sub_f32s(ends, middle), c]
    }
}

/// `A y`.
struct OutputGradient;

impl Transform<2, 4> for OutputGradient {
    #[inline(always)]
    fn line<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
        let minus = simd.sub_f32s(simd.splat_f32s(0.0), b);
        [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), minus]
    }
}

/// `G^T s`.
struct KernelGradient;

impl Transform<4, 3> for KernelGradient {
    #[inline(always)]
    fn line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
        let half = simd.splat_f32s(0.5);
        let sum = simd.mul_f32s(simd.add_f32s(b, c), half);
        let difference = simd.mul_f32s(simd.sub_f32s(b, c), half);
        [simd.add_f32s(a, sum), difference, simd.add_f32s(sum, d)]
    }
}

/// `B^T d B` of every tile of a band: `x: [n, h, w, c]` to `out: [PLACES, tiles, c]`.
pub(super) struct Inputs<'a> {
    pub x: &'a [f32],
    pub band: &'a Band,
    pub geometry: &'a ConvGeometry,
    pub tiles: usize,
    pub out: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.geometry;
        let (x, _) = S::as_simd_f32s(self.x);
        let vectors = g.c / S::F32_LANES;
        let mut places = places::<S>(self.out, self.tiles * g.c);
        let outside = vec![simd.splat_f32s(0.0); vectors];
        let tiles = tiles(self.band, g.ow().div_ceil(2));
        for (tile, (image, line, column)) in tiles.enumerate() {
            let mut pixels = [[&outside[..]; 4]; 4];
            for (i, row) in pixels.iter_mut().enumerate() {
                for (j, pixel) in row.iter_mut().enumerate() {
                    let y = (2 * line + i).wrapping_sub(g.pad.0);
                    let x_ = (2 * column + j).wrapping_sub(g.pad.1);
                    if y < g.h && x_ < g.w {
                        *pixel = &x[((image * g.h + y) * g.w + x_) * vectors..][..vectors];
                    }
                }
            }
            for v in 0..vectors {
                let mut piece = [[simd.splat_f32s(0.0); 4]; 4];
                for (piece, pixels) in piece.iter_mut().zip(&pixels) {
                    for (value, pixel) in piece.iter_mut().zip(pixels) {
                        *value = pixel[v];
                    }
                }
                let values = InputTransform::square(simd, piece);
                for (place, &value) in places.iter_mut().zip(values.as_flattened()) {
                    place[tile * vectors + v] = value;
                }
            }
        }
    }
}

/// `A^T m A` of every tile and what is added: `sums: [PLACES, tiles, o]` to `y`, a band's pixels.
pub(super) struct Outputs<'a> {
    pub sums: &'a [f32],
    pub tiles: usize,
    pub add: Epilogue<'a>,
    pub band: &'a Band,
    pub geometry: &'a ConvGeometry,
    pub y: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (o, ow) = (self.geometry.o, self.geometry.ow());
        let vectors = o / S::F32_LANES;
        let lines = pixel_lines(self.band, self.geometry);
        let mut places = [&[][..]; PLACES];
        for (place, sums) in places.iter_mut().zip(self.sums.chunks_exact(self.tiles * o)) {
            *place = S::as_simd_f32s(sums).0;
        }
        let ((bias, _), (y, _)) = (S::as_simd_f32s(self.add.bias), S::as_mut_simd_f32s(self.y));
        let before = band_start(self.band, self.geometry) * ow * o;
        let residual = self.add.residual.map(|r| S::as_simd_f32s(&r[before..]).0);
        let tiles = tiles(self.band, ow.div_ceil(2));
        for (tile, (image, line, column)) in tiles.enumerate() {
            let image = image - self.band.images.start;
            let line = 2 * (line - self.band.lines.start);
            let first = ((image * lines + line) * ow + 2 * column) * vectors;
            // An odd size has no pixel for the last row or column of its last tiles.
            let (down, right) = (line + 1 < lines, 2 * column + 1 < ow);
            for v in 0..vectors {
                let mut piece = [[simd.splat_f32s(0.0); 4]; 4];
                for (value, place) in piece.as_flattened_mut().iter_mut().zip(&places) {
                    *value = place[tile * vectors + v];
                }
                let [[a, b], [c, d]] = OutputTransform::square(simd, piece);
                let at = first + v;
                let below = at + ow * vectors;
                let mut put = |inside: bool, at: usize, value| {
                    if inside {
                        let value = simd.add_f32s(value, bias[v]);
                        y[at] = match residual {
                            Some(residual) => simd.add_f32s(value, residual[at]),
                            None => value,
                        };
                    }
                };
                put(true, at, a);
                put(right, at + vectors, b);
                put(down, below, c);
                put(down && right, below + vectors, d);
            }
        }
    }
}

/// `A dY A^T` of every tile of a band: `gy: [n, oh, ow, o]` to right factors
/// `out: [PLACES, o / COLUMNS, tiles, COLUMNS]`.
pub(super) struct OutputGradients<'a> {
    pub gy: &'a [f32],
    pub band: &'a Band,
    pub geometry: &'a ConvGeometry,
    pub tiles: usize,
    pub out: &'a mut [f32],
}

impl WithSimd for OutputGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (o, oh, ow) = (self.geometry.o, self.geometry.oh(), self.geometry.ow());
        let (vectors, panel) = (o / S::F32_LANES, COLUMNS / S::F32_LANES);
        let (gy, _) = S::as_simd_f32s(self.gy);
        let mut places = places::<S>(self.out, self.tiles * o);
        let outside = vec![simd.splat_f32s(0.0); vectors];
        for (tile, (image, line, column)) in tiles(self.band, ow.div_ceil(2)).enumerate() {
            let mut pixels = [[&outside[..]; 2]; 2];
            for (i, row) in pixels.iter_mut().enumerate() {
                for (j, pixel) in row.iter_mut().enumerate() {
                    let (y, x) = (2 * line + i, 2 * column + j);
                    if y < oh && x < ow {
                        *pixel = &gy[((image * oh + y) * ow + x) * vectors..][..vectors];
                    }
                }
            }
            for v in 0..vectors {
                let [[a, b], [c, d]] = pixels;
                let values = OutputGradient::square(simd, [[a[v], b[v]], [c[v], d[v]]]);
                let at = (v / panel * self.tiles + tile) * panel + v % panel;
                for (place, &value) in places.iter_mut().zip(values.as_flattened()) {
                    place[at] = value;
                }
            }
        }
    }
}

/// `G g G^T` of the kernels of [`COLUMNS`] output channels, `rows: [COLUMNS, c, 9]`, as right
/// factors `out: [PLACES, c, COLUMNS]`.
pub(super) struct Kernels<'a> {
    pub rows: &'a [f32],
    pub c: usize,
    pub out: &'a mut [f32],
}

impl WithSimd for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = COLUMNS / S::F32_LANES;
        let mut places = places::<S>(self.out, self.c * COLUMNS);
        let mut taps = [[0.0; COLUMNS]; 9];
        for channel in 0..self.c {
            for (lane, row) in self.rows.chunks_exact(9 * self.c).enumerate() {
                for (tap, &value) in taps.iter_mut().zip(&row[9 * channel..][..9]) {
                    tap[lane] = value;
                }
            }
            for v in 0..vectors {
                let mut piece = [[simd.splat_f32s(0.0); 3]; 3];
                for (value, tap) in piece.as_flattened_mut().iter_mut().zip(&taps) {
                    *value = S::as_simd_f32s(tap).0[v];
                }
                let values = KernelTransform::square(simd, piece);
                for (place, &value) in places.iter_mut().zip(values.as_flattened()) {
                    place[channel * vectors + v] = value;
                }
            }
        }
    }
}

/// `G^T s G` of one panel of the sums `[PLACES, o / COLUMNS, c, COLUMNS]`: the gradients
/// `rows: [COLUMNS, c, 9]`.
pub(super) struct KernelGradients<'a> {
    pub sums: &'a [f32],
    pub panel: usize,
    pub geometry: &'a ConvGeometry,
    pub rows: &'a mut [f32],
}

impl WithSimd for KernelGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (c, o) = (self.geometry.c, self.geometry.o);
        let vectors = COLUMNS / S::F32_LANES;
        let (sums, _) = S::as_simd_f32s(self.sums);
        let mut taps = [[0.0; COLUMNS]; 9];
        for channel in 0..c {
            for v in 0..vectors {
                let at = (self.panel * c + channel) * vectors + v;
                let mut piece = [[simd.splat_f32s(0.0); 4]; 4];
                for (place, value) in piece.as_flattened_mut().iter_mut().enumerate() {
                    *value = sums[place * o * c / S::F32_LANES + at];
                }
                let values = KernelGradient::square(simd, piece);
                for (tap, &value) in taps.iter_mut().zip(values.as_flattened()) {
                    S::as_mut_simd_f32s(tap).0[v] = value;
                }
            }
            for (lane, row) in self.rows.chunks_exact_mut(9 * c).enumerate() {
                for (value, tap) in row[9 * channel..][..9].iter_mut().zip(&taps) {
                    *value = tap[lane];
                }
            }
        }
    }
}

/// Lines of pixels before a band, those of earlier images included.
fn band_start(band: &Band, g: &ConvGeometry) -> usize {
    band.images.start * g.oh() + 2 * band.lines.start
}

/// Lines of pixels under a band.
pub(super) fn pixel_lines(band: &Band, g: &ConvGeometry) -> usize {
    (2 * band.lines.end).min(g.oh()) - 2 * band.lines.start
}

/// Image, line and column of every tile of a band.
fn tiles(band: &Band, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    band.images.clone().flat_map(move |image| {
        band.lines.clone().flat_map(move |line| (0..width).map(move |x| (image, line, x)))
    })
}

/// The pieces of a buffer that hold one place each.
#[inline(always)]
fn places<S: Simd>(buffer: &mut [f32], size: usize) -> [&mut [S::f32s]; PLACES] {
    let mut places: [&mut [S::f32s]; PLACES] = Default::default();
    for (place, piece) in places.iter_mut().zip(buffer.chunks_exact_mut(size)) {
        *place = S::as_mut_simd_f32s(piece).0;
    }
    places
}
