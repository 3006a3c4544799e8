//! The output layer and the cross entropy as one operation: the logits of a chunk of rows are made, turned into
//! the loss and its gradient in place, and forgotten.
//!
//! `nll_i = log sum_v exp(x_i . w_v + b_v) - (x_i . w_t + b_t)` with t the target of row i; a banned id (the mask, which a
//! model never predicts) has probability 0.

use rayon::prelude::*;

use super::matmul::{Matrix, Precision, Write};
use super::simd::{self, scale, vectorised};

/// Logits of one chunk, at most about: 16 MB.
const CHUNK_LOGITS: usize = 1 << 22;
/// Columns of the logits whose gradient one task sums.
const COLUMNS: usize = 512;

/// The output layer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `[vocab, d]`.
    pub weight: &'a [f32],
    /// `[vocab]`.
    pub bias: &'a [f32],
    /// An id that gets probability 0.
    pub banned: Option<u32>,
    /// Of the products.
    pub precision: Precision,
}

/// Gradients of the weighted sum of the rows' losses.
#[derive(Clone, Debug, Default)]
pub struct HeadGrads {
    /// `[rows, d]`.
    pub x: Vec<f32>,
    /// `[vocab, d]`.
    pub weight: Vec<f32>,
    /// `[vocab]`.
    pub bias: Vec<f32>,
}

/// `x [rows, d]`, one target for each row: the negative log-likelihood of each, in nats.
pub fn head_nll(x: &[f32], targets: &[u32], head: Head) -> Vec<f64> {
    let mut nll = vec![0.0; targets.len()];
    let plan = Plan::new(x, targets, head);
    for start in (0..targets.len()).step_by(plan.chunk) {
        let rows = start..targets.len().min(start + plan.chunk);
        let mut logits = plan.logits(x, rows.clone());
        plan.losses(&mut logits, &targets[rows.clone()], None, &mut nll[rows]);
    }
    nll
}

/// The losses as `head_nll` gives them, and the gradients of `sum_i weights_i nll_i`.
pub fn head_nll_and_grads(x: &[f32], targets: &[u32], weights: &[f32], head: Head) -> (Vec<f64>, HeadGrads) {
    let rows = targets.len();
    assert_eq!(weights.len(), rows, "one weight for each target");
    let plan = Plan::new(x, targets, head);
    let (d, vocab) = (plan.d, plan.vocab());
    let mut nll = vec![0.0; rows];
    let mut dx = vec![0.0; x.len()];
    let mut dweight = Vec::new();
    let mut dbias = vec![0.0; vocab];
    for start in (0..rows).step_by(plan.chunk) {
        let rows = start..rows.min(start + plan.chunk);
        let n = rows.len();
        let mut logits = plan.logits(x, rows.clone());
        plan.losses(&mut logits, &targets[rows.clone()], Some(&weights[rows.clone()]), &mut nll[rows.clone()]);
        let grad = Matrix::new(&logits, n, vocab);
        let at = rows.start * d..rows.end * d;
        let weight = Matrix::new(head.weight, vocab, d);
        head.precision.product_into(&mut dx[at.clone()], grad, weight, Write::Replace);
        let x = Matrix::new(&x[at], n, d);
        if dweight.is_empty() {
            dweight = head.precision.product(grad.transposed(), x);
        } else {
            head.precision.product_into(&mut dweight, grad.transposed(), x, Write::Add);
        }
        add_column_sums(&logits, &mut dbias);
    }
    dweight.resize(vocab * d, 0.0);
    (nll, HeadGrads { x: dx, weight: dweight, bias: dbias })
}

struct Plan<'a> {
    weight: &'a [f32],
    /// With -inf at the banned id.
    bias: Vec<f32>,
    d: usize,
    /// Rows of a chunk.
    chunk: usize,
    precision: Precision,
}

impl<'a> Plan<'a> {
    fn new(x: &[f32], targets: &[u32], head: Head<'a>) -> Self {
        let vocab = head.bias.len();
        assert!(vocab > 0 && head.weight.len().is_multiple_of(vocab), "one row of weights for each id");
        let d = head.weight.len() / vocab;
        assert_eq!(x.len(), targets.len() * d, "one target for each row");
        let valid = |id: &u32| (*id as usize) < vocab && Some(*id) != head.banned;
        assert!(targets.iter().all(valid), "targets are ids of the vocabulary and not banned");
        let mut bias = head.bias.to_vec();
        if let Some(banned) = head.banned {
            bias[banned as usize] = f32::NEG_INFINITY;
        }
        let chunk = (CHUNK_LOGITS / vocab).clamp(64, 2048) / 64 * 64;
        Self { weight: head.weight, bias, d, chunk, precision: head.precision }
    }

    fn vocab(&self) -> usize {
        self.bias.len()
    }

    fn logits(&self, x: &[f32], rows: std::ops::Range<usize>) -> Vec<f32> {
        let x = Matrix::new(&x[rows.start * self.d..rows.end * self.d], rows.len(), self.d);
        self.precision.product(x, Matrix::new(self.weight, self.vocab(), self.d).transposed())
    }

    /// Writes the losses, and with weights puts their gradient in the place of the logits.
    fn losses(&self, logits: &mut [f32], targets: &[u32], weights: Option<&[f32]>, nll: &mut [f64]) {
        let rows = logits.par_chunks_exact_mut(self.vocab()).zip(nll).enumerate();
        rows.for_each(|(row, (logits, nll))| {
            let target = targets[row] as usize;
            let top = add_bias(logits, &self.bias);
            let expected = logits[target];
            let parts = logits.chunks_mut(COLUMNS).map(|part| f64::from(exp_and_sum(part, top)));
            let total: f64 = parts.sum();
            *nll = f64::from(top) + total.ln() - f64::from(expected);
            if let Some(weights) = weights {
                let weight = weights[row];
                scale(logits, (f64::from(weight) / total) as f32);
                logits[target] -= weight;
            }
        });
    }
}

/// Adds the sums over the rows of `x [rows, columns]`.
fn add_column_sums(x: &[f32], total: &mut [f32]) {
    let width = total.len();
    total.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, total)| {
        for row in x.chunks_exact(width) {
            add(total, &row[chunk * COLUMNS..]);
        }
    });
}

vectorised! {
    /// Returns the largest sum.
    fn add_bias(logits: &mut [f32], bias: &[f32]) -> f32 {
        for (logit, bias) in logits.iter_mut().zip(bias) {
            *logit += bias;
        }
        simd::max(logits)
    }
}

vectorised! {
    fn exp_and_sum(x: &mut [f32], top: f32) -> f32 {
        simd::exp_and_sum::<FMA>(x, top)
    }
}

vectorised! {
    fn add(total: &mut [f32], x: &[f32]) {
        for (total, x) in total.iter_mut().zip(x) {
            *total += x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, inner, numeric_gradient, random, same_in_pools, wide};
    use super::*;

    fn reference(x: &[f64], weight: &[f64], bias: &[f64], banned: Option<u32>, targets: &[u32]) -> Vec<f64> {
        let (rows, vocab) = (targets.len(), bias.len());
        let d = x.len() / rows;
        let row = |i: usize| {
            let logit = |v: usize| bias[v] + (0..d).map(|j| x[i * d + j] * weight[v * d + j]).sum::<f64>();
            let allowed = (0..vocab).filter(|v| banned != Some(*v as u32));
            let top = allowed.clone().map(logit).fold(f64::NEG_INFINITY, f64::max);
            top + allowed.map(|v| (logit(v) - top).exp()).sum::<f64>().ln() - logit(targets[i] as usize)
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn losses_and_gradients_equal_the_definition() {
        for (rows, d, vocab, banned) in [(1, 8, 2, None), (5, 3, 31, Some(4)), (70, 2, 19, Some(0))] {
            let (x, weight, bias) = (random(rows * d, 1), random(vocab * d, 2), random(vocab, 3));
            let (weights, head) =
                (random(rows, 4), Head { weight: &weight, bias: &bias, banned, precision: Precision::F32 });
            let targets: Vec<u32> =
                (0..rows as u32).map(|i| if banned.is_some() { i % 3 + 1 } else { i % 2 }).collect();
            let (xw, ww, bw) = (wide(&x), wide(&weight), wide(&bias));
            let (nll, grads) = head_nll_and_grads(&x, &targets, &weights, head);
            assert_eq!(nll, head_nll(&x, &targets, head));
            let nll: Vec<f32> = nll.iter().map(|x| *x as f32).collect();
            close(&nll, &reference(&xw, &ww, &bw, banned, &targets), 2e-6);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| inner(&reference(x, w, b, banned, &targets), &weights);
            close(&grads.x, &numeric_gradient(&xw, |x| loss(x, &ww, &bw)), 1e-5);
            close(&grads.weight, &numeric_gradient(&ww, |w| loss(&xw, w, &bw)), 1e-5);
            close(&grads.bias, &numeric_gradient(&bw, |b| loss(&xw, &ww, b)), 1e-5);
        }
    }

    #[test]
    fn large_logits_stay_finite() {
        let (x, weight) = ([1000.0, -1000.0], [3.0, -3.0, 0.0]);
        let head = Head { weight: &weight, bias: &[0.0; 3], banned: None, precision: Precision::F32 };
        let (nll, grads) = head_nll_and_grads(&x, &[0, 0], &[1.0, 1.0], head);
        assert_eq!(nll, [0.0, 6000.0]);
        assert_eq!(grads.x, [0.0, -6.0]);
        assert_eq!(grads.bias, [-1.0, 1.0, 0.0]);
    }

    #[test]
    fn several_chunks_add_up_and_threads_do_not_change_a_bit() {
        let (rows, d, vocab) = (150, 2, 70_000);
        let (x, weight, bias) = (random(rows * d, 1), random(vocab * d, 2), random(vocab, 3));
        let weights = random(rows, 4);
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 401 % vocab as u32).collect();
        let head = Head { weight: &weight, bias: &bias, banned: Some(69_999), precision: Precision::F32 };
        let (nll, grads) = head_nll_and_grads(&x, &targets, &weights, head);
        let mut dbias = vec![0.0; vocab];
        for i in 0..rows {
            let (one, part) = head_nll_and_grads(&x[i * d..][..d], &targets[i..=i], &weights[i..=i], head);
            assert!((one[0] - nll[i]).abs() < 1e-5);
            dbias.iter_mut().zip(&part.bias).for_each(|(sum, part)| *sum += f64::from(*part));
        }
        close(&grads.bias, &dbias, 1e-5);
        same_in_pools(|| {
            let (_, grads) = head_nll_and_grads(&x, &targets, &weights, head);
            [grads.x, grads.weight, grads.bias].concat()
        });
    }
}
