//! Likelihood without t: integrating the noise level out of the masked-diffusion bound of a block with n noisable tokens gives,
//! for every schedule, E over k uniform in 1..=n and a uniform subset S of size k of (n/k) * sum over S of -log p(x0_i | rest).
//! So k and S are drawn, not t: no edge at small t, no weight above n, and n = 1 is the exact value (any-order autoregressive
//! form: Hoogeboom et al. 2022, equation 4; Ou et al. 2025).

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Most tokens of a block whose subsets are enumerated (2^n - 1 of them).
pub const MAX_ENUMERATED: usize = 20;

/// Which of a block's n noisable tokens are masked, and the weight of their summed -log p.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Indices below n, ascending, at least one.
    pub members: Vec<usize>,
    /// n / k.
    pub weight: f64,
    /// Probability that [`draw_subset`] gives this very subset: 1 / (n * binomial(n, k)).
    pub probability: f64,
}

impl Subset {
    fn new(members: Vec<usize>, n: usize) -> Self {
        let k = members.len();
        let binomial: f64 = (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product();
        Self { members, weight: n as f64 / k as f64, probability: 1.0 / (n as f64 * binomial) }
    }
}

/// Draws a size uniformly in 1..=n, then a subset of that size uniformly. `n` must not be 0.
pub fn draw_subset(n: usize, rng: &mut Rng) -> Subset {
    let k = 1 + rng.below(n);
    subset_of_size(k, n, rng)
}

/// Draws a subset of `k` of `n` uniformly; 1 <= k <= n. For draws that spread the sizes evenly.
pub fn subset_of_size(k: usize, n: usize, rng: &mut Rng) -> Subset {
    let mut members: Vec<usize> = (0..n).collect();
    for i in 0..k {
        let other = i + rng.below(n - i);
        members.swap(i, other);
    }
    members.truncate(k);
    members.sort_unstable();
    Subset::new(members, n)
}

/// All subsets but the empty one. The sum of `probability * weight * (sum over members of -log p)` is the bound itself.
///
/// # Errors
/// When `n` exceeds [`MAX_ENUMERATED`].
pub fn all_subsets(n: usize) -> Result<impl Iterator<Item = Subset>> {
    if n > MAX_ENUMERATED {
        return Err(Error::value("tokens to enumerate", format!("at most {MAX_ENUMERATED}"), n.to_string()));
    }
    Ok((1u32..1 << n).map(move |bits| Subset::new((0..n).filter(|i| bits >> i & 1 == 1).collect(), n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_drawn_at_their_probability() {
        let mut rng = Rng::new(6);
        let all: Vec<Subset> = all_subsets(4).unwrap().collect();
        let mut counts = vec![0u32; all.len()];
        for _ in 0..40_000 {
            let drawn = draw_subset(4, &mut rng);
            counts[all.iter().position(|subset| *subset == drawn).unwrap()] += 1;
        }
        for (subset, count) in all.iter().zip(counts) {
            assert!((f64::from(count) / 40_000.0 - subset.probability).abs() < 0.01, "{subset:?} {count}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_every_token_weighs_the_same() {
        for n in 1..=10 {
            let mut total = 0.0;
            let mut token_weight = vec![0.0; n];
            for subset in all_subsets(n).unwrap() {
                total += subset.probability;
                for &i in &subset.members {
                    token_weight[i] += subset.probability * subset.weight;
                }
            }
            assert!((total - 1.0).abs() < 1e-12);
            assert!(token_weight.iter().all(|w| (w - 1.0).abs() < 1e-12), "{token_weight:?}");
        }
        assert!(all_subsets(21).is_err());
    }

    /// A bound over orders: with log-probabilities that only depend on how many tokens are visible, the bound is the mean
    /// negative log-probability of a random order, which has a closed form.
    #[test]
    fn the_bound_is_the_mean_over_random_orders() {
        let nats = [3.0, 1.0, 0.5]; // with 0, 1, 2 tokens visible
        let bound: f64 = all_subsets(3)
            .unwrap()
            .map(|subset| {
                let masked = subset.members.len();
                subset.probability * subset.weight * masked as f64 * nats[3 - masked]
            })
            .sum();
        assert!((bound - 4.5).abs() < 1e-12, "{bound}");
    }
}
