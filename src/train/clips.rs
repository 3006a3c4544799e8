//! The search for clip intervals (BD3-LM, section 5): for each block size, the interval under which the bound of the validation
//! text varies least between blocks.

use crate::data::{Batch, Packing};
use crate::error::{Error, Result};
use crate::loss;
use crate::model::{Dit, dit::View};
use crate::noise::{Clip, Grid, best, candidates, variance_score};
use crate::rng::Rng;

use super::batch;
use super::plan::{Plan, SizePlan};

/// What the search found for one size.
#[derive(Clone, Debug)]
pub struct Found {
    /// The block size.
    pub size: usize,
    /// The interval with the least variance.
    pub clip: Clip,
    /// Its variance, per batch.
    pub variance: f64,
    /// The variance under [1e-3, 1], per batch.
    pub unclipped: f64,
}

/// Tries every candidate on the same rows with the averaged weights.
///
/// # Errors
/// A width as [`candidates`] refuses it, a text whose first row is not full, no row asked for, masks that [`batch::bound`] can't
/// draw, a variance that is not a number, or a model that fails.
pub fn search(plan: &Plan, model: &Dit, text: &Packing, rows: usize, size: &SizePlan, rng: &Rng) -> Result<Found> {
    let grid = if plan.recipe.official { Grid::Official } else { Grid::Exact };
    let clips = candidates(size.size, &plan.recipe.blocks.search, grid)?;
    let admitted: Vec<Clip> = clips
        .into_iter()
        .filter(|c| !plan.recipe.blocks.resample || plan.schedule.clip_of_probs(*c).admits(size.size))
        .collect();
    // Full rows only: what fills a short one is no text.
    let full = (0..text.rows()).take_while(|&row| text.valid(row) == text.length()).count();
    let rows = rows.min(full);
    let blocks = rows * (text.length() / size.size);
    if blocks < 2 {
        let (length, size) = (text.length(), size.size);
        let found = format!("{blocks}, in {rows} rows that have all of their {length} tokens");
        let expected = format!("at least 2 blocks of {size} to compare, from train.validate_rows full rows");
        return Err(Error::value("clip search on the validation text", expected, found));
    }
    let mut scores = Vec::with_capacity(admitted.len());
    let per = plan.recipe.train.batch.max(2).min(rows.max(2));
    for clip in &admitted {
        let trial = SizePlan { clip: *clip, ..*size };
        let mut batches = Vec::new();
        for start in (0..rows).step_by(per) {
            let batch = text.batch(start..(start + per).min(rows));
            // The variance of one row's one block is not defined.
            if batch.rows * (batch.length / size.size) < 2 {
                break;
            }
            batches.push(per_block(plan, model, &batch, &trial, &rng.split_at("clips", start as u64))?);
        }
        scores.push(variance_score(&batches)? / batches.len().max(1) as f64);
    }
    let Some(index) = best(&scores) else {
        return Err(Error::Run(format!("clip search at block size {}: a variance is not a number", size.size)));
    };
    Ok(Found { size: size.size, clip: admitted[index], variance: scores[index], unclipped: scores[0] })
}

/// The bound of every block of a batch, in nats per token.
fn per_block(plan: &Plan, model: &Dit, batch: &Batch, size: &SizePlan, rng: &Rng) -> Result<Vec<f64>> {
    let (xt, terms) = batch::bound(plan, &batch.ids, (batch.rows, batch.length), size, rng)?;
    let positions = xt.len();
    if terms.is_empty() {
        return Ok(vec![0.0; positions / size.size]);
    }
    let stream = model.paired(&xt, &batch.ids, &View::plain(batch.rows, size.size))?;
    let (_, nll) = loss::cross_entropy(model, stream, &terms, 1.0)?;
    let per_position = terms.per_position(&nll, positions);
    Ok(per_position.chunks(size.size).map(|b| b.iter().sum::<f64>() / size.size as f64).collect())
}
