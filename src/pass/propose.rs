//! From one row of logits to one proposal, as a pure function: ban the mask id, softmax in f64, temperature, nucleus,
//! renormalise, draw. It knows neither where the logits come from nor what becomes of the proposal.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::{Error, Result};

use super::{Filter, Nucleus, Proposal, classes};

/// What is asked of one row.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
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
    /// The class of each id, and which classes to tell of.
    pub classes: Option<(&'a [u32], &'a [bool])>,
}

/// Answers for one row. `logits`: `[vocab]`. The token is drawn by inverse distribution function in the order of ids, so that
/// the same uniform gives the same token on every device.
///
/// # Errors
/// When a logit is not a number or infinite, or nothing but the mask has a finite logit.
pub fn propose(logits: &[f32], query: &Query<'_>) -> Result<Proposal> {
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
        classes: classes(logits, query),
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
        let (before, after) = logits.split_at(banned.min(logits.len()));
        let max = f64::from(greatest(before).max(greatest(after.get(1..).unwrap_or_default())));
        let mut probs: Vec<f64> = logits.iter().map(|&logit| ((f64::from(logit) - max) / temperature).exp()).collect();
        if let Some(prob) = probs.get_mut(banned) {
            *prob = 0.0;
        }
        let sum: f64 = probs.iter().sum();
        if !sum.is_finite() || sum == 0.0 {
            return None;
        }
        let surprise = |(&prob, &logit): (&f64, &f32)| if prob > 0.0 { prob * (f64::from(logit) - max) } else { 0.0 };
        let mean = probs.iter().zip(logits).map(surprise).sum::<f64>() / (sum * temperature);
        probs.iter_mut().for_each(|prob| *prob /= sum);
        Some(Self { probs, entropy: sum.ln() - mean })
    }
}

/// Sixteen maxima side by side, so that the loop runs in vector registers.
fn greatest(logits: &[f32]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(logit);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &logit| max.max(logit))
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
    // Tokens below (1 - limit) / vocab together weigh less than what may be cut; half of it leaves room for rounding.
    let mut tokens = at_least(probs, 0.5 * (1.0 - limit) / probs.len() as f64);
    keep(&mut tokens, limit, strict);
    let sum: f64 = tokens.iter().map(|&(_, prob)| prob).sum();
    probs.fill(0.0);
    for (id, prob) in tokens {
        probs[id as usize] = prob / sum;
    }
}

/// Keeps the nucleus of a distribution given as `(id, probability)`, where ids too improbable to be in it may be missing.
pub fn nucleus(tokens: &mut Vec<(u32, f64)>, nucleus: Nucleus) {
    match nucleus {
        Nucleus::Usual(p) if p < 1.0 => keep(tokens, p, false),
        Nucleus::Strict(p) if p < 1.0 => keep(tokens, p, true),
        _ => {}
    }
}

fn keep(tokens: &mut Vec<(u32, f64)>, limit: f64, strict: bool) {
    // The first `heavy` tokens are kept, the limit is crossed before `end`: halve the span between them until it is short.
    let (mut heavy, mut end, mut cumulative) = (0, tokens.len(), 0.0);
    while end - heavy > 64 {
        let middle = (heavy + end) / 2;
        tokens[heavy..end].select_nth_unstable_by(middle - heavy, more_probable);
        let half: f64 = tokens[heavy..middle].iter().map(|&(_, prob)| prob).sum();
        if cumulative + half < limit {
            (heavy, cumulative) = (middle, cumulative + half);
        } else {
            end = middle;
        }
    }
    tokens[heavy..end].sort_unstable_by(more_probable);
    let mut kept = heavy;
    for &(_, prob) in &tokens[heavy..end] {
        let crossed = cumulative >= limit;
        cumulative += prob;
        if kept > 0 && (crossed || strict && cumulative > limit) {
            break;
        }
        kept += 1;
    }
    tokens.truncate(kept);
}

fn most_probable(probs: &[f64], count: usize) -> Vec<(u32, f64)> {
    if count == 0 {
        return Vec::new();
    }
    let mut tokens = at_least(probs, 0.0);
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, more_probable);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(more_probable);
    tokens
}

/// Tokens of at least this probability, and more than 0.
fn at_least(probs: &[f64], least: f64) -> Vec<(u32, f64)> {
    (0..).zip(probs.iter().copied()).filter(|&(_, prob)| prob > 0.0 && prob >= least).collect()
}

/// Best first, lower ids first among equals.
fn more_probable(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const MASK: u32 = 4;

    fn logits(probs: &[f64]) -> Vec<f32> {
        probs.iter().map(|p| p.ln() as f32).chain([9.0]).collect()
    }

    fn query(uniform: f64, filter: Filter) -> Query<'static> {
        Query { row: 2, standing: MASK, uniform, filter, alternatives: 0, mask_id: MASK, classes: None }
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

    /// The nucleus by a full sort.
    fn cut_slowly(probs: &[f64], limit: f64, strict: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..probs.len()).collect();
        order.sort_by(|&a, &b| probs[b].total_cmp(&probs[a]).then(a.cmp(&b)));
        let mut cumulative = 0.0;
        let mut kept: Vec<usize> = order
            .iter()
            .enumerate()
            .take_while(|&(rank, &id)| {
                let before = cumulative;
                cumulative += probs[id];
                rank == 0 || if strict { cumulative <= limit } else { before < limit }
            })
            .map(|(_, &id)| id)
            .collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn the_nucleus_of_a_long_tail_is_that_of_a_full_sort() {
        let mut rng = Rng::new(1);
        for case in 0..200 {
            let spread = 0.1 * f64::from(case);
            // Multiples of a power of 2, so that sums are exact and many probabilities equal.
            let weights: Vec<f64> = (0..700).map(|_| (spread * rng.normal()).exp().ceil().min(1e4)).collect();
            let probs: Vec<f64> = weights.iter().map(|w| w / f64::from(1 << 24)).collect();
            let rest = 1.0 - probs.iter().sum::<f64>();
            let probs: Vec<f64> = probs.into_iter().chain([rest]).collect();
            for limit in [0.25, 0.5, 0.9, 0.999, rest] {
                for (nucleus, strict) in [(Nucleus::Usual(limit), false), (Nucleus::Strict(limit), true)] {
                    let mut filtered = probs.clone();
                    cut(&mut filtered, nucleus);
                    let kept: Vec<usize> = (0..probs.len()).filter(|&id| filtered[id] > 0.0).collect();
                    assert_eq!(kept, cut_slowly(&probs, limit, strict), "{case} {nucleus:?}");
                    assert!((filtered.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                }
            }
        }
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
