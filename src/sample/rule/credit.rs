//! Credit decoding (Wang et al. 2025, CreditDecoding; dInfer): tokens that were on top in pass after pass are trusted before
//! their probability reaches the bar.

use crate::event::Why;
use crate::pass::Proposal;

use super::ranked::{Accepted, accepted, best, rows};

/// How many alternatives are known of each row.
pub(super) const ALTERNATIVES: usize = 8;
/// The share of a credit that is left after a pass (dInfer's beta).
const DECAY: f64 = 0.8;
/// The power of the probability that is credited (dInfer's gamma): below 1, so that early passes count.
const POWER: f64 = 0.2;
/// The weight of the logarithm of a credit beside a logit (dInfer's alpha).
const WEIGHT: f64 = 0.7;

/// What one token has earned in one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Credit {
    row: usize,
    token: u32,
    amount: f64,
}

/// The rows whose proposal has at least probability `least` once credit is added to the logits, or the best one by that measure.
/// Every credit decays, then the most probable token of each row earns p^gamma, then logits become l + alpha ln(1 + credit)
/// (CreditDecoding, equations 5 to 7). The token itself stays as proposed, unlike there. Rows that are not proposed for are
/// forgotten.
pub fn credit(proposals: &[Proposal], least: f64, credits: &mut Vec<Credit>) -> Vec<Accepted> {
    credits.retain(|credit| proposals.iter().any(|p| p.row == credit.row));
    credits.iter_mut().for_each(|credit| credit.amount *= DECAY);
    for proposal in proposals {
        let (token, prob) = top(proposal);
        let earned = prob.powf(POWER);
        match credits.iter_mut().find(|credit| credit.row == proposal.row && credit.token == token) {
            Some(credit) => credit.amount += earned,
            None => credits.push(Credit { row: proposal.row, token, amount: earned }),
        }
    }
    let passed = rows(proposals, |p| trusted(p, credits) >= least);
    if passed.is_empty() {
        accepted(best(proposals, 1, |p| trusted(p, credits)), Why::Best)
    } else {
        accepted(passed, Why::Rule)
    }
}

/// The probability of a proposal's token once credit is added to the logits. Credited tokens that are no longer among the
/// alternatives count as improbable.
pub fn trusted(proposal: &Proposal, credits: &[Credit]) -> f64 {
    let prob = |token| {
        let known = proposal.alternatives.iter().find(|(id, _)| *id == token).map(|&(_, p)| p);
        let own = [(proposal.token, proposal.raw_prob), proposal.runner_up];
        known.or_else(|| own.iter().find(|(id, _)| *id == token).map(|&(_, p)| p)).unwrap_or(0.0)
    };
    let (mut total, mut factor) = (1.0, 1.0);
    for credit in credits.iter().filter(|credit| credit.row == proposal.row) {
        let gain = (1.0 + credit.amount).powf(WEIGHT);
        total += prob(credit.token) * (gain - 1.0);
        if credit.token == proposal.token {
            factor = gain;
        }
    }
    proposal.raw_prob * factor / total
}

fn top(proposal: &Proposal) -> (u32, f64) {
    let own = (proposal.token, proposal.raw_prob);
    if proposal.runner_up.1 > own.1 { proposal.runner_up } else { own }
}
