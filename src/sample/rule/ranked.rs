//! Rules that look at proposals of one pass only: the best so many, or those that reach a bar.

use crate::event::Why;
use crate::pass::Proposal;

/// A row that becomes known, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The row in the open block.
    pub row: usize,
    /// [`Why::Rule`], [`Why::Best`] or [`Why::Hurry`].
    pub why: Why,
}

/// Rows accepted for one reason.
pub(super) fn accepted(rows: Vec<usize>, why: Why) -> Vec<Accepted> {
    rows.into_iter().map(|row| Accepted { row, why }).collect()
}

/// The proposals from the highest score to the lowest; the lower row comes first among equals.
pub fn ranked<'a>(
    proposals: impl IntoIterator<Item = &'a Proposal>,
    score: impl Fn(&Proposal) -> f64,
) -> Vec<&'a Proposal> {
    let mut order: Vec<_> = proposals.into_iter().map(|proposal| (score(proposal), proposal)).collect();
    order.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.row.cmp(&second.row)));
    order.into_iter().map(|(_, proposal)| proposal).collect()
}

/// The rows of the `count` proposals of the highest score, ascending; the lower row wins among equals.
pub fn best<'a>(
    proposals: impl IntoIterator<Item = &'a Proposal>,
    count: usize,
    score: impl Fn(&Proposal) -> f64,
) -> Vec<usize> {
    let mut rows: Vec<usize> = ranked(proposals, score).into_iter().take(count).map(|proposal| proposal.row).collect();
    rows.sort_unstable();
    rows
}

/// The rows of the `count` most probable proposals, ascending; the lower row wins among equals.
pub fn confidence(proposals: &[Proposal], count: usize) -> Vec<usize> {
    best(proposals, count, |proposal| proposal.raw_prob)
}

/// How far a proposal's token is ahead of the most probable other one (Ye et al. 2025, Dream, `topk_margin`); below 0 where a
/// draw took a less probable one.
pub fn margin(proposal: &Proposal) -> f64 {
    proposal.raw_prob - proposal.runner_up.1
}

/// How certain the distribution is, as the negative entropy in nats (Ye et al. 2025, Dream, `entropy`).
pub fn certainty(proposal: &Proposal) -> f64 {
    -proposal.entropy
}

/// The rows whose proposal has at least the given probability, and always the most probable one.
pub fn threshold(proposals: &[Proposal], least: f64) -> Vec<Accepted> {
    or_best(proposals, rows(proposals, |p| p.raw_prob >= least), 1)
}

/// All rows whose proposal is more probable than `bar`, where they are at least `count`; else the `count` most probable ones
/// (Cheng et al. 2025, SDAR, `low_confidence_dynamic`).
pub fn dynamic(proposals: &[Proposal], bar: f64, count: usize) -> Vec<Accepted> {
    let passed = rows(proposals, |p| p.raw_prob > bar);
    or_best(proposals, if passed.len() >= count { passed } else { Vec::new() }, count)
}

/// The largest n of the most probable proposals with (n + 1)(1 - p) < f, p being the least probable of them, and always the best
/// one (Wu et al. 2025, Fast-dLLM, factor-based parallel decoding, theorem 1).
pub fn factor(proposals: &[Proposal], f: f64) -> Vec<Accepted> {
    let order = ranked(proposals, |p| p.raw_prob);
    // The left side grows with n, so that the first that fails ends the list.
    let passes = |&(i, p): &(usize, &&Proposal)| (i as f64 + 2.0) * (1.0 - p.raw_prob) < f;
    let mut rows: Vec<usize> = order.iter().enumerate().take_while(passes).map(|(_, p)| p.row).collect();
    rows.sort_unstable();
    or_best(proposals, rows, 1)
}

/// Rows in ascending order of entropy, as long as the entropies of all of them without the largest sum to no more than `bound`
/// nats (Ben-Hamu et al. 2025, EB-sampler, equation 9 with entropy as the error; DiffusionGemma). The first one always passes.
pub fn entropy_bound(proposals: &[Proposal], bound: f64) -> Vec<usize> {
    let mut before = 0.0;
    let mut rows = Vec::new();
    for proposal in ranked(proposals, certainty) {
        if before > bound {
            break;
        }
        rows.push(proposal.row);
        before += proposal.entropy;
    }
    rows.sort_unstable();
    rows
}

/// Every proposal above `high`, the most probable one of every run of masked rows if it is above `low`, and always the most
/// probable one of all (Ma et al. 2025, dInfer, hierarchical decoding): what is settled in the middle of a gap splits it in two.
pub fn hierarchy(proposals: &[Proposal], high: f64, low: f64) -> Vec<Accepted> {
    let runs = proposals.chunk_by(|a, b| a.row + 1 == b.row);
    let heads: Vec<usize> = runs.flat_map(|run| confidence(run, 1)).collect();
    let passes = |p: &Proposal| p.raw_prob > high || (p.raw_prob > low && heads.contains(&p.row));
    or_best(proposals, rows(proposals, passes), 1)
}

/// The rows of the proposals that pass.
pub(super) fn rows(proposals: &[Proposal], passes: impl Fn(&Proposal) -> bool) -> Vec<usize> {
    proposals.iter().filter(|p| passes(p)).map(|p| p.row).collect()
}

/// These rows because of the rule, or the `count` most probable ones where there are none.
pub(super) fn or_best(proposals: &[Proposal], rows: Vec<usize>, count: usize) -> Vec<Accepted> {
    if rows.is_empty() { accepted(confidence(proposals, count.max(1)), Why::Best) } else { accepted(rows, Why::Rule) }
}
