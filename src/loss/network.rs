//! What the trainable network is asked for: the bound as a differentiable scalar, and score entropy.

use burn::tensor::{Int, Tensor, TensorData};

use super::Terms;
use crate::error::Result;
use crate::model::{Dit, ops};
use crate::noise::sigma;

/// The loss as a differentiable scalar `[1, 1]`, and `-log p(target)` of every term in nats.
///
/// # Errors
/// As [`ops::head_nll`].
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
