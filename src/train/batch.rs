//! One micro-batch: clean rows, their noised copy, and what the loss asks. All of it is a function of (seed, step, micro-batch),
//! so that a resumed run draws what an uninterrupted one draws.

use crate::arch::Objective;
use crate::data::Batch;
use crate::error::Result;
use crate::loss::{ScoreNoise, Terms};
use crate::noise::{Clip, Schedule, Spread, coins, coins_within, hide, official_times, replace_visible, row_times};
use crate::rng::Rng;

use super::plan::{Plan, SizePlan};

/// What the network sees and what it is asked.
pub struct Micro {
    /// Clean ids, `[rows, length]`.
    pub x0: Vec<u32>,
    /// Noised ids, `[rows, length]`; of a next-token model the clean inputs, `[rows, length - 1]`.
    pub xt: Vec<u32>,
    /// Rows of text.
    pub rows: usize,
    /// Block size.
    pub block: usize,
    /// What the loss asks.
    pub terms: Terms,
    /// What the loss is divided by.
    pub denominator: f64,
    /// Noise per row (score entropy only).
    pub noise: Vec<ScoreNoise>,
}

/// Which size a step has.
pub fn draw_size(sizes: &[SizePlan], rng: &mut Rng) -> usize {
    let mut point = rng.uniform() * sizes.iter().map(|s| s.share).sum::<f64>();
    let with_share = |(i, s): (usize, &SizePlan)| (s.share > 0.0).then_some((i, s.share));
    let mut last = 0;
    for (index, share) in sizes.iter().enumerate().filter_map(with_share) {
        last = index;
        if point < share {
            break;
        }
        point -= share;
    }
    last
}

/// Noises a batch of full rows.
///
/// # Errors
/// As [`coins_within`], where the recipe asks for `resample`.
pub fn noised(plan: &Plan, batch: Batch, size: &SizePlan, rng: &Rng) -> Result<Micro> {
    let (rows, length, x0) = (batch.rows, batch.length, batch.ids);
    let counted = if plan.recipe.official { rows * length } else { rows * (length - 1) };
    let mut denominator = counted as f64;
    let mut noise = Vec::new();
    let (xt, terms) = match plan.arch.objective {
        Objective::NextToken => {
            let inputs = x0.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect();
            denominator = (rows * (length - 1)) as f64;
            (inputs, Terms::next_token(&x0, length))
        }
        Objective::Score => {
            let levels = levels(plan, (rows, 1), Clip::FULL, rng);
            noise = levels.iter().map(|&t| ScoreNoise::at(t)).collect();
            (mask_rows(plan, &x0, length, &levels, size, rng)?, Terms::default())
        }
        Objective::Masked => {
            let (mut xt, terms) = bound(plan, &x0, (rows, length), size, rng)?;
            let judged = corrupt(plan, &mut xt, length, &mut rng.split("corrupt"));
            let terms = terms.visible(&x0, &xt, plan.arch.mask, length, |row| judged[row]);
            (xt, terms)
        }
    };
    Ok(Micro { x0, xt, rows, block: size.size, terms, denominator, noise })
}

/// Replaces visible tokens of some rows by random ones. Returns, by row, the weight of the loss on its visible tokens.
fn corrupt(plan: &Plan, xt: &mut [u32], length: usize, rng: &mut Rng) -> Vec<f64> {
    let recipe = &plan.recipe.corrupt;
    let mut judge = |row: &mut [u32]| {
        if rng.uniform() >= recipe.rows {
            return 0.0;
        }
        replace_visible(row, plan.arch.mask, recipe.share, &plan.ordinary, rng);
        recipe.weight
    };
    xt.chunks_mut(length).map(&mut judge).collect()
}

/// Masked rows `[rows, length]` and the terms of their bound, nothing corrupted.
///
/// # Errors
/// As [`noised`].
pub fn bound(
    plan: &Plan,
    x0: &[u32],
    (rows, length): (usize, usize),
    size: &SizePlan,
    rng: &Rng,
) -> Result<(Vec<u32>, Terms)> {
    let blocks = length / size.size;
    let levels = levels(plan, (rows, blocks), size.clip, rng);
    let xt = mask_rows(plan, x0, length, &levels, size, rng)?;
    let weight = |t: f64| {
        if size.clip == Clip::MASKED {
            // Everything is masked: plain cross entropy, exact at block size 1, whatever the schedule's slope at t = 1.
            1.0
        } else if plan.recipe.official {
            plan.schedule.official_weight(t, size.clip)
        } else {
            plan.schedule.weight(t)
        }
    };
    let weights: Vec<f64> = levels.iter().map(|&t| weight(t)).collect();
    let weight = |i: usize| weights[i / length * blocks + i % length / size.size];
    let terms = Terms::masked(x0, &xt, plan.arch.mask, length, weight);
    Ok((xt, terms))
}

/// Noise levels `[rows, blocks]`.
fn levels(plan: &Plan, (rows, blocks): (usize, usize), clip: Clip, rng: &Rng) -> Vec<f64> {
    let mut rng = rng.split("times");
    if plan.recipe.official {
        let uniforms: Vec<f32> = (0..rows * blocks).map(|_| rng.uniform() as f32).collect();
        return official_times(&uniforms, clip, Spread::Antithetic).into_iter().map(f64::from).collect();
    }
    // One level a row would leave a batch of few rows uneven: then the rows share one set of strata.
    if blocks == 1 {
        return row_times(rows, clip, &mut rng);
    }
    (0..rows).flat_map(|_| row_times(blocks, clip, &mut rng)).collect()
}

/// Masks every row by its levels, drawing blocks again where the recipe asks for it.
fn mask_rows(plan: &Plan, x0: &[u32], length: usize, levels: &[f64], size: &SizePlan, rng: &Rng) -> Result<Vec<u32>> {
    let schedule: Schedule = plan.schedule;
    let blocks = levels.len() * length / x0.len();
    let resample = plan.recipe.blocks.resample && size.clip != Clip::FULL;
    let mut all = Vec::with_capacity(x0.len());
    for (row, (ids, levels)) in x0.chunks(length).zip(levels.chunks(blocks)).enumerate() {
        let mut rng = rng.split_at("mask", row as u64);
        let probs: Vec<f64> = (0..length).map(|i| schedule.mask_prob(levels[i * blocks / length])).collect();
        let masked = if resample {
            coins_within(&probs, schedule.clip_of_probs(size.clip), size.size, |_, _| rng.uniform())?
        } else {
            coins(&probs, |_| rng.uniform())
        };
        all.extend(hide(ids, &masked, plan.arch.mask));
    }
    Ok(all)
}
