//! Self-attention over pixels, without a tensor of scores.
//!
//! ```text
//! S = q k^T / sqrt(width)       per image and head, [queries, keys]
//! A = softmax(S)                over the keys
//! o = A v
//! ```
//! The kernel takes the queries in blocks of [`ROWS`] and holds the scores of one block only, keys
//! by queries: each query is a SIMD lane of the softmax, and the products read keys and values
//! where they lie. The gradient computes the scores again.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::{Mat, gemm};
use super::real::{elements, is_ours, slice};
use super::simd::Lanes;
use super::softmax::softmax;

/// Queries of a block.
const ROWS: usize = 64;

/// The order of the channels of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvOrder {
    /// `[3, heads, width]`: upstream's new order.
    Parts,
    /// `[heads, 3, width]`: upstream's legacy order.
    Heads,
}

/// Attention of every pixel to all pixels of its image, head by head.
///
/// # Shapes
/// `qkv: [n, p, 3 c]` for `p` pixels, result `[n, p, c]`; `heads` divides `c`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn attention(qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Tensor> {
    if is_ours(qkv) {
        return qkv.contiguous()?.apply_op1(Attention { heads, order });
    }
    composite(qkv, heads, order)
}

/// [`attention`] by candle's operations, with the softmax in f32 at least.
pub(super) fn composite(qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Tensor> {
    let g = Attention { heads, order }.geometry(qkv.dims())?;
    let (heads, axis) = match order {
        QkvOrder::Parts => (qkv.reshape((g.n, g.pixels, 3, g.heads, g.width))?, 2),
        QkvOrder::Heads => (qkv.reshape((g.n, g.pixels, g.heads, 3, g.width))?, 3),
    };
    // [n, heads, pixels, width]
    let part = |i: usize| heads.narrow(axis, i, 1)?.squeeze(axis)?.transpose(1, 2)?.contiguous();
    let scale = (g.width as f64).powf(-0.25);
    let (q, k) = ((part(0)? * scale)?, (part(1)? * scale)?);
    let scores = q.matmul(&k.t()?)?;
    let mixed = softmax(&scores)?.matmul(&part(2)?)?.transpose(1, 2)?;
    mixed.reshape((g.n, g.pixels, g.heads * g.width))
}

/// The op itself; see the module.
struct Attention {
    heads: usize,
    order: QkvOrder,
}

/// Sizes of one call: `n` images of `pixels` pixels with `heads` heads of `width` channels.
struct AttentionGeometry {
    n: usize,
    pixels: usize,
    heads: usize,
    width: usize,
    /// Channels from one head's queries to the next one's.
    head: usize,
    /// Channels from a head's queries to its keys, and from those to its values.
    part: usize,
}

/// Some pixels of an image.
struct PixelRange {
    first: usize,
    count: usize,
}

impl AttentionGeometry {
    /// Channels of the result.
    fn channels(&self) -> usize {
        self.heads * self.width
    }

    fn all(&self) -> PixelRange {
        PixelRange { first: 0, count: self.pixels }
    }

    fn block(&self, i: usize) -> PixelRange {
        let first = i * ROWS;
        PixelRange { first, count: ROWS.min(self.pixels - first) }
    }

    /// Queries (`part` 0), keys (1) or values (2) of a head.
    ///
    /// # Shapes: `image: [pixels, 3 c]`, result `[rows, width]`
    fn part<'a, T>(
        &self,
        image: &'a [T],
        head: usize,
        part: usize,
        rows: &PixelRange,
    ) -> Mat<'a, T> {
        let stride = 3 * self.channels();
        let start = rows.first * stride + head * self.head + part * self.part;
        Mat::new(&image[start..], rows.count, self.width, stride)
    }

    /// `A^T` of a block of queries.
    ///
    /// # Shapes: `image: [pixels, 3 c]`, `weights: [pixels, ROWS]`, of which the block's columns
    fn weights<T: Lanes>(&self, image: &[T], head: usize, block: &PixelRange, weights: &mut [T]) {
        let (q, k) = (self.part(image, head, 0, block), self.part(image, head, 1, &self.all()));
        gemm(k, q.t(), weights, ROWS, false);
        let (rows, scale) = (weights.as_chunks_mut().0, T::from_f64(self.scale()));
        Arch::new().dispatch(SoftmaxOfColumns { rows, scale });
    }

    /// Factor of the scores.
    fn scale(&self) -> f64 {
        (self.width as f64).sqrt().recip()
    }
}

impl Attention {
    fn geometry(&self, qkv: &[usize]) -> Result<AttentionGeometry> {
        let (heads, &[n, pixels, channels]) = (self.heads, qkv) else {
            bail!("attention: input {qkv:?} needs three dimensions")
        };
        if heads == 0 || channels % (3 * heads) != 0 {
            bail!("attention: {channels} channels cannot be cut into 3 parts of {heads} heads")
        }
        let width = channels / (3 * heads);
        let (head, part) = match self.order {
            QkvOrder::Parts => (width, heads * width),
            QkvOrder::Heads => (3 * width, width),
        };
        Ok(AttentionGeometry { n, pixels, heads, width, head, part })
    }
}

/// `o`, in jobs of a block of queries.
fn forward<T: Lanes>(qkv: &[T], g: &AttentionGeometry) -> Vec<T> {
    let (pixels, channels) = (g.pixels, g.channels());
    let mut y = vec![T::zero(); g.n * pixels * channels];
    if y.is_empty() {
        return y;
    }
    let images = y.par_chunks_mut(pixels * channels).zip(qkv.par_chunks(3 * pixels * channels));
    images.for_each(|(y, image)| {
        y.par_chunks_mut(ROWS * channels).enumerate().for_each(|(i, y)| {
            let block = g.block(i);
            let mut weights = vec![T::zero(); pixels * ROWS];
            for head in 0..g.heads {
                g.weights(image, head, &block, &mut weights);
                let a = Mat::new(&weights, pixels, block.count, ROWS).t();
                let v = g.part(image, head, 2, &g.all());
                gemm(a, v, &mut y[head * g.width..], channels, false);
            }
        });
    });
    y
}

/// The gradient of `qkv`, in jobs of a head of an image:
/// `dv = A^T do`, `dA = do v^T`, `dS = A (dA - sum_keys(A dA))`,
/// `dq = dS k / sqrt(width)`, `dk = dS^T q / sqrt(width)`.
fn backward<T: Lanes>(qkv: &[T], gy: &[T], g: &AttentionGeometry) -> Vec<T> {
    let (pixels, width, channels) = (g.pixels, g.width, g.channels());
    let mut result = vec![T::zero(); qkv.len()];
    if result.is_empty() {
        return result;
    }
    // [n, heads, 3, pixels, width]
    let mut parts = vec![T::zero(); qkv.len()];
    let part = pixels * width;
    parts.par_chunks_mut(3 * part).enumerate().for_each(|(i, parts)| {
        let (image, head) = (i / g.heads, i % g.heads);
        let gy = &gy[image * pixels * channels + head * width..];
        let image = &qkv[image * 3 * pixels * channels..][..3 * pixels * channels];
        head_backward(image, gy, head, g, parts);
    });
    result.par_chunks_mut(3 * channels).with_min_len(64).enumerate().for_each(|(row, result)| {
        let (image, pixel) = (row / pixels, row % pixels);
        for head in 0..g.heads {
            for i in 0..3 {
                let from = ((image * g.heads + head) * 3 + i) * part + pixel * width;
                let to = head * g.head + i * g.part;
                result[to..to + width].copy_from_slice(&parts[from..from + width]);
            }
        }
    });
    result
}

/// The gradients of one head's queries, keys and values, added to `parts`.
///
/// # Shapes
/// `image: [pixels, 3 c]`; `gy: [pixels, c]`, from the head's first channel on;
/// `parts: [3, pixels, width]`.
fn head_backward<T: Lanes>(
    image: &[T],
    gy: &[T],
    head: usize,
    g: &AttentionGeometry,
    parts: &mut [T],
) {
    let (pixels, width, channels) = (g.pixels, g.width, g.channels());
    let (dq, rest) = parts.split_at_mut(pixels * width);
    let (dk, dv) = rest.split_at_mut(pixels * width);
    let (k, v) = (g.part(image, head, 1, &g.all()), g.part(image, head, 2, &g.all()));
    let mut weights = vec![T::zero(); pixels * ROWS];
    let mut slopes = weights.clone();
    let scale = T::from_f64(g.scale());
    for i in 0..pixels.div_ceil(ROWS) {
        let block = g.block(i);
        g.weights(image, head, &block, &mut weights);
        let gy = Mat::new(&gy[block.first * channels..], block.count, width, channels);
        gemm(Mat::new(&weights, pixels, block.count, ROWS), gy, dv, width, true);
        gemm(v, gy.t(), &mut slopes, ROWS, false);
        Arch::new().dispatch(
            #[inline(always)]
            || softmax_backward(weights.as_chunks().0, slopes.as_chunks_mut().0, scale),
        );
        let slopes = Mat::new(&slopes, pixels, block.count, ROWS);
        gemm(slopes.t(), k, &mut dq[block.first * width..], width, true);
        gemm(slopes, g.part(image, head, 0, &block), dk, width, true);
    }
}

/// `softmax(scale s)` of every column, in place.
struct SoftmaxOfColumns<'a, T> {
    rows: &'a mut [[T; ROWS]],
    scale: T,
}

impl<T: Lanes> WithSimd for SoftmaxOfColumns<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut highest = self.rows[0];
        for row in &*self.rows {
            for (highest, &value) in highest.iter_mut().zip(row) {
                *highest = if value > *highest { value } else { *highest };
            }
        }
        let scale = T::splat(simd, self.scale);
        let mut sums = [T::zero(); ROWS];
        for row in &mut *self.rows {
            let (row, _) = T::registers_mut::<S>(row);
            let (sums, _) = T::registers_mut::<S>(&mut sums);
            let (highest, _) = T::registers::<S>(&highest);
            for i in 0..row.len() {
                row[i] = T::exp(simd, T::times(simd, T::minus(simd, row[i], highest[i]), scale));
                sums[i] = T::plus(simd, sums[i], row[i]);
            }
        }
        for sum in &mut sums {
            *sum = T::one() / *sum;
        }
        for row in self.rows {
            for (value, &factor) in row.iter_mut().zip(&sums) {
                *value *= factor;
            }
        }
    }
}

/// `slope <- scale weight (slope - sum(weight slope))` in every column.
#[inline(always)]
fn softmax_backward<T: Lanes>(weights: &[[T; ROWS]], slopes: &mut [[T; ROWS]], scale: T) {
    let mut sums = [T::zero(); ROWS];
    for (weights, slopes) in weights.iter().zip(&*slopes) {
        for ((sum, &weight), &slope) in sums.iter_mut().zip(weights).zip(slopes) {
            *sum += weight * slope;
        }
    }
    for (weights, slopes) in weights.iter().zip(slopes) {
        for ((slope, &weight), &sum) in slopes.iter_mut().zip(weights).zip(&sums) {
            *slope = scale * weight * (*slope - sum);
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry(layout.dims())?;
        let y = match qkv {
            CpuStorage::F32(_) => CpuStorage::F32(forward(slice(qkv, layout)?, &g)),
            _ => CpuStorage::F64(forward(slice(qkv, layout)?, &g)),
        };
        Ok((y, (g.n, g.pixels, g.channels()).into()))
    }

    fn bwd(&self, qkv: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        match qkv.dtype() {
            DType::F32 => self.gradient::<f32>(qkv, gy),
            _ => self.gradient::<f64>(qkv, gy),
        }
    }
}

impl Attention {
    fn gradient<T: Lanes>(&self, qkv: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        let g = self.geometry(qkv.dims())?;
        let gy = gy.contiguous()?;
        let result = {
            let (sx, sg) = (qkv.storage_and_layout(), gy.storage_and_layout());
            backward::<T>(elements(&sx)?, elements(&sg)?, &g)
        };
        Ok(Some(Tensor::from_vec(result, qkv.shape(), qkv.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Irregular values of a few units, so that the softmax is far from uniform.
    fn irregular(n: usize, pixels: usize, channels: usize) -> Tensor {
        let count = n * pixels * channels;
        let values: Vec<f32> = (0..count).map(|i| 2.0 * (i as f32 * 0.7391).sin()).collect();
        Tensor::from_vec(values, (n, pixels, channels), &Device::Cpu).unwrap()
    }

    #[test]
    fn equals_the_composite_in_values_and_gradients() {
        for (n, pixels, channels, heads) in [(2, 256, 64, 1), (1, 256, 64, 4), (3, 49, 24, 2)] {
            for order in [QkvOrder::Parts, QkvOrder::Heads] {
                let x = irregular(n, pixels, 3 * channels);
                let x = candle_core::Var::from_tensor(&x).unwrap();
                let run = |y: Tensor| {
                    let r = irregular(n, pixels, channels);
                    let loss = (&y * r).unwrap().sum_all().unwrap();
                    (y, loss.backward().unwrap().get(&x).unwrap().clone())
                };
                let (ours, our_gradient) = run(attention(&x, heads, order).unwrap());
                let (theirs, their_gradient) = run(composite(&x, heads, order).unwrap());
                for (ours, theirs) in [(ours, theirs), (our_gradient, their_gradient)] {
                    let scale = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>();
                    let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
                    let difference = difference.to_scalar::<f32>().unwrap();
                    assert!(difference < 1e-5 * scale.unwrap(), "{order:?}: {difference}");
                }
            }
        }
    }

    #[test]
    fn does_not_depend_on_the_number_of_threads() {
        let (x, gy) = (irregular(1, 150, 96), irregular(1, 150, 32));
        let op = Attention { heads: 2, order: QkvOrder::Heads };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = attention(&x, op.heads, op.order).unwrap();
                let gradient = op.gradient::<f32>(&x, &gy).unwrap().unwrap();
                [y, gradient].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            })
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(attention(&irregular(1, 4, 10), 1, QkvOrder::Parts).is_err());
        assert!(attention(&irregular(1, 4, 12), 3, QkvOrder::Parts).is_err());
        assert!(attention(&irregular(1, 4, 12), 0, QkvOrder::Heads).is_err());
        assert!(attention(&irregular(1, 4, 12).squeeze(0).unwrap(), 1, QkvOrder::Heads).is_err());
    }
}
