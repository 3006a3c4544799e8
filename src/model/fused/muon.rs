//! Muon (Jordan et al. 2024): momentum whose direction is made orthogonal, for the matrices of the layers, with the decoupled
//! weight decay and the step size of Liu et al. 2025 (arXiv 2502.16982), so that AdamW's learning rates fit.
//!
//! `m = mu m + g`, `u = g + mu m`, `p = (1 - lr decay) p - lr 0.2 sqrt(max(rows, cols)) orth(u)`. `orth` moves all singular values
//! towards 1, by five steps of a Newton-Schulz iteration: `x = a x + (b s + c s s) x` with `s = x x^T`.

use rayon::prelude::*;

use super::adamw::{CHUNK, Slot, average, square_sum};
use super::matmul::{Matrix, Precision, Write};
use super::simd::{mul_add, scale, vectorised};

/// The iteration's coefficients and how often it runs.
pub const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// As above.
pub const ITERATIONS: usize = 5;

/// The settings of one step.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Multiplied into the gradient: 1, or max_norm / norm.
    pub clip: f64,
    /// Rows of each matrix; a parameter may be a stack of several.
    pub rows: usize,
}

impl Muon {
    /// What a parameter keeps of itself, and the size of its step along an orthogonal direction `[rows, cols]`.
    pub fn factors(&self, [rows, cols]: [usize; 2]) -> [f32; 2] {
        let step = self.lr * 0.2 * (rows.max(cols) as f64).sqrt();
        [(1.0 - self.lr * self.weight_decay) as f32, step as f32]
    }
}

/// One step for a parameter of `cols` columns. The second moment is not used.
pub fn muon(settings: &Muon, grad: &[f32], slot: Slot, cols: usize, precision: Precision) {
    let rows = settings.rows;
    let Slot { param, m, ema, .. } = slot;
    assert_eq!((grad.len(), m.len()), (param.len(), param.len()), "gradient and momentum have the parameter's length");
    assert!(param.len().is_multiple_of(rows * cols), "whole matrices");
    let [keep, step] = settings.factors([rows, cols]);
    let (mu, clip) = (settings.momentum as f32, settings.clip as f32);
    for (param, (grad, m)) in param.chunks_mut(rows * cols).zip(grad.chunks(rows * cols).zip(m.chunks_mut(rows * cols)))
    {
        let mut x = vec![0.0; param.len()];
        let chunks = x.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)).zip(m.par_chunks_mut(CHUNK));
        chunks.for_each(|((x, grad), m)| direction(x, grad, m, mu, clip));
        let x = orthogonal(x, [rows, cols], precision);
        param.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(param, x)| apply(param, x, keep, step));
    }
    if let Some((ema, decay)) = ema {
        let rest = (1.0 - decay) as f32;
        ema.par_chunks_mut(CHUNK).zip(param.par_chunks(CHUNK)).for_each(|(ema, param)| average(ema, param, rest));
    }
}

/// A matrix with the same singular vectors whose singular values are near 1.
fn orthogonal(mut x: Vec<f32>, [rows, cols]: [usize; 2], precision: Precision) -> Vec<f32> {
    let [a, b, c] = COEFFICIENTS;
    let norm = square_sum(&x).sqrt() + 1e-7;
    scale(&mut x, (1.0 / norm) as f32);
    let side = rows.min(cols);
    for _ in 0..ITERATIONS {
        let of_x = Matrix::new(&x, rows, cols);
        let (left, right) = if rows <= cols { (of_x, of_x.transposed()) } else { (of_x.transposed(), of_x) };
        let s = precision.product(left, right);
        let square = Matrix::new(&s, side, side);
        let mut polynomial = s.clone();
        scale(&mut polynomial, b / c);
        precision.product_into(&mut polynomial, square, square, Write::Add);
        scale(&mut polynomial, c);
        let polynomial = Matrix::new(&polynomial, side, side);
        let mut next = x.clone();
        scale(&mut next, a);
        let (left, right) = if rows <= cols { (polynomial, of_x) } else { (of_x, polynomial) };
        precision.product_into(&mut next, left, right, Write::Add);
        x = next;
    }
    x
}

vectorised! {
    /// Moves the momentum on, and writes Nesterov's look ahead.
    fn direction(x: &mut [f32], grad: &[f32], m: &mut [f32], mu: f32, clip: f32) {
        let n = x.len();
        let (grad, m) = (&grad[..n], &mut m[..n]);
        for i in 0..n {
            let g = grad[i] * clip;
            m[i] = mul_add::<FMA>(m[i], mu, g);
            x[i] = mul_add::<FMA>(m[i], mu, g);
        }
    }
}

vectorised! {
    fn apply(param: &mut [f32], x: &[f32], keep: f32, step: f32) {
        for (param, x) in param.iter_mut().zip(x) {
            *param = *param * keep - step * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, same_in_pools, wide};
    use super::*;

    const SETTINGS: Muon = Muon { lr: 0.02, momentum: 0.9, weight_decay: 0.1, clip: 0.5, rows: 3 };

    fn dot(a: &[f64], b: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect()
    }

    fn transpose(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    /// The definition, with `x x^T` on the left whatever the shape.
    fn orthogonal_in_f64(u: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut x: Vec<f64> = u.iter().map(|x| x / norm).collect();
        let [a, b, c] = COEFFICIENTS.map(f64::from);
        for _ in 0..ITERATIONS {
            let s = dot(&x, &transpose(&x, rows, cols), (rows, cols, rows));
            let ss = dot(&s, &s, (rows, rows, rows));
            let p: Vec<f64> = s.iter().zip(&ss).map(|(s, ss)| b * s + c * ss).collect();
            let px = dot(&p, &x, (rows, rows, cols));
            x = x.iter().zip(&px).map(|(x, px)| a * x + px).collect();
        }
        x
    }

    #[test]
    fn steps_equal_the_definition() {
        for [rows, cols] in [[6, 6], [4, 12], [20, 5]] {
            let n = 2 * rows * cols;
            let mut param = random(n, 1);
            let (mut m, mut v, mut ema) = (vec![0.0; n], vec![0.0; n], param.clone());
            let (mut pw, mut mw, mut ew) = (wide(&param), vec![0.0; n], wide(&param));
            for step in 0..3 {
                let grad = random(n, 10 + step);
                let slot = Slot { param: &mut param, m: &mut m, v: &mut v, ema: Some((&mut ema, 0.99)) };
                muon(&Muon { rows, ..SETTINGS }, &grad, slot, cols, Precision::F32);
                let g: Vec<f64> = wide(&grad).iter().map(|g| g * SETTINGS.clip).collect();
                for i in 0..n {
                    mw[i] = 0.9 * mw[i] + g[i];
                }
                for at in [0..n / 2, n / 2..n] {
                    let u: Vec<f64> = at.clone().map(|i| g[i] + 0.9 * mw[i]).collect();
                    let o = orthogonal_in_f64(&u, rows, cols);
                    for (i, o) in at.zip(o) {
                        let size = 0.02 * 0.2 * (rows.max(cols) as f64).sqrt();
                        pw[i] = (1.0 - 0.02 * 0.1) * pw[i] - size * o;
                        ew[i] = 0.99 * ew[i] + 0.01 * pw[i];
                    }
                }
            }
            close(&param, &pw, 1e-5);
            close(&m, &mw, 1e-6);
            close(&ema, &ew, 1e-5);
            assert!(v.iter().all(|v| *v == 0.0));
        }
    }

    #[test]
    fn singular_values_come_near_one() {
        let (rows, cols) = (48, 96);
        for precision in [Precision::F32, Precision::Bf16] {
            let x = orthogonal(random(rows * cols, 3), [rows, cols], precision);
            let x = wide(&x);
            let s = dot(&x, &transpose(&x, rows, cols), (rows, cols, rows));
            let trace: f64 = (0..rows).map(|i| s[i * rows + i]).sum();
            let squares: f64 = s.iter().map(|s| s * s).sum();
            let (mean, second) = (trace / rows as f64, squares / rows as f64);
            assert!((0.6..1.3).contains(&mean), "mean square {mean}");
            assert!(second - mean * mean < 0.1, "spread {}", second - mean * mean);
        }
    }

    #[test]
    fn no_gradient_gives_no_step() {
        let mut param = random(12, 1);
        let before = param.clone();
        let slot = Slot { param: &mut param, m: &mut [0.0; 12], v: &mut [0.0; 12], ema: None };
        muon(&Muon { weight_decay: 0.0, ..SETTINGS }, &[0.0; 12], slot, 4, Precision::F32);
        assert_eq!(param, before);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (rows, cols, n) = (100, 300, 30_000);
        let grad = random(n, 1);
        same_in_pools(|| {
            let (mut param, mut m, mut v) = (random(n, 2), random(n, 3), vec![0.0; n]);
            let slot = Slot { param: &mut param, m: &mut m, v: &mut v, ema: None };
            muon(&Muon { rows, ..SETTINGS }, &grad, slot, cols, Precision::Bf16);
            param
        });
    }
}
