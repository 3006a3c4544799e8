//! Unmasking rules: which masked rows of the open block become known in a pass. One published idea is one variant and one pure
//! function. Rules that choose positions without looking at proposals ask only for these rows and accept what comes back;
//! the others ask for every masked row and choose afterwards. Every rule settles at least one row per pass.

use crate::error::{Error, Result};
use crate::pass::Proposal;
use crate::rng::Rng;

/// An unmasking rule. Steps are counted per block.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The most probable proposals, a fixed number per pass (Nie et al. 2025, LLaDA, low-confidence remasking). Confidence is
    /// taken before temperature and nucleus, as there.
    Confidence {
        /// Passes that the block's masks are shared among.
        steps: usize,
    },
    /// Every proposal of at least this probability, and always the best one (Wu et al. 2025, Fast-dLLM, confidence-aware
    /// parallel decoding). Confidence is taken before temperature and nucleus, as there.
    Threshold {
        /// The probability, in (0, 1].
        threshold: f64,
    },
}

/// The numbers that a rule may take, as given by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Knobs {
    /// Steps per block.
    pub steps: Option<usize>,
    /// A probability.
    pub threshold: Option<f64>,
}

impl Rule {
    /// The names of all rules.
    pub const NAMES: [&str; 4] = ["first-hitting", "ancestral", "confidence", "threshold"];

    /// The rule of a name with its knobs.
    ///
    /// # Errors
    /// When no rule has this name, or it misses a knob, or is given one that it does not take, or one out of range.
    pub fn named(name: &str, knobs: Knobs) -> Result<Self> {
        let steps = || knobs.steps.ok_or_else(|| Error::value("steps", format!("a number for rule {name}"), "none"));
        let threshold = || {
            knobs.threshold.ok_or_else(|| Error::value("threshold", format!("a probability for rule {name}"), "none"))
        };
        let rule = match name {
            "first-hitting" => Self::FirstHitting,
            "ancestral" => Self::Ancestral { steps: steps()? },
            "confidence" => Self::Confidence { steps: steps()? },
            "threshold" => Self::Threshold { threshold: threshold()? },
            _ => return Err(Error::value("rule", format!("one of {}", Self::NAMES.join(", ")), format!("`{name}`"))),
        };
        for (knob, given, taken) in [
            ("steps", knobs.steps.is_some(), matches!(rule, Self::Ancestral { .. } | Self::Confidence { .. })),
            ("threshold", knobs.threshold.is_some(), matches!(rule, Self::Threshold { .. })),
        ] {
            if given && !taken {
                return Err(Error::value(knob, format!("none, since rule {name} takes none"), "one"));
            }
        }
        rule.check()?;
        Ok(rule)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstHitting => "first-hitting",
            Self::Ancestral { .. } => "ancestral",
            Self::Confidence { .. } => "confidence",
            Self::Threshold { .. } => "threshold",
        }
    }

    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// When there are no steps, or the threshold does not lie in (0, 1].
    pub fn check(self) -> Result<()> {
        match self {
            Self::Ancestral { steps: 0 } | Self::Confidence { steps: 0 } => {
                Err(Error::value("steps", "at least 1", "0"))
            }
            Self::Threshold { threshold } if !(threshold > 0.0 && threshold <= 1.0) => {
                Err(Error::value("threshold", "a probability in (0, 1]", threshold.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The rows to ask for in the next pass: some of `masked` (ascending, not empty), in ascending order.
    pub(super) fn rows(self, masked: &[usize], clock: &mut Clock, rng: &mut Rng) -> Vec<usize> {
        match self {
            Self::FirstHitting => vec![first_hitting(masked, rng.uniform())],
            Self::Ancestral { steps } => ancestral(masked, steps, &mut clock.step, || rng.uniform()),
            Self::Confidence { .. } | Self::Threshold { .. } => masked.to_vec(),
        }
    }

    /// The rows whose proposals are accepted, ascending. `proposals` answer [`Rule::rows`].
    pub(super) fn accept(self, proposals: &[Proposal], clock: &mut Clock) -> Vec<usize> {
        match self {
            Self::FirstHitting | Self::Ancestral { .. } => proposals.iter().map(|proposal| proposal.row).collect(),
            Self::Confidence { steps } => {
                let count = quota(clock.masks, steps, clock.step);
                clock.step += 1;
                confidence(proposals, count)
            }
            Self::Threshold { threshold: least } => threshold(proposals, least),
        }
    }
}

/// Where a rule stands in its block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clock {
    /// Masks in the block when it was opened.
    pub masks: usize,
    /// Steps done.
    pub step: usize,
}

impl Clock {
    /// A block opens with this many masks.
    pub fn new(masks: usize) -> Self {
        Self { masks, step: 0 }
    }
}

/// One of the masked rows, uniformly.
pub fn first_hitting(masked: &[usize], uniform: f64) -> usize {
    masked[((uniform * masked.len() as f64) as usize).min(masked.len() - 1)]
}

/// The rows that leave the mask in the next step that frees any: at step i of T a mask stays with probability
/// s/t = (T - i - 1) / (T - i). Steps that free nothing are passed over without a pass, since the model would see the same ids
/// again. `coin` gives one uniform per masked row and step.
pub fn ancestral(masked: &[usize], steps: usize, step: &mut usize, mut coin: impl FnMut() -> f64) -> Vec<usize> {
    while *step < steps {
        let left = (steps - *step) as f64;
        let stay = (left - 1.0) / left;
        *step += 1;
        let freed: Vec<usize> = masked.iter().copied().filter(|_| coin() >= stay).collect();
        if !freed.is_empty() {
            return freed;
        }
    }
    masked.to_vec()
}

/// How many of a block's masks are accepted at a step when they are shared evenly among steps, the first ones taking the
/// remainder, and none taking nothing.
pub fn quota(masks: usize, steps: usize, step: usize) -> usize {
    (masks / steps + usize::from(step < masks % steps)).max(1)
}

/// The rows of the `count` most probable proposals, ascending; the lower row wins among equals.
pub fn confidence(proposals: &[Proposal], count: usize) -> Vec<usize> {
    let mut order: Vec<&Proposal> = proposals.iter().collect();
    order.sort_by(|a, b| b.raw_prob.total_cmp(&a.raw_prob).then(a.row.cmp(&b.row)));
    let mut rows: Vec<usize> = order.into_iter().take(count).map(|proposal| proposal.row).collect();
    rows.sort_unstable();
    rows
}

/// The rows whose proposal has at least the given probability, and always the most probable one.
pub fn threshold(proposals: &[Proposal], least: f64) -> Vec<usize> {
    let rows: Vec<usize> = proposals.iter().filter(|p| p.raw_prob >= least).map(|p| p.row).collect();
    if rows.is_empty() { confidence(proposals, 1) } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposals(probs: &[f64]) -> Vec<Proposal> {
        let proposal = |(row, &prob)| Proposal {
            row,
            token: 1,
            raw_prob: prob,
            prob: 1.0,
            entropy: 0.0,
            runner_up: (2, 0.0),
            standing: 0.0,
            alternatives: Vec::new(),
        };
        probs.iter().enumerate().map(proposal).collect()
    }

    #[test]
    fn a_rule_takes_its_own_knobs_and_no_others() {
        let knobs = |steps, threshold| Knobs { steps, threshold };
        for name in Rule::NAMES {
            let good = [knobs(None, None), knobs(Some(4), None), knobs(None, Some(0.9))];
            let named: Vec<Rule> = good.into_iter().filter_map(|knobs| Rule::named(name, knobs).ok()).collect();
            assert_eq!(named.len(), 1, "{name}: {named:?}");
            assert_eq!(named[0].name(), name);
        }
        assert_eq!(Rule::named("confidence", knobs(Some(4), None)).unwrap(), Rule::Confidence { steps: 4 });
        for (name, knobs, key) in [
            ("best", knobs(None, None), "rule"),
            ("ancestral", knobs(None, None), "steps"),
            ("ancestral", knobs(Some(0), None), "steps"),
            ("ancestral", knobs(Some(4), Some(0.9)), "threshold"),
            ("threshold", knobs(None, Some(1.5)), "threshold"),
            ("threshold", knobs(None, Some(f64::NAN)), "threshold"),
            ("first-hitting", knobs(Some(4), None), "steps"),
        ] {
            let error = Rule::named(name, knobs).unwrap_err().to_string();
            assert!(error.starts_with(key), "{name}: {error}");
        }
    }

    #[test]
    fn quotas_add_up_to_the_block() {
        for masks in 1..20 {
            for steps in 1..25 {
                let passes = masks.min(steps);
                assert_eq!((0..passes).map(|step| quota(masks, steps, step)).sum::<usize>(), masks, "{masks} {steps}");
            }
        }
    }

    #[test]
    fn every_masked_row_has_its_share_of_the_uniform() {
        let rows = |uniforms: &[f64]| uniforms.iter().map(|&u| first_hitting(&[1, 4, 6], u)).collect::<Vec<_>>();
        assert_eq!(rows(&[0.0, 0.33, 0.34, 0.66, 0.67, 1.0 - f64::EPSILON / 2.0]), [1, 1, 4, 4, 6, 6]);
    }

    #[test]
    fn the_lower_row_wins_among_equals() {
        assert_eq!(confidence(&proposals(&[0.5, 0.9, 0.5, 0.9]), 3), [0, 1, 3]);
        assert_eq!(threshold(&proposals(&[0.5, 0.6, 0.6]), 0.7), [1]);
        assert_eq!(threshold(&proposals(&[0.7, 0.6, 0.9]), 0.7), [0, 2]);
    }

    #[test]
    fn the_last_ancestral_step_leaves_no_mask() {
        let mut step = 3;
        assert_eq!(ancestral(&[0, 2], 4, &mut step, || 0.0), [0, 2]);
        let mut step = 0;
        assert_eq!(ancestral(&[0, 2], 4, &mut step, || 0.7), [0, 2]);
        assert_eq!(step, 2, "the first step would have kept both, and costs no pass");
    }
}
