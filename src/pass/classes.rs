//! What a model says of classes of tokens: all that a constraint has to know of a row, since it treats the tokens of one class alike. So
//! no logits need leave a model, and what is worked out over many rows has as many terms as there are classes, not tokens.

use std::sync::Arc;

use super::{Nucleus, Query, nucleus};

/// Which classes to tell of.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// The class of each id. Ids beyond its end have none.
    pub of: Arc<[u32]>,
    /// By row asked for and class: may a token of it stand there? Empty for a row whose classes do not matter.
    pub allowed: Vec<Vec<bool>>,
}

/// What a model says of one class in one row. All numbers but `entropy` are positive, however improbable the class is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// Which.
    pub class: u32,
    /// Its probability before temperature and nucleus.
    pub raw: f64,
    /// Its weight after them, among the allowed classes. With temperature 0 that of its most probable token alone.
    pub weight: f64,
    /// The token drawn within it.
    pub token: u32,
    /// Its share of `raw`.
    pub token_raw: f64,
    /// Its share of `weight`.
    pub token_weight: f64,
    /// The two most probable tokens and their shares of `raw`, the better one first; the second has none where there is but one.
    pub best: [(u32, f64); 2],
    /// Entropy in nats of its tokens, before temperature and nucleus.
    pub entropy: f64,
}

/// What a nucleus cuts is this much less likely than it was: taken only where a constraint leaves nothing else.
const CUT: f64 = 1e-12;

/// A sum over the tokens of a class.
#[derive(Clone)]
struct Sum {
    raw: f64,
    surprise: f64,
    weight: f64,
    /// Logits of the two best.
    best: [(u32, f64); 2],
    drawn: Option<(u32, f64)>,
    running: f64,
}

const NOTHING: Sum =
    Sum { raw: 0.0, surprise: 0.0, weight: 0.0, best: [(0, f64::NEG_INFINITY); 2], drawn: None, running: 0.0 };

/// Tells of the allowed classes of one row. `logits`: `[vocab]`, numbers; `norm`: the logarithm of the sum of `e^logit` over all ids but
/// the mask's. In each class a token is drawn by inverse distribution function in the order of ids; as one class at most comes to be
/// taken, the one uniform of the row does for all.
pub fn classes(logits: &[f32], query: &Query<'_>, norm: f64) -> Vec<Class> {
    let Some((of, allowed)) = query.classes else { return Vec::new() };
    let is_allowed = |&(id, _): &(u32, f64)| {
        id != query.mask_id && of.get(id as usize).is_some_and(|&class| allowed[class as usize])
    };
    let tokens: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&logit| f64::from(logit))).filter(is_allowed).collect();
    let mut sums = vec![NOTHING; allowed.len()];
    let mut probs = Vec::with_capacity(tokens.len());
    for &(id, logit) in &tokens {
        let sum = &mut sums[of[id as usize] as usize];
        let prob = (logit - norm).exp();
        probs.push((id, prob));
        sum.raw += prob;
        sum.surprise -= prob * (logit - norm);
        if logit > sum.best[0].1 {
            sum.best = [(id, logit), sum.best[0]];
        } else if logit > sum.best[1].1 {
            sum.best[1] = (id, logit);
        }
    }
    let weights = weights(tokens, probs, query);
    for &(id, weight) in &weights {
        sums[of[id as usize] as usize].weight += weight;
    }
    for (id, weight) in weights {
        let sum = &mut sums[of[id as usize] as usize];
        sum.running += weight;
        if sum.drawn.is_none() && sum.running > query.uniform * sum.weight {
            sum.drawn = Some((id, weight / sum.weight));
        }
    }
    let greedy = query.filter.temperature == 0.0;
    let told = |(class, sum): (u32, Sum)| {
        let (best, most) = sum.best[0];
        let share = |logit: f64| if sum.raw > 0.0 { (logit - norm).exp() / sum.raw } else { 1.0 };
        let (token, token_weight) = sum.drawn.unwrap_or((best, 1.0));
        let second = (sum.best[1].0, if sum.best[1].1 > f64::NEG_INFINITY { share(sum.best[1].1) } else { 0.0 });
        Class {
            class,
            raw: sum.raw.max(f64::MIN_POSITIVE),
            weight: if greedy { (most - norm).exp() } else { sum.weight }.max(f64::MIN_POSITIVE),
            token,
            token_raw: share(f64::from(logits[token as usize])),
            token_weight,
            best: [(best, share(most)), second],
            entropy: if sum.raw > 0.0 { (sum.surprise / sum.raw + sum.raw.ln()).max(0.0) } else { 0.0 },
        }
    };
    // A class whose tokens are all banned has no best one.
    (0..).zip(sums).filter(|(_, sum)| sum.best[0].1 > f64::NEG_INFINITY).map(told).collect()
}

/// Weights of tokens after temperature and nucleus, from their logits and probabilities. With temperature 0 nothing is drawn.
fn weights(mut logits: Vec<(u32, f64)>, probs: Vec<(u32, f64)>, query: &Query<'_>) -> Vec<(u32, f64)> {
    let mut tokens = match query.filter.temperature {
        0.0 => return Vec::new(),
        1.0 => probs,
        temperature => {
            let most = logits.iter().fold(f64::NEG_INFINITY, |most, &(_, logit)| most.max(logit));
            logits.iter_mut().for_each(|(_, logit)| *logit = ((*logit - most) / temperature).exp());
            logits
        }
    };
    let total: f64 = tokens.iter().map(|&(_, weight)| weight).sum();
    tokens.iter_mut().for_each(|(_, weight)| *weight /= total.max(f64::MIN_POSITIVE));
    let (Nucleus::Usual(limit) | Nucleus::Strict(limit)) = query.filter.nucleus else { return tokens };
    // Tokens below (1 - limit) / count together weigh less than what may be cut; half of it leaves room for rounding.
    let least = 0.5 * (1.0 - limit) / tokens.len() as f64;
    let mut kept: Vec<(u32, f64)> = tokens.iter().copied().filter(|&(_, weight)| weight >= least).collect();
    nucleus(&mut kept, query.filter.nucleus);
    kept.sort_unstable_by_key(|&(id, _)| id);
    let mut kept = kept.into_iter().map(|(id, _)| id).peekable();
    for (id, weight) in &mut tokens {
        if kept.next_if_eq(id).is_none() {
            *weight *= CUT;
        }
    }
    tokens
}
