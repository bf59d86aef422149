//! Rows of features in f32, taken as f64 by blocks.

use core::ops::Range;

use crate::error::{Error, Result};
use crate::ops::gemm::{Mat, gemm};

/// Rows that are converted and multiplied together.
pub(super) const BLOCK: usize = 256;

/// `n` rows of `d` finite features.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    d: usize,
}

impl<'a> Rows<'a> {
    /// A view of `values`, `[n, d]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when they do not divide into rows of `d`, or one is not finite;
    /// [`Error::Config`] for more than 2^32 rows, whose numbers cannot be drawn.
    pub(super) fn new(values: &'a [f32], d: usize) -> Result<Self> {
        if d == 0 || !values.len().is_multiple_of(d) {
            let reason = format!("{} values do not divide into rows of {d}", values.len());
            return Err(Error::tensor("features", reason));
        }
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            let (row, column, value) = (at / d, at % d, values[at]);
            let reason =
                format!("row {row}, column {column} is {value}, but features must be finite");
            return Err(Error::tensor("features", reason));
        }
        if u32::try_from(values.len() / d).is_err() {
            return Err(Error::Config(format!("{} rows are too many", values.len() / d)));
        }
        Ok(Self { values, d })
    }

    /// Number of rows.
    pub(super) fn n(self) -> usize {
        self.values.len() / self.d
    }

    /// Number of features in a row.
    pub(super) fn dim(self) -> usize {
        self.d
    }

    /// Row `i`, as f64.
    pub(super) fn row(self, i: usize) -> impl Iterator<Item = f64> + 'a {
        self.values[i * self.d..][..self.d].iter().copied().map(f64::from)
    }

    /// Rows as one matrix of f64, `[range, d]`.
    pub(super) fn block(self, range: Range<usize>) -> Vec<f64> {
        self.values[range.start * self.d..range.end * self.d]
            .iter()
            .copied()
            .map(f64::from)
            .collect()
    }

    /// The rows with these numbers.
    pub(super) fn pick(self, numbers: &[usize]) -> Vec<f32> {
        numbers.iter().flat_map(|i| &self.values[i * self.d..][..self.d]).copied().collect()
    }

    /// The numbers of the rows, block by block.
    pub(super) fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        let n = self.n();
        (0..n).step_by(BLOCK).map(move |first| first..(first + BLOCK).min(n))
    }
}

/// `a_i · b_j` of all pairs.
///
/// # Shapes
///
/// `a`: `[n, d]`, `b`: `[m, d]`, result `[n, m]`, row-major.
pub(super) fn products(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let (n, m) = (a.len() / d, b.len() / d);
    let mut products = vec![0.0; n * m];
    gemm(Mat::new(a, n, d, d), Mat::new(b, m, d, d).t(), &mut products, m, false);
    products
}
