//! The per-token bound: the only place where loss weights meet log-probabilities.
//!
//! A batch asks the network for a list of [`Terms`]: rows of a stream, the token each should have predicted, and a weight.
//! Logits are computed for those rows alone. The bound of masked diffusion (SUBS), the exact likelihood at block size 1, the
//! next-token loss and the loss on visible tokens differ in the list, not in the code. Score entropy (SEDD) is at the end.

use burn::tensor::{Int, Tensor, TensorData};

use crate::error::Result;
use crate::model::{Dit, ops};
use crate::noise::sigma;

/// What a batch asks of the network: `loss = sum weight * -log p(target | row) / denominator`.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Rows of the stream `[batch * length, d]`, ascending.
    pub rows: Vec<u32>,
    /// The token each row should predict.
    pub targets: Vec<u32>,
    /// Its weight, before the denominator.
    pub weights: Vec<f64>,
}

impl Terms {
    /// The bound of masked diffusion under SUBS (MDLM eq. 8, BD3-LM eq. 8): masked positions only, because a visible token is
    /// carried over with probability 1, and position 0 of a row (bos) counts nowhere. `weight(i)` is the loss scale of position
    /// `i`.
    pub fn masked(x0: &[u32], xt: &[u32], mask: u32, length: usize, weight: impl Fn(usize) -> f64) -> Self {
        let mut terms = Self::default();
        for (i, (&clean, &noised)) in x0.iter().zip(xt).enumerate() {
            if noised == mask && i % length != 0 {
                terms.push(i, clean, weight(i));
            }
        }
        terms
    }

    /// Adds plain cross entropy at the visible positions (bos excepted) of every row of `length` whose `weight` is above 0, so
    /// that a model learns to judge what stands there.
    pub fn visible(mut self, x0: &[u32], xt: &[u32], mask: u32, length: usize, weight: impl Fn(usize) -> f64) -> Self {
        for (i, (&clean, &noised)) in x0.iter().zip(xt).enumerate() {
            let weight = weight(i / length);
            if noised != mask && i % length != 0 && weight > 0.0 {
                self.push(i, clean, weight);
            }
        }
        self
    }

    /// Next-token prediction: row `i` of `[batch, length - 1]` inputs predicts token `i + 1` of `[batch, length]` ids.
    pub fn next_token(x0: &[u32], length: usize) -> Self {
        let mut terms = Self::default();
        for (b, row) in x0.chunks(length).enumerate() {
            for (i, &target) in row[1..].iter().enumerate() {
                terms.push(b * (length - 1) + i, target, 1.0);
            }
        }
        terms
    }

    fn push(&mut self, row: usize, target: u32, weight: f64) {
        self.rows.push(row as u32);
        self.targets.push(target);
        self.weights.push(weight);
    }

    /// Forgets terms of weight 0.
    pub fn retain_weighted(&mut self) {
        let kept = |keep: &[f64], list: &[u32]| -> Vec<u32> {
            list.iter().zip(keep).filter(|(_, w)| **w != 0.0).map(|(x, _)| *x).collect()
        };
        self.rows = kept(&self.weights, &self.rows);
        self.targets = kept(&self.weights, &self.targets);
        self.weights.retain(|w| *w != 0.0);
    }

    /// Is there nothing to ask?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The weighted terms spread over the positions of the stream: the per-token bound, in nats.
    pub fn per_position(&self, nll: &[f64], positions: usize) -> Vec<f64> {
        let mut all = vec![0.0; positions];
        for ((&row, &weight), &nll) in self.rows.iter().zip(&self.weights).zip(nll) {
            all[row as usize] += weight * nll;
        }
        all
    }
}

/// The loss as a differentiable scalar `[1, 1]`, and `-log p(target)` of every term in nats.
pub fn cross_entropy(model: &Dit, stream: Tensor<2>, terms: &Terms, denominator: f64) -> Result<(Tensor<2>, Vec<f64>)> {
    let rows = ops::gather(model.form, stream, &terms.rows);
    let weights: Vec<f32> = terms.weights.iter().map(|w| (w / denominator) as f32).collect();
    ops::head_nll(
        model.form,
        rows,
        model.head(),
        &ops::Targets { ids: &terms.targets, weights, banned: model.arch.mask },
    )
}

/// SUBS log-probabilities `[rows, vocab]` from raw logits: the mask is banned (its logit lowered by 1e6), and a visible token is
/// carried over (0 for itself, -1e6 for the others). For tests and viewers; training never needs them all.
pub fn subs_log_probs(logits: &mut [f32], xt: &[u32], vocab: usize, mask: u32) {
    const NEVER: f32 = -1e6;
    for (row, &id) in logits.chunks_mut(vocab).zip(xt) {
        if id != mask {
            row.fill(NEVER);
            row[id as usize] = 0.0;
            continue;
        }
        row[mask as usize] += NEVER;
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        let log_sum = f64::from(max) + sum.ln();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) - log_sum) as f32);
    }
}

/// The noise level of a row of text, as score entropy needs it.
#[derive(Clone, Copy, Debug)]
pub struct ScoreNoise {
    /// Total noise sigma(t).
    pub sigma: f64,
    /// Its rate, d sigma / dt.
    pub rate: f64,
}

impl ScoreNoise {
    /// At noise level t of the loglinear schedule; sigma is capped as in the official code, and the rate with it.
    pub fn at(t: f64) -> Self {
        let sigma = sigma(t);
        Self { sigma, rate: sigma.exp_m1() / t }
    }
}

/// SEDD's log-scores `[positions, vocab]` from logits: `logits - log(expm1(sigma)) - log(vocab - 1)`, and 0 for the token that
/// stands there (Lou et al. 2024, absorbing graph). `noise` is one entry per position.
pub fn log_score(logits: Tensor<2>, xt: &[u32], noise: &[ScoreNoise]) -> Tensor<2> {
    let [positions, vocab] = logits.dims();
    let device = logits.device();
    let shift = |n: &ScoreNoise| (n.sigma.exp_m1().ln() + ((vocab - 1) as f64).ln()) as f32;
    let shifts = TensorData::new(noise.iter().map(shift).collect(), [positions, 1]);
    let scores = logits - Tensor::<2>::from_data(shifts, &device);
    let mut others = vec![1f32; positions * vocab];
    for (i, &id) in xt.iter().enumerate() {
        others[i * vocab + id as usize] = 0.0;
    }
    scores * Tensor::<2>::from_data(TensorData::new(others, [positions, vocab]), &device)
}

/// Score entropy per position, `[positions, 1]`, zero where nothing is masked (Lou et al. 2024, eq. 5, absorbing graph):
/// `rate * (sum over v not mask of e^s - r * s(x0) + r (log r - 1))` with `r = 1 / expm1(sigma)`.
pub fn score_entropy(scores: Tensor<2>, x0: &[u32], xt: &[u32], mask: u32, noise: &[ScoreNoise]) -> Tensor<2> {
    let [positions, vocab] = scores.dims();
    let device = scores.device();
    let column = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [positions, 1]), &device);
    let ratio = |n: &ScoreNoise| 1.0 / n.sigma.exp_m1();
    let constant = |n: &ScoreNoise| ratio(n) * (ratio(n).ln() - 1.0);
    let masked = |i: usize, x: f64| if xt[i] == mask { x as f32 } else { 0.0 };
    let per = |f: &dyn Fn(&ScoreNoise) -> f64| noise.iter().enumerate().map(|(i, n)| masked(i, f(n))).collect();
    let mut kept = vec![1f32; vocab];
    kept[mask as usize] = 0.0;
    let kept = Tensor::<2>::from_data(TensorData::new(kept, [1, vocab]), &device);
    let targets: Vec<i32> = x0.iter().map(|&t| t as i32).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [positions, 1]), &device);
    let positive = (scores.clone().exp() * kept).sum_dim(1) * column(per(&|n| n.rate));
    let negative = scores.gather(1, targets) * column(per(&|n| n.rate * ratio(n)));
    positive - negative + column(per(&|n| n.rate * constant(n)))
}
