//! Our candle operations: the ones candle does slowly, or whose gradient it gets wrong.
//!
//! Each op runs our CPU kernel for f32 and f64 tensors and candle's own operations elsewhere,
//! so that one definition of the net serves every device. Maps hold their channels last,
//! `[n, h, w, c]`. Gradients are held to f64 finite differences.

mod attention;
mod conv2d;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod decode;
mod dropout;
mod finite;
pub(crate) mod gemm;
mod join;
mod lanes;
mod mask;
mod norm;
mod pool;
mod quantized_weight;
mod real;
mod resample;
mod scratch;
mod simd;
mod softmax;

pub use attention::{QkvOrder, attention};
pub use conv2d::{
    ConvArithmetic, DenseWeight, InferenceConv2d, WeightSource, conv2d, conv2d_padded,
};
pub use dropout::dropout;
pub use finite::is_finite;
pub use join::{add, concat, concat_all};
pub use mask::Mask;
pub use norm::{Activation, group_norm, modulated_group_norm};
pub use pool::{avg_pool3, max_pool3};
pub use quantized_weight::QuantizedWeight;
pub use resample::{downsample2, shuffle, unshuffle, upsample2};

#[cfg(test)]
mod composites;
#[cfg(test)]
mod gradcheck;
