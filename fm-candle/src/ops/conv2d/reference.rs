//! The convolution by its definition, for every float type: what the fast ways are held to.

use super::geometry::ConvGeometry;
use crate::ops::real::Real;

/// Calls `f(pixel of the result, pixel of the input, tap)` for all that meet.
fn meetings(g: &ConvGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (g.oh(), g.ow());
    for pixel in 0..g.n * oh * ow {
        let (image, line, column) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
        for tap in 0..g.kh * g.kw {
            let y = (line * g.stride + tap / g.kw).wrapping_sub(g.pad.0);
            let x = (column * g.stride + tap % g.kw).wrapping_sub(g.pad.1);
            if y < g.h && x < g.w {
                f(pixel, (image * g.h + y) * g.w + x, tap);
            }
        }
    }
}

/// `y[p, o] = b[o] + sum of x[q, c] w[o, c, tap]`.
pub(super) fn forward<T: Real>(x: &[T], w: &[T], b: &[T], g: &ConvGeometry) -> Vec<T> {
    let taps = g.kh * g.kw;
    let mut y = b.repeat(g.n * g.oh() * g.ow());
    meetings(g, |p, q, tap| {
        let (y, x) = (&mut y[p * g.o..][..g.o], &x[q * g.c..][..g.c]);
        for (y, w) in y.iter_mut().zip(w.chunks_exact(g.c * taps)) {
            for (&x, w) in x.iter().zip(w.chunks_exact(taps)) {
                *y += x * w[tap];
            }
        }
    });
    y
}

/// `dw[o, c, tap] = sum of gy[p, o] x[q, c]`.
pub(super) fn weight_gradient<T: Real>(x: &[T], gy: &[T], g: &ConvGeometry) -> Vec<T> {
    let taps = g.kh * g.kw;
    let mut dw = vec![T::zero(); g.o * g.c * taps];
    meetings(g, |p, q, tap| {
        let (gy, x) = (&gy[p * g.o..][..g.o], &x[q * g.c..][..g.c]);
        for (dw, &gy) in dw.chunks_exact_mut(g.c * taps).zip(gy) {
            for (dw, &x) in dw.chunks_exact_mut(taps).zip(x) {
                dw[tap] += gy * x;
            }
        }
    });
    dw
}
