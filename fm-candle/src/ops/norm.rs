//! GroupNorm, the per-channel affine map that follows it, and SiLU.
//!
//! ```text
//! x^ = (x - mean) / sqrt(var + eps)     over one group of channels of one image
//! z  = a x^ + b                         a, b per image and channel
//! y  = z, or z sigmoid(z)
//! ```
//! A plain GroupNorm has `a = gamma`, `b = beta`; with scale-shift conditioning
//! `a = gamma (1 + scale)`, `b = beta (1 + scale) + shift` (upstream's `ResBlock`).
//!
//! Two passes over memory, one for the moments and one for the result, both by blocks of pixels
//! that fit a cache; the gradient takes two more.

#[cfg(feature = "cuda")]
mod gpu;
mod passes;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};

use super::real::{elements, is_ours, slice, wide};
use super::simd::Lanes;
use passes::{GroupMoments, NormGeometry};

/// The activation after the normalization.
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
/// `x: [n, .., c]`, `a, b: [n, c]`, result as `x`; `groups` divides `c`.
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
    let op = GroupNorm::new(groups, eps, activation);
    op.geometry(x.dims(), a.dims(), b.dims())?;
    #[cfg(feature = "cuda")]
    if has_kernel(x) {
        return op.on_gpu(x, &Tensor::cat(&[a, b], 1)?);
    }
    if is_ours(x) {
        return x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, op);
    }
    composite(x, a, b, &op)
}

/// Group normalization with weights shared by all images and, where there is an embedding of
/// scales, then shifts, `a = weight (1 + scale)` and `b = bias (1 + scale) + shift`.
///
/// # Shapes
/// `x: [n, .., c]`, `weight, bias: [c]`, `embedding: [n, 2 c]`, result as `x`.
///
/// # Errors
/// As [`group_norm`].
pub fn modulated_group_norm(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    embedding: Option<&Tensor>,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let (n, c) = (x.dim(0)?, x.dim(D::Minus1)?);
    #[cfg(feature = "cuda")]
    if has_kernel(x) {
        let ab = gpu::modulate(n, embedding, weight, bias)?;
        return GroupNorm::new(groups, eps, activation).on_gpu(x, &ab);
    }
    let (a, b) = match embedding {
        None => (weight.broadcast_as((n, c))?, bias.broadcast_as((n, c))?),
        Some(embedding) => {
            let gain = (embedding.narrow(1, 0, c)? + 1.0)?;
            let shift = embedding.narrow(1, c, c)?;
            (gain.broadcast_mul(weight)?, (gain.broadcast_mul(bias)? + shift)?)
        }
    };
    group_norm(x, &a, &b, groups, eps, activation)
}

/// Returns true if the GPU kernels serve a tensor.
pub(super) fn has_kernel(x: &Tensor) -> bool {
    let types = matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16);
    cfg!(feature = "cuda") && x.device().is_cuda() && types && x.elem_count() > 0
}

/// [`group_norm`] by candle's operations, in f32 at least.
pub(super) fn composite(x: &Tensor, a: &Tensor, b: &Tensor, op: &GroupNorm) -> Result<Tensor> {
    let g = op.geometry(x.dims(), a.dims(), b.dims())?;
    let wide = wide(x.dtype());
    let affine = |t: &Tensor| t.to_dtype(wide)?.reshape((g.n, 1, g.c()));
    let grouped = x.to_dtype(wide)?.reshape((g.n, g.pixels, g.groups, g.channels))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim((1, 3))?)?;
    let deviation = (centred.sqr()?.mean_keepdim((1, 3))? + op.eps)?.sqrt()?;
    let unit = centred.broadcast_div(&deviation)?.reshape((g.n, g.pixels, g.c()))?;
    let z = unit.broadcast_mul(&affine(a)?)?.broadcast_add(&affine(b)?)?;
    let y = match op.activation {
        Activation::Identity => z,
        Activation::Silu => z.silu()?,
    };
    y.to_dtype(x.dtype())?.reshape(x.shape())
}

/// The op itself; see the module.
pub(super) struct GroupNorm {
    groups: usize,
    eps: f64,
    activation: Activation,
    /// Of `x`, from the forward pass for the backward one: `[n, groups]`.
    moments: OnceLock<Vec<GroupMoments>>,
}

impl GroupNorm {
    /// [`group_norm`] by the GPU kernel, with a row of `a`, then of `b`, for each image.
    ///
    /// # Shapes: `x: [n, .., c]`, `ab: [n, 2 c]`, result as `x`
    #[cfg(feature = "cuda")]
    fn on_gpu(&self, x: &Tensor, ab: &Tensor) -> Result<Tensor> {
        let (n, c) = ab.dims2()?;
        let affine = [n, c / 2];
        let g = self.geometry(x.dims(), &affine, &affine)?;
        let sizes = super::cuda::Norm {
            n: g.n,
            pixels: g.pixels,
            c: g.c(),
            groups: g.groups,
            eps: self.eps,
            silu: self.activation == Activation::Silu,
        };
        gpu::norm(x, ab, sizes)
    }

    pub(super) fn new(groups: usize, eps: f64, activation: Activation) -> Self {
        Self { groups, eps, activation, moments: OnceLock::new() }
    }

    fn geometry(&self, x: &[usize], a: &[usize], b: &[usize]) -> Result<NormGeometry> {
        let &[n, ref rest @ .., c] = x else {
            bail!("group norm: input {x:?} needs at least two dimensions")
        };
        if self.groups == 0 || c % self.groups != 0 {
            bail!("group norm: {c} channels cannot be cut into {} groups", self.groups)
        }
        if a != [n, c] || b != [n, c] {
            bail!("group norm: a {a:?} and b {b:?} must be [{n}, {c}]")
        }
        Ok(NormGeometry::new(n, rest.iter().product(), self.groups, c / self.groups))
    }

    fn moments<T: Lanes>(&self, x: &[T], g: &NormGeometry) -> &[GroupMoments] {
        self.moments.get_or_init(|| g.moments(x, self.eps))
    }

    fn forward<T: Lanes>(&self, x: &[T], a: &[T], b: &[T], g: &NormGeometry) -> Vec<T> {
        if x.is_empty() {
            return Vec::new();
        }
        let moments = self.moments(x, g);
        let rows = g.make_rows(|i| affine(a[i], b[i], moments[i / g.channels]));
        match self.activation {
            Activation::Identity => g.normalize::<T, false>(x, &rows),
            Activation::Silu => g.normalize::<T, true>(x, &rows),
        }
    }

    /// `(dx, da, db)`:
    /// `dz = gy act'(z)`, `da = sum dz x^`, `db = sum dz`,
    /// `dx = (a dz - mean(a dz) - x^ mean(a dz x^)) / sqrt(var + eps)`.
    fn backward<T: Lanes>(
        &self,
        x: &[T],
        a: &[T],
        b: &[T],
        gy: &[T],
        g: &NormGeometry,
    ) -> (Vec<T>, Vec<T>, Vec<T>) {
        if x.is_empty() {
            return (Vec::new(), vec![T::zero(); a.len()], vec![T::zero(); a.len()]);
        }
        let moments = self.moments(x, g);
        let rows = g.make_rows(|i| {
            let m = moments[i / g.channels];
            let [scale, shift] = affine(a[i], b[i], m);
            [scale, shift, m.mean]
        });
        let sums = match self.activation {
            Activation::Identity => g.gradient_sums::<T, false>(x, gy, &rows),
            Activation::Silu => g.gradient_sums::<T, true>(x, gy, &rows),
        };
        let (mut da, mut db) = (Vec::with_capacity(a.len()), Vec::with_capacity(a.len()));
        for (image, sums) in sums.chunks_exact(2 * g.c()).enumerate() {
            let (of_dz, of_products) = sums.split_at(g.c());
            db.extend(of_dz.iter().map(|&sum| T::from_f64(sum)));
            let moments = &moments[image * g.groups..][..g.groups];
            for (products, m) in of_products.chunks_exact(g.channels).zip(moments) {
                da.extend(products.iter().map(|sum| T::from_f64(sum * m.rstd)));
            }
        }
        // Of each group: the means of `a dz` and of `a dz x^`.
        let count = (g.pixels * g.channels) as f64;
        let mean = |a: &[T], d: &[T]| {
            a.iter().zip(d).map(|(a, d)| a.to_f64() * d.to_f64()).sum::<f64>() / count
        };
        let gradients = da.chunks_exact(g.channels).zip(db.chunks_exact(g.channels));
        let means: Vec<_> = a
            .chunks_exact(g.channels)
            .zip(gradients)
            .map(|(a, (da, db))| (mean(a, db), mean(a, da)))
            .collect();
        let rows = g.make_rows(|i| {
            let (m, (mean_g, mean_gx)) = (moments[i / g.channels], means[i / g.channels]);
            let [scale, shift] = affine(a[i], b[i], m);
            let along = -m.rstd * m.rstd * mean_gx;
            [scale, shift, along, -m.rstd * mean_g - m.mean * along]
        });
        let dx = match self.activation {
            Activation::Identity => g.gradient::<T, false>(x, gy, &rows),
            Activation::Silu => g.gradient::<T, true>(x, gy, &rows),
        };
        (dx, da, db)
    }
}

/// Scale and shift of a channel: `a x^ + b = x scale + shift`.
fn affine<T: Lanes>(a: T, b: T, m: GroupMoments) -> [f64; 2] {
    let (a, b): (f64, f64) = (a.to_f64(), b.to_f64());
    let scale = a * m.rstd;
    [scale, b - m.mean * scale]
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
    fn gradients<T: Lanes>(
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
