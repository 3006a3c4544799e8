//! One micro-batch: clean rows, their noised copy, and what the loss asks. All of it is a function of (seed, step, micro-batch),
//! so that a resumed run draws what an uninterrupted one draws.

use crate::arch::Objective;
use crate::data::Batch;
use crate::error::Result;
use crate::loss::{ScoreNoise, Terms};
use crate::noise::{
    self, Clip, Schedule, Spread, coins, coins_within, hide, official_times, replace_visible, row_times,
};
use crate::rng::Rng;

use super::plan::{Plan, SizePlan};

/// What the network sees and what it is asked.
pub struct Micro {
    /// Clean ids, `[rows, length]`.
    pub x0: Vec<u32>,
    /// Noised ids.
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
pub fn noised(plan: &Plan, batch: Batch, size: &SizePlan, rng: &Rng) -> Result<Micro> {
    let (rows, length) = (batch.rows, batch.length);
    let x0 = batch.ids;
    let predicted = if plan.recipe.official { rows * length } else { rows * (length - 1) };
    let micro = |xt, terms, noise| Micro {
        x0: x0.clone(),
        xt,
        rows,
        block: size.size,
        terms,
        denominator: predicted as f64,
        noise,
    };
    Ok(match plan.arch.objective {
        Objective::NextToken => {
            let inputs = x0.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect();
            let mut micro = micro(inputs, Terms::next_token(&x0, length), Vec::new());
            micro.denominator = micro.terms.rows.len() as f64;
            micro
        }
        Objective::Score => {
            let levels = levels(plan, (rows, 1), Clip::FULL, rng);
            let xt = mask_rows(plan, &x0, length, &levels, size, rng)?;
            let noise = levels.iter().map(|&t| ScoreNoise { sigma: noise::sigma(t), rate: 1.0 / (1.0 - t).max(1e-3) });
            micro(xt, Terms::default(), noise.collect())
        }
        Objective::Masked => masked(plan, &x0, (rows, length), size, rng, micro)?,
    })
}

fn masked(
    plan: &Plan,
    x0: &[u32],
    (rows, length): (usize, usize),
    size: &SizePlan,
    rng: &Rng,
    micro: impl Fn(Vec<u32>, Terms, Vec<ScoreNoise>) -> Micro,
) -> Result<Micro> {
    let (mut xt, terms) = bound(plan, x0, (rows, length), size, rng)?;
    let (corrupt, mask) = (&plan.recipe.corrupt, plan.arch.mask);
    let mut judged = vec![0.0; rows];
    if corrupt.rows > 0.0 {
        let mut rng = rng.split("corrupt");
        for (row, judged) in xt.chunks_mut(length).zip(&mut judged) {
            if rng.uniform() < corrupt.rows {
                replace_visible(row, mask, corrupt.share, &plan.ordinary, &mut rng);
                *judged = corrupt.weight;
            }
        }
    }
    let terms = terms.visible(x0, &xt, mask, length, |row| judged[row]);
    Ok(micro(xt, terms, Vec::new()))
}

/// Masked rows and the terms of their bound, nothing corrupted.
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
    let weight = |t: f64| match plan.recipe.official {
        true => plan.schedule.official_weight(t, size.clip),
        false => plan.schedule.weight(t),
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
        let masked = match resample {
            true => coins_within(&probs, schedule.clip_of_probs(size.clip), size.size, |_, _| rng.uniform())?,
            false => coins(&probs, |_| rng.uniform()),
        };
        all.extend(hide(ids, &masked, plan.arch.mask));
    }
    Ok(all)
}
