//! The one random generator of the program: ChaCha8, passed explicitly and split by name, so that data order, noise and
//! sampling never share a stream. The same seed gives the same numbers on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};

/// A seeded stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    inner: ChaCha8Rng,
}

impl Rng {
    /// The root generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self::from_key(Sha256::digest(seed.to_le_bytes()).into())
    }

    fn from_key(key: [u8; 32]) -> Self {
        Self { inner: ChaCha8Rng::from_seed(key) }
    }

    /// An independent generator for one purpose; does not advance `self`.
    pub fn split(&self, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.inner.get_seed());
        hash.update(name.as_bytes());
        Self::from_key(hash.finalize().into())
    }

    /// An independent generator for the `index`-th item of a purpose (a step, a sample, a row).
    pub fn split_at(&self, name: &str, index: u64) -> Self {
        self.split(&format!("{name}/{index}"))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n. `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box and Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffle in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indices_give_other_streams() {
        let rng = Rng::new(7);
        let mut streams = [rng.split("a"), rng.split("b"), rng.split_at("a", 0), rng.split_at("a", 1), rng];
        let mut firsts: Vec<u64> = streams.iter_mut().map(Rng::bits).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 5);
    }
}
