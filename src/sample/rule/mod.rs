//! Unmasking rules: which masked rows of the open block become known in a pass. One published idea is one variant and one pure
//! function. Rules that choose positions without looking at proposals ask only for these rows and accept what comes back;
//! the others ask for every masked row and choose afterwards. Every rule settles at least one row per pass.

use serde::Serialize;

use crate::event::Why;
use crate::pass::Proposal;
use crate::rng::Rng;

mod budget;
mod clock;
pub mod credit;
pub mod klass;
mod knobs;
mod order;
mod ranked;
mod split;
#[cfg(test)]
mod tests;

pub use budget::{Budget, hasten, hurry};
pub use clock::Clock;
pub use knobs::Knobs;
pub use order::{ancestral, first_hitting, leave, left_to_right, random};
pub use ranked::{
    Accepted, best, certainty, confidence, dynamic, entropy_bound, factor, hierarchy, margin, ranked, threshold,
};
pub use split::{Split, dream_times};

/// An unmasking rule. Steps are counted per block. Probabilities are taken before temperature and nucleus,
/// as in LLaDA and Fast-dLLM; Dream and SDAR take them after (the same at temperature 1 without a nucleus).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// One uniformly chosen position per pass: the exact simulation of the reverse process, jump by jump (Zheng et al. 2024,
    /// first-hitting sampler, proposition 4.1; the default of Arriola et al. 2025). The times of the jumps are not drawn: no
    /// model that is not conditioned on time sees them.
    FirstHitting,
    /// The reverse process on a grid of `steps` + 1 times: each mask stays with probability s/t (Sahoo et al. 2024,
    /// equation 7). Unlike in the official code the last step reaches s = 0, so that no mask is left over.
    Ancestral {
        /// Steps of the time grid.
        steps: usize,
    },
    /// Uniformly chosen positions, a fixed number per pass (Nie et al. 2025, LLaDA, random remasking).
    Random {
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// The first masked positions, a fixed number per pass (SDAR, `sequential`; with one per pass, the autoregressive order).
    LeftToRight {
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// The most probable proposals, a fixed number per pass (Nie et al. 2025, LLaDA, low-confidence remasking).
    Confidence {
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// The proposals furthest ahead of the best other token, a fixed number per pass: see [`margin`].
    Margin {
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// The proposals from the most certain distributions, a fixed number per pass: see [`certainty`].
    Entropy {
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// Every proposal of at least this probability, and always the best one (Wu et al. 2025, Fast-dLLM, confidence-aware
    /// parallel decoding; WeDLM; Nemotron).
    Threshold {
        /// The probability, in (0, 1].
        threshold: f64,
    },
    /// Every proposal above this probability, or the step's share of best ones where these are more: see [`dynamic`] (SDAR;
    /// LLaDA2; with as many steps as rows, Fast-dLLM v2).
    Dynamic {
        /// The probability, in (0, 1]; at 1 the rule is [`Rule::Confidence`].
        threshold: f64,
        /// Passes that the block's masks are shared among.
        steps: usize,
        /// How.
        split: Split,
    },
    /// As many proposals as their probabilities allow together: see [`factor`].
    Factor {
        /// The bound f, above 0.
        factor: f64,
    },
    /// As many proposals as their entropies allow together: see [`entropy_bound`].
    EntropyBound {
        /// Nats, not negative.
        bound: f64,
    },
    /// Probable proposals whose distribution stands still: see [`klass::klass`].
    Klass {
        /// The probability, in (0, 1].
        threshold: f64,
        /// Nats per pass, above 0.
        drift: f64,
        /// Passes, at least 1.
        stable: usize,
    },
    /// Probable proposals, and the best one of every gap: see [`hierarchy`].
    Hierarchy {
        /// The probability above which all are accepted, in (0, 1].
        threshold: f64,
        /// The probability above which the best one of a gap is, in (0, threshold].
        low: f64,
    },
    /// Proposals that are probable once what their tokens earned in earlier passes is added: see [`credit::credit`].
    Credit {
        /// The probability, in (0, 1].
        threshold: f64,
    },
}

impl Rule {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstHitting => "first-hitting",
            Self::Ancestral { .. } => "ancestral",
            Self::Random { .. } => "random",
            Self::LeftToRight { .. } => "left-to-right",
            Self::Confidence { .. } => "confidence",
            Self::Margin { .. } => "margin",
            Self::Entropy { .. } => "entropy",
            Self::Threshold { .. } => "threshold",
            Self::Dynamic { .. } => "dynamic",
            Self::Factor { .. } => "factor",
            Self::EntropyBound { .. } => "entropy-bound",
            Self::Klass { .. } => "klass",
            Self::Hierarchy { .. } => "hierarchy",
            Self::Credit { .. } => "credit",
        }
    }

    /// The steps per block, of rules that count them.
    pub fn steps(self) -> Option<usize> {
        match self {
            Self::Ancestral { steps }
            | Self::Random { steps, .. }
            | Self::LeftToRight { steps, .. }
            | Self::Confidence { steps, .. }
            | Self::Margin { steps, .. }
            | Self::Entropy { steps, .. }
            | Self::Dynamic { steps, .. } => Some(steps),
            _ => None,
        }
    }

    /// How many of the most probable tokens of each row the rule has to see.
    pub fn alternatives(self) -> usize {
        match self {
            Self::Klass { .. } => klass::ALTERNATIVES,
            Self::Credit { .. } => credit::ALTERNATIVES,
            _ => 0,
        }
    }

    /// The rows to ask for in the next pass: some of `masked` (ascending, not empty), in ascending order.
    pub fn rows(self, masked: &[usize], clock: &mut Clock, rng: &mut Rng) -> Vec<usize> {
        clock.hurried.clear();
        match self {
            Self::FirstHitting => vec![first_hitting(masked, rng.uniform())],
            Self::Ancestral { steps } => ancestral(masked, steps, &mut clock.step, || rng.uniform()),
            Self::Random { steps, split } => random(masked, clock.count(split, steps, masked.len()), |n| rng.below(n)),
            Self::LeftToRight { steps, split } => left_to_right(masked, clock.count(split, steps, masked.len())),
            _ => masked.to_vec(),
        }
    }

    /// [`Rule::rows`], and further ones until there are `least` (or all): a rule that chooses rows before a pass has to ask for
    /// what [`hasten`] is to accept. The further ones are the next ones for [`Rule::LeftToRight`], random ones otherwise.
    pub fn rows_at_least(self, masked: &[usize], least: usize, clock: &mut Clock, rng: &mut Rng) -> Vec<usize> {
        let mut rows = self.rows(masked, clock, rng);
        let missing = least.saturating_sub(rows.len());
        if missing > 0 {
            let others: Vec<usize> = masked.iter().copied().filter(|row| !rows.contains(row)).collect();
            clock.hurried = match self {
                Self::LeftToRight { .. } => left_to_right(&others, missing),
                _ => random(&others, missing, |n| rng.below(n)),
            };
            rows.extend(&clock.hurried);
            rows.sort_unstable();
        }
        rows
    }

    /// The rows whose proposals are accepted, ascending. `proposals` answer [`Rule::rows`].
    pub fn accept(self, proposals: &[Proposal], clock: &mut Clock) -> Vec<Accepted> {
        let ranked = |steps, split, clock: &mut Clock| {
            let count = clock.count(split, steps, proposals.len());
            ranked::accepted(best(proposals, count, |proposal| self.score(proposal, clock)), Why::Rule)
        };
        match self {
            Self::FirstHitting | Self::Ancestral { .. } | Self::Random { .. } | Self::LeftToRight { .. } => {
                let why = |row| if clock.hurried.contains(row) { Why::Hurry } else { Why::Rule };
                proposals.iter().map(|p| Accepted { row: p.row, why: why(&p.row) }).collect()
            }
            Self::Confidence { steps, split } | Self::Margin { steps, split } | Self::Entropy { steps, split } => {
                ranked(steps, split, clock)
            }
            Self::Threshold { threshold: least } => threshold(proposals, least),
            Self::Dynamic { threshold, steps, split } => {
                dynamic(proposals, threshold, clock.count(split, steps, proposals.len()))
            }
            Self::Factor { factor: bound } => factor(proposals, bound),
            Self::EntropyBound { bound } => ranked::accepted(entropy_bound(proposals, bound), Why::Rule),
            Self::Klass { threshold, drift, stable } => {
                klass::klass(proposals, (threshold, drift, stable), &mut clock.past)
            }
            Self::Hierarchy { threshold, low } => hierarchy(proposals, threshold, low),
            Self::Credit { threshold } => credit::credit(proposals, threshold, &mut clock.credit),
        }
    }

    /// What the rule ranks proposals by, the highest first. Rules that choose rows before a pass rank what they asked for by
    /// its probability.
    pub fn score(self, proposal: &Proposal, clock: &Clock) -> f64 {
        match self {
            Self::LeftToRight { .. } => -(proposal.row as f64),
            Self::Margin { .. } => margin(proposal),
            Self::Entropy { .. } | Self::EntropyBound { .. } => certainty(proposal),
            Self::Credit { .. } => credit::trusted(proposal, &clock.credit),
            _ => proposal.raw_prob,
        }
    }
}
