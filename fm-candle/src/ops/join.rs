//! Two maps become one: their sum, or their channels side by side.

use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use pulp::Simd;

use super::lanes::{Function, PIECE, pieces, zip};
use super::real::{Real, elements, is_ours, slice};
use super::simd::Lanes;

/// `a + b`.
///
/// # Errors
/// Tensors of different shapes.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_ours(a) {
        return a.contiguous()?.apply_op2(&b.contiguous()?, Add);
    }
    a + b
}

/// The channels of `a`, then those of `b`.
///
/// # Shapes: `[.., c]` and `[.., d]` to `[.., c + d]`
///
/// # Errors
/// Tensors whose other dimensions differ.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_ours(a) {
        return a.contiguous()?.apply_op2(&b.contiguous()?, Concat);
    }
    Tensor::cat(&[a, b], D::Minus1)
}

/// The channels of all maps, in their order.
///
/// # Shapes: `[.., c_i]` each to `[.., sum of c_i]`
///
/// # Errors
/// No maps, or maps whose other dimensions differ.
pub fn concat_all(maps: &[Tensor]) -> Result<Tensor> {
    let pixels = |x: &Tensor| x.dims().split_last().map(|(_, pixels)| pixels.to_vec());
    let shared = maps.first().and_then(pixels);
    let ours = |x: &Tensor| is_ours(x) && x.dtype() == DType::F32 && !x.track_op();
    let Some(mut shape) =
        shared.filter(|shared| maps.iter().all(|x| ours(x) && pixels(x).as_ref() == Some(shared)))
    else {
        return Tensor::cat(maps, D::Minus1);
    };
    let maps: Vec<Tensor> = maps.iter().map(Tensor::contiguous).collect::<Result<_>>()?;
    let widths: Vec<usize> = maps.iter().map(|x| x.dim(D::Minus1)).collect::<Result<_>>()?;
    let guards: Vec<_> = maps.iter().map(Tensor::storage_and_layout).collect();
    let parts = guards.iter().zip(&widths).map(|(guard, &c)| Ok((elements(guard)?, c)));
    let y = joined::<f32>(&parts.collect::<Result<Vec<_>>>()?);
    shape.push(widths.iter().sum());
    Tensor::from_vec(y, shape, &Device::Cpu)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if la.shape() != lb.shape() {
            bail!("add: {:?} and {:?} differ", la.shape(), lb.shape())
        }
        let sum = match a {
            CpuStorage::F32(_) => CpuStorage::F32(zip(slice(a, la)?, slice(b, lb)?, self)),
            _ => CpuStorage::F64(zip(slice(a, la)?, slice(b, lb)?, self)),
        };
        Ok((sum, la.shape().clone()))
    }

    fn bwd(
        &self,
        _a: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gy.clone()), Some(gy.clone())))
    }
}

impl<T: Lanes> Function<T, 2, 0, 1> for Add {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [a, b]: [T::Register<S>; 2],
        []: [T::Register<S>; 0],
    ) -> [T::Register<S>; 1] {
        [T::plus(simd, a, b)]
    }
}

struct Concat;

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (&[ref pixels @ .., c], &[ref others @ .., d]) = (la.dims(), lb.dims()) else {
            bail!("concat: scalars have no channels")
        };
        if pixels != others {
            bail!("concat: {:?} and {:?} do not fit", la.shape(), lb.shape())
        }
        let y = match a {
            CpuStorage::F32(_) => {
                CpuStorage::F32(joined::<f32>(&[(slice(a, la)?, c), (slice(b, lb)?, d)]))
            }
            _ => CpuStorage::F64(joined::<f64>(&[(slice(a, la)?, c), (slice(b, lb)?, d)])),
        };
        Ok((y, [pixels, &[c + d]].concat().into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match a.dtype() {
            DType::F32 => gradients::<f32>(a, b, gy),
            _ => gradients::<f64>(a, b, gy),
        }
    }
}

fn gradients<T: Real>(
    a: &Tensor,
    b: &Tensor,
    gy: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let gy = gy.contiguous()?;
    let guard = gy.storage_and_layout();
    let gy = elements::<T>(&guard)?;
    let (c, d) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    let (da, db) = (part(gy, c + d, 0, c), part(gy, c + d, c, d));
    Ok((
        Some(Tensor::from_vec(da, a.shape(), a.device())?),
        Some(Tensor::from_vec(db, b.shape(), b.device())?),
    ))
}

/// # Shapes: `parts: [pixels, c]` each with its `c`, result `[pixels, sum of c]`
fn joined<T: Real>(parts: &[(&[T], usize)]) -> Vec<T> {
    let mut y = vec![T::zero(); parts.iter().map(|(part, _)| part.len()).sum()];
    if y.is_empty() {
        return y;
    }
    let (width, values) = (parts.iter().map(|(_, c)| c).sum(), y.len());
    let pixels = PIECE.div_ceil(width);
    pieces(&mut y, pixels * width, values, |i, y| {
        for (pixel, mut y) in (i * pixels..).zip(y.chunks_exact_mut(width)) {
            for &(part, c) in parts {
                let (own, rest) = y.split_at_mut(c);
                own.copy_from_slice(&part[pixel * c..][..c]);
                y = rest;
            }
        }
    });
    y
}

/// `c` channels of each pixel from channel `first`: `y: [pixels, width]`, result `[pixels, c]`.
fn part<T: Real>(y: &[T], width: usize, first: usize, c: usize) -> Vec<T> {
    if c == 0 {
        return Vec::new();
    }
    let mut x = vec![T::zero(); y.len() / width * c];
    let (pixels, values) = (PIECE.div_ceil(c), x.len());
    pieces(&mut x, pixels * c, values, |i, x| {
        for (pixel, x) in (i * pixels..).zip(x.chunks_exact_mut(c)) {
            x.copy_from_slice(&y[pixel * width + first..][..c]);
        }
    });
    x
}
