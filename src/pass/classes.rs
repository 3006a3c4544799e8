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

/// What a model says of one class in one row. Improbable as a class may be, its logarithms are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Which.
    pub class: u32,
    /// Logarithm of its probability among the allowed classes, before temperature and nucleus.
    pub raw: f64,
    /// The same after them; with temperature 0 what that tends to: its most probable token beside the most probable one of all.
    pub weight: f64,
    /// The token drawn within it.
    pub token: u32,
    /// Its share of the class before temperature and nucleus.
    pub token_raw: f64,
    /// Its share after them.
    pub token_weight: f64,
    /// The most probable tokens, best first, and their shares before temperature and nucleus: two or, where more alternatives are asked
    /// for, so many.
    pub best: Vec<(u32, f64)>,
    /// Entropy in nats of its tokens, before temperature and nucleus.
    pub entropy: f64,
}

/// What a nucleus cuts counts for so many nats less: more than anything else can weigh, so that a filling with fewer such tokens always
/// goes before one with more.
const CUT: f64 = 1e9;
/// Lower temperatures are as good as this one, which keeps logarithms of weights well below [`CUT`].
const COLDEST: f64 = 1e-6;

/// Sums over the tokens of a class, in parts of its most probable token.
#[derive(Clone, Default)]
struct Sum {
    /// With their logits, best first.
    best: Vec<(u32, f64)>,
    raw: f64,
    surprise: f64,
    weight: f64,
    running: f64,
    /// A token of it is in the nucleus.
    kept: bool,
    drawn: Option<(u32, f64)>,
}

impl Sum {
    fn see(&mut self, id: u32, logit: f64, most: usize) {
        if self.best.len() < most || self.best.last().is_some_and(|last| logit > last.1) {
            // Lower ids come first, also among equals.
            let place = self.best.partition_point(|other| other.1 >= logit);
            self.best.insert(place, (id, logit));
            self.best.truncate(most);
        }
    }
}

/// Tells of the allowed classes of one row; what is not allowed is banned before anything else. `logits`: `[vocab]`, numbers. In each class a token is drawn by inverse distribution function in the order of ids; as one class at most comes to be
/// taken, the one uniform of the row does for all.
///
/// # Panics
/// If a class is not below the number of those that may be allowed.
pub fn classes(logits: &[f32], query: &Query<'_>) -> Vec<Class> {
    let Some((of, allowed)) = query.classes else { return Vec::new() };
    let is_allowed = |&(id, logit): &(u32, f64)| {
        id != query.mask_id
            && logit > f64::NEG_INFINITY
            && of.get(id as usize).is_some_and(|&class| allowed[class as usize])
    };
    let mut tokens: Vec<(u32, f64)> =
        (0..).zip(logits.iter().map(|&logit| f64::from(logit))).filter(is_allowed).collect();
    let mut sums = vec![Sum::default(); allowed.len()];
    let most = query.alternatives.max(2);
    tokens.iter().for_each(|&(id, logit)| sums[of[id as usize] as usize].see(id, logit, most));
    let temperature = warm(query);
    for (id, logit) in &mut tokens {
        let sum = &mut sums[of[*id as usize] as usize];
        let off = *logit - sum.best[0].1;
        let part = off.exp();
        sum.raw += part;
        sum.surprise -= part * off;
        // From here on it is a weight.
        *logit = if temperature == 1.0 { part } else { (off / temperature).exp() };
        sum.weight += *logit;
    }
    if query.filter.temperature > 0.0 {
        cut(&mut tokens, (of, &mut sums), query);
        draw(&tokens, (of, &mut sums), query.uniform);
    }
    let raw = |sum: &Sum| Some(sum.best.first()?.1 + sum.raw.ln());
    let weight = |sum: &Sum| Some(sum.best.first().filter(|_| sum.kept)?.1 / temperature + sum.weight.ln());
    let top = sums.iter().filter_map(|sum| sum.best.first()).fold(f64::NEG_INFINITY, |top, best| top.max(best.1));
    let greedy = query.filter.temperature == 0.0;
    let all = [total(sums.iter().filter_map(raw)), if greedy { top } else { total(sums.iter().filter_map(weight)) }];
    (0..).zip(sums).filter_map(|(class, sum)| told(class, &sum, logits, all, query)).collect()
}

/// Logarithm of the sum of what these are logarithms of.
fn total(logarithms: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logarithms.clone().fold(f64::NEG_INFINITY, f64::max);
    most + logarithms.map(|logarithm| (logarithm - most).exp()).sum::<f64>().ln()
}

/// The temperature, none below the coldest.
fn warm(query: &Query<'_>) -> f64 {
    query.filter.temperature.max(COLDEST)
}

/// Takes what the nucleus cuts out of the weights of classes that have a token in it.
fn cut(tokens: &mut [(u32, f64)], (of, sums): (&[u32], &mut [Sum]), query: &Query<'_>) {
    let (Nucleus::Usual(limit) | Nucleus::Strict(limit)) = query.filter.nucleus else {
        sums.iter_mut().for_each(|sum| sum.kept = true);
        return;
    };
    let top = sums.iter().filter_map(|sum| sum.best.first()).fold(f64::NEG_INFINITY, |top, best| top.max(best.1));
    // What a weight of 1 in each class is beside the others.
    let scale = |sum: &Sum| sum.best.first().map_or(0.0, |best| ((best.1 - top) / warm(query)).exp());
    let scales: Vec<f64> = sums.iter().map(scale).collect();
    let total: f64 = sums.iter().zip(&scales).map(|(sum, scale)| sum.weight * scale).sum();
    let prob = |&(id, weight): &(u32, f64)| (id, weight * scales[of[id as usize] as usize] / total);
    // Tokens below (1 - limit) / count together weigh less than what may be cut; half of it leaves room for rounding.
    let least = 0.5 * (1.0 - limit) / tokens.len() as f64;
    let mut kept: Vec<(u32, f64)> = tokens.iter().map(prob).filter(|&(_, prob)| prob >= least).collect();
    nucleus(&mut kept, query.filter.nucleus);
    kept.sort_unstable_by_key(|&(id, _)| id);
    kept.iter().for_each(|&(id, _)| sums[of[id as usize] as usize].kept = true);
    let mut kept = kept.into_iter().map(|(id, _)| id).peekable();
    sums.iter_mut().filter(|sum| sum.kept).for_each(|sum| sum.weight = 0.0);
    for (id, weight) in tokens {
        let (stays, sum) = (kept.next_if_eq(id).is_some(), &mut sums[of[*id as usize] as usize]);
        if stays {
            sum.weight += *weight;
        } else if sum.kept {
            *weight = 0.0;
        }
    }
}

/// Draws a token of each class by weight.
fn draw(tokens: &[(u32, f64)], (of, sums): (&[u32], &mut [Sum]), uniform: f64) {
    for &(id, weight) in tokens.iter().filter(|(_, weight)| *weight > 0.0) {
        let sum = &mut sums[of[id as usize] as usize];
        sum.running += weight;
        if sum.drawn.is_none() && sum.running > uniform * sum.weight {
            sum.drawn = Some((id, weight / sum.weight));
        }
    }
}

/// `None` for a class all of whose tokens are banned. `all`: logarithms of what all classes weigh, before and after temperature and nucleus.
fn told(class: u32, sum: &Sum, logits: &[f32], all: [f64; 2], query: &Query<'_>) -> Option<Class> {
    let &(first, most) = sum.best.first()?;
    let greedy = query.filter.temperature == 0.0;
    let (token, token_weight) = sum.drawn.filter(|_| !greedy).unwrap_or((first, 1.0));
    let share = |logit: f64| (logit - most).exp() / sum.raw;
    let weight = || most / warm(query) + sum.weight.ln() - all[1];
    Some(Class {
        class,
        raw: most + sum.raw.ln() - all[0],
        weight: match (greedy, sum.kept) {
            (true, _) => most - all[1],
            (false, true) => weight(),
            (false, false) => weight() - CUT,
        },
        token,
        token_raw: share(f64::from(logits[token as usize])),
        token_weight,
        best: sum.best.iter().map(|&(id, logit)| (id, share(logit))).collect(),
        entropy: (sum.surprise / sum.raw + sum.raw.ln()).max(0.0),
    })
}
