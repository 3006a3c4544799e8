//! A branch joined to the residual stream: `y = x + gate * dropout(branch + bias)` in one pass.
//!
//! The dropout mask is a pure function of (key, element index), so that the backward pass, the composed form and a rerun see
//! the same one without storing it, whatever the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::pieces;
use super::simd::vectorised;

/// Which elements are kept: each with probability `keep`, then scaled by 1/keep.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Names the mask; draw a new one for each application.
    pub key: u64,
    /// In (0, 1]; 1 keeps everything.
    pub keep: f32,
}

impl Dropout {
    /// Keeps everything.
    pub const OFF: Self = Self { key: 0, keep: 1.0 };
}

/// What is added to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Branch<'a> {
    /// `[rows, d]`.
    pub values: &'a [f32],
    /// `[d]`.
    pub bias: Option<&'a [f32]>,
    /// `[groups, d]`; the rows are split evenly over the groups. None is a gate of 1.
    pub gate: Option<&'a [f32]>,
    /// Applied before the gate.
    pub dropout: Dropout,
    /// Width of a row.
    pub d: usize,
}

/// Gradients of the branch; that of the residual stream is the gradient of the output itself.
#[derive(Clone, Debug)]
pub struct BranchGrads {
    /// `[rows, d]`.
    pub values: Vec<f32>,
    /// `[d]`, if there is a bias.
    pub bias: Option<Vec<f32>>,
    /// `[groups, d]`, if there is a gate.
    pub gate: Option<Vec<f32>>,
}

/// The factor of each element in `range` (indices count `row * d + column`): 0, or 1/keep. Indices count modulo 2^32.
pub fn dropout_keep(key: u64, keep: f32, range: Range<u64>) -> Vec<f32> {
    let mask = Mask::new(Dropout { key, keep });
    range.map(|index| mask.factor(index as u32)).collect()
}

/// `x [rows, d]` plus the branch.
pub fn residual_forward(x: &[f32], branch: &Branch) -> Vec<f32> {
    let d = branch.d;
    assert_eq!(branch.values.len(), x.len(), "branch and residual stream have one shape");
    let (pieces, mask) = (branch.pieces(), Mask::new(branch.dropout));
    let (bias, gate) = (branch.bias_or_zeros(), branch.gate_or_ones());
    pieces::build(&pieces, d, pieces::no_sides(&pieces), |piece, y, ()| {
        let gate = &gate[piece.group * d..][..d];
        for (row, y) in piece.rows.clone().zip(y.chunks_exact_mut(d)) {
            let at = row * d..(row + 1) * d;
            let first = at.start as u32;
            forward_row(&x[at.clone()], &branch.values[at], &bias, gate, (mask, first), y);
        }
    })
}

/// From `grad [rows, d]` of the output the gradients of the branch.
pub fn residual_backward(grad: &[f32], branch: &Branch) -> BranchGrads {
    let d = branch.d;
    assert_eq!(branch.values.len(), grad.len(), "one gradient for each output");
    let (pieces, mask) = (branch.pieces(), Mask::new(branch.dropout));
    let (bias, gate) = (branch.bias_or_zeros(), branch.gate_or_ones());
    // For each piece the sums over its rows of grad * mask * (branch + bias) and of the branch's gradient.
    let mut partial = vec![0.0; pieces.len() * 2 * d];
    let values = pieces::build(&pieces, d, partial.par_chunks_exact_mut(2 * d), |piece, out, partial| {
        let gate = &gate[piece.group * d..][..d];
        for (row, out) in piece.rows.clone().zip(out.chunks_exact_mut(d)) {
            let at = row * d..(row + 1) * d;
            let first = at.start as u32;
            backward_row(&grad[at.clone()], &branch.values[at], &bias, gate, (mask, first), out, partial);
        }
    });
    let sums = pieces::sum_groups(&pieces, &partial, 2 * d);
    let gate = branch.gate.map(|_| sums.chunks_exact(2 * d).flat_map(|sums| &sums[..d]).copied().collect());
    let bias = branch.bias.map(|_| {
        let mut total = vec![0.0; d];
        for sums in sums.chunks_exact(2 * d) {
            total.iter_mut().zip(&sums[d..]).for_each(|(total, part)| *total += part);
        }
        total
    });
    BranchGrads { values, bias, gate }
}

impl Branch<'_> {
    fn pieces(&self) -> Vec<pieces::Piece> {
        let d = self.d;
        assert!(d > 0 && self.values.len().is_multiple_of(d), "{} numbers cannot be rows of {d}", self.values.len());
        assert!(self.gate.is_none_or(|gate| gate.len().is_multiple_of(d)), "the gate is rows of {d}");
        pieces::cut(self.values.len() / d, self.gate.map_or(1, |gate| gate.len() / d))
    }

    fn bias_or_zeros(&self) -> Vec<f32> {
        self.bias.map_or_else(|| vec![0.0; self.d], <[f32]>::to_vec)
    }

    fn gate_or_ones(&self) -> Vec<f32> {
        self.gate.map_or_else(|| vec![1.0; self.d], <[f32]>::to_vec)
    }
}

/// A dropout mask, ready for the inner loop.
#[derive(Clone, Copy)]
struct Mask {
    low: u32,
    high: u32,
    /// Kept if the hash's upper 24 bits are below it.
    limit: u32,
    scale: f32,
}

impl Mask {
    fn new(Dropout { key, keep }: Dropout) -> Self {
        assert!(keep > 0.0 && keep <= 1.0, "the probability to keep an element is in (0, 1], not {keep}");
        let limit = (f64::from(keep) * f64::from(1u32 << 24)).round() as u32;
        Self { low: key as u32, high: (key >> 32) as u32, limit, scale: 1.0 / keep }
    }

    #[inline(always)]
    fn factor(self, index: u32) -> f32 {
        let hash = mix(mix(index.wrapping_add(self.low)) ^ self.high);
        if hash >> 8 < self.limit { self.scale } else { 0.0 }
    }
}

/// A bijection of 32 bits with little bias (Wellons' `lowbias32`).
#[inline(always)]
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

vectorised! {
    fn forward_row(x: &[f32], values: &[f32], bias: &[f32], gate: &[f32], mask: (Mask, u32), y: &mut [f32]) {
        let n = y.len();
        let (x, values, bias, gate) = (&x[..n], &values[..n], &bias[..n], &gate[..n]);
        let (mask, first) = mask;
        for i in 0..n {
            let factor = mask.factor(first.wrapping_add(i as u32));
            y[i] = x[i] + gate[i] * factor * (values[i] + bias[i]);
        }
    }
}

vectorised! {
    fn backward_row(
        grad: &[f32],
        values: &[f32],
        bias: &[f32],
        gate: &[f32],
        mask: (Mask, u32),
        out: &mut [f32],
        partial: &mut [f32],
    ) {
        let n = out.len();
        let (grad, values, bias, gate) = (&grad[..n], &values[..n], &bias[..n], &gate[..n]);
        let (dgate, dbias) = partial.split_at_mut(n);
        let dbias = &mut dbias[..n];
        let (mask, first) = mask;
        for i in 0..n {
            let masked = grad[i] * mask.factor(first.wrapping_add(i as u32));
            let d = masked * gate[i];
            out[i] = d;
            dgate[i] += masked * (values[i] + bias[i]);
            dbias[i] += d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, inner, numeric_gradient, random, same_in_pools, wide};
    use super::*;

    const DROPOUT: Dropout = Dropout { key: 0x1234_5678_9abc_def0, keep: 0.7 };

    fn reference(x: &[f64], values: &[f64], bias: &[f64], gate: &[f64]) -> Vec<f64> {
        let d = bias.len();
        let group_len = x.len() / (gate.len() / d);
        let mask = dropout_keep(DROPOUT.key, DROPOUT.keep, 0..x.len() as u64);
        let at = |i: usize| x[i] + gate[i / group_len * d + i % d] * f64::from(mask[i]) * (values[i] + bias[i % d]);
        (0..x.len()).map(at).collect()
    }

    #[test]
    fn forward_and_backward_equal_the_definition() {
        for (rows, d, groups) in [(1, 8, 1), (6, 24, 3), (67, 5, 1)] {
            let (x, values, grad) = (random(rows * d, 1), random(rows * d, 2), random(rows * d, 3));
            let (bias, gate) = (random(d, 4), random(groups * d, 5));
            let branch = Branch { values: &values, bias: Some(&bias), gate: Some(&gate), dropout: DROPOUT, d };
            let (xw, vw, bw, gw) = (wide(&x), wide(&values), wide(&bias), wide(&gate));
            close(&residual_forward(&x, &branch), &reference(&xw, &vw, &bw, &gw), 1e-6);
            let back = residual_backward(&grad, &branch);
            close(&back.values, &numeric_gradient(&vw, |v| inner(&reference(&xw, v, &bw, &gw), &grad)), 1e-5);
            let dbias = numeric_gradient(&bw, |b| inner(&reference(&xw, &vw, b, &gw), &grad));
            close(&back.bias.unwrap(), &dbias, 1e-5);
            let dgate = numeric_gradient(&gw, |g| inner(&reference(&xw, &vw, &bw, g), &grad));
            close(&back.gate.unwrap(), &dgate, 1e-5);
        }
    }

    #[test]
    fn without_bias_gate_and_dropout_it_is_a_sum() {
        let (x, values) = (random(50, 1), random(50, 2));
        let branch = Branch { values: &values, bias: None, gate: None, dropout: Dropout::OFF, d: 10 };
        let want: Vec<f64> = x.iter().zip(&values).map(|(x, v)| f64::from(*x) + f64::from(*v)).collect();
        close(&residual_forward(&x, &branch), &want, 1e-6);
        let back = residual_backward(&x, &branch);
        assert!(back.values == x && back.bias.is_none() && back.gate.is_none());
    }

    #[test]
    fn masks_have_the_right_rate_and_differ_by_key() {
        let n = 200_000;
        let kept = |mask: &[f32]| mask.iter().filter(|m| **m > 0.0).count() as f64 / n as f64;
        let (a, b) = (dropout_keep(1, 0.9, 0..n), dropout_keep(2, 0.9, 0..n));
        let c = dropout_keep(1 << 32, 0.9, 0..n);
        for mask in [&a, &b, &c] {
            assert!((kept(mask) - 0.9).abs() < 0.004, "kept {}", kept(mask));
        }
        for (x, y) in [(&a, &b), (&a, &c), (&b, &c)] {
            let both = x.iter().zip(y).filter(|(x, y)| **x > 0.0 && **y > 0.0).count() as f64 / n as f64;
            assert!((both - 0.81).abs() < 0.006, "both kept {both}");
        }
        let pairs = a.windows(2).filter(|pair| pair[0] > 0.0 && pair[1] > 0.0).count() as f64 / n as f64;
        assert!((pairs - 0.81).abs() < 0.006, "neighbours kept {pairs}");
        assert_eq!(dropout_keep(1, 0.9, 1000..1100), a[1000..1100]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, values, gate) = (random(500 * 40, 1), random(500 * 40, 2), random(80, 3));
        let branch = Branch { values: &values, bias: Some(&gate[..40]), gate: Some(&gate), dropout: DROPOUT, d: 40 };
        same_in_pools(|| {
            let back = residual_backward(&x, &branch);
            [residual_forward(&x, &branch), back.values, back.bias.unwrap(), back.gate.unwrap()].concat()
        });
    }
}
