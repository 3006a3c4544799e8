//! Products whose inputs are rounded to bfloat16 and whose sums are taken in f32: twice the multiplications a cycle where the
//! processor has AVX-512 BF16. Elsewhere the inputs are rounded and the f32 product does the rest, so that a recipe means the
//! same everywhere, up to the order of sums and to numbers below 1e-38, which the instructions take for 0.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use super::bf16_avx512;
use super::matmul::{Base, Matrix, Write, elements, run_tiles};

/// `dst = a b` or `dst += a b` for a contiguous `dst`, in parallel, with inputs rounded to bfloat16.
///
/// # Panics
/// If the shapes do not fit.
pub fn product_into(dst: &mut [f32], a: Matrix, b: Matrix, write: Write) {
    // SAFETY: only sums are written through the slice, so that it stays a slice of numbers.
    let dst = unsafe { std::slice::from_raw_parts_mut(dst.as_mut_ptr().cast::<MaybeUninit<f32>>(), dst.len()) };
    // SAFETY: all of `dst` are numbers.
    unsafe { fill(dst, a, b, write) }
}

/// `a b` as a new contiguous matrix.
pub fn product(a: Matrix, b: Matrix) -> Vec<f32> {
    let len = elements(a, b);
    let mut out = Vec::with_capacity(len);
    // SAFETY: nothing is read, and all of them are written.
    unsafe {
        fill(&mut out.spare_capacity_mut()[..len], a, b, Write::Replace);
        out.set_len(len);
    }
    out
}

/// Writes every element of `dst`.
///
/// # Safety
/// With [`Write::Add`] all of `dst` must be numbers already.
unsafe fn fill(dst: &mut [MaybeUninit<f32>], a: Matrix, b: Matrix, write: Write) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a product");
    assert_eq!(dst.len(), elements(a, b), "shape of the destination");
    #[cfg(target_arch = "x86_64")]
    if a.cols > 0 && bf16_avx512::available() {
        // SAFETY: the processor has the instructions; the rest is the caller's promise.
        unsafe { bf16_avx512::fill(dst, a, b, write) }
        return;
    }
    // SAFETY: as the caller promises.
    unsafe { rounded_fill(dst, a, b, write) }
}

/// As [`fill`], by the f32 product.
///
/// # Safety
/// As for [`fill`].
unsafe fn rounded_fill(dst: &mut [MaybeUninit<f32>], a: Matrix, b: Matrix, write: Write) {
    let (left, right) = (rounded(a.data), rounded(b.data));
    let (a, b) = (Matrix { data: &left, ..a }, Matrix { data: &right, ..b });
    // SAFETY: `dst` is borrowed exclusively and holds every element of the product.
    unsafe { run_tiles(Base(dst.as_mut_ptr().cast()), a, b, write) }
}

/// Each number rounded to the nearest bfloat16.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, same_in_pools};
    use super::*;

    /// The sums in f64 of the rounded inputs.
    fn naive(a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        let (a, b) = (rounded(a), rounded(b));
        let at = |r: usize, c: usize| (0..k).map(|i| f64::from(a[r * k + i]) * f64::from(b[i * n + c])).sum();
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    const SHAPES: [(usize, usize, usize); 8] =
        [(1, 1, 1), (5, 3, 7), (12, 2, 32), (13, 24, 33), (17, 31, 130), (400, 8, 65), (64, 700, 16), (50, 513, 40)];

    #[test]
    fn products_equal_those_of_rounded_inputs() {
        for (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let want = naive(&a, &b, (m, k, n));
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            let (a, at) = (Matrix::new(&a, m, k), Matrix::new(&at, k, m).transposed());
            let (b, bt) = (Matrix::new(&b, k, n), Matrix::new(&bt, n, k).transposed());
            for (a, b) in [(a, b), (at, b), (a, bt), (at, bt)] {
                close(&product(a, b), &want, 1e-5);
                let mut sum = vec![0.5; m * n];
                product_into(&mut sum, a, b, Write::Add);
                close(&sum, &want.iter().map(|x| x + 0.5).collect::<Vec<_>>(), 1e-5);
            }
        }
    }

    #[test]
    fn processors_without_the_instructions_round_and_multiply() {
        for (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let mut sum = vec![MaybeUninit::new(0.5); m * n];
            // SAFETY: all of `sum` are numbers.
            unsafe { rounded_fill(&mut sum, Matrix::new(&a, m, k), Matrix::new(&b, k, n), Write::Add) }
            // SAFETY: as above.
            let sum: Vec<f32> = sum.iter().map(|x| unsafe { x.assume_init() }).collect();
            let want: Vec<f64> = naive(&a, &b, (m, k, n)).iter().map(|x| x + 0.5).collect();
            close(&sum, &want, 1e-5);
        }
    }

    #[test]
    fn rows_that_lie_apart_are_read_in_place() {
        let (data, b) = (random(40 * 50, 1), random(30 * 20, 2));
        let packed: Vec<f32> = data.chunks(50).flat_map(|row| &row[..30]).copied().collect();
        let want = naive(&packed, &b, (40, 30, 20));
        close(&product(Matrix::strided(&data, 40, 30, 50), Matrix::new(&b, 30, 20)), &want, 1e-5);
    }

    #[test]
    fn special_numbers_survive() {
        let a = [f32::NAN, 1.0, f32::INFINITY, 1.0, 0.0, 1.0];
        let out = product(Matrix::new(&a, 3, 2), Matrix::new(&[1.0, 1.0], 2, 1));
        assert!(out[0].is_nan() && out[1] == f32::INFINITY && out[2] == 1.0, "{out:?}");
        assert_eq!(product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3)), [0.0; 6]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (a, b) = (random(300 * 600, 1), random(600 * 70, 2));
        same_in_pools(|| product(Matrix::new(&a, 300, 600), Matrix::new(&b, 600, 70)));
    }
}
