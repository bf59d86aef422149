//! The optimizer's state of one parameter, on the parameter's device.

use std::borrow::Cow;

use candle_core::Device;

use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::ops::cuda;

/// The running state of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdamMoments {
    /// Mean of the gradient.
    pub mean: Vec<f32>,
    /// Mean of its square.
    pub square: Vec<f32>,
    /// Moving average of the parameter; empty where none is kept.
    pub average: Vec<f32>,
}

/// The running state of one parameter, on the parameter's device.
pub(super) enum MomentState {
    Host(AdamMoments),
    #[cfg(feature = "cuda")]
    Gpu(cuda::GpuMoments),
}

impl MomentState {
    /// # Errors
    /// A device without room.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, reason = "the host's memory does not fail, a GPU may")
    )]
    pub(super) fn new(moments: AdamMoments, device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Self::Gpu(cuda::GpuMoments::new(
                device,
                [&moments.mean, &moments.square, &moments.average],
            )?)),
            _ => Ok(Self::Host(moments)),
        }
    }

    /// A copy in the host's memory, or what is there.
    ///
    /// # Errors
    /// A device that cannot be read.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, reason = "the host's memory does not fail, a GPU may")
    )]
    pub(super) fn read(&self) -> Result<Cow<'_, AdamMoments>> {
        match self {
            Self::Host(moments) => Ok(Cow::Borrowed(moments)),
            #[cfg(feature = "cuda")]
            Self::Gpu(moments) => {
                let [mean, square, average] = moments.read()?;
                Ok(Cow::Owned(AdamMoments { mean, square, average }))
            }
        }
    }
}
