//! How likely a text is: the bound of a block diffusion model at any block size, or the exact value where there is one, with
//! its standard error. Every draw is seeded by its row, so that a figure does not depend on the batch size. Who scores a
//! noised text is a [`Scorer`]: the trainable network, or the engine.

mod engine;
pub mod judge;
#[cfg(feature = "train")]
mod network;

use std::ops::Range;

use crate::arch::{Arch, Objective};
use crate::block::Layout;
use crate::data::{Batch, Packing};
use crate::error::{Error, Result};
use crate::loss::Terms;
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
    /// Rows side by side.
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
    /// By row, the document in which it begins: what is near in a text is alike.
    pub documents: Vec<usize>,
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

    /// Standard error of [`Likelihood::nats`], by documents (ratio estimator over clusters: neither the tokens of a row nor the
    /// rows of a document are independent). Of one document, by its rows, as if there were no other; NaN of one row.
    pub fn stderr(&self) -> f64 {
        let mean = self.nats();
        let apart: Vec<f64> = self.rows.iter().map(|row| row.nats - mean * row.tokens as f64).collect();
        let mut rest = &apart[..];
        let mut clusters: Vec<f64> = Vec::new();
        for document in self.documents.chunk_by(|a, b| a == b) {
            let (rows, after) = rest.split_at(document.len());
            clusters.push(rows.iter().sum());
            rest = after;
        }
        let clusters = if clusters.len() == 1 { apart } else { clusters };
        if clusters.len() < 2 {
            return f64::NAN;
        }
        let (count, squares) = (clusters.len() as f64, clusters.iter().map(|apart| apart.powi(2)).sum::<f64>());
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

/// One draw of noise over a batch.
#[derive(Clone, Debug)]
pub struct Noised {
    /// The text with masks in it, `[rows * length]`. Positions beyond a row's valid length are masked.
    pub xt: Vec<u32>,
    /// The masked positions that count, each with its weight.
    pub terms: Terms,
}

/// One noise level for each row of a batch, as score entropy has it.
#[derive(Clone, Debug)]
pub struct Levels {
    /// As [`Noised::xt`].
    pub xt: Vec<u32>,
    /// By row.
    pub t: Vec<f64>,
}

/// What scores a text. Every answer is in nats, by row: a sum over the row's tokens.
pub trait Scorer {
    /// The model's description.
    fn arch(&self) -> &Arch;

    /// Each valid token given all before it, of a next-token model.
    ///
    /// # Errors
    /// When the model fails.
    fn next_token(&self, batch: &Batch) -> Result<Vec<f64>>;

    /// The weighted terms of each draw, summed over the draws, of masked diffusion: a noised block sees itself and the clean
    /// blocks before it.
    ///
    /// # Errors
    /// When the model fails.
    fn masked(&self, batch: &Batch, layout: Layout, draws: &[Noised]) -> Result<Vec<f64>>;

    /// Score entropy at these noise levels.
    ///
    /// # Errors
    /// When the model fails.
    fn score_entropy(&self, batch: &Batch, levels: &Levels) -> Result<Vec<f64>>;
}

/// Measures rows of a text. `progress` hears how many rows are done, and stops the measurement by `false`: then what was measured
/// so far is the result.
///
/// # Errors
/// A block size that the model or the rows do not have; no draw or no row at a time; a text with the mask in it; when the model
/// fails.
pub fn measure(
    model: &impl Scorer,
    text: &Packing,
    rows: Range<usize>,
    how: &Measure,
    mut progress: impl FnMut(usize) -> bool,
) -> Result<Likelihood> {
    let arch = model.arch();
    let layout = Layout::new(text.length(), how.block)?;
    arch.check_block(how.block)?;
    let exact = arch.objective == Objective::NextToken || (arch.objective == Objective::Masked && how.block == 1);
    let draws = if exact { 1 } else { how.draws };
    for (name, value) in [("draws", draws), ("batch", how.batch)] {
        if value == 0 {
            return Err(Error::value(name, "at least 1", "0"));
        }
    }
    let mut result = Likelihood { rows: Vec::new(), documents: Vec::new(), exact, draws };
    let mut start = rows.start;
    while start < rows.end {
        let end = rows.end.min(start + how.batch);
        let batch = text.batch(start..end);
        let holds_mask = |row: &usize| batch.row(*row)[..batch.valid[*row]].contains(&arch.mask);
        if let Some(row) = (0..batch.rows).find(holds_mask) {
            let expected = "a text without the mask, which is never predicted";
            return Err(Error::value("text", expected, format!("the mask in row {}", start + row)));
        }
        let generator = |row, draw| generator(how.seed, start + row, draw);
        let nats = match arch.objective {
            Objective::NextToken => model.next_token(&batch)?,
            Objective::Masked => {
                let draw = |draw| noised(&batch, arch.mask, layout, how.estimator, |row| generator(row, draw));
                model.masked(&batch, layout, &(0..draws).map(draw).collect::<Vec<_>>())?
            }
            Objective::Score => {
                let mut sums = vec![0.0; batch.rows];
                for draw in 0..draws {
                    let nats = model.score_entropy(&batch, &levels(&batch, arch.mask, |row| generator(row, draw)))?;
                    sums.iter_mut().zip(nats).for_each(|(sum, nats)| *sum += nats);
                }
                sums
            }
        };
        let found = nats.iter().zip(&batch.valid);
        let row =
            |(nats, &valid): (&f64, &usize)| RowNats { nats: nats / draws as f64, tokens: valid.saturating_sub(1) };
        result.rows.extend(found.map(row));
        result.documents.extend((start..end).map(|row| text.document(row)));
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

/// One draw of noise. Positions beyond a row's valid length stay masked and are not counted, which leaves a bound of what is
/// there.
fn noised(batch: &Batch, mask: u32, layout: Layout, estimator: Estimator, generator: impl Fn(usize) -> Rng) -> Noised {
    let length = layout.length;
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
        match estimator {
            // At block size 1 the one subset is the block, which is exact.
            _ if layout.size == 1 => hide_subsets(layout, valid, &mut rng, &mut hide),
            Estimator::Subset => hide_subsets(layout, valid, &mut rng, &mut hide),
            Estimator::Official => hide_by_level(layout, valid, &mut rng, &mut hide),
        }
    }
    let mut terms = Terms::masked(&batch.ids, &xt, mask, length, |i| weights[i]);
    terms.retain_weighted();
    Noised { xt, terms }
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

/// One noise level per row, loglinear.
fn levels(batch: &Batch, mask: u32, generator: impl Fn(usize) -> Rng) -> Levels {
    let length = batch.length;
    let mut levels = Levels { xt: batch.ids.clone(), t: Vec::with_capacity(batch.rows) };
    for (row, &valid) in batch.valid.iter().enumerate() {
        let mut rng = generator(row);
        let t = row_times(1, Clip::FULL, &mut rng)[0];
        for position in 1..length {
            if position >= valid || rng.uniform() <= t {
                levels.xt[row * length + position] = mask;
            }
        }
        levels.t.push(t);
    }
    levels
}

/// Weighted nats of the terms, by row.
fn by_row(terms: &Terms, nll: &[f64], rows: usize, length: usize) -> Vec<f64> {
    terms.per_position(nll, rows * length).chunks(length).map(|row| row.iter().sum()).collect()
}
