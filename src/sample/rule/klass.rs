//! KLASS (Kim et al. 2025, KL-adaptive stability sampling): a proposal is accepted once it is probable and the distribution that
//! it comes from has stood still for some passes.

use crate::pass::Proposal;

use super::ranked::{Accepted, or_best, rows};

/// How many alternatives the divergence is taken over.
pub(super) const ALTERNATIVES: usize = 16;

/// What the probabilities of a distribution may miss of 1.
const ROUNDING: f64 = 1e-6;

/// What is known of one masked row.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    row: usize,
    alternatives: Vec<(u32, f64)>,
    /// Passes in a row in which the distribution hardly moved.
    still: usize,
}

/// The rows whose proposal has at least probability `least` and whose distribution moved by less than `drift` nats in each of the
/// last `stable` passes, or the most probable row where there is none (KLASS, section 4). `past` belongs to the block; rows that
/// are not proposed for are forgotten.
pub fn klass(proposals: &[Proposal], (least, drift, stable): (f64, f64, usize), past: &mut Vec<Past>) -> Vec<Accepted> {
    let now = |p: &Proposal| {
        let before = past.iter().find(|past| past.row == p.row);
        let still = before.filter(|b| divergence(&p.alternatives, &b.alternatives) < drift).map_or(0, |b| b.still + 1);
        Past { row: p.row, alternatives: p.alternatives.clone(), still }
    };
    *past = proposals.iter().map(now).collect();
    let still = |row| past.iter().any(|past| past.row == row && past.still >= stable);
    or_best(proposals, rows(proposals, |p| p.raw_prob >= least && still(p.row)), 1)
}

/// Kullback-Leibler divergence in nats from `before` to `now`, of the tokens in both lists and one class for all others. Merging
/// tokens never makes it larger, so that it is a lower bound of the divergence of the whole distributions.
pub fn divergence(now: &[(u32, f64)], before: &[(u32, f64)]) -> f64 {
    let common = now.iter().filter_map(|&(id, p)| {
        let (_, q) = before.iter().find(|(other, _)| *other == id)?;
        Some((p, *q))
    });
    let (mut rest_now, mut rest_before, mut sum) = (1.0, 1.0, 0.0);
    for (p, q) in common {
        rest_now -= p;
        rest_before -= q;
        sum += term(p, q);
    }
    // Probabilities are rounded, so that a rest of nothing can come out as anything about 0.
    (sum + term(f64::max(rest_now, ROUNDING), f64::max(rest_before, ROUNDING))).max(0.0)
}

fn term(p: f64, q: f64) -> f64 {
    if p > 0.0 { p * (p / q).ln() } else { 0.0 }
}
