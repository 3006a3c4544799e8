//! How likely a text is: the bound of a block diffusion model at any block size, or the exact value where there is one, with
//! its standard error over rows. Every draw is seeded by its row, so that a figure does not depend on the batch size.

use std::ops::Range;

use crate::arch::Objective;
use crate::block::Layout;
use crate::data::{Batch, Packing};
use crate::error::{Error, Result};
use crate::loss::{self, ScoreNoise, Terms};
use crate::model::{Dit, dit::View, ops};
use crate::noise::{Clip, draw_subset, row_times};
use crate::rng::Rng;

/// Which random variable is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// For each block a subset size k and a random subset of that size, weight n / k (`docs/math.md`): no noise level at all.
    Subset,
    /// The paper's: a noise level t in [1e-3, 1] per block, weight 1 / t.
    Official,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Block size.
    pub block: usize,
    /// How often each row is noised.
    pub draws: usize,
    /// The estimator.
    pub estimator: Estimator,
    /// Rows in one forward evaluation.
    pub batch: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Nats of one row of text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowNats {
    /// Mean over the draws of the row's bound, summed over its tokens.
    pub nats: f64,
    /// Tokens that were predicted: all but bos and padding.
    pub tokens: usize,
}

/// The likelihood of a text.
#[derive(Clone, Debug)]
pub struct Likelihood {
    /// By row, in the order of the text.
    pub rows: Vec<RowNats>,
    /// True where the value is exact, not a bound.
    pub exact: bool,
    /// How often each row was noised.
    pub draws: usize,
}

impl Likelihood {
    /// Tokens that were predicted.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|r| r.tokens).sum()
    }

    /// Nats per token.
    pub fn nats(&self) -> f64 {
        self.rows.iter().map(|r| r.nats).sum::<f64>() / self.tokens() as f64
    }

    /// Standard error of [`Likelihood::nats`], by rows (ratio estimator): tokens of one row are not independent.
    pub fn stderr(&self) -> f64 {
        let (count, mean) = (self.rows.len() as f64, self.nats());
        if self.rows.len() < 2 {
            return f64::NAN;
        }
        let squares: f64 = self.rows.iter().map(|r| (r.nats - mean * r.tokens as f64).powi(2)).sum();
        (squares * count / (count - 1.0)).sqrt() / self.tokens() as f64
    }

    /// `exp` of nats per token.
    pub fn perplexity(&self) -> f64 {
        self.nats().exp()
    }

    /// Bits per byte of a text of so many bytes.
    pub fn bits_per_byte(&self, bytes: u64) -> f64 {
        self.rows.iter().map(|r| r.nats).sum::<f64>() / std::f64::consts::LN_2 / bytes as f64
    }
}

/// Measures rows of a text. `progress` hears how many rows are done, and stops the measurement by `false`: then what was measured
/// so far is the result.
pub fn measure(
    model: &Dit,
    text: &Packing,
    rows: Range<usize>,
    how: &Measure,
    mut progress: impl FnMut(usize) -> bool,
) -> Result<Likelihood> {
    let arch = &model.arch;
    let layout = Layout::new(text.length(), how.block)?;
    arch.check_block(how.block)?;
    let exact = arch.objective == Objective::NextToken || (arch.objective == Objective::Masked && how.block == 1);
    let draws = if exact { 1 } else { how.draws };
    for (name, value) in [("draws", draws), ("batch", how.batch)] {
        if value == 0 {
            return Err(Error::value(name, "at least 1", "0"));
        }
    }
    let mut result = Likelihood { rows: Vec::new(), exact, draws };
    let mut start = rows.start;
    while start < rows.end {
        let end = rows.end.min(start + how.batch);
        let batch = text.batch(start..end);
        let holds_mask = |row: &usize| batch.row(*row)[..batch.valid[*row]].contains(&arch.mask);
        if let Some(row) = (0..batch.rows).find(holds_mask) {
            let expected = "a text without the mask, which is never predicted";
            return Err(Error::value("text", expected, format!("the mask in row {}", start + row)));
        }
        let mut sums: Vec<RowNats> =
            batch.valid.iter().map(|&valid| RowNats { nats: 0.0, tokens: valid.saturating_sub(1) }).collect();
        for draw in 0..draws {
            let nats = match arch.objective {
                Objective::NextToken => next_token(model, &batch)?,
                Objective::Masked => masked(model, &batch, layout, how, |row| generator(how.seed, start + row, draw))?,
                Objective::Score => score(model, &batch, |row| generator(how.seed, start + row, draw))?,
            };
            sums.iter_mut().zip(nats).for_each(|(sum, nats)| sum.nats += nats / draws as f64);
        }
        result.rows.extend(sums);
        start = end;
        if !progress(result.rows.len()) {
            break;
        }
    }
    Ok(result)
}

fn generator(seed: u64, row: usize, draw: usize) -> Rng {
    Rng::new(seed).split_at("likelihood", row as u64).split_at("draw", draw as u64)
}

/// The bound of each row for one draw of noise. Positions beyond a row's valid length stay masked and are not counted, which
/// leaves a bound of what is there.
fn masked(
    model: &Dit,
    batch: &Batch,
    layout: Layout,
    how: &Measure,
    generator: impl Fn(usize) -> Rng,
) -> Result<Vec<f64>> {
    let (mask, length) = (model.arch.mask, layout.length);
    let mut xt = batch.ids.clone();
    let mut weights = vec![0.0; xt.len()];
    for (row, &valid) in batch.valid.iter().enumerate() {
        let at = row * length;
        xt[at + valid..at + length].fill(mask);
        let mut hide = |position: usize, weight: f64| {
            xt[at + position] = mask;
            weights[at + position] = weight;
        };
        let mut rng = generator(row);
        match how.estimator {
            // At block size 1 the one subset is the block, which is exact.
            _ if layout.size == 1 => hide_subsets(layout, valid, &mut rng, &mut hide),
            Estimator::Subset => hide_subsets(layout, valid, &mut rng, &mut hide),
            Estimator::Official => hide_by_level(layout, valid, &mut rng, &mut hide),
        }
    }
    let stream = model.paired(&xt, &batch.ids, &View::plain(batch.rows, layout.size))?;
    let mut terms = Terms::masked(&batch.ids, &xt, mask, length, |i| weights[i]);
    terms.retain_weighted();
    by_row(model, stream, &terms, batch.rows, length)
}

/// One subset per block.
fn hide_subsets(layout: Layout, valid: usize, rng: &mut Rng, hide: &mut impl FnMut(usize, f64)) {
    for block in 0..layout.blocks() {
        let (start, end) = (block * layout.size, ((block + 1) * layout.size).min(valid));
        let first = start.max(1);
        if end > first {
            let subset = draw_subset(end - first, rng);
            subset.members.iter().for_each(|&member| hide(first + member, subset.weight));
        }
    }
}

/// One noise level per block, loglinear: probability t, weight 1 / t.
fn hide_by_level(layout: Layout, valid: usize, rng: &mut Rng, hide: &mut impl FnMut(usize, f64)) {
    for (block, t) in row_times(layout.blocks(), Clip::FULL, rng).into_iter().enumerate() {
        for position in (block * layout.size).max(1)..((block + 1) * layout.size).min(valid) {
            if rng.uniform() <= t {
                hide(position, 1.0 / t);
            }
        }
    }
}

fn next_token(model: &Dit, batch: &Batch) -> Result<Vec<f64>> {
    let length = batch.length;
    let inputs: Vec<u32> = batch.ids.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect();
    let stream = model.single(&inputs, &View::plain(batch.rows, 1))?;
    let mut terms = Terms::next_token(&batch.ids, length);
    for (row, &valid) in batch.valid.iter().enumerate() {
        let at = row * (length - 1);
        terms.weights[at + valid - 1..at + length - 1].fill(0.0);
    }
    terms.retain_weighted();
    by_row(model, stream, &terms, batch.rows, length - 1)
}

/// SEDD's bound (Lou et al. 2024): one t per row.
fn score(model: &Dit, batch: &Batch, generator: impl Fn(usize) -> Rng) -> Result<Vec<f64>> {
    let (mask, length) = (model.arch.mask, batch.length);
    let mut xt = batch.ids.clone();
    let (mut sigmas, mut noise) = (Vec::new(), Vec::new());
    for (row, &valid) in batch.valid.iter().enumerate() {
        let mut rng = generator(row);
        let t = row_times(1, Clip::FULL, &mut rng)[0];
        for position in 1..length {
            if position >= valid || rng.uniform() <= t {
                xt[row * length + position] = mask;
            }
        }
        let level = ScoreNoise::at(t);
        sigmas.push(level.sigma as f32);
        noise.extend(std::iter::repeat_n(level, length));
    }
    let view = View { sigma: Some(&sigmas), ..View::plain(batch.rows, length) };
    let scores = loss::log_score(model.logits(model.single(&xt, &view)?), &xt, &noise);
    let entropy = ops::to_vec(loss::score_entropy(scores, &batch.ids, &xt, mask, &noise))?;
    let rows = entropy.chunks(length).zip(&batch.valid);
    Ok(rows.map(|(row, &valid)| row[1..valid].iter().map(|&x| f64::from(x)).sum()).collect())
}

fn by_row(model: &Dit, stream: burn::tensor::Tensor<2>, terms: &Terms, rows: usize, length: usize) -> Result<Vec<f64>> {
    if terms.is_empty() {
        return Ok(vec![0.0; rows]);
    }
    let (_, nll) = loss::cross_entropy(model, stream, terms, 1.0)?;
    Ok(terms.per_position(&nll, rows * length).chunks(length).map(|row| row.iter().sum()).collect())
}
