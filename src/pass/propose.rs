//! From one row of logits to one proposal, as a pure function: ban the mask id, softmax in f64, temperature, nucleus,
//! renormalise, draw. It knows neither where the logits come from nor what becomes of the proposal.

use std::borrow::Cow;

use crate::error::{Error, Result};

use super::{Filter, Nucleus, Proposal};

/// What is asked of one row.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Row in the open block.
    pub row: usize,
    /// The id that stands there now.
    pub standing: u32,
    /// Uniform in [0, 1): the draw.
    pub uniform: f64,
    /// How logits become a distribution.
    pub filter: Filter,
    /// How many most probable alternatives to report.
    pub alternatives: usize,
    /// Never proposed. A vocabulary without a mask row may give any id beyond its end.
    pub mask_id: u32,
}

/// Answers for one row. `logits`: `[vocab]`. The token is drawn by inverse distribution function in the order of ids, so that
/// the same uniform gives the same token on every device.
///
/// # Errors
/// When a logit is not a number or infinite, or nothing but the mask has a finite logit.
pub fn propose(logits: &[f32], query: &Query) -> Result<Proposal> {
    let raw = Softmax::new(logits, query.mask_id, 1.0)
        .ok_or_else(|| Error::Run(format!("row {} of the open block has a logit that is not a number", query.row)))?;
    let (best, second) = best_two(&raw.probs);
    let (token, prob) = match query.filter.temperature {
        0.0 => (best, 1.0),
        temperature => {
            let mut probs = Cow::Borrowed(&raw.probs);
            if temperature != 1.0 {
                let tempered = Softmax::new(logits, query.mask_id, temperature);
                probs = Cow::Owned(tempered.ok_or_else(|| overflow(temperature))?.probs);
            }
            if query.filter.nucleus != Nucleus::Off {
                cut(probs.to_mut(), query.filter.nucleus);
            }
            let token = draw(&probs, query.uniform);
            (token, probs[token])
        }
    };
    let runner_up = if token == best { second } else { best };
    Ok(Proposal {
        row: query.row,
        token: token as u32,
        raw_prob: raw.probs[token],
        prob,
        entropy: raw.entropy,
        runner_up: (runner_up as u32, raw.probs[runner_up]),
        standing: raw.probs.get(query.standing as usize).copied().unwrap_or(0.0),
        alternatives: most_probable(&raw.probs, query.alternatives),
    })
}

fn overflow(temperature: f64) -> Error {
    Error::value("temperature", "one that keeps the logits finite", temperature.to_string())
}

struct Softmax {
    probs: Vec<f64>,
    /// Nats.
    entropy: f64,
}

impl Softmax {
    /// `None` when the result is not a distribution. A logit of minus infinity bans its token.
    fn new(logits: &[f32], banned: u32, temperature: f64) -> Option<Self> {
        let banned = banned as usize;
        let allowed = logits.iter().enumerate().filter(|&(id, _)| id != banned).map(|(_, &logit)| logit);
        let max = f64::from(allowed.fold(f32::NEG_INFINITY, f32::max));
        let mut probs: Vec<f64> = logits.iter().map(|&logit| ((f64::from(logit) - max) / temperature).exp()).collect();
        if let Some(prob) = probs.get_mut(banned) {
            *prob = 0.0;
        }
        let sum: f64 = probs.iter().sum();
        if !sum.is_finite() {
            return None;
        }
        let mut entropy = sum.ln();
        for (prob, &logit) in probs.iter_mut().zip(logits) {
            if *prob > 0.0 {
                *prob /= sum;
                entropy -= *prob * (f64::from(logit) - max) / temperature;
            }
        }
        Some(Self { probs, entropy })
    }
}

/// The ids of the greatest and the second greatest probability, lower ids first among equals.
fn best_two(probs: &[f64]) -> (usize, usize) {
    let (mut best, mut second) = (0, usize::from(probs.len() > 1));
    if probs[second] > probs[best] {
        (best, second) = (second, best);
    }
    for (id, &prob) in probs.iter().enumerate().skip(2) {
        if prob > probs[best] {
            (best, second) = (id, best);
        } else if prob > probs[second] {
            second = id;
        }
    }
    (best, second)
}

/// Inverse distribution function: the first id whose cumulative probability exceeds the uniform.
fn draw(probs: &[f64], uniform: f64) -> usize {
    let mut cumulative = 0.0;
    let mut last = 0;
    for (id, &prob) in probs.iter().enumerate().filter(|&(_, &prob)| prob > 0.0) {
        cumulative += prob;
        last = id;
        if cumulative > uniform {
            break;
        }
    }
    last // also where the sum ends a rounding error below the uniform
}

/// Sets the tail of a distribution to 0 and renormalises, in place. `probs`: `[vocab]`.
pub fn cut(probs: &mut [f64], nucleus: Nucleus) {
    let (limit, strict) = match nucleus {
        Nucleus::Usual(p) if p < 1.0 => (p, false),
        Nucleus::Strict(p) if p < 1.0 => (p, true),
        _ => return,
    };
    let mut kept = Vec::new();
    let mut cumulative = 0.0;
    descending(probs, |id, prob| {
        cumulative += prob;
        if strict && cumulative > limit && !kept.is_empty() {
            return false;
        }
        kept.push((id, prob));
        cumulative < limit
    });
    let sum: f64 = kept.iter().map(|&(_, prob)| prob).sum();
    probs.fill(0.0);
    for (id, prob) in kept {
        probs[id] = prob / sum;
    }
}

fn most_probable(probs: &[f64], count: usize) -> Vec<(u32, f64)> {
    let mut best = Vec::new();
    if count > 0 {
        descending(probs, |id, prob| {
            best.push((id as u32, prob));
            best.len() < count
        });
    }
    best
}

/// Visits ids from the most probable down (lower ids first among equals, none of probability 0) until told to stop. Sorts
/// piece by piece: the head of a peaked distribution is short.
fn descending(probs: &[f64], mut visit: impl FnMut(usize, f64) -> bool) {
    let order = |&a: &usize, &b: &usize| probs[b].total_cmp(&probs[a]).then(a.cmp(&b));
    let mut ids: Vec<usize> = (0..probs.len()).filter(|&id| probs[id] > 0.0).collect();
    let mut rest = &mut ids[..];
    let mut piece = 64;
    while !rest.is_empty() {
        let size = piece.min(rest.len());
        if size < rest.len() {
            rest.select_nth_unstable_by(size, order);
        }
        let (head, tail) = rest.split_at_mut(size);
        head.sort_unstable_by(order);
        if !head.iter().all(|&id| visit(id, probs[id])) {
            return;
        }
        rest = tail;
        piece *= 8;
    }
}

/// A draw by exponential race, argmax p / (1e-10 - ln(u + 1e-10)), one uniform per token: how the official code draws, to
/// replay its recorded uniforms. `probs`, `uniforms`: `[vocab]`; probabilities need not sum to 1.
pub fn exponential_race(probs: &[f64], uniforms: &[f64]) -> usize {
    let finish = |id: usize| probs[id] / (1e-10 - (uniforms[id] + 1e-10).ln());
    (1..probs.len()).fold(0, |best, id| if finish(id) > finish(best) { id } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const MASK: u32 = 4;

    fn logits(probs: &[f64]) -> Vec<f32> {
        probs.iter().map(|p| p.ln() as f32).chain([9.0]).collect()
    }

    fn query(uniform: f64, filter: Filter) -> Query {
        Query { row: 2, standing: MASK, uniform, filter, alternatives: 0, mask_id: MASK }
    }

    #[test]
    fn the_mask_is_banned_and_the_draw_follows_the_distribution() {
        let logits = logits(&[0.1, 0.2, 0.3, 0.4]);
        for (uniform, token) in [(0.0, 0), (0.09, 0), (0.11, 1), (0.29, 1), (0.31, 2), (0.61, 3), (0.999_999_999, 3)] {
            let proposal = propose(&logits, &query(uniform, Filter::NONE)).unwrap();
            assert_eq!((proposal.row, proposal.token, proposal.standing), (2, token, 0.0));
            assert!((proposal.prob - [0.1, 0.2, 0.3, 0.4][token as usize]).abs() < 1e-7);
            assert_eq!(proposal.prob, proposal.raw_prob);
            assert_eq!(proposal.runner_up.0, if token == 3 { 2 } else { 3 });
            assert!((proposal.entropy - 1.279_854).abs() < 1e-6, "{}", proposal.entropy);
        }
    }

    #[test]
    fn temperature_sharpens_and_zero_is_greedy() {
        let logits = logits(&[0.1, 0.2, 0.3, 0.4]);
        let half = propose(&logits, &query(0.0, Filter { temperature: 0.5, nucleus: Nucleus::Off })).unwrap();
        assert!((half.prob - 0.01 / 0.30).abs() < 1e-7 && (half.raw_prob - 0.1).abs() < 1e-7, "{half:?}");
        let greedy = propose(&logits, &query(0.0, Filter::GREEDY)).unwrap();
        assert_eq!((greedy.token, greedy.prob, greedy.runner_up.0), (3, 1.0, 2));
    }

    #[test]
    fn the_two_nuclei_differ_in_the_token_that_crosses() {
        let cut_to = |nucleus| {
            let mut probs = [0.2, 0.4, 0.0, 0.1, 0.3];
            cut(&mut probs, nucleus);
            probs.map(|p| (p * 1e6f64).round() / 1e6)
        };
        assert_eq!(cut_to(Nucleus::Usual(0.6)), [0.0, 0.571_429, 0.0, 0.0, 0.428_571]);
        assert_eq!(cut_to(Nucleus::Strict(0.6)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(cut_to(Nucleus::Strict(0.1)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(cut_to(Nucleus::Usual(0.1)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(cut_to(Nucleus::Usual(1.0)), [0.2, 0.4, 0.0, 0.1, 0.3]);
    }

    #[test]
    fn a_long_tail_is_visited_in_order() {
        let mut rng = Rng::new(1);
        let probs: Vec<f64> = (0..5000).map(|_| rng.below(1000) as f64).collect();
        let mut sorted: Vec<usize> = (0..5000).filter(|&id| probs[id] > 0.0).collect();
        sorted.sort_by(|&a, &b| probs[b].total_cmp(&probs[a]).then(a.cmp(&b)));
        let mut visited = Vec::new();
        descending(&probs, |id, _| {
            visited.push(id);
            true
        });
        assert_eq!(visited, sorted);
    }

    #[test]
    fn alternatives_and_the_standing_token_are_reported() {
        let asked = Query { standing: 1, alternatives: 2, ..query(0.0, Filter::NONE) };
        let proposal = propose(&logits(&[0.1, 0.2, 0.3, 0.4]), &asked).unwrap();
        assert!((proposal.standing - 0.2).abs() < 1e-7);
        assert_eq!(proposal.alternatives.iter().map(|&(id, _)| id).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = propose(&[0.0, bad, 0.0, 0.0, 0.0], &query(0.5, Filter::NONE)).unwrap_err().to_string();
            assert!(error.contains("row 2"), "{error}");
        }
        let banned = [f32::NEG_INFINITY; 5];
        assert!(propose(&banned, &query(0.5, Filter::NONE)).is_err());
        let one = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0];
        assert_eq!(propose(&one, &query(0.5, Filter::NONE)).unwrap().token, 1);
    }

    #[test]
    fn filters_that_are_none_are_refused() {
        for (temperature, nucleus) in
            [(-1.0, Nucleus::Off), (f64::NAN, Nucleus::Off), (1.0, Nucleus::Usual(0.0)), (1.0, Nucleus::Strict(1.5))]
        {
            assert!(Filter { temperature, nucleus }.check().is_err());
        }
        assert!(Filter { temperature: 0.0, nucleus: Nucleus::Usual(1.0) }.check().is_ok());
    }
}
