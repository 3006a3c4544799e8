//! Kinds of noise, each as a function of a text, a level and draws that are the same at every level: what is changed at a level
//! stays changed at the next, so that a rising level can be looked at. Level 0 changes nothing.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// The draws of a text, uniform in [0, 1), one of each for every token.
#[derive(Clone, Debug)]
pub struct Draws {
    /// Whether a token is changed: where the draw lies below the share of changed tokens.
    change: Vec<f64>,
    /// Whether a changed token is masked or replaced.
    hide: Vec<f64>,
    /// By which token it is replaced.
    pick: Vec<f64>,
}

impl Draws {
    /// Draws for `length` tokens. A text's beginning has the same draws whatever follows.
    pub fn new(length: usize, rng: &Rng) -> Self {
        let draws = |name| {
            let mut rng = rng.split(name);
            (0..length).map(|_| rng.uniform()).collect()
        };
        Self { change: draws("change"), hide: draws("hide"), pick: draws("pick") }
    }
}

/// Each token is masked with probability `t` (Austin et al. 2021, the absorbing process; Sahoo et al. 2024). `row` and result:
/// `[length]`, no longer than the draws.
pub fn masked(row: &[u32], t: f64, draws: &Draws, mask_id: u32) -> Vec<u32> {
    change(row, t, draws, |_, _| mask_id)
}

/// Each token is replaced with probability `t` by one drawn uniformly from `allowed`, which may be the same (Austin et al. 2021,
/// the uniform process). Where nothing is allowed, nothing changes.
pub fn uniform(row: &[u32], t: f64, draws: &Draws, allowed: &[u32]) -> Vec<u32> {
    change(row, t, draws, |position, id| any(allowed, draws.pick[position]).unwrap_or(id))
}

/// Each token is replaced with probability `t` by one near it in the model's embedding space: drawn with probability
/// softmax(cosine / (t * `temperature`)), so that it is near at a low level and may be any at a high one. A token without
/// neighbours stays.
pub fn semantic(
    row: &[u32],
    t: f64,
    draws: &Draws,
    neighbours: &BTreeMap<u32, Neighbours>,
    temperature: f64,
) -> Vec<u32> {
    change(row, t, draws, |position, id| {
        let near = neighbours.get(&id).and_then(|near| near.pick(t * temperature, draws.pick[position]));
        near.map_or(id, |(id, _)| id)
    })
}

/// Masks and uniform replacements mixed (GIDD, von Rütte et al. 2025): shares as [`mixed_shares`] gives them for `replaced`. A
/// token may be replaced first and masked later, never the other way round.
pub fn mixed(row: &[u32], t: f64, draws: &Draws, (mask_id, allowed): (u32, &[u32]), replaced: f64) -> Vec<u32> {
    let [kept, hidden, swapped] = mixed_shares(t, replaced);
    change(row, 1.0 - kept, draws, |position, id| {
        let hide = draws.hide[position] * (hidden + swapped) < hidden;
        if hide { mask_id } else { any(allowed, draws.pick[position]).unwrap_or(id) }
    })
}

/// Shares of tokens that stay, are masked, and are replaced at level `t` in GIDD's mixing schedule with gamma = 1: (1 - t) / C,
/// t / C and c / C with c = 2 p / (1 - p) sqrt(t (1 - t)) and C = 1 + c (von Rütte et al. 2025; c is their c(t) summed over the
/// vocabulary). `replaced`, their p, is the share at t = 1/2, from 0 to below 1.
pub fn mixed_shares(t: f64, replaced: f64) -> [f64; 3] {
    let c = 2.0 * replaced / (1.0 - replaced) * (t * (1.0 - t)).max(0.0).sqrt();
    [1.0 - t, t, c].map(|part| part / (1.0 + c))
}

fn change(row: &[u32], share: f64, draws: &Draws, mut to: impl FnMut(usize, u32) -> u32) -> Vec<u32> {
    let one = |(position, &id): (usize, &u32)| if draws.change[position] < share { to(position, id) } else { id };
    row.iter().enumerate().map(one).collect()
}

fn any(ids: &[u32], draw: f64) -> Option<u32> {
    ids.get((draw * ids.len() as f64) as usize).copied()
}

/// A model's token embeddings, each of length 1.
#[derive(Clone, Debug)]
pub struct Embeddings {
    numbers: Vec<f32>,
    width: usize,
}

impl Embeddings {
    /// From `[vocab, width]`. A row of zeros is as far from every other as can be without pointing away: its cosines are 0.
    pub fn new(mut numbers: Vec<f32>, width: usize) -> Self {
        for row in numbers.chunks_exact_mut(width.max(1)) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        Self { numbers, width }
    }

    /// The cosine of two ids' embeddings; 0 for an id that has none.
    pub fn cosine(&self, a: u32, b: u32) -> f32 {
        let row =
            |id: u32| self.numbers.get(id as usize * self.width..(id as usize + 1) * self.width).unwrap_or_default();
        row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum()
    }
}

/// Other tokens, the nearest first.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Id and cosine.
    near: Vec<(u32, f32)>,
}

impl Neighbours {
    /// Those of one id among `allowed`; itself is none.
    pub fn of(id: u32, embeddings: &Embeddings, allowed: &[u32]) -> Self {
        let others = allowed.iter().filter(|&&other| other != id);
        let mut near: Vec<(u32, f32)> = others.map(|&other| (other, embeddings.cosine(id, other))).collect();
        near.sort_by(|a, b| b.1.total_cmp(&a.1));
        Self { near }
    }

    /// The one whose part of softmax(cosine / temperature), laid out from the nearest on, holds `draw` from [0, 1); with its
    /// cosine. For one draw a higher temperature never leads to a nearer one. At 0 it is the nearest.
    pub fn pick(&self, temperature: f64, draw: f64) -> Option<(u32, f32)> {
        let &(_, best) = self.near.first()?;
        let weight = |cosine: f32| if temperature > 0.0 { (f64::from(cosine - best) / temperature).exp() } else { 0.0 };
        let total: f64 = self.near.iter().map(|&(_, cosine)| weight(cosine)).sum();
        let mut left = draw * total;
        let found = self.near.iter().find(|&&(_, cosine)| {
            left -= weight(cosine);
            left < 0.0
        });
        // Rounding may leave a rest behind the last one; at temperature 0 there is no weight at all.
        let fallback = if temperature > 0.0 { self.near.last() } else { self.near.first() };
        found.or(fallback).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    const MASK: u32 = 999;
    const LEVELS: [f64; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

    fn text(length: usize) -> Vec<u32> {
        (0..length as u32).map(|i| i % 200).collect()
    }

    fn allowed() -> Vec<u32> {
        (0..200).collect()
    }

    /// Random directions in eight dimensions.
    fn embeddings() -> Embeddings {
        let mut rng = Rng::new(7);
        Embeddings::new((0..200 * 8).map(|_| rng.normal() as f32).collect(), 8)
    }

    fn neighbours(embeddings: &Embeddings) -> BTreeMap<u32, Neighbours> {
        allowed().into_iter().map(|id| (id, Neighbours::of(id, embeddings, &allowed()))).collect()
    }

    fn share(row: &[u32], noised: &[u32], what: impl Fn(u32, u32) -> bool) -> f64 {
        row.iter().zip(noised).filter(|&(&a, &b)| what(a, b)).count() as f64 / row.len() as f64
    }

    /// Every kind at a level.
    fn all(row: &[u32], t: f64, draws: &Draws, near: &BTreeMap<u32, Neighbours>) -> [Vec<u32>; 4] {
        [
            masked(row, t, draws, MASK),
            uniform(row, t, draws, &allowed()),
            semantic(row, t, draws, near, 0.3),
            mixed(row, t, draws, (MASK, &allowed()), 0.2),
        ]
    }

    #[test]
    fn the_share_of_changed_tokens_is_the_level() {
        let (row, near) = (text(20_000), neighbours(&embeddings()));
        let draws = Draws::new(row.len(), &Rng::new(1));
        for t in LEVELS {
            let noised = all(&row, t, &draws, &near);
            let changed = noised.each_ref().map(|noised| share(&row, noised, |a, b| a != b));
            let replaced_by_itself = 1.0 / 200.0;
            let [kept, hidden, swapped] = mixed_shares(t, 0.2);
            assert!((kept + hidden + swapped - 1.0).abs() < 1e-12);
            let mixed = hidden + swapped * (1.0 - replaced_by_itself);
            // Four standard errors of 20,000 tosses.
            for (found, expected) in changed.iter().zip([t, t * (1.0 - replaced_by_itself), t, mixed]) {
                assert!((found - expected).abs() <= 0.015, "level {t}: {found} instead of {expected}");
            }
            let hidden_here = share(&row, &noised[3], |_, b| b == MASK);
            assert!((hidden_here - hidden).abs() < 0.015, "level {t}: {hidden_here} masked instead of {hidden}");
        }
    }

    #[test]
    fn no_noise_is_the_text_and_full_noise_nothing_of_it() {
        let (row, near) = (text(500), neighbours(&embeddings()));
        let draws = Draws::new(row.len(), &Rng::new(2));
        for noised in all(&row, 0.0, &draws, &near) {
            assert_eq!(noised, row);
        }
        let [masks, _, semantic, mixed] = all(&row, 1.0, &draws, &near);
        assert!(masks.iter().chain(&mixed).all(|&id| id == MASK));
        assert!(row.iter().zip(&semantic).all(|(a, b)| a != b));
        assert_eq!(uniform(&row, 1.0, &draws, &[]), row);
    }

    #[test]
    fn mixed_shares_are_those_of_the_paper_at_one_half() {
        let [kept, hidden, swapped] = mixed_shares(0.5, 0.2);
        assert!((swapped - 0.2).abs() < 1e-12 && (kept - 0.4).abs() < 1e-12 && (hidden - 0.4).abs() < 1e-12);
        assert_eq!(mixed_shares(1.0, 0.2), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn semantic_noise_goes_further_as_it_rises() {
        let (row, embeddings) = (text(4000), embeddings());
        let (near, draws) = (neighbours(&embeddings), Draws::new(row.len(), &Rng::new(3)));
        let distance = |t: f64| {
            let noised = semantic(&row, t, &draws, &near, 0.5);
            let pairs: Vec<f64> = row
                .iter()
                .zip(&noised)
                .filter(|(a, b)| a != b)
                .map(|(&a, &b)| 1.0 - f64::from(embeddings.cosine(a, b)))
                .collect();
            pairs.iter().sum::<f64>() / pairs.len() as f64
        };
        let distances = LEVELS[1..].iter().map(|&t| distance(t)).collect::<Vec<_>>();
        assert!(distances.windows(2).all(|pair| pair[0] + 0.02 < pair[1]), "{distances:?}");
        let random = 1.0;
        assert!(distances[0] < 0.5 && distances[4] < random, "{distances:?}");
    }

    proptest! {
        /// What is changed stays changed, what is masked stays masked, and a replacement never comes nearer.
        #[test]
        fn noise_only_grows(seed in 0u64..500, low in 0.0f64..1.0, high in 0.0f64..1.0) {
            let (low, high) = (low.min(high), low.max(high));
            let (row, embeddings) = (text(60), embeddings());
            let near: BTreeMap<u32, Neighbours> =
                row.iter().map(|&id| (id, Neighbours::of(id, &embeddings, &allowed()))).collect();
            let draws = Draws::new(row.len(), &Rng::new(seed));
            let (before, after) = (all(&row, low, &draws, &near), all(&row, high, &draws, &near));
            for (kind, (before, after)) in before.iter().zip(&after).enumerate() {
                for position in 0..row.len() {
                    let (x, a, b) = (row[position], before[position], after[position]);
                    prop_assert!(a != MASK || b == MASK);
                    prop_assert!(a == x || kind == 2 || b == a || b == MASK);
                    if kind == 2 && a != x {
                        prop_assert!(b != x && embeddings.cosine(x, b) <= embeddings.cosine(x, a));
                    }
                }
            }
        }
    }
}
