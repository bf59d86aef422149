//! A whole tensor → the cheapest exact description of its quantized values.
//!
//! The tensor is cut into groups of rows that share a codebook, each group is fitted
//! ([`crate::fit`]), its levels are rounded to what the codebook's entries can hold, and what comes
//! out is stored in whichever of these ways takes the fewest bytes, the first on ties:
//!
//! 1. codes with affine or logarithmic codebooks, under the schemes that have such levels;
//! 2. codes with tables, as f16 where that is exact; codes are as wide as the largest table needs;
//! 3. the values themselves as f32.
//!
//! So a small tensor at 8 bits may come out dense, and one of few distinct values below its bits.
//! [`Granularity::Auto`] compares several such descriptions by error and size.
//!
//! Groups are independent: a caller with threads passes a [`ParallelMap`] that uses them. The result
//! does not depend on it.

mod auto;
mod describe;
mod distortion;
mod fitted_group;
mod group;
mod input;
mod options;
mod plan;
mod reassign;
mod scaled;
mod storage;
mod tables;
mod tensor;

pub use distortion::Distortion;
pub use input::{ParallelMap, WeightSlices};
pub use options::{CodebookDtype, Granularity, QuantizeOptions};
pub use reassign::RowValues;
pub use storage::Storage;
pub use tables::Tables;
pub use tensor::QuantizedTensor;

use crate::error::{Result, check_length, check_range};
use crate::matrix::rows_of;
use crate::num::u64_of;
use alloc::vec::Vec;
use describe::describe;
use input::Sequential;
use plan::{QuantPlan, RowGroups};

/// Quantizes the weights of a tensor of the given shape, one group after the other.
///
/// # Errors
/// Those of [`quantize_on`].
pub fn quantize_tensor(
    weights: &[f32],
    shape: &[usize],
    options: &QuantizeOptions,
) -> Result<QuantizedTensor> {
    quantize_on(&Sequential, weights, shape, options)
}

/// Quantizes the weights of a tensor of the given shape, its groups in parallel by `map`.
///
/// A tensor without elements comes out dense and empty.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length) if there are not as many weights as the shape says;
/// [`Error::NonFinite`](crate::Error::NonFinite) and [`Error::F16Overflow`](crate::Error::F16Overflow) with the position in the tensor;
/// [`Error::Range`](crate::Error::Range) for [`Granularity::Group`]`(0)` or a shape beyond the address space;
/// [`Error::Real`](crate::Error::Real) for a multiplier of entropy below 0.
pub fn quantize_on(
    map: &impl ParallelMap,
    weights: &(impl WeightSlices + ?Sized),
    shape: &[usize],
    options: &QuantizeOptions,
) -> Result<QuantizedTensor> {
    let (rows, row_len) = rows_of(shape)?;
    check_length("weights", rows * row_len, weights.count())?;
    let shared = match options.granularity {
        Granularity::Channel | Granularity::Auto => 1,
        Granularity::Group(rows) => usize::try_from(rows).unwrap_or(usize::MAX),
        Granularity::Tensor => rows.max(1),
    };
    check_range("rows per codebook", u64_of(shared), 1, u32::MAX.into())?;
    let groups = RowGroups { rows, row_len, group_rows: shared.min(rows.max(1)) };
    let (storage, distortion) = if weights.count() == 0 {
        (Storage::Dense(Vec::new()), Distortion::default())
    } else if options.granularity == Granularity::Auto {
        auto::best(map, weights, groups, options)?
    } else {
        let plan = QuantPlan::new(options, groups);
        describe(map, weights, &plan)?
    };
    Ok(QuantizedTensor { shape: shape.to_vec(), rows, row_len, storage, distortion })
}

#[cfg(test)]
mod tests;
