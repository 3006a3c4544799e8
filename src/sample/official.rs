//! The official sampling code (Arriola et al. 2025), to replay what it recorded: its draw, its ancestral step, its stop rule,
//! and the steps of SEDD (Lou et al. 2024). Our own sampler, the other files of this folder, uses none of it.

use super::stop::{ENTROPY_WINDOW, last_entropy};

/// A sample whose last 256 tokens have a histogram of less entropy (nats) is stopped.
const LOW_ENTROPY: f64 = 4.0;

/// A draw by exponential race, argmax p / (1e-10 - ln(u + 1e-10)), one uniform per token. `probs`, `uniforms`: `[vocab]`;
/// probabilities need not sum to 1.
pub fn exponential_race(probs: &[f64], uniforms: &[f64]) -> usize {
    let finish = |id: usize| probs[id] / (1e-10 - (uniforms[id] + 1e-10).ln());
    (1..probs.len()).fold(0, |best, id| if finish(id) > finish(best) { id } else { best })
}

/// The distribution that one ancestral step draws a masked token from: the model's, times 1 - s/t, and the mask with
/// probability s/t = `stay` (Sahoo et al. 2024, equation 7). `probs` and result: `[vocab]`.
pub fn ancestral_posterior(probs: &[f64], stay: f64, mask_id: u32) -> Vec<f64> {
    let mut posterior: Vec<f64> = probs.iter().map(|p| p * (1.0 - stay)).collect();
    posterior[mask_id as usize] = stay;
    posterior
}

/// How long a text the official code aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A fixed number of tokens: a sample of low entropy is stopped (and thrown away), nothing is cut.
    Fixed,
    /// Any number: the second end of text (the first is bos) stops and is kept as the last token; low entropy cuts the last
    /// 256 tokens off, whatever the end of text said.
    Variable,
}

/// What [`judge`] finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Entropy of the last 256 tokens in nats.
    pub entropy: f64,
    /// Whether the sample ends.
    pub stop: bool,
    /// How many tokens are kept.
    pub keep: usize,
}

/// The stop rule (`_check_stop_conds`), which is asked once more than 256 tokens are there.
pub fn judge(text: &[u32], eos: u32, extent: Extent) -> Verdict {
    let entropy = last_entropy(text);
    let low = entropy < LOW_ENTROPY;
    let second_eos = text.iter().enumerate().filter(|&(_, &id)| id == eos).map(|(position, _)| position).nth(1);
    let keep = match (extent, low, second_eos) {
        (Extent::Variable, true, _) => text.len().saturating_sub(ENTROPY_WINDOW),
        (Extent::Variable, false, Some(position)) => position + 1,
        _ => text.len(),
    };
    Verdict { entropy, stop: low || (extent == Extent::Variable && second_eos.is_some()), keep }
}

/// One analytic step of SEDD over the noise difference `dsigma` = sigma(t) - sigma(s) (Lou et al. 2024, equation 19, with an
/// absorbing mask): the weights that the next id is drawn from; they need not sum to 1. `log_score`: log p_t(v) / p_t(x) for
/// every id v. It and the result: `[vocab]`.
pub fn analytic_probs(log_score: &[f64], standing: u32, dsigma: f64, mask_id: u32) -> Vec<f64> {
    let (grow, stay) = (dsigma.exp(), (-dsigma).exp());
    let mask = mask_id as usize;
    let score: Vec<f64> = log_score.iter().map(|s| s.exp()).collect();
    let outflow = (1.0 - grow) * score.iter().sum::<f64>();
    let staggered = |id: usize| score[id] * grow + if id == mask { outflow } else { 0.0 };
    let transition = |id: usize| {
        let kept = if id == standing as usize { stay } else { 0.0 };
        kept + if standing == mask_id { 1.0 - stay } else { 0.0 }
    };
    (0..score.len()).map(|id| staggered(id) * transition(id)).collect()
}

/// The last step of SEDD, from noise `sigma` to none: an analytic step after which no mask is left.
pub fn denoiser_probs(log_score: &[f64], standing: u32, sigma: f64, mask_id: u32) -> Vec<f64> {
    let mut probs = analytic_probs(log_score, standing, sigma, mask_id);
    probs[mask_id as usize] = 0.0;
    probs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_posterior_is_a_distribution() {
        assert_eq!(ancestral_posterior(&[0.5, 0.5, 0.0], 0.75, 2), [0.125, 0.125, 0.75]);
    }

    /// The exact score of a known distribution: at noise sigma a mask turns into v with the ratio p(v) / (e^sigma - 1).
    fn exact_score(probs: &[f64], sigma: f64) -> Vec<f64> {
        probs.iter().map(|p| (p / sigma.exp_m1()).ln()).chain([0.0]).collect()
    }

    #[test]
    fn the_exact_score_gives_the_exact_reverse_step() {
        let (probs, sigma, next) = ([0.2, 0.3, 0.5], 1.5, 0.9);
        let weights = analytic_probs(&exact_score(&probs, sigma), 3, sigma - next, 3);
        let masked_before = 1.0 - f64::exp(-sigma);
        let masked_after = 1.0 - f64::exp(-next);
        for (id, p) in probs.iter().enumerate() {
            let exact = p * (masked_before - masked_after) / masked_before;
            assert!((weights[id] - exact).abs() < 1e-12, "{id}: {} {exact}", weights[id]);
        }
        assert!((weights[3] - masked_after / masked_before).abs() < 1e-12, "{}", weights[3]);
    }

    #[test]
    fn denoising_gives_the_distribution_itself() {
        let probs = [0.2, 0.3, 0.5];
        let weights = denoiser_probs(&exact_score(&probs, 1.5), 3, 1.5, 3);
        assert!(weights.iter().zip([0.2, 0.3, 0.5, 0.0]).all(|(w, p)| (w - p).abs() < 1e-12), "{weights:?}");
    }
}
