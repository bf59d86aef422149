//! Products of f32 matrices in register tiles, on the widest SIMD of the machine.
//!
//! The right factor comes in *panels* of [`COLUMNS`] columns, `[depth][COLUMNS]`, zero where the
//! matrix has fewer; a panel of the usual depths stays in the L1 cache while all rows of the left
//! factor pass. The sums of [`ROWS`] rows live in registers, all columns at once with AVX-512 and
//! in parts elsewhere, and are added up in the order of the depth.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile.
pub(super) const ROWS: usize = 8;
/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;

/// The target of a product.
pub(super) struct ProductOutput<'a> {
    /// Row `i` begins at `i * stride`.
    pub dst: &'a mut [f32],
    /// Distance of the rows, at least `columns`.
    pub stride: usize,
    /// Rows to write; the product may have more.
    pub rows: usize,
    /// Columns to write, at most [`COLUMNS`].
    pub columns: usize,
    /// The initial value of the sums.
    pub start: Start<'a>,
}

/// The initial value of the sums of a product.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Zero.
    Zero,
    /// A value for each column.
    Row(&'a [f32; COLUMNS]),
    /// The values in the target.
    Target,
}

/// `dst = start + left panel`.
///
/// # Shapes
/// `left: [rows, depth]`, at least `target.rows` of them; `panel: [depth, COLUMNS]`.
pub(super) fn product(left: &[f32], panel: &[f32], target: ProductOutput<'_>) {
    let depth = panel.len() / COLUMNS;
    Arch::new().dispatch(Product { left, kind: Left::Plain, stride: depth, panel, target });
}

/// `dst = start + left^T panel`.
///
/// # Shapes
/// `left: [depth, stride]`, whose first columns are taken, at least `target.rows` rounded up to
/// whole tiles; `panel: [depth, COLUMNS]`.
pub(super) fn product_of_transposed(
    left: &[f32],
    stride: usize,
    panel: &[f32],
    target: ProductOutput<'_>,
) {
    Arch::new().dispatch(Product { left, kind: Left::Transposed, stride, panel, target });
}

#[derive(Clone, Copy)]
enum Left {
    Plain,
    Transposed,
}

struct Product<'a> {
    left: &'a [f32],
    kind: Left,
    stride: usize,
    panel: &'a [f32],
    target: ProductOutput<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as the registers hold beside the factors.
        if S::F32_LANES >= 16 { self.tiles::<S, 8, 2>(simd) } else { self.tiles::<S, 4, 2>(simd) }
    }
}

impl Product<'_> {
    /// The product in tiles of `R` rows and `V` vectors.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const V: usize>(mut self, simd: S) {
        let vectors = COLUMNS / S::F32_LANES;
        let (panel, _) = S::as_simd_f32s(self.panel);
        for row in (0..self.target.rows).step_by(R) {
            for vector in (0..vectors).step_by(V) {
                let mut tile = self.target.start::<S, R, V>(simd, row, vector);
                let panel = panel.chunks_exact(vectors).map(|right| &right[vector..vector + V]);
                match self.kind {
                    Left::Plain => {
                        // Rows beyond the last are not written: any will do.
                        let rows: [&[f32]; R] = core::array::from_fn(|i| {
                            let row = (row + i).min(self.target.rows - 1);
                            &self.left[row * self.stride..][..self.stride]
                        });
                        for (k, right) in panel.enumerate().take(self.stride) {
                            tile.add(simd, |i| rows[i][k], right);
                        }
                    }
                    Left::Transposed => {
                        for (left, right) in self.left.chunks_exact(self.stride).zip(panel) {
                            let left = &left[row..row + R];
                            tile.add(simd, |i| left[i], right);
                        }
                    }
                }
                self.target.store(simd, row, vector, tile);
            }
        }
    }
}

/// `R x V` vectors of sums.
struct Tile<S: Simd, const R: usize, const V: usize>([[S::f32s; V]; R]);

impl<S: Simd, const R: usize, const V: usize> Tile<S, R, V> {
    /// Adds `left(i) * right[j]` to sum `(i, j)`.
    #[inline(always)]
    fn add(&mut self, simd: S, left: impl Fn(usize) -> f32, right: &[S::f32s]) {
        for (i, sums) in self.0.iter_mut().enumerate() {
            let left = simd.splat_f32s(left(i));
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(left, right, *sum);
            }
        }
    }
}

impl ProductOutput<'_> {
    /// The sums' first values for the tile at this row and vector.
    #[inline(always)]
    fn start<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        vector: usize,
    ) -> Tile<S, R, V> {
        let mut tile = Tile([[simd.splat_f32s(0.0); V]; R]);
        match self.start {
            Start::Zero => {}
            Start::Row(values) => {
                let (values, _) = S::as_simd_f32s(values);
                tile.0.fill(core::array::from_fn(|j| values[vector + j]));
            }
            Start::Target => {
                for (i, sums) in tile.0.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.partial_load_f32s(self.piece::<S>(row + i, vector + j));
                    }
                }
            }
        }
        tile
    }

    /// Writes a tile, as far as the target reaches.
    #[inline(always)]
    fn store<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        vector: usize,
        Tile(tile): Tile<S, R, V>,
    ) {
        if self.columns == COLUMNS && row + R <= self.rows {
            for (i, sums) in tile.into_iter().enumerate() {
                let row = &mut self.dst[(row + i) * self.stride..][..COLUMNS];
                let (row, _) = S::as_mut_simd_f32s(row);
                row[vector..vector + V].copy_from_slice(&sums);
            }
            return;
        }
        for (i, sums) in tile.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                simd.partial_store_f32s(self.piece::<S>(row + i, vector + j), sum);
            }
        }
    }

    /// The values of a row that a vector covers; none beyond the target.
    #[inline(always)]
    fn piece<S: Simd>(&mut self, row: usize, vector: usize) -> &mut [f32] {
        let columns = if row < self.rows { self.columns } else { 0 };
        let first = (vector * S::F32_LANES).min(columns);
        let last = (first + S::F32_LANES).min(columns);
        &mut self.dst[row.min(self.rows - 1) * self.stride..][first..last]
    }
}

#[cfg(test)]
mod tests {
    use pulp::Scalar;

    use super::*;

    /// Small whole numbers, whose products and sums are exact.
    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + salt) % 17) as f32 - 8.0).collect()
    }

    /// Calls `run` with what has every SIMD width that this machine has.
    fn on_every_width(mut run: impl FnMut(&mut dyn FnMut(Product<'_>))) {
        run(&mut |product| Arch::new().dispatch(product));
        run(&mut |product| Simd::vectorize(Scalar::new(), product));
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            run(&mut |product| Simd::vectorize(avx2, product));
        }
    }

    #[test]
    fn products_are_exact_and_stay_in_their_target() {
        const SENTINEL: f32 = 0.25;
        let bias: [f32; COLUMNS] = values(COLUMNS, 5).try_into().unwrap();
        for (rows, depth, columns) in
            [(1usize, 3, 32), (8, 9, 32), (13, 1, 17), (21, 40, 1), (5, 0, 20)]
        {
            let (panel, stride) = (values(depth * COLUMNS, 2), columns + 3);
            for kind in [Left::Plain, Left::Transposed] {
                // A transposed factor has whole tiles of columns.
                let width = rows.next_multiple_of(ROWS);
                let (left, left_stride) = match kind {
                    Left::Plain => (values(rows * depth, 1), depth),
                    Left::Transposed => (values(depth * width, 1), width),
                };
                for start in [Start::Zero, Start::Row(&bias), Start::Target] {
                    on_every_width(|run| {
                        let mut dst = vec![SENTINEL; rows * stride];
                        let target = ProductOutput { dst: &mut dst, stride, rows, columns, start };
                        run(Product {
                            left: &left,
                            kind,
                            stride: left_stride,
                            panel: &panel,
                            target,
                        });
                        for (i, row) in dst.chunks(stride).enumerate() {
                            for (j, &found) in row.iter().enumerate() {
                                let factor = |k: usize| match kind {
                                    Left::Plain => left[i * depth + k],
                                    Left::Transposed => left[k * width + i],
                                };
                                let sum = |k: usize| factor(k) * panel[k * COLUMNS + j];
                                let expected = match start {
                                    _ if j >= columns => SENTINEL,
                                    Start::Zero => (0..depth).map(sum).sum(),
                                    Start::Row(bias) => bias[j] + (0..depth).map(sum).sum::<f32>(),
                                    Start::Target => SENTINEL + (0..depth).map(sum).sum::<f32>(),
                                };
                                assert_eq!(found, expected, "{rows} {depth} {columns}: {i} {j}");
                            }
                        }
                    });
                }
            }
        }
    }
}
