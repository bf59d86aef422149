//! The sizes of a convolution, and its cutting into bands that threads share.

use core::mem;
use core::ops::Range;

use candle_core::{Result, bail};

/// The sizes of a convolution of maps `[n, h, w, c]` with a kernel `[o, c, kh, kw]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct ConvGeometry {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub o: usize,
    pub kh: usize,
    pub kw: usize,
    /// Distance of the pixels that are computed, in both directions.
    pub stride: usize,
    /// Zeros above and below, and to the left and right.
    pub pad: (usize, usize),
}

impl ConvGeometry {
    /// The sizes for an input and a weight of these shapes, with `pad` as the field.
    pub(super) fn new(
        x: &[usize],
        w: &[usize],
        stride: usize,
        pad: (usize, usize),
    ) -> Result<Self> {
        let (&[n, h, width, c], &[o, wc, kh, kw]) = (x, w) else {
            bail!("conv2d: input {x:?} and weight {w:?} must both have four dimensions")
        };
        if c != wc {
            bail!("conv2d: input {x:?} has {c} channels, weight {w:?} wants {wc}")
        }
        if c == 0 || o == 0 {
            bail!("conv2d: input {x:?} and weight {w:?} must both have channels")
        }
        let small = h + 2 * pad.0 < kh || width + 2 * pad.1 < kw;
        if stride == 0 || kh == 0 || kw == 0 || small {
            bail!("conv2d: input {x:?} is too small for weight {w:?} with padding {pad:?}")
        }
        // Such borders would be zeros only, and the input gradient would need a crop.
        if pad.0 >= kh || pad.1 >= kw {
            bail!("conv2d: padding {pad:?} must be smaller than the kernel, {kh} x {kw}")
        }
        Ok(Self { n, h, w: width, c, o, kh, kw, stride, pad })
    }

    /// Height of the result.
    pub(in crate::ops) fn oh(&self) -> usize {
        (self.h + 2 * self.pad.0 - self.kh) / self.stride + 1
    }

    /// Width of the result.
    pub(in crate::ops) fn ow(&self) -> usize {
        (self.w + 2 * self.pad.1 - self.kw) / self.stride + 1
    }

    /// Weights of one output channel.
    pub(in crate::ops) fn depth(&self) -> usize {
        self.c * self.kh * self.kw
    }

    /// Values of one image of the result.
    pub(super) fn image_out(&self) -> usize {
        self.oh() * self.ow() * self.o
    }

    /// The convolution at stride 1 that takes the result's gradient, zeros between its pixels, to
    /// the input's.
    pub(super) fn adjoint(&self) -> Self {
        let pad = (self.kh - 1 - self.pad.0, self.kw - 1 - self.pad.1);
        let full = Self { stride: 1, ..*self };
        Self { c: self.o, o: self.c, h: full.oh(), w: full.ow(), pad, stride: 1, ..*self }
    }
}

/// Some whole images, or some lines of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Band {
    /// The images.
    pub images: Range<usize>,
    /// The lines in each of them.
    pub lines: Range<usize>,
}

impl Band {
    /// Cuts `n` images of `lines` lines of `width` tiles into bands of about `size` tiles, in
    /// order.
    pub(super) fn cut(n: usize, lines: usize, width: usize, size: usize) -> Vec<Self> {
        let size = size.max(1);
        let group = (size / (lines * width).max(1)).max(1);
        let parts =
            if group > 1 { 1 } else { (lines * width).div_ceil(size).clamp(1, lines.max(1)) };
        let groups = (0..n).step_by(group).map(|first| first..(first + group).min(n));
        let cut = |images: Range<usize>| {
            (0..parts).map(move |part| Self {
                images: images.clone(),
                lines: part * lines / parts..(part + 1) * lines / parts,
            })
        };
        groups.flat_map(cut).collect()
    }

    /// The bands of [`cut`](Self::cut), smaller where threads would be left without one.
    pub(super) fn share(n: usize, lines: usize, width: usize, size: usize) -> Vec<Self> {
        let share = (n * lines * width).div_ceil(rayon::current_num_threads());
        Self::cut(n, lines, width, size.min(share))
    }

    /// Tiles of the band, where a line has `width`.
    pub(super) fn tiles(&self, width: usize) -> usize {
        self.images.len() * self.lines.len() * width
    }
}

/// Cuts `values` into pieces of these lengths, which add up to its own.
pub(super) fn split<T>(
    mut values: &mut [T],
    lengths: impl Iterator<Item = usize>,
) -> impl Iterator<Item = &mut [T]> {
    lengths.map(move |length| {
        let (piece, rest) = mem::take(&mut values).split_at_mut(length);
        values = rest;
        piece
    })
}
