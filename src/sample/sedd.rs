//! Score entropy discrete diffusion (SEDD, Lou et al. 2024) with an absorbing mask: the distributions that its sampler draws
//! from. A row of log scores is log p_t(v) / p_t(x) for every id v; how a model makes it is not known here.

/// One analytic step over the noise difference `dsigma` = sigma(t) - sigma(s) (Lou et al. 2024, equation 19, absorbing form):
/// the weights that the next id is drawn from; they need not sum to 1. `log_score` and result: `[vocab]`.
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

/// The last step, from noise `sigma` to none: an analytic step after which no mask is left.
pub fn denoiser_probs(log_score: &[f64], standing: u32, sigma: f64, mask_id: u32) -> Vec<f64> {
    let mut probs = analytic_probs(log_score, standing, sigma, mask_id);
    probs[mask_id as usize] = 0.0;
    probs
}

#[cfg(test)]
mod tests {
    use super::*;

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
