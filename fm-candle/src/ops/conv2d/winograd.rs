//! 3x3 convolutions at stride 1 with 4 multiplications a pixel for 9: Winograd's F(2x2, 3x3).
//!
//! ```text
//! Y  = A^T [ sum over c of (G g G^T) . (B^T d B) ] A       for each 2x2 tile of the result
//! dg = G^T [ sum over tiles of (B^T d B) . (A dY A^T) ] G
//! ```
//! `d` is the 4x4 piece of the input under the tile, `g` the kernel; [`winograd_transforms`] has the matrices.
//! At each of the 16 places of the transformed pieces the sum is a matrix product, over channels
//! in the first case and over tiles in the second.
//!
//! After A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016, Eq. 11.
//!
//! [`winograd_transforms`]: super::tiles

use pulp::Arch;
use rayon::prelude::*;

use super::geometry::{Band, ConvGeometry, split};
use super::product::{COLUMNS, ProductOutput, Start, product, product_of_transposed};
use super::weight_source::{Epilogue, WeightSource};
use super::winograd_transforms::{
    Inputs, KernelGradients, Kernels, OutputGradients, Outputs, PLACES, pixel_lines,
};
use crate::ops::scratch::scratch;

/// Tiles of a band: enough rows for the products, few enough for the L2 cache.
const TILES: usize = 64;
/// Tiles whose weight gradients are summed at once: few enough for the L3 cache.
const GRADIENT_TILES: usize = 256;

/// Returns true if Winograd computes the convolution: 3x3, stride 1, channels by [`COLUMNS`].
pub(super) fn fits(g: &ConvGeometry) -> bool {
    let whole = g.c.is_multiple_of(COLUMNS) && g.o.is_multiple_of(COLUMNS) && g.c > 0 && g.o > 0;
    (g.kh, g.kw, g.stride) == (3, 3, 1) && whole
}

/// `y`, `[n, oh, ow, o]`.
pub(super) fn forward(
    x: &[f32],
    weight: &dyn WeightSource,
    add: Epilogue<'_>,
    g: &ConvGeometry,
) -> Vec<f32> {
    scratch(g.o * PLACES * g.c, |kernels| {
        transform_kernels(weight, g, kernels);
        multiply(x, kernels, add, g)
    })
}

/// Transformed kernels as right factors, `[o / COLUMNS, PLACES, c, COLUMNS]`.
fn transform_kernels(weight: &dyn WeightSource, g: &ConvGeometry, kernels: &mut [f32]) {
    kernels.par_chunks_mut(COLUMNS * PLACES * g.c).enumerate().for_each(|(panel, out)| {
        let first = panel * COLUMNS;
        scratch(COLUMNS * g.depth(), |buffer| {
            let rows = weight.rows(first..first + COLUMNS, buffer);
            Arch::new().dispatch(Kernels { rows, c: g.c, out });
        });
    });
}

/// The convolution with transformed kernels.
fn multiply(x: &[f32], kernels: &[f32], add: Epilogue<'_>, g: &ConvGeometry) -> Vec<f32> {
    let (height, width) = (g.oh().div_ceil(2), g.ow().div_ceil(2));
    let mut y = vec![0.0; g.n * g.image_out()];
    let bands = Band::share(g.n, height, width, TILES);
    let lengths = bands.iter().map(|b| b.images.len() * pixel_lines(b, g) * g.ow() * g.o);
    let jobs: Vec<_> = split(&mut y, lengths).zip(&bands).collect();
    jobs.into_par_iter().for_each(|(y, band)| {
        let tiles = band.tiles(width);
        scratch(PLACES * tiles * (g.c + g.o), |buffer| {
            let (inputs, sums) = buffer.split_at_mut(PLACES * tiles * g.c);
            let arch = Arch::new();
            arch.dispatch(Inputs { x, band, geometry: g, tiles, out: inputs });
            let places = inputs.chunks_exact(tiles * g.c).zip(sums.chunks_exact_mut(tiles * g.o));
            let depth = g.c * COLUMNS;
            for (place, (inputs, sums)) in places.enumerate() {
                for (panel, kernels) in kernels.chunks_exact(PLACES * depth).enumerate() {
                    let target = ProductOutput {
                        dst: &mut sums[panel * COLUMNS..],
                        stride: g.o,
                        rows: tiles,
                        columns: COLUMNS,
                        start: Start::Zero,
                    };
                    product(inputs, &kernels[place * depth..][..depth], target);
                }
            }
            arch.dispatch(Outputs { sums, tiles, add, band, geometry: g, y: &mut *y });
            add.rectify(y);
        });
    });
    y
}

/// `dw`, `[o, c, 3, 3]`.
pub(super) fn weight_gradient(x: &[f32], gy: &[f32], g: &ConvGeometry) -> Vec<f32> {
    let arch = Arch::new();
    let (height, width) = (g.oh().div_ceil(2), g.ow().div_ceil(2));
    let (panels, depth) = (g.o / COLUMNS, g.c * COLUMNS);
    let mut sums = vec![0.0; PLACES * panels * depth];
    let bands = Band::share(g.n, height, width, TILES);
    let group = (GRADIENT_TILES / bands.first().map_or(1, |band| band.tiles(width)).max(1)).max(1);
    let mut buffers = vec![<[Vec<f32>; 2]>::default(); group.min(bands.len())];
    for bands in bands.chunks(group) {
        buffers.par_iter_mut().zip(bands).for_each(|([inputs, gradients], band)| {
            let tiles = band.tiles(width);
            inputs.resize(PLACES * tiles * g.c, 0.0);
            gradients.resize(PLACES * tiles * g.o, 0.0);
            arch.dispatch(Inputs { x, band, geometry: g, tiles, out: inputs });
            arch.dispatch(OutputGradients { gy, band, geometry: g, tiles, out: gradients });
        });
        // A place's panels stay together, so that its tiles are read from memory once.
        sums.par_chunks_mut(panels * depth).enumerate().for_each(|(place, sums)| {
            for ([inputs, gradients], band) in buffers.iter().zip(bands) {
                let tiles = band.tiles(width);
                let inputs = &inputs[place * tiles * g.c..][..tiles * g.c];
                let gradients = &gradients[place * tiles * g.o..][..tiles * g.o];
                let panels = gradients.chunks_exact(tiles * COLUMNS);
                for (sums, gradients) in sums.chunks_exact_mut(depth).zip(panels) {
                    let target = ProductOutput {
                        dst: sums,
                        stride: COLUMNS,
                        rows: g.c,
                        columns: COLUMNS,
                        start: Start::Target,
                    };
                    product_of_transposed(inputs, g.c, gradients, target);
                }
            }
        });
    }
    let mut dw = vec![0.0; g.o * g.c * 9];
    dw.par_chunks_mut(COLUMNS * g.c * 9).enumerate().for_each(|(panel, rows)| {
        arch.dispatch(KernelGradients { sums: &sums, panel, geometry: g, rows });
    });
    dw
}
