//! Single-threaded matrix product on slices: the one door to the `gemm` crate.

use core::ops::Range;

use candle_core::WithDType;

/// A read-only matrix in a slice: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Some of the rows.
    pub(crate) fn rows(self, range: Range<usize>) -> Self {
        Self { data: &self.data[range.start * self.row_stride..], rows: range.len(), ..self }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Elements that the view spans.
    fn span(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// `dst = a b`, or `dst += a b` with `accumulate`.
///
/// # Shapes: `a: [m, k]`, `b: [k, n]`, `dst: [m, n]` row-major with `dst_stride >= n`
///
/// # Panics
/// If the inner sizes differ or a view reaches outside its slice.
#[expect(unsafe_code, reason = "the gemm crate's only entry point is an unsafe function")]
pub(crate) fn gemm<T: WithDType>(
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    dst: &mut [T],
    dst_stride: usize,
    accumulate: bool,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner sizes of a matrix product");
    assert!(a.span() <= a.data.len() && b.span() <= b.data.len(), "matrix outside its slice");
    if m == 0 || n == 0 {
        return;
    }
    assert!(dst_stride >= n && (m - 1) * dst_stride + n <= dst.len(), "result outside its slice");
    // Strides of views inside a slice are at most its length, itself at most isize::MAX.
    let stride = |s: usize| s.cast_signed();
    // SAFETY: `span` elements from the start of `a` and `b`, and (m-1)*dst_stride + n from the
    // start of `dst`, lie inside their slices (asserted above); these are all the elements that
    // gemm touches with these sizes and strides. `dst` is borrowed mutably, so it overlaps
    // neither. T is f32 or f64, checked by gemm itself.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            stride(dst_stride),
            accumulate,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_and_accumulates_with_strides_and_transposes() {
        // a = [[1, 2], [3, 4]] with one padding element a row; b = [[5, 6], [7, 8]].
        let a = [1.0f64, 2.0, 9.0, 3.0, 4.0];
        let b = [5.0, 6.0, 7.0, 8.0];
        let mut dst = [1.0; 5];
        gemm(Mat::new(&a, 2, 2, 3), Mat::new(&b, 2, 2, 2), &mut dst, 3, false);
        assert_eq!(dst, [19.0, 22.0, 1.0, 43.0, 50.0]);
        gemm(Mat::new(&a, 2, 2, 3), Mat::new(&b, 2, 2, 2).t(), &mut dst, 3, true);
        assert_eq!(dst, [19.0 + 17.0, 22.0 + 23.0, 1.0, 43.0 + 39.0, 50.0 + 53.0]);
        // The second row of a, and that of a transposed.
        gemm(Mat::new(&a, 2, 2, 3).rows(1..2), Mat::new(&b, 2, 2, 2), &mut dst, 2, false);
        assert_eq!(dst[..2], [43.0, 50.0]);
        gemm(Mat::new(&a, 2, 2, 3).t().rows(1..2), Mat::new(&b, 2, 2, 2), &mut dst, 2, false);
        assert_eq!(dst[..2], [38.0, 44.0]);
    }

    #[test]
    #[should_panic(expected = "matrix outside its slice")]
    fn refuses_a_view_that_reaches_outside() {
        gemm(
            Mat::new(&[0.0f32; 5], 2, 3, 3),
            Mat::new(&[0.0; 3], 3, 1, 1),
            &mut [0.0; 2],
            1,
            false,
        );
    }
}
