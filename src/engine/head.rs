//! From logits to proposals: as `pass::propose`, which is the definition, with vector instructions and without sorting or exponentials in
//! double precision over the whole vocabulary.

use std::ops::Range;

use super::panel::OUTPUTS;
use super::simd::{Isa, Kernel, LANES, Simd, exp};
use super::team::Team;
use crate::error::{Error, Result};
use crate::pass::{Nucleus, Proposal, Query, classes, nucleus};

/// Leads rows away from others: logits of `row` become `logits + weight * (logits - those of the guide)`, where the guides' rows come
/// last, in the order of `guided`. `logits`: `[panels][rows][32]`.
pub fn guide(logits: &mut [f32], (first, rows): (usize, usize), guided: &[(usize, f32)]) {
    if guided.is_empty() {
        return;
    }
    for panel in logits.chunks_exact_mut(rows * OUTPUTS) {
        let (asked, guides) = panel.split_at_mut(first * OUTPUTS);
        for (&(row, weight), guide) in guided.iter().zip(guides.chunks_exact(OUTPUTS)) {
            for (logit, other) in asked[row * OUTPUTS..][..OUTPUTS].iter_mut().zip(guide) {
                *logit += weight * (*logit - other);
            }
        }
    }
}

/// Adds a lane's bias to its rows. `logits`: `[panels][rows][32]`, of which those are `own`.
pub fn bias(logits: &mut [f32], rows: usize, own: Range<usize>, bias: &[(u32, f32)]) {
    for &(id, more) in bias {
        let (panel, output) = (id as usize / OUTPUTS, id as usize % OUTPUTS);
        for row in own.clone() {
            if let Some(logit) = logits.get_mut((panel * rows + row) * OUTPUTS + output) {
                *logit += more;
            }
        }
    }
}

/// Answers for the first rows, one for each query, or why a row has none. `logits`: `[panels][rows][32]`.
pub fn propose(
    team: &mut Team,
    isa: Isa,
    logits: &[f32],
    (rows, vocab): (usize, usize),
    queries: &[Query<'_>],
) -> Vec<Result<Proposal>> {
    let mut answers: Vec<Option<Result<Proposal>>> = (0..queries.len()).map(|_| None).collect();
    team.each(&mut answers, 1, |row, answer| {
        answer[0] = Some(answer_one(
            isa,
            Row { logits, rows, row, vocab, banned: queries[row].mask_id as usize },
            &queries[row],
        ));
    });
    answers.into_iter().flatten().collect()
}

/// The logits of one row.
#[derive(Clone, Copy)]
struct Row<'a> {
    logits: &'a [f32],
    rows: usize,
    row: usize,
    vocab: usize,
    /// The mask's id, which has no probability.
    banned: usize,
}

impl<'a> Row<'a> {
    fn panels(self) -> usize {
        self.vocab.div_ceil(OUTPUTS)
    }

    /// A panel's logits, minus infinity where there is no token.
    #[inline(always)]
    fn panel(self, panel: usize) -> [f32; OUTPUTS] {
        let from = &self.logits[(panel * self.rows + self.row) * OUTPUTS..][..OUTPUTS];
        let mut numbers = [f32::NEG_INFINITY; OUTPUTS];
        let count = (self.vocab - panel * OUTPUTS).min(OUTPUTS);
        numbers[..count].copy_from_slice(&from[..count]);
        if self.banned / OUTPUTS == panel {
            numbers[self.banned % OUTPUTS] = f32::NEG_INFINITY;
        }
        numbers
    }

    /// All logits, by id.
    fn all(self) -> Vec<f32> {
        let panels = (0..self.panels()).flat_map(|panel| self.panel(panel));
        panels.take(self.vocab).collect()
    }

    fn logit(self, id: usize) -> f64 {
        if id >= self.vocab || id == self.banned {
            return f64::NEG_INFINITY;
        }
        f64::from(self.logits[(id / OUTPUTS * self.rows + self.row) * OUTPUTS + id % OUTPUTS])
    }
}

/// The greatest logit of each panel; `None` where a logit is not a number or infinite.
struct Greatest<'a>(Row<'a>);

impl Kernel for Greatest<'_> {
    type Output = Option<Vec<f32>>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut all = Vec::with_capacity(self.0.panels());
        // Infinite and not-a-number logits alone give something else than 0 here.
        let mut strange = s.splat(0.0);
        for panel in 0..self.0.panels() {
            let numbers = self.0.panel(panel);
            let (halves, _) = numbers.as_chunks::<LANES>();
            all.push(s.largest(s.max(s.load(&halves[0]), s.load(&halves[1]))));
            let count = (self.0.vocab - panel * OUTPUTS).min(OUTPUTS);
            let raw = &self.0.logits[(panel * self.0.rows + self.0.row) * OUTPUTS..][..OUTPUTS];
            if count == OUTPUTS {
                for half in raw.as_chunks::<LANES>().0 {
                    strange = s.fma(s.load(half), s.splat(0.0), strange);
                }
            } else if raw[..count].iter().any(|x| !x.is_finite()) {
                return None;
            }
        }
        (s.sum(strange) == 0.0).then_some(all)
    }
}

/// Sums over each panel of `e^((x - greatest) / temperature)`, and the sum of that times `x - greatest`.
struct Sums<'a> {
    row: Row<'a>,
    greatest: f32,
    temperature: f32,
}

impl Kernel for Sums<'_> {
    type Output = (Vec<f64>, f64);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut sums = Vec::with_capacity(self.row.panels());
        let (greatest, inverse) = (s.splat(self.greatest), s.splat((1.0 / self.temperature).min(f32::MAX)));
        let least = -1e4 * self.temperature.max(1.0);
        let mut surprise = 0.0;
        for panel in 0..self.row.panels() {
            let numbers = self.row.panel(panel);
            let mut sum = s.splat(0.0);
            let mut weighted = s.splat(0.0);
            for half in numbers.as_chunks::<LANES>().0 {
                // What is banned becomes some 1e-38 of the most probable token, which no sum notices.
                let off = s.max(s.splat(least), s.sub(s.load(half), greatest));
                let weight = exp(s, s.mul(off, inverse));
                sum = s.add(sum, weight);
                weighted = s.fma(weight, off, weighted);
            }
            sums.push(f64::from(s.sum(sum)));
            surprise += f64::from(s.sum(weighted));
        }
        (sums, surprise)
    }
}

fn answer_one(isa: Isa, row: Row<'_>, query: &Query<'_>) -> Result<Proposal> {
    let refuse = || Error::Run(format!("row {} of the open block has a logit that is not a number", query.row));
    let tops = isa.run(Greatest(row)).ok_or_else(refuse)?;
    let (best, second) = best_two(row, &tops);
    let most = row.logit(best);
    if !most.is_finite() {
        return Err(refuse());
    }
    let (sums, surprise) = isa.run(Sums { row, greatest: most as f32, temperature: 1.0 });
    let total: f64 = sums.iter().sum();
    let raw = |id: usize| (row.logit(id) - most).exp() / total;
    let (token, prob) = match query.filter.temperature {
        0.0 => (best, 1.0),
        temperature => {
            let tempered = (temperature != 1.0)
                .then(|| isa.run(Sums { row, greatest: most as f32, temperature: temperature as f32 }).0);
            let sums = tempered.as_ref().unwrap_or(&sums);
            Draw { row, tops: &tops, sums, most, best, temperature }.draw(query.filter.nucleus, query.uniform)
        }
    };
    let runner_up = if token == best { second } else { best };
    Ok(Proposal {
        row: query.row,
        token: token as u32,
        raw_prob: raw(token),
        prob,
        entropy: total.ln() - surprise / total,
        runner_up: (runner_up as u32, raw(runner_up)),
        standing: raw(query.standing as usize),
        alternatives: most_probable(row, &tops, query.alternatives)
            .into_iter()
            .map(|id| (id, raw(id as usize)))
            .collect(),
        classes: match query.classes {
            Some(_) => classes(&row.all(), query),
            None => Vec::new(),
        },
    })
}

/// The ids of the greatest and the second greatest logit, lower ids first among equals.
fn best_two(row: Row<'_>, tops: &[f32]) -> (usize, usize) {
    let greatest = |tops: &mut dyn Iterator<Item = (usize, f32)>| {
        tops.fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
    };
    let inside = |panel: usize, but: usize| {
        let numbers = row.panel(panel);
        let ids = (panel * OUTPUTS..).zip(numbers).filter(move |&(id, _)| id != but);
        greatest(&mut ids.collect::<Vec<_>>().into_iter())
    };
    let top = greatest(&mut tops.iter().copied().enumerate()).0;
    let best = inside(top, usize::MAX).0;
    let other = greatest(&mut tops.iter().copied().enumerate().filter(|&(panel, _)| panel != top));
    let beside = inside(top, best);
    let second = if other.1 > beside.1 || other.1 == beside.1 && other.0 < top {
        inside(other.0, usize::MAX).0
    } else {
        beside.0
    };
    (best, second)
}

/// A distribution to draw from.
struct Draw<'a> {
    row: Row<'a>,
    tops: &'a [f32],
    /// By panel.
    sums: &'a [f64],
    most: f64,
    /// The most probable token.
    best: usize,
    temperature: f64,
}

impl Draw<'_> {
    fn weight(&self, id: usize) -> f64 {
        ((self.row.logit(id) - self.most) / self.temperature).exp()
    }

    fn draw(&self, how: Nucleus, uniform: f64) -> (usize, f64) {
        let total: f64 = self.sums.iter().sum();
        let limit = match how {
            Nucleus::Usual(p) | Nucleus::Strict(p) if p < 1.0 => p,
            _ => return self.draw_any(total, uniform),
        };
        // Tokens below (1 - limit) / vocab together weigh less than what may be cut; half of it leaves room for rounding.
        let least = 0.5 * (1.0 - limit) / self.row.vocab as f64;
        let logit = self.most + (least * total).ln() * self.temperature - 1e-3;
        let panels = self.tops.iter().enumerate().filter(|&(_, &top)| f64::from(top) >= logit).map(|(panel, _)| panel);
        let ids = panels.flat_map(|panel| panel * OUTPUTS..((panel + 1) * OUTPUTS).min(self.row.vocab));
        let mut tokens: Vec<(u32, f64)> =
            ids.filter(|&id| self.row.logit(id) >= logit).map(|id| (id as u32, self.weight(id) / total)).collect();
        nucleus(&mut tokens, how);
        tokens.sort_unstable_by_key(|&(id, _)| id);
        let kept: f64 = tokens.iter().map(|&(_, prob)| prob).sum();
        let mut cumulative = 0.0;
        let mut last = (0, 0.0);
        for (id, prob) in tokens {
            cumulative += prob / kept;
            last = (id as usize, prob / kept);
            if cumulative > uniform {
                break;
            }
        }
        last
    }

    /// From the whole vocabulary, in the order of ids: first the panel, then the token.
    fn draw_any(&self, total: f64, uniform: f64) -> (usize, f64) {
        let target = uniform * total;
        let mut before = 0.0;
        // The most probable token, should rounding leave none.
        let mut last = self.best;
        for (panel, sum) in self.sums.iter().enumerate() {
            if before + sum <= target && panel + 1 < self.sums.len() {
                before += sum;
                continue;
            }
            for id in panel * OUTPUTS..((panel + 1) * OUTPUTS).min(self.row.vocab) {
                let weight = self.weight(id);
                if weight > 0.0 {
                    before += weight;
                    last = id;
                    if before > target {
                        return (last, weight / total);
                    }
                }
            }
        }
        (last, self.weight(last) / total)
    }
}

/// The ids of the greatest logits, best first.
fn most_probable(row: Row<'_>, tops: &[f32], count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    // The count-th greatest of the panels' greatest logits is a bound: at least so many tokens reach it.
    let mut sorted = tops.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let bound = sorted.get(count - 1).copied().unwrap_or(f32::NEG_INFINITY);
    let panels = tops.iter().enumerate().filter(|&(_, &top)| top >= bound).map(|(panel, _)| panel);
    let mut tokens: Vec<(u32, f32)> = panels
        .flat_map(|panel| (panel as u32 * OUTPUTS as u32..).zip(row.panel(panel)))
        .filter(|&(_, logit)| logit >= bound && logit > f32::NEG_INFINITY)
        .collect();
    tokens.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    tokens.truncate(count);
    tokens.into_iter().map(|(id, _)| id).collect()
}
