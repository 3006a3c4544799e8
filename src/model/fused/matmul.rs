//! Products of matrices in slices: the safe border around the `gemm` crate, and linear layers on top of it.
//!
//! `matmul` runs on the calling thread and is for small tiles inside a parallel loop. `product` cuts a large output
//! into tiles of a fixed size and runs them in parallel; each tile's sums are taken in one order, so the number of threads
//! does not change a bit. Measured on the reference shapes, tiles of all rows and few columns are as quick as OpenBLAS.
#![allow(unsafe_code)]

use gemm::Parallelism;
use rayon::prelude::*;

use super::bf16;

pub use crate::recipe::Precision;

/// Largest tile of a parallel product. Few columns, because each tile packs its own columns of `b` but streams `a`.
const TILE_ROWS: usize = 2048;
const TILE_COLS: usize = 64;

/// A matrix that is read: element (r, c) lies at `r * row_stride + c * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// All of `data` as `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a matrix of {rows} rows and {cols} columns");
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]` at the start of `data`, each row `row_stride` after the one before.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride) <= data.len(), "the matrix must lie inside its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn transposed(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// A matrix that is written: rows of `cols` numbers, each `row_stride` after the one before.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// `[rows, cols]` at the start of `data`, each row `row_stride` after the one before.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= cols, "rows that are written may not overlap");
        assert!(extent(rows, cols, row_stride) <= data.len(), "the matrix must lie inside its slice");
        Self { data, rows, cols, row_stride }
    }
}

/// Numbers from the first to the last element of a matrix. The unsafe code behind this border relies on it, so it may not wrap.
fn extent(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    let extent = (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols));
    extent.expect("a matrix within the address space")
}

/// Elements of a product.
pub(super) fn elements(a: Matrix, b: Matrix) -> usize {
    a.rows.checked_mul(b.cols).expect("a product within the address space")
}

/// What happens to the numbers that stand in the destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Write {
    /// They are replaced, unread.
    Replace,
    /// The product is added to them.
    Add,
}

impl Precision {
    /// `a b` as a new contiguous matrix, in parallel.
    pub fn product(self, a: Matrix, b: Matrix) -> Vec<f32> {
        match self {
            Self::F32 => product(a, b),
            Self::Bf16 => bf16::product(a, b),
        }
    }

    /// `dst = a b` or `dst += a b` for a contiguous `dst`, in parallel.
    pub fn product_into(self, dst: &mut [f32], a: Matrix, b: Matrix, write: Write) {
        match self {
            Self::F32 => product_into(dst, a, b, write),
            Self::Bf16 => bf16::product_into(dst, a, b, write),
        }
    }
}

/// `dst = a b` or `dst += a b` on the calling thread.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul(dst: MatrixMut, a: Matrix, b: Matrix, write: Write) {
    let MatrixMut { data, rows, cols, row_stride } = dst;
    assert_eq!((rows, cols, a.cols), (a.rows, b.cols, b.rows), "shapes of a product");
    // SAFETY: `data` is borrowed exclusively and holds rows x cols numbers at its stride, checked when `dst` was made.
    unsafe { run(data.as_mut_ptr(), row_stride, a, b, write) }
}

/// `a b` as a new contiguous matrix, in parallel.
pub fn product(a: Matrix, b: Matrix) -> Vec<f32> {
    let len = elements(a, b);
    let mut out = Vec::with_capacity(len);
    // SAFETY: the allocation holds `len` numbers; `run_tiles` with `Replace` reads none and writes all of them.
    unsafe {
        run_tiles(Base(out.as_mut_ptr()), a, b, Write::Replace);
        out.set_len(len);
    }
    out
}

/// `dst = a b` or `dst += a b` for a contiguous `dst`, in parallel.
pub fn product_into(dst: &mut [f32], a: Matrix, b: Matrix, write: Write) {
    assert_eq!(dst.len(), elements(a, b), "shape of the destination");
    // SAFETY: `dst` is borrowed exclusively and holds every element of the product.
    unsafe { run_tiles(Base(dst.as_mut_ptr()), a, b, write) }
}

/// A linear layer without bias: `x [rows, in]`, `w [out, in]` to `[rows, out]`.
pub fn linear_forward(x: &[f32], w: &[f32], rows: usize, precision: Precision) -> Vec<f32> {
    let (x, w) = linear_operands(x, w, rows);
    precision.product(x, w.transposed())
}

/// The backward pass of `linear_forward`: from `grad [rows, out]` the gradients `(dx [rows, in], dw [out, in])`.
pub fn linear_backward(grad: &[f32], x: &[f32], w: &[f32], rows: usize, precision: Precision) -> (Vec<f32>, Vec<f32>) {
    let (x, w) = linear_operands(x, w, rows);
    let grad = Matrix::new(grad, rows, w.rows);
    (precision.product(grad, w), precision.product(grad.transposed(), x))
}

fn linear_operands<'a>(x: &'a [f32], w: &'a [f32], rows: usize) -> (Matrix<'a>, Matrix<'a>) {
    assert!(rows > 0 && x.len().is_multiple_of(rows), "{} numbers cannot be {rows} rows", x.len());
    let inputs = x.len() / rows;
    assert!(inputs > 0 && w.len().is_multiple_of(inputs), "{} weights cannot have {inputs} inputs each", w.len());
    (Matrix::new(x, rows, inputs), Matrix::new(w, w.len() / inputs, inputs))
}

/// The start of an output that tasks share; each writes its own tile only.
#[derive(Clone, Copy)]
pub(super) struct Base(pub(super) *mut f32);
// SAFETY: the pointer is used for disjoint tiles only, see `run_tiles`.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

impl Base {
    /// # Safety
    /// As for `pointer::add`.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// # Safety
/// `dst` must be valid for writes of `a.rows * b.cols` numbers, for reads too with `Write::Add`, and be used by nobody else.
pub(super) unsafe fn run_tiles(dst: Base, a: Matrix, b: Matrix, write: Write) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a product");
    let stride = b.cols;
    let across = b.cols.div_ceil(TILE_COLS);
    (0..a.rows.div_ceil(TILE_ROWS) * across).into_par_iter().for_each(|tile| {
        let (row, col) = (tile / across * TILE_ROWS, tile % across * TILE_COLS);
        let rows = TILE_ROWS.min(a.rows - row);
        let cols = TILE_COLS.min(b.cols - col);
        let a = Matrix { data: &a.data[row * a.row_stride..], rows, ..a };
        let b = Matrix { data: &b.data[col * b.col_stride..], cols, ..b };
        // SAFETY: tiles are disjoint parts of the destination, which the caller has promised.
        unsafe { run(dst.at(row * stride + col), stride, a, b, write) }
    });
}

/// # Safety
/// `dst` must be valid for writes (and reads, with `Write::Add`) of `a.rows` rows of `b.cols` numbers, `row_stride` apart.
unsafe fn run(dst: *mut f32, row_stride: usize, a: Matrix, b: Matrix, write: Write) {
    let stride = |s: usize| isize::try_from(s).expect("a stride inside a slice fits isize");
    // SAFETY: `a` and `b` lie inside their slices (checked when they were made), `dst` by the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            dst,
            1,
            stride(row_stride),
            write == Write::Add,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            if write == Write::Add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, same_in_pools};
    use super::*;

    fn naive(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f64> {
        let at = |r: usize, c: usize| (0..k).map(|i| f64::from(a[r * k + i]) * f64::from(b[i * n + c])).sum();
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    #[test]
    fn products_equal_the_definition() {
        for (m, k, n) in [(1, 1, 1), (5, 3, 7), (17, 24, 130), (2050, 8, 65), (64, 64, 16)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let want = naive(&a, &b, m, k, n);
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            let ways = [
                product(Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                product(Matrix::new(&at, k, m).transposed(), Matrix::new(&b, k, n)),
                product(Matrix::new(&a, m, k), Matrix::new(&bt, n, k).transposed()),
            ];
            ways.iter().for_each(|got| close(got, &want, 1e-5));
            let mut sum = a.clone();
            sum.resize(m * n, 0.5);
            let before: Vec<f64> = sum.iter().map(|x| f64::from(*x)).collect();
            product_into(&mut sum[..m * n], Matrix::new(&a, m, k), Matrix::new(&b, k, n), Write::Add);
            let want: Vec<f64> = want.iter().zip(&before).map(|(x, y)| x + y).collect();
            close(&sum[..m * n], &want, 1e-5);
        }
    }

    #[test]
    fn strided_destination_leaves_the_rest_alone() {
        let (a, b) = (random(6, 1), random(6, 2));
        let mut dst = vec![9.0; 12];
        let a = Matrix::strided(&a, 2, 2, 3);
        matmul(MatrixMut::strided(&mut dst, 2, 3, 5), a, Matrix::new(&b, 2, 3), Write::Replace);
        assert_eq!((dst[3], dst[4], dst[8]), (9.0, 9.0, 9.0));
        assert!(dst[0] != 9.0 && dst[7] != 9.0);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        assert_eq!(product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3)), [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "shapes of a product")]
    fn shapes_must_fit() {
        let x = [0.0; 6];
        matmul(
            MatrixMut::strided(&mut [0.0; 4], 2, 2, 2),
            Matrix::new(&x, 2, 3),
            Matrix::new(&x, 2, 3),
            Write::Replace,
        );
    }

    #[test]
    #[should_panic(expected = "within the address space")]
    fn a_matrix_beyond_the_address_space_is_refused() {
        Matrix::strided(&[0.0; 8], 5, 8, 1 << 62);
    }

    #[test]
    #[should_panic(expected = "a matrix of")]
    fn a_size_that_wraps_to_that_of_the_slice_is_refused() {
        Matrix::new(&[], 1 << 32, 1 << 32);
    }

    #[test]
    fn linear_backward_is_the_adjoint() {
        let (rows, inputs, outputs) = (37, 24, 72);
        let (x, w, g) = (random(rows * inputs, 1), random(outputs * inputs, 2), random(rows * outputs, 3));
        let y = linear_forward(&x, &w, rows, Precision::F32);
        close(&y, &naive(&x, &transpose(&w, outputs, inputs), rows, inputs, outputs), 1e-5);
        let (dx, dw) = linear_backward(&g, &x, &w, rows, Precision::F32);
        close(&dx, &naive(&g, &w, rows, outputs, inputs), 1e-5);
        close(&dw, &naive(&transpose(&g, rows, outputs), &x, outputs, rows, inputs), 1e-5);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, w, g) = (random(300 * 100, 1), random(200 * 100, 2), random(300 * 200, 3));
        same_in_pools(|| {
            let (dx, dw) = linear_backward(&g, &x, &w, 300, Precision::F32);
            [linear_forward(&x, &w, 300, Precision::F32), dx, dw].concat()
        });
    }
}
