//! The per-token bound: the only place where loss weights meet log-probabilities.
//!
//! A batch asks the network for a list of [`Terms`]: rows of a stream, the token each should have predicted, and a weight.
//! Logits are computed for those rows alone. The bound of masked diffusion (SUBS), the exact likelihood at block size 1, the
//! next-token loss and the loss on visible tokens differ in the list, not in the code. What asks the trainable network, and score entropy (SEDD), is in `network`.

#[cfg(feature = "train")]
mod network;

use crate::engine::simd::{Isa, Kernel, LANES, Simd, exp};

#[cfg(feature = "train")]
pub use network::{ScoreNoise, cross_entropy, log_score, score_entropy};

/// What a batch asks of the network: `loss = sum weight * -log p(target | row) / denominator`.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Rows of the network's output `[batch * length, d]` (of a next-token model `[batch * (length - 1), d]`), ascending.
    pub rows: Vec<u32>,
    /// The token each row should predict.
    pub targets: Vec<u32>,
    /// Its weight, before the denominator.
    pub weights: Vec<f64>,
}

impl Terms {
    /// The bound of masked diffusion under SUBS (MDLM eq. 10, BD3-LM eq. 8): masked positions only, because a visible token is
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

/// `-log p(target)` in nats under SUBS, from the logits `[vocab]` of a masked row: the mask has no probability, and may lie beyond
/// the vocabulary. Not finite where a logit is not, or where the target is the mask or no id at all.
pub fn nll(logits: &[f32], target: u32, mask: u32) -> f64 {
    let Some(&found) = logits.get(target as usize).filter(|_| target != mask) else { return f64::INFINITY };
    let (before, after) = logits.split_at(logits.len().min(mask as usize));
    let (most, sum) = Isa::best().run(Exponentials { parts: [before, after.get(1..).unwrap_or_default()] });
    f64::from(most) + sum.ln() - f64::from(found)
}

/// The greatest of some numbers, and the sum of `e^(x - greatest)`: exponentials in single precision, which are good to 2e-7, and
/// their sum in double.
struct Exponentials<'a> {
    parts: [&'a [f32]; 2],
}

impl Kernel for Exponentials<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut most = s.splat(f32::NEG_INFINITY);
        let rest = |part: &[f32]| part.as_chunks::<LANES>().1.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for vector in self.parts.iter().flat_map(|part| part.as_chunks::<LANES>().0) {
            most = s.max(most, s.load(vector));
        }
        let most = self.parts.iter().map(|part| rest(part)).fold(s.largest(most), f32::max);
        let mut sum = 0.0;
        for part in self.parts {
            let (vectors, rest) = part.as_chunks::<LANES>();
            for vectors in vectors.chunks(16) {
                let mut sums = s.splat(0.0);
                for vector in vectors {
                    let x = s.sub(s.load(vector), s.splat(most));
                    // Zero times a logit that is not finite is no number, and so is the sum then.
                    sums = s.add(sums, s.fma(x, s.splat(0.0), exp(s, x)));
                }
                sum += f64::from(s.sum(sums));
            }
            sum += rest.iter().map(|&x| (f64::from(x) - f64::from(most)).exp()).sum::<f64>();
        }
        (most, sum)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_has_no_probability_and_nothing_else_is_lost() {
        let logits = [1.0, 50.0, 3.0, -2.0];
        let sum = 1f64.exp() + 3f64.exp() + (-2f64).exp();
        assert!((nll(&logits, 2, 1) - (sum.ln() - 3.0)).abs() < 1e-12);
        assert!((nll(&logits, 1, 9) - ((sum + 50f64.exp()).ln() - 50.0)).abs() < 1e-12);
        let mut all = logits;
        subs_log_probs(&mut all, &[1], 4, 1);
        assert!((f64::from(all[3]) + nll(&logits, 3, 1)).abs() < 1e-6);
    }

    #[test]
    fn long_rows_are_those_of_the_definition() {
        let mut rng = crate::rng::Rng::new(1);
        for vocab in [15, 16, 17, 600, 4099] {
            let logits: Vec<f32> = (0..vocab).map(|_| (9.0 * rng.normal()) as f32).collect();
            for mask in [0, 3, vocab as u32 - 1, vocab as u32] {
                let allowed = logits.iter().enumerate().filter(|&(id, _)| id != mask as usize);
                let sum: f64 = allowed.map(|(_, &x)| f64::from(x).exp()).sum();
                assert!((nll(&logits, 5, mask) - (sum.ln() - f64::from(logits[5]))).abs() < 3e-7, "{vocab} {mask}");
            }
        }
    }

    #[test]
    fn what_has_no_probability_is_not_finite() {
        for strange in [f32::NAN, f32::INFINITY] {
            for at in [0, 5, 17] {
                let mut logits = vec![0.0; 18];
                assert!(nll(&logits, 4, 1).is_finite());
                assert!(!nll(&logits, 1, 1).is_finite() && !nll(&logits, 18, 1).is_finite());
                logits[at] = strange;
                assert!(!nll(&logits, 4, 1).is_finite(), "{strange} at {at}");
            }
        }
    }
}
