//! The plan by which the groups of a tensor are described.

use super::options::{CodebookDtype, QuantizeOptions};
use crate::fit::Group;
use crate::matrix::RowScale;
use crate::rate::Rate;
use crate::scheme::Scheme;

/// Plan by which the groups of a tensor are described.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuantPlan {
    pub(super) scheme: Scheme,
    pub(super) rate: Rate,
    pub(super) lambda: Option<f64>,
    pub(super) codebook_dtype: CodebookDtype,
    pub(super) groups: RowGroups,
    /// Scales of rows in front of the group's codebook.
    pub(super) row_scale: RowScale,
}

impl QuantPlan {
    pub(super) const fn new(options: &QuantizeOptions, groups: RowGroups) -> Self {
        let &QuantizeOptions { scheme, rate, codebook_dtype, lambda, .. } = options;
        Self { scheme, rate, lambda, codebook_dtype, groups, row_scale: RowScale::None }
    }

    /// The fit of some weights of the tensor.
    pub(super) fn group<'a>(&self, weights: &'a [f32]) -> Group<'a> {
        let group = Group::new(weights, self.rate);
        let numel = self.groups.rows * self.groups.row_len;
        Group { numel, lambda: self.lambda.unwrap_or(group.lambda), ..group }
    }
}

/// A tensor that is not empty as a matrix, cut into groups of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowGroups {
    pub(super) rows: usize,
    pub(super) row_len: usize,
    pub(super) group_rows: usize,
}

impl RowGroups {
    pub(super) const fn group_len(self) -> usize {
        self.group_rows * self.row_len
    }
}
