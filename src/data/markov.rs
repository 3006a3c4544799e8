//! A source of ids whose entropy is a formula: a stationary Markov chain. Laws use it: the bound of any model on its rows
//! lies above [`MarkovToy::entropy_per_token`], and a trained one comes close.

use crate::rng::Rng;
use crate::{Error, Result};

/// A Markov chain over `n` ids that has forgotten its beginning (the first id is drawn from the stationary law).
#[derive(Clone, Debug)]
pub struct MarkovToy {
    /// `transition[a][b]`: probability of b after a. Every row sums to 1.
    transition: Vec<Vec<f64>>,
    stationary: Vec<f64>,
}

impl MarkovToy {
    /// From a matrix `[n, n]` of positive probabilities (so that there is one stationary law, soon reached).
    ///
    /// # Errors
    /// A matrix that is not square, an entry that is not positive, or a row that does not sum to 1.
    pub fn new(transition: Vec<Vec<f64>>) -> Result<Self> {
        let n = transition.len();
        for (from, row) in transition.iter().enumerate() {
            let sum: f64 = row.iter().sum();
            if row.len() != n || row.iter().any(|p| *p <= 0.0 || !p.is_finite()) || (sum - 1.0).abs() > 1e-9 {
                let expected = format!("{n} positive probabilities that sum to 1");
                return Err(Error::value(format!("transition row {from}"), expected, format!("{row:?}")));
            }
        }
        if n == 0 {
            return Err(Error::value("transition", "at least one id", "none"));
        }
        let mut stationary = vec![1.0 / n as f64; n];
        // Each step shrinks the distance by the factor 1 - n * (smallest entry) at least.
        for _ in 0..100_000 {
            let next: Vec<f64> = (0..n).map(|b| (0..n).map(|a| stationary[a] * transition[a][b]).sum()).collect();
            let change: f64 = next.iter().zip(&stationary).map(|(x, y)| (x - y).abs()).sum();
            stationary = next;
            if change < 1e-15 {
                break;
            }
        }
        Ok(Self { transition, stationary })
    }

    /// A chain of `n` ids that prefers a few successors, drawn from a generator.
    ///
    /// # Errors
    /// `n` of 0.
    pub fn drawn(n: usize, rng: &mut Rng) -> Result<Self> {
        let rows = (0..n).map(|_| {
            let weights: Vec<f64> = (0..n).map(|_| 0.02 + (-(1.0 - rng.uniform()).ln()).powi(3)).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|w| w / sum).collect()
        });
        Self::new(rows.collect())
    }

    /// Number of ids.
    pub fn ids(&self) -> usize {
        self.transition.len()
    }

    /// A row of `length` ids.
    pub fn row(&self, length: usize, rng: &mut Rng) -> Vec<u32> {
        let mut ids: Vec<u32> = Vec::with_capacity(length);
        for _ in 0..length {
            let law = ids.last().map_or(&self.stationary, |&last| &self.transition[last as usize]);
            ids.push(draw(law, rng));
        }
        ids
    }

    /// Exact -ln p of a row, in nats.
    pub fn nats(&self, row: &[u32]) -> f64 {
        let first = row.first().map_or(0.0, |&id| -self.stationary[id as usize].ln());
        first + row.windows(2).map(|w| -self.transition[w[0] as usize][w[1] as usize].ln()).sum::<f64>()
    }

    /// Entropy of the first id of a row, in nats.
    pub fn entropy_of_first(&self) -> f64 {
        entropy(&self.stationary)
    }

    /// Entropy rate: the entropy of every later id given those before, in nats.
    pub fn entropy_per_token(&self) -> f64 {
        self.stationary.iter().zip(&self.transition).map(|(p, law)| p * entropy(law)).sum()
    }

    /// Exact entropy of a row of `length` ids, in nats.
    pub fn entropy_per_row(&self, length: usize) -> f64 {
        match length {
            0 => 0.0,
            _ => self.entropy_of_first() + (length - 1) as f64 * self.entropy_per_token(),
        }
    }
}

fn entropy(law: &[f64]) -> f64 {
    law.iter().map(|p| -p * p.ln()).sum()
}

fn draw(law: &[f64], rng: &mut Rng) -> u32 {
    let mut point = rng.uniform();
    for (id, p) in law.iter().enumerate() {
        if point < *p {
            return id as u32;
        }
        point -= p;
    }
    law.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_rows_is_the_entropy() {
        let mut rng = Rng::new(1);
        let toy = MarkovToy::drawn(12, &mut rng).unwrap();
        let (n, length) = (4000, 32);
        let nats: Vec<f64> = (0..n).map(|_| toy.nats(&toy.row(length, &mut rng))).collect();
        let mean = nats.iter().sum::<f64>() / n as f64;
        let var = nats.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        let error = (var / n as f64).sqrt();
        assert!((mean - toy.entropy_per_row(length)).abs() < 4.0 * error, "{mean} {}", toy.entropy_per_row(length));
    }

    #[test]
    fn two_ids_have_the_textbook_law() {
        let toy = MarkovToy::new(vec![vec![0.9, 0.1], vec![0.3, 0.7]]).unwrap();
        let expected = 0.75 * entropy(&[0.9, 0.1]) + 0.25 * entropy(&[0.3, 0.7]);
        assert!((toy.entropy_per_token() - expected).abs() < 1e-12);
        assert!(MarkovToy::new(vec![vec![0.9, 0.2], vec![0.3, 0.7]]).is_err());
        assert!(MarkovToy::new(vec![vec![1.0, 0.0], vec![0.3, 0.7]]).is_err());
    }
}
