//! The launches of the group norm and of its modulation.

#![expect(unsafe_code, reason = "every launch of a kernel and every uncleared buffer is unsafe")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaStorage, DType, Layout, Result, bail};
use half::{bf16, f16};

use super::kernel;
use super::launch::{THREADS, argument, grid, small, spread};

/// Sizes and settings of a group norm of maps `[n, pixels, c]`.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Norm {
    pub n: usize,
    pub pixels: usize,
    pub c: usize,
    /// A divisor of `c`.
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
}

impl Norm {
    /// Channels that a thread of the kernels takes at once: 4 where they lie at multiples of 4.
    fn width(&self, maps: &[&Layout]) -> usize {
        let by_4 = |layout: &&Layout| layout.start_offset().is_multiple_of(4);
        if (self.c / self.groups).is_multiple_of(4) && maps.iter().all(by_4) { 4 } else { 1 }
    }

    fn grid(&self, width: usize) -> Result<LaunchConfig> {
        grid(self.n * self.groups, self.pixels * (self.c / self.groups) / width)
    }

    /// The kernels' last arguments but eps.
    fn sizes(&self) -> Result<[u32; 4]> {
        let [pixels, c, groups] = [self.pixels, self.c, self.groups].map(small);
        Ok([pixels?, c?, groups?, self.silu.into()])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
    fn eps(&self) -> f32 {
        self.eps as f32
    }
}

/// A tensor as an op gets it.
type Argument<'a> = (&'a CudaStorage, &'a Layout);

/// The group norm.
///
/// # Shapes
/// `x: [n, pixels, c]`, `ab: [n, 2 c]`, contiguous and of one type; result as `x`.
pub(in crate::ops) fn norm(x: Argument<'_>, ab: Argument<'_>, k: &Norm) -> Result<CudaStorage> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [x, ab]: [Argument<'_>; 2],
        k: &Norm,
    ) -> Result<CudaStorage> {
        let (device, width) = (x.0.device(), k.width(&[x.1]));
        let map = k.n * k.pixels * k.c;
        let (x, ab) = (argument::<T>(x, map)?, argument::<T>(ab, 2 * k.n * k.c)?);
        let (sizes, eps) = (k.sizes()?, k.eps());
        let name = if width == 4 { format!("{name}_by_4") } else { name.into() };
        let (function, stream) = (kernel(&name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut y = unsafe { device.alloc::<T>(map)? };
        launch.arg(&mut y).arg(&x).arg(&ab);
        launch.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&eps).arg(&sizes[3]);
        // SAFETY: the arguments are those of the kernel in `norm.cu`, in order and type. Block
        // `i` of `n groups` reads and writes the pixels and channels of group `i % groups` of
        // image `i / groups` alone, which x, y and ab have; its threads are not more than the
        // room for their sums. What it moves by four channels lies at multiples of them.
        unsafe { launch.launch(k.grid(width)?) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
    }
    match x.0.dtype() {
        DType::F32 => with::<f32>("norm_f32", [x, ab], k),
        DType::F16 => with::<f16>("norm_f16", [x, ab], k),
        DType::BF16 => with::<bf16>("norm_bf16", [x, ab], k),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}

/// The gradients of `x` and `ab`.
///
/// # Shapes
/// As [`norm`]; `gy` as `x`.
pub(in crate::ops) fn norm_gradient(
    x: Argument<'_>,
    ab: Argument<'_>,
    gy: Argument<'_>,
    k: &Norm,
) -> Result<[CudaStorage; 2]> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [x, ab, gy]: [Argument<'_>; 3],
        k: &Norm,
    ) -> Result<[CudaStorage; 2]> {
        let (device, width) = (x.0.device(), k.width(&[x.1, gy.1]));
        let (map, affine) = (k.n * k.pixels * k.c, 2 * k.n * k.c);
        let (x, ab) = (argument::<T>(x, map)?, argument::<T>(ab, affine)?);
        let gy = argument::<T>(gy, map)?;
        let (sizes, eps) = (k.sizes()?, k.eps());
        let name = if width == 4 { format!("{name}_by_4") } else { name.into() };
        let (function, stream) = (kernel(&name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut dx = unsafe { device.alloc::<T>(map)? };
        // SAFETY: as above.
        let mut dab = unsafe { device.alloc::<T>(affine)? };
        launch.arg(&mut dx).arg(&mut dab).arg(&x).arg(&ab).arg(&gy);
        launch.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&eps).arg(&sizes[3]);
        // SAFETY: as for `norm`, with gy and dx as x, and dab as ab.
        unsafe { launch.launch(k.grid(width)?) }.w()?;
        Ok([
            CudaStorage::wrap_cuda_slice(dx, device.clone()),
            CudaStorage::wrap_cuda_slice(dab, device.clone()),
        ])
    }
    match x.0.dtype() {
        DType::F32 => with::<f32>("norm_gradient_f32", [x, ab, gy], k),
        DType::F16 => with::<f16>("norm_gradient_f16", [x, ab, gy], k),
        DType::BF16 => with::<bf16>("norm_gradient_bf16", [x, ab, gy], k),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}

/// `a = (1 + s) w`, `b = (1 + s) beta + t`.
///
/// # Shapes
/// `st: [n, 2 c]`, a row of `s`, then of `t`; `w, beta: [c]`; all contiguous and of one type; result
/// as `st`.
pub(in crate::ops) fn modulate(
    st: Argument<'_>,
    w: Argument<'_>,
    beta: Argument<'_>,
) -> Result<CudaStorage> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [st, w, beta]: [Argument<'_>; 3],
    ) -> Result<CudaStorage> {
        let (device, (n, c)) = (st.0.device(), st.1.shape().dims2()?);
        let (w, beta) = (argument::<T>(w, c / 2)?, argument::<T>(beta, c / 2)?);
        let (st, images, channels) = (argument::<T>(st, n * c)?, small(n)?, small(c / 2)?);
        let (grid, _) = (spread(n * c / 2)?, small(n * c)?);
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut ab = unsafe { device.alloc::<T>(n * c)? };
        launch.arg(&mut ab).arg(&st).arg(&w).arg(&beta).arg(&images).arg(&channels);
        // SAFETY: the arguments are those of the kernel in `norm.cu`, in order and type; it touches
        // n rows of twice the channels of ab and st, and the channels of w and beta.
        unsafe { launch.launch(grid) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(ab, device.clone()))
    }
    match st.0.dtype() {
        DType::F32 => with::<f32>("modulate_f32", [st, w, beta]),
        DType::F16 => with::<f16>("modulate_f16", [st, w, beta]),
        DType::BF16 => with::<bf16>("modulate_bf16", [st, w, beta]),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}

/// The gradients of `st`, `w` and `beta`.
///
/// # Shapes
/// As [`modulate`]; `dab` as `st`.
pub(in crate::ops) fn modulate_gradient(
    st: Argument<'_>,
    w: Argument<'_>,
    beta: Argument<'_>,
    dab: Argument<'_>,
) -> Result<[CudaStorage; 3]> {
    /// By the type of all values.
    fn with<T: CudaDType + DeviceRepr>(
        name: &str,
        [st, w, beta, dab]: [Argument<'_>; 4],
    ) -> Result<[CudaStorage; 3]> {
        let (device, (n, c)) = (st.0.device(), st.1.shape().dims2()?);
        let (w, beta) = (argument::<T>(w, c / 2)?, argument::<T>(beta, c / 2)?);
        let (st, dab) = (argument::<T>(st, n * c)?, argument::<T>(dab, n * c)?);
        let (images, channels, _) = (small(n)?, small(c / 2)?, small(n * c)?);
        let (function, stream) = (kernel(name, device)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&function);
        // SAFETY: the kernel writes every element before anyone reads it.
        let mut dst = unsafe { device.alloc::<T>(n * c)? };
        // SAFETY: as above.
        let mut dw = unsafe { device.alloc::<T>(c / 2)? };
        // SAFETY: as above.
        let mut dbeta = unsafe { device.alloc::<T>(c / 2)? };
        launch.arg(&mut dst).arg(&mut dw).arg(&mut dbeta).arg(&st).arg(&w).arg(&beta).arg(&dab);
        launch.arg(&images).arg(&channels);
        let grid = LaunchConfig {
            grid_dim: (small((c / 2).div_ceil(32))?, 1, 1),
            block_dim: (small(THREADS)?, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: as for `modulate`, with dst and dab as st, dw and dbeta as w; blocks of THREADS
        // threads take 32 channels each.
        unsafe { launch.launch(grid) }.w()?;
        Ok([
            CudaStorage::wrap_cuda_slice(dst, device.clone()),
            CudaStorage::wrap_cuda_slice(dw, device.clone()),
            CudaStorage::wrap_cuda_slice(dbeta, device.clone()),
        ])
    }
    match st.0.dtype() {
        DType::F32 => with::<f32>("modulate_gradient_f32", [st, w, beta, dab]),
        DType::F16 => with::<f16>("modulate_gradient_f16", [st, w, beta, dab]),
        DType::BF16 => with::<bf16>("modulate_gradient_bf16", [st, w, beta, dab]),
        other => bail!("group norm: no kernel for {}", other.as_str()),
    }
}
