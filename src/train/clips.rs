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

/// The rows that a search at this block size reads: the first `most` full ones, since what fills a short one is no text.
///
/// # Errors
/// Fewer than two blocks in them.
pub fn rows(text: &Packing, most: usize, size: usize) -> Result<Vec<usize>> {
    let length = text.length();
    let rows: Vec<usize> = (0..text.rows()).filter(|&row| text.valid(row) == length).take(most).collect();
    let blocks = rows.len() * (length / size);
    if blocks < 2 {
        let path = text.shard().path().display();
        let expected = format!(
            "at least 2 blocks of {size} to compare, from train.validate_rows ({most}) rows of {path} that have all of their {length} tokens"
        );
        return Err(Error::value("blocks.search", expected, format!("{blocks}, in {} such rows", rows.len())));
    }
    Ok(rows)
}

/// Tries every candidate on the same rows of the first source with the averaged weights.
///
/// # Errors
/// A width as [`candidates`] refuses it, a text as [`rows`] does, masks that [`batch::bound`] can't draw, a variance that is not a
/// number, or a model that fails.
pub fn search(plan: &Plan, model: &Dit, size: &SizePlan, rng: &Rng) -> Result<Found> {
    let grid = if plan.recipe.official { Grid::Official } else { Grid::Exact };
    let clips = candidates(size.size, &plan.recipe.blocks.search, grid)?;
    let admitted: Vec<Clip> = clips
        .into_iter()
        .filter(|c| !plan.recipe.blocks.resample || plan.schedule.clip_of_probs(*c).admits(size.size))
        .collect();
    let text = &plan.valid[0];
    let rows = rows(text, plan.recipe.train.validate_rows, size.size)?;
    let mut scores = Vec::with_capacity(admitted.len());
    let per = plan.recipe.train.batch.max(2).min(rows.len().max(2));
    for clip in &admitted {
        let trial = SizePlan { clip: *clip, ..*size };
        let mut batches = Vec::new();
        for (index, rows) in rows.chunks(per).enumerate() {
            let mut batch = Batch::new(text.length());
            rows.iter().for_each(|&row| text.push(row, &mut batch));
            // The variance of one row's one block is not defined.
            if batch.rows * (batch.length / size.size) < 2 {
                break;
            }
            let rng = rng.split_at("clips", (index * per) as u64);
            batches.push(per_block(plan, model, &batch, &trial, &rng)?);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Shard, Wrap};
    use crate::tokenizer::Special;

    #[test]
    fn a_search_reads_full_rows_wherever_they_are() {
        let special = Special { bos: Some(8), eos: Some(9), mask: 10, pad: None };
        let text = |lengths: &[usize]| {
            let documents = lengths.iter().map(|&length| (vec![1; length], 1));
            let shard = Arc::new(Shard::in_memory("text", 11, documents).unwrap());
            Packing::new(shard, Wrap::Documents, 8, special).unwrap()
        };
        // Rows: short, full, full, short, full (7 ids and an eos leave one of 8 for a row of its own), short.
        let found = text(&[3, 15, 7]);
        assert_eq!(rows(&found, 64, 4).unwrap(), [1, 2, 4]);
        assert_eq!(rows(&found, 2, 4).unwrap(), [1, 2]);
        let message = rows(&found, 1, 8).unwrap_err().to_string();
        for part in ["blocks.search", "at least 2 blocks of 8", "validate_rows (1)", "found 1, in 1 such rows"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(rows(&text(&[3, 4]), 64, 4).unwrap_err().to_string().contains("found 0, in 0 such rows"));
    }
}
