//! Layer norm with an optional modulation (adaLN), in one pass over the rows.
//!
//! `y = (x - mean) * rstd * weight * (1 + scale) + shift`, without bias, mean and variance over the row in f32, variance with
//! denominator d and epsilon 1e-5 (BD3-LM's DiT, after Peebles and Xie 2023). One (shift, scale) pair serves all rows of a
//! group: one group when the condition is constant, one for each sequence when it is not.

use rayon::prelude::*;

use super::pieces::{self, Piece};
use super::simd::{self, mul_add, vectorised};

/// Added to the variance.
pub const EPSILON: f32 = crate::arch::NORM_EPS;

/// Shift and scale, each `[groups, d]`; the rows are split evenly over the groups.
#[derive(Clone, Copy, Debug)]
pub struct Modulation<'a> {
    /// Added after scaling.
    pub shift: &'a [f32],
    /// Added to 1, then multiplied.
    pub scale: &'a [f32],
}

/// Output of the forward pass.
#[derive(Clone, Debug)]
pub struct Normed {
    /// `[rows, d]`.
    pub y: Vec<f32>,
    /// `[rows]`.
    pub mean: Vec<f32>,
    /// One over the standard deviation, `[rows]`.
    pub rstd: Vec<f32>,
}

/// Gradients of the inputs.
#[derive(Clone, Debug)]
pub struct NormGrads {
    /// `[rows, d]`.
    pub x: Vec<f32>,
    /// `[d]`.
    pub weight: Vec<f32>,
    /// (shift, scale), each `[groups, d]`, if there is a modulation.
    pub modulation: Option<(Vec<f32>, Vec<f32>)>,
}

/// `x [rows, d]`, `weight [d]`.
pub fn norm_modulate_forward(x: &[f32], weight: &[f32], modulation: Option<Modulation>) -> Normed {
    let d = weight.len();
    let pieces = pieces::cut(rows(x, d), groups(modulation, d));
    let gain = gains(weight, modulation);
    let zeros = vec![0.0; if modulation.is_none() { d } else { 0 }];
    let shift = modulation.map_or(&zeros[..], |m| m.shift);
    let mut statistics = vec![[0.0; 2]; rows(x, d)];
    let sides = pieces::split(&pieces, &mut statistics, 1);
    let y = pieces::build(&pieces, d, sides.into_par_iter(), |piece, y, statistics| {
        let group = piece.group * d..(piece.group + 1) * d;
        let (gain, shift) = (&gain[group.clone()], &shift[group]);
        let x = x[piece.rows.start * d..piece.rows.end * d].chunks_exact(d);
        for ((x, y), statistics) in x.zip(y.chunks_exact_mut(d)).zip(statistics) {
            *statistics = forward_row(x, gain, shift, y);
        }
    });
    let (mean, rstd) = statistics.iter().map(|[mean, rstd]| (*mean, *rstd)).unzip();
    Normed { y, mean, rstd }
}

/// `grad [rows, d]` of `y`, the inputs of the forward pass and the statistics that it returned.
pub fn norm_modulate_backward(
    grad: &[f32],
    x: &[f32],
    statistics: (&[f32], &[f32]),
    weight: &[f32],
    modulation: Option<Modulation>,
) -> NormGrads {
    let d = weight.len();
    let (mean, rstd) = statistics;
    assert_eq!((grad.len(), mean.len(), rstd.len()), (x.len(), rows(x, d), rows(x, d)), "one gradient for each output");
    let pieces = pieces::cut(rows(x, d), groups(modulation, d));
    let gain = gains(weight, modulation);
    // For each piece the sums over its rows of grad * normed and of grad.
    let mut partial = vec![0.0; pieces.len() * 2 * d];
    let dx = pieces::build(&pieces, d, partial.par_chunks_exact_mut(2 * d), |piece: &Piece, dx, partial| {
        let gain = &gain[piece.group * d..][..d];
        let (scaled, plain) = partial.split_at_mut(d);
        for (row, dx) in piece.rows.clone().zip(dx.chunks_exact_mut(d)) {
            let at = row * d..(row + 1) * d;
            backward_row(&grad[at.clone()], &x[at], (mean[row], rstd[row]), gain, dx, scaled, plain);
        }
    });
    let sums = pieces::sum_groups(&pieces, &partial, 2 * d);
    let mut dweight = vec![0.0; d];
    let (mut dshift, mut dscale) = (Vec::new(), Vec::new());
    for (group, sums) in sums.chunks_exact(2 * d).enumerate() {
        let (scaled, plain) = sums.split_at(d);
        let scale = modulation.map(|m| &m.scale[group * d..][..d]);
        for (i, dweight) in dweight.iter_mut().enumerate() {
            *dweight += scaled[i] * scale.map_or(1.0, |scale| 1.0 + scale[i]);
        }
        dshift.extend_from_slice(plain);
        dscale.extend(scaled.iter().zip(weight).map(|(scaled, weight)| scaled * weight));
    }
    NormGrads { x: dx, weight: dweight, modulation: modulation.map(|_| (dshift, dscale)) }
}

fn rows(x: &[f32], d: usize) -> usize {
    assert!(d > 0 && x.len().is_multiple_of(d), "{} numbers cannot be rows of {d}", x.len());
    x.len() / d
}

fn groups(modulation: Option<Modulation>, d: usize) -> usize {
    modulation.map_or(1, |Modulation { shift, scale }| {
        assert!(shift.len() == scale.len() && shift.len().is_multiple_of(d), "shift and scale are rows of {d}");
        shift.len() / d
    })
}

/// weight * (1 + scale), `[groups, d]`.
fn gains(weight: &[f32], modulation: Option<Modulation>) -> Vec<f32> {
    let scaled = |m: Modulation| m.scale.iter().zip(weight.iter().cycle()).map(|(s, w)| w * (1.0 + s)).collect();
    modulation.map_or_else(|| weight.to_vec(), scaled)
}

vectorised! {
    /// One row; returns its mean and rstd.
    fn forward_row(x: &[f32], gain: &[f32], shift: &[f32], y: &mut [f32]) -> [f32; 2] {
        let n = y.len();
        let (x, gain, shift) = (&x[..n], &gain[..n], &shift[..n]);
        let mean = simd::sum([x], |[x]| x) / n as f32;
        let variance = simd::sum([x], |[x]| (x - mean) * (x - mean)) / n as f32;
        let rstd = 1.0 / (variance + EPSILON).sqrt();
        for i in 0..n {
            y[i] = mul_add::<FMA>((x[i] - mean) * rstd, gain[i], shift[i]);
        }
        [mean, rstd]
    }
}

vectorised! {
    /// One row; adds grad * normed to `scaled` and grad to `plain`.
    fn backward_row(
        grad: &[f32],
        x: &[f32],
        statistics: (f32, f32),
        gain: &[f32],
        dx: &mut [f32],
        scaled: &mut [f32],
        plain: &mut [f32],
    ) {
        let n = dx.len();
        let (grad, x, gain) = (&grad[..n], &x[..n], &gain[..n]);
        let (scaled, plain) = (&mut scaled[..n], &mut plain[..n]);
        let (mean, rstd) = statistics;
        let mean_grad = simd::sum([grad, gain], |[grad, gain]| grad * gain) / n as f32;
        let mean_product = simd::sum([grad, gain, x], |[grad, gain, x]| grad * gain * (x - mean)) * rstd / n as f32;
        for i in 0..n {
            let normed = (x[i] - mean) * rstd;
            dx[i] = rstd * (mul_add::<FMA>(grad[i], gain[i], -mean_grad) - normed * mean_product);
            scaled[i] = mul_add::<FMA>(grad[i], normed, scaled[i]);
            plain[i] += grad[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, inner, numeric_gradient, random, same_in_pools, wide};
    use super::*;

    fn reference(x: &[f64], weight: &[f64], modulation: Option<(&[f64], &[f64])>) -> Vec<f64> {
        let d = weight.len();
        let rows = x.len() / d;
        let mut y = Vec::new();
        for (row, x) in x.chunks(d).enumerate() {
            let mean = x.iter().sum::<f64>() / d as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
            for i in 0..d {
                let normed = (x[i] - mean) / (variance + f64::from(EPSILON)).sqrt() * weight[i];
                y.push(modulation.map_or(normed, |(shift, scale)| {
                    let at = row / (rows / (shift.len() / d)) * d + i;
                    normed * (1.0 + scale[at]) + shift[at]
                }));
            }
        }
        y
    }

    #[test]
    fn forward_and_backward_equal_the_definition() {
        for (rows, d, groups) in [(5, 24, 1), (6, 17, 3), (1, 8, 1), (130, 3, 2)] {
            let (x, weight, grad) = (random(rows * d, 1), random(d, 2), random(rows * d, 3));
            let (shift, scale) = (random(groups * d, 4), random(groups * d, 5));
            let m = Some(Modulation { shift: &shift, scale: &scale });
            let (xw, ww, sw, cw) = (wide(&x), wide(&weight), wide(&shift), wide(&scale));
            let got = norm_modulate_forward(&x, &weight, m);
            close(&got.y, &reference(&xw, &ww, Some((&sw, &cw))), 1e-5);
            let back = norm_modulate_backward(&grad, &x, (&got.mean, &got.rstd), &weight, m);
            let loss = |x: &[f64], w: &[f64], s: &[f64], c: &[f64]| inner(&reference(x, w, Some((s, c))), &grad);
            close(&back.x, &numeric_gradient(&xw, |x| loss(x, &ww, &sw, &cw)), 1e-4);
            close(&back.weight, &numeric_gradient(&ww, |w| loss(&xw, w, &sw, &cw)), 1e-4);
            let (dshift, dscale) = back.modulation.unwrap();
            close(&dshift, &numeric_gradient(&sw, |s| loss(&xw, &ww, s, &cw)), 1e-4);
            close(&dscale, &numeric_gradient(&cw, |c| loss(&xw, &ww, &sw, c)), 1e-4);
        }
    }

    #[test]
    fn without_modulation() {
        let (x, weight, grad) = (random(7 * 24, 1), random(24, 2), random(7 * 24, 3));
        let got = norm_modulate_forward(&x, &weight, None);
        close(&got.y, &reference(&wide(&x), &wide(&weight), None), 1e-5);
        let back = norm_modulate_backward(&grad, &x, (&got.mean, &got.rstd), &weight, None);
        let loss = |x: &[f64]| inner(&reference(x, &wide(&weight), None), &grad);
        close(&back.x, &numeric_gradient(&wide(&x), loss), 1e-4);
        assert!(back.modulation.is_none());
    }

    #[test]
    fn a_constant_row_gives_the_shift_and_finite_gradients() {
        let x = [vec![3.0; 24], vec![-1e4; 24]].concat();
        let (weight, shift, scale, grad) = (random(24, 2), random(24, 3), random(24, 4), random(48, 5));
        let m = Some(Modulation { shift: &shift, scale: &scale });
        let got = norm_modulate_forward(&x, &weight, m);
        close(&got.y, &wide(&[&shift[..], &shift].concat()), 1e-6);
        let back = norm_modulate_backward(&grad, &x, (&got.mean, &got.rstd), &weight, m);
        assert!(back.x.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, weight, grad) = (random(400 * 40, 1), random(40, 2), random(400 * 40, 3));
        let (shift, scale) = (random(80, 4), random(80, 5));
        let m = Some(Modulation { shift: &shift, scale: &scale });
        same_in_pools(|| {
            let got = norm_modulate_forward(&x, &weight, m);
            let back = norm_modulate_backward(&grad, &x, (&got.mean, &got.rstd), &weight, m);
            let (dshift, dscale) = back.modulation.unwrap();
            [got.y, back.x, back.weight, dshift, dscale].concat()
        });
    }
}
