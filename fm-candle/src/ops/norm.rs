//! GroupNorm, the per-channel affine map that follows it, and SiLU, in one pass over memory.
//!
//! ```text
//! x^ = (x - mean) / sqrt(var + eps)     over one group of channels of one image
//! z  = a x^ + b                         a, b per image and channel
//! y  = z, or z sigmoid(z)
//! ```
//! A plain GroupNorm has `a = gamma`, `b = beta`; with scale-shift conditioning
//! `a = gamma (1 + scale)`, `b = beta (1 + scale) + shift` (upstream's `ResBlock`).

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::real::{Real, elements, slice};

/// What follows the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `z sigmoid(z)`.
    Silu,
}

/// Group normalization with a per-image affine map and an activation.
///
/// # Shapes
/// `x: [n, c, ...]`, `a, b: [n, c]`, result as `x`; `groups` divides `c`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn group_norm(
    x: &Tensor,
    a: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    if x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) {
        return x.contiguous()?.apply_op3(
            &a.contiguous()?,
            &b.contiguous()?,
            GroupNorm { groups, eps, activation },
        );
    }
    let (n, c) = (x.dim(0)?, x.dim(1)?);
    let grouped = x.to_dtype(DType::F32)?.reshape((n, groups, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(2)? + eps)?.sqrt()?;
    let unit = centred.broadcast_div(&deviation)?.reshape((n, c, ()))?.to_dtype(x.dtype())?;
    let z = unit
        .broadcast_mul(&a.reshape((n, c, 1))?)?
        .broadcast_add(&b.reshape((n, c, 1))?)?
        .reshape(x.shape())?;
    match activation {
        Activation::Identity => Ok(z),
        Activation::Silu => z.silu(),
    }
}

/// The op itself; see the module.
struct GroupNorm {
    groups: usize,
    eps: f64,
    activation: Activation,
}

/// Sizes of one call: `n` images of `groups` groups of `channels` channels of `pixels` values.
struct Geometry {
    n: usize,
    groups: usize,
    channels: usize,
    pixels: usize,
}

impl GroupNorm {
    fn geometry(&self, x: &[usize], a: &[usize], b: &[usize]) -> Result<Geometry> {
        let &[n, c, ref rest @ ..] = x else {
            bail!("group norm: input {x:?} needs at least two dimensions")
        };
        if self.groups == 0 || c % self.groups != 0 {
            bail!("group norm: {c} channels cannot be cut into {} groups", self.groups)
        }
        if a != [n, c] || b != [n, c] {
            bail!("group norm: a {a:?} and b {b:?} must be [{n}, {c}]")
        }
        let pixels = rest.iter().product();
        Ok(Geometry { n, groups: self.groups, channels: c / self.groups, pixels })
    }

    fn forward<T: Real>(&self, x: &[T], a: &[T], b: &[T], g: &Geometry) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let size = g.channels * g.pixels;
        if size == 0 {
            return y;
        }
        let (arch, silu) = (Arch::new(), self.activation == Activation::Silu);
        let affine = a.par_chunks(g.channels).zip(b.par_chunks(g.channels));
        y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(affine).with_min_len(8).for_each(
            |((y, x), (a, b))| {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        let (mean, rstd) = statistics(x, self.eps);
                        let rows = y.chunks_exact_mut(g.pixels).zip(x.chunks_exact(g.pixels));
                        for ((y, x), (&a, &b)) in rows.zip(a.iter().zip(b)) {
                            let (scale, shift) = (a * rstd, b - a * rstd * mean);
                            if silu {
                                for (y, &x) in y.iter_mut().zip(x) {
                                    let z = x * scale + shift;
                                    *y = z * z.sigmoid();
                                }
                            } else {
                                for (y, &x) in y.iter_mut().zip(x) {
                                    *y = x * scale + shift;
                                }
                            }
                        }
                    },
                );
            },
        );
        y
    }

    /// `(dx, da, db)`:
    /// `dz = gy act'(z)`, `da = sum dz x^`, `db = sum dz`,
    /// `dx = (a dz - mean(a dz) - x^ mean(a dz x^)) / sqrt(var + eps)`.
    fn backward<T: Real>(
        &self,
        x: &[T],
        a: &[T],
        b: &[T],
        gy: &[T],
        g: &Geometry,
    ) -> (Vec<T>, Vec<T>, Vec<T>) {
        let mut dx = vec![T::zero(); x.len()];
        let (mut da, mut db) = (vec![T::zero(); a.len()], vec![T::zero(); a.len()]);
        let size = g.channels * g.pixels;
        if size == 0 {
            return (dx, da, db);
        }
        let (arch, silu) = (Arch::new(), self.activation == Activation::Silu);
        let count = T::from_f64(size as f64);
        let values = dx.par_chunks_mut(size).zip(x.par_chunks(size)).zip(gy.par_chunks(size));
        let affine = a.par_chunks(g.channels).zip(b.par_chunks(g.channels));
        let sums = da.par_chunks_mut(g.channels).zip(db.par_chunks_mut(g.channels));
        values.zip(affine).zip(sums).with_min_len(8).for_each(
            |((((dx, x), gy), (a, b)), (da, db))| {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        let (mean, rstd) = statistics(x, self.eps);
                        let (mut mean_g, mut mean_gx) = (T::zero(), T::zero());
                        for c in 0..g.channels {
                            let row = c * g.pixels..(c + 1) * g.pixels;
                            let (dx, x, gy) = (&mut dx[row.clone()], &x[row.clone()], &gy[row]);
                            if silu {
                                for ((d, &x), &gy) in dx.iter_mut().zip(x).zip(gy) {
                                    let z = (x - mean) * rstd * a[c] + b[c];
                                    let s = z.sigmoid();
                                    *d = gy * (s + z * s * (T::one() - s));
                                }
                            } else {
                                dx.copy_from_slice(gy);
                            }
                            let sum = lanes_sum(dx, |d, _| d, x);
                            let product = lanes_sum(dx, |d, x| d * (x - mean), x) * rstd;
                            (db[c], da[c]) = (sum, product);
                            mean_g += a[c] * sum / count;
                            mean_gx += a[c] * product / count;
                        }
                        let rows = dx.chunks_exact_mut(g.pixels).zip(x.chunks_exact(g.pixels));
                        for ((dx, x), &a) in rows.zip(a) {
                            for (d, &x) in dx.iter_mut().zip(x) {
                                let unit = (x - mean) * rstd;
                                *d = (*d * a - mean_g - unit * mean_gx) * rstd;
                            }
                        }
                    },
                );
            },
        );
        (dx, da, db)
    }
}

/// Mean and `1 / sqrt(variance + eps)` of a slice, in two passes.
#[inline(always)]
fn statistics<T: Real>(x: &[T], eps: f64) -> (T, T) {
    let count = T::from_f64(x.len() as f64);
    let mean = lanes_sum(x, |x, _| x, x) / count;
    let variance = lanes_sum(x, |x, _| (x - mean) * (x - mean), x) / count;
    (mean, T::one() / (variance + T::from_f64(eps)).sqrt())
}

/// `sum f(x_i, y_i)` in 32 running sums, which become SIMD lanes, added at the end.
#[inline(always)]
fn lanes_sum<T: Real>(x: &[T], f: impl Fn(T, T) -> T, y: &[T]) -> T {
    let mut lanes = [T::zero(); 32];
    let (xs, x_rest) = x.as_chunks::<32>();
    let (ys, y_rest) = y.as_chunks::<32>();
    for (x, y) in xs.iter().zip(ys) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += f(x, y);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane += f(x, y);
    }
    lanes.into_iter().sum()
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry(lx.dims(), la.dims(), lb.dims())?;
        let y = match x {
            CpuStorage::F32(_) => {
                CpuStorage::F32(self.forward(slice(x, lx)?, slice(a, la)?, slice(b, lb)?, &g))
            }
            _ => CpuStorage::F64(self.forward(slice(x, lx)?, slice(a, la)?, slice(b, lb)?, &g)),
        };
        Ok((y, lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F32 => self.gradients::<f32>(x, a, b, gy),
            _ => self.gradients::<f64>(x, a, b, gy),
        }
    }
}

impl GroupNorm {
    fn gradients<T: Real>(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = self.geometry(x.dims(), a.dims(), b.dims())?;
        let gy = gy.contiguous()?;
        let (dx, da, db) = {
            let (sx, sa) = (x.storage_and_layout(), a.storage_and_layout());
            let (sb, sg) = (b.storage_and_layout(), gy.storage_and_layout());
            let (x, a, b) = (elements::<T>(&sx)?, elements(&sa)?, elements(&sb)?);
            self.backward(x, a, b, elements(&sg)?, &g)
        };
        let affine = (g.n, g.groups * g.channels);
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(da, affine, x.device())?),
            Some(Tensor::from_vec(db, affine, x.device())?),
        ))
    }
}
