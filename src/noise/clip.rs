//! Clip intervals: which noise levels training draws, and the search for the interval whose bound has the least variance
//! (Arriola et al. 2025, section 5).

use std::fmt;

use crate::error::{Error, Result};

/// The least noise level: below it the weight 1/t explodes.
const FLOOR: f64 = 1e-3;
/// Distance of two starts in the search.
const STEP: f64 = 0.05;

/// The interval [beta, omega] that noise levels are drawn from in training, or the interval of mask probabilities that it
/// leads to ([`super::Schedule::clip_of_probs`]). A reported bound always uses [`Clip::FULL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    beta: f64,
    omega: f64,
}

impl Clip {
    /// Every noise level from 1e-3 on.
    pub const FULL: Self = Self { beta: FLOOR, omega: 1.0 };
    /// Everything masked, always: the interval of block size 1.
    pub const MASKED: Self = Self { beta: 1.0, omega: 1.0 };

    /// The interval [beta, omega].
    ///
    /// # Errors
    /// When not 1e-3 <= beta <= omega <= 1.
    pub fn new(beta: f64, omega: f64) -> Result<Self> {
        if FLOOR <= beta && beta <= omega && omega <= 1.0 {
            return Ok(Self { beta, omega });
        }
        Err(Error::value("clip", "1e-3 <= beta <= omega <= 1", format!("beta {beta}, omega {omega}")))
    }

    /// Lower end.
    pub fn beta(self) -> f64 {
        self.beta
    }

    /// Upper end.
    pub fn omega(self) -> f64 {
        self.omega
    }

    /// The noise level at a fraction `u` in [0, 1) of the interval.
    pub fn at(self, u: f64) -> f64 {
        self.beta + (self.omega - self.beta) * u
    }

    /// The interval from f(beta) to f(omega), for an `f` that rises from at least 1e-3 to 1. An end at 1e-3 or 1 stays
    /// exactly there, since an interval's extremes are no bounds.
    pub(super) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let end = |t: f64| if t == FLOOR || t == 1.0 { t } else { f(t) };
        Self { beta: end(self.beta), omega: end(self.omega) }
    }

    /// True when a block with `masked` of `block` tokens masked lies inside (an interval of mask probabilities). An end at its
    /// extreme (1e-3, 1) is no bound, as in the official resampling: a block may then be left without any mask, or wholly
    /// masked.
    pub fn holds(self, masked: usize, block: usize) -> bool {
        let fraction = masked as f64 / block as f64;
        (self.beta == FLOOR || fraction >= self.beta) && (self.omega == 1.0 || fraction <= self.omega)
    }

    /// True when some number of masked tokens lies inside for this block size.
    pub fn admits(self, block: usize) -> bool {
        (0..=block).any(|masked| self.holds(masked, block))
    }
}

impl fmt::Display for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.beta, self.omega)
    }
}

/// How the ends of the candidates are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Multiples of 0.05, and 1e-3.
    Exact,
    /// In f32, as the official code does. Its 1e-3 is then not equal to the f64 one, so that the lower end is a bound and
    /// blocks without any mask are drawn again.
    Official,
}

/// The candidates of the search for one block size: [`Clip::FULL`] and for each width all intervals that start at a multiple
/// of 0.05 and fit below 1. Block size 1 has only [`Clip::FULL`] and [`Clip::MASKED`].
///
/// # Errors
/// When a width does not lie in (0, 1], or an interval made from it is empty.
pub fn candidates(block: usize, widths: &[f64], grid: Grid) -> Result<Vec<Clip>> {
    if block == 1 {
        return Ok(vec![Clip::FULL, Clip::MASKED]);
    }
    let mut clips = vec![Clip::FULL];
    for &width in widths {
        if !(width > 0.0 && width <= 1.0) {
            return Err(Error::value("clip search width", "a number in (0, 1]", width.to_string()));
        }
        // The tolerance keeps (1 - 0.9) / 0.05 at 2 whatever its last bit.
        let last = ((1.0 - width) / STEP + 1e-9).floor() as usize;
        for i in 0..=last {
            let start = i as f64 * STEP;
            let (beta, omega) = match grid {
                Grid::Exact => (start.max(FLOOR), millionths(start + width)),
                Grid::Official => (f64::from((start as f32).max(FLOOR as f32)), f64::from(start as f32 + width as f32)),
            };
            let beta = if grid == Grid::Exact && i > 0 { millionths(beta) } else { beta };
            clips.push(Clip::new(beta, omega.min(1.0))?);
        }
    }
    Ok(clips)
}

/// Rounds to millionths: removes the last bit of a sum of decimal fractions.
fn millionths(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

/// The score of one candidate: the unbiased variance of the per-block bound (nats per token) over all entries
/// (row x block) of a batch, summed over batches. The official log shows it divided by the number of batches.
///
/// # Errors
/// When a batch has fewer than two entries.
pub fn variance_score(batches: &[Vec<f64>]) -> Result<f64> {
    let mut sum = 0.0;
    for entries in batches {
        if entries.len() < 2 {
            return Err(Error::value("clip search batch", "two blocks or more", entries.len().to_string()));
        }
        let mean = entries.iter().sum::<f64>() / entries.len() as f64;
        let squares: f64 = entries.iter().map(|x| (x - mean).powi(2)).sum();
        sum += squares / (entries.len() - 1) as f64;
    }
    Ok(sum)
}

/// The candidate with the least score, the first of equals; `None` when there is none or a score is not a number.
pub fn best(scores: &[f64]) -> Option<usize> {
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_refused_when_its_ends_are_not_ordered_levels() {
        for (beta, omega) in [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (f64::NAN, 1.0), (0.5, f64::NAN)] {
            assert!(Clip::new(beta, omega).is_err(), "{beta} {omega}");
        }
        assert_eq!(Clip::new(1e-3, 1.0).unwrap(), Clip::FULL);
        assert_eq!(Clip::new(1.0, 1.0).unwrap(), Clip::MASKED);
    }

    #[test]
    fn the_exact_grid_has_round_ends() {
        let clips = candidates(4, &[0.5, 0.9], Grid::Exact).unwrap();
        assert_eq!(clips.len(), 1 + 11 + 3);
        assert_eq!((clips[1].beta(), clips[1].omega()), (1e-3, 0.5));
        assert_eq!((clips[10].beta(), clips[10].omega()), (0.45, 0.95));
        assert_eq!((clips[14].beta(), clips[14].omega()), (0.1, 1.0));
        assert!(candidates(4, &[1.5], Grid::Exact).is_err());
    }

    #[test]
    fn which_counts_a_clip_holds() {
        let counts = |beta, omega| {
            let clip = Clip::new(beta, omega).unwrap();
            (0..=4).filter(|&masked| clip.holds(masked, 4)).collect::<Vec<_>>()
        };
        assert_eq!(counts(0.45, 0.95), [2, 3]);
        assert_eq!(counts(1e-3, 0.5), [0, 1, 2]);
        assert_eq!(counts(f64::from(1e-3f32), 0.5), [1, 2]);
        assert_eq!(counts(0.5, 1.0), [2, 3, 4]);
        assert!(!Clip::new(0.3, 0.45).unwrap().admits(4));
    }

    #[test]
    fn the_least_variance_wins_and_the_first_of_equals() {
        assert_eq!(variance_score(&[vec![1.0, 3.0], vec![0.0, 0.0, 3.0]]).unwrap(), 5.0);
        assert!(variance_score(&[vec![1.0]]).is_err());
        assert_eq!(best(&[3.0, 1.0, 1.0]), Some(1));
        assert_eq!(best(&[3.0, f64::NAN]), None);
        assert_eq!(best(&[]), None);
    }
}
