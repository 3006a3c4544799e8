//! Bias and GELU in one pass, in the tanh approximation (Hendrycks and Gimpel 2016), as BD3-LM's DiT uses it.
//!
//! With u = z + bias and g = sqrt(2/pi) (u + 0.044715 u^3): gelu(u) = u (1 + tanh g) / 2 = u / (1 + e^(-2g)).

use rayon::prelude::*;

use super::pieces;
use super::simd::{exp, mul_add, vectorised};

/// 2 sqrt(2/pi).
const TWICE_ROOT: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;

/// `z [rows, n]`, `bias [n]`: gelu(z + bias), `[rows, n]`.
pub fn bias_gelu_forward(z: &[f32], bias: &[f32]) -> Vec<f32> {
    let n = bias.len();
    let pieces = pieces::cut(rows(z, n), 1);
    pieces::build(&pieces, n, pieces::no_sides(&pieces), |piece, y, ()| {
        let z = z[piece.rows.start * n..piece.rows.end * n].chunks_exact(n);
        z.zip(y.chunks_exact_mut(n)).for_each(|(z, y)| forward_row(z, bias, y));
    })
}

/// From `grad [rows, n]` the gradients `(dz [rows, n], dbias [n])`.
pub fn bias_gelu_backward(grad: &[f32], z: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let n = bias.len();
    assert_eq!(grad.len(), z.len(), "one gradient for each output");
    let pieces = pieces::cut(rows(z, n), 1);
    let mut partial = vec![0.0; pieces.len() * n];
    let dz = pieces::build(&pieces, n, partial.par_chunks_exact_mut(n), |piece, dz, partial| {
        for (row, dz) in piece.rows.clone().zip(dz.chunks_exact_mut(n)) {
            let at = row * n..(row + 1) * n;
            backward_row(&grad[at.clone()], &z[at], bias, dz, partial);
        }
    });
    let mut dbias = pieces::sum_groups(&pieces, &partial, n);
    dbias.resize(n, 0.0);
    (dz, dbias)
}

fn rows(z: &[f32], n: usize) -> usize {
    assert!(n > 0 && z.len().is_multiple_of(n), "{} numbers cannot be rows of {n}", z.len());
    z.len() / n
}

vectorised! {
    fn forward_row(z: &[f32], bias: &[f32], y: &mut [f32]) {
        let n = y.len();
        let (z, bias) = (&z[..n], &bias[..n]);
        for i in 0..n {
            let u = z[i] + bias[i];
            let twice_g = TWICE_ROOT * u * mul_add::<FMA>(CUBIC * u, u, 1.0);
            y[i] = u / (1.0 + exp::<FMA>(-twice_g));
        }
    }
}

vectorised! {
    /// Writes dz and adds it to `dbias`.
    fn backward_row(grad: &[f32], z: &[f32], bias: &[f32], dz: &mut [f32], dbias: &mut [f32]) {
        let n = dz.len();
        let (grad, z, bias, dbias) = (&grad[..n], &z[..n], &bias[..n], &mut dbias[..n]);
        for i in 0..n {
            let u = z[i] + bias[i];
            let twice_g = TWICE_ROOT * u * mul_add::<FMA>(CUBIC * u, u, 1.0);
            let s = 1.0 / (1.0 + exp::<FMA>(-twice_g));
            let slope = TWICE_ROOT * mul_add::<FMA>(3.0 * CUBIC * u, u, 1.0);
            // Where s is 1 or 0 the cubic in `slope` may be huge; s (1 - s) is then exactly or nearly 0.
            let d = grad[i] * mul_add::<FMA>(u * s * (1.0 - s), slope, s);
            dz[i] = d;
            dbias[i] += d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, inner, numeric_gradient, random, same_in_pools, wide};
    use super::*;

    fn reference(z: &[f64], bias: &[f64]) -> Vec<f64> {
        let gelu = |u: f64| {
            let g = (2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u.powi(3));
            0.5 * u * (1.0 + g.tanh())
        };
        z.iter().zip(bias.iter().cycle()).map(|(z, b)| gelu(z + b)).collect()
    }

    #[test]
    fn forward_and_backward_equal_the_definition() {
        for (rows, n) in [(1, 1), (5, 24), (67, 19)] {
            let z: Vec<f32> = random(rows * n, 1).iter().map(|z| 4.0 * z).collect();
            let (bias, grad) = (random(n, 2), random(rows * n, 3));
            let (zw, bw) = (wide(&z), wide(&bias));
            close(&bias_gelu_forward(&z, &bias), &reference(&zw, &bw), 1e-6);
            let (dz, dbias) = bias_gelu_backward(&grad, &z, &bias);
            close(&dz, &numeric_gradient(&zw, |z| inner(&reference(z, &bw), &grad)), 1e-5);
            close(&dbias, &numeric_gradient(&bw, |b| inner(&reference(&zw, b), &grad)), 1e-5);
        }
    }

    #[test]
    fn far_out_it_is_the_identity_or_zero() {
        let z = [1e4, 50.0, -50.0, -1e4, 1e10, -1e10];
        let y = bias_gelu_forward(&z, &[0.0; 6]);
        close(&y, &[1e4, 50.0, 0.0, 0.0, 1e10, 0.0], 1e-6);
        let (dz, _) = bias_gelu_backward(&[1.0; 6], &z, &[0.0; 6]);
        close(&dz, &[1.0, 1.0, 0.0, 0.0, 1.0, 0.0], 1e-6);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (z, bias, grad) = (random(500 * 40, 1), random(40, 2), random(500 * 40, 3));
        same_in_pools(|| {
            let (dz, dbias) = bias_gelu_backward(&grad, &z, &bias);
            [bias_gelu_forward(&z, &bias), dz, dbias].concat()
        });
    }
}
