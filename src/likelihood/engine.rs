//! The engine as a scorer. It has no paired pass: a noised block is scored as a sampler would see it, behind the stored clean
//! blocks before it, several rows of text side by side.

use std::ops::Range;

use super::{Levels, Noised, Scorer, by_row};
use crate::arch::Arch;
use crate::block::Layout;
use crate::data::Batch;
use crate::engine::{Engine, KeyValues};
use crate::error::{Error, Result};
use crate::loss::{self, Terms};
use crate::pass::{Ask, Cache, Denoiser, Filter, Lane};

impl Scorer for Engine {
    fn arch(&self) -> &Arch {
        self.arch()
    }

    fn next_token(&self, batch: &Batch) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; batch.rows];
        for (row, sum) in sums.iter_mut().enumerate() {
            let ids = &batch.row(row)[..batch.valid[row]];
            let Some((_, read)) = ids.split_last() else { continue };
            self.read(&mut self.cache(1), read, |i, logits| *sum += loss::nll(logits, ids[i + 1], self.mask_id()))?;
            finite(*sum)?;
        }
        Ok(sums)
    }

    /// The draws of a block follow each other while its clean blocks are stored once. A row that is not asked about a block stores
    /// it later, or never.
    fn masked(&self, batch: &Batch, layout: Layout, draws: &[Noised]) -> Result<Vec<f64>> {
        let mut caches: Vec<KeyValues> = (0..batch.rows).map(|_| self.cache(layout.size)).collect();
        let mut nll: Vec<Vec<f64>> = draws.iter().map(|draw| vec![0.0; draw.terms.rows.len()]).collect();
        for start in (0..layout.length).step_by(layout.size) {
            for (draw, nll) in draws.iter().zip(&mut nll) {
                block(self, batch, (draw, start..start + layout.size), &mut caches, nll)?;
            }
        }
        let mut sums = vec![0.0; batch.rows];
        for (draw, nll) in draws.iter().zip(&nll) {
            let nats = by_row(&draw.terms, nll, batch.rows, layout.length);
            sums.iter_mut().zip(nats).for_each(|(sum, nats)| *sum += nats);
        }
        Ok(sums)
    }

    fn score_entropy(&self, _: &Batch, _: &Levels) -> Result<Vec<f64>> {
        Err(Error::Run("the engine has no score-entropy models".into()))
    }
}

/// One block of every row that is asked about it, in one pass. `nll` is that of the draw's terms.
fn block(
    engine: &Engine,
    batch: &Batch,
    (draw, block): (&Noised, Range<usize>),
    caches: &mut [KeyValues],
    nll: &mut [f64],
) -> Result<()> {
    let length = batch.length;
    let asked: Vec<Asked> = (0..batch.rows).map(|row| Asked::of(&draw.terms, row * length, &block)).collect();
    let mut lanes = Vec::with_capacity(batch.rows);
    for (row, (cache, asked)) in caches.iter_mut().zip(&asked).enumerate() {
        if !asked.terms.is_empty() {
            let store = &batch.row(row)[cache.end()..block.start];
            let open = &draw.xt[row * length..][block.clone()];
            lanes.push(Lane::new(cache, store, open, &asked.ask));
        }
    }
    if lanes.is_empty() {
        return Ok(());
    }
    let logits = engine.logits(&mut lanes)?;
    let terms = asked.iter().flat_map(|asked| asked.terms.clone());
    for (term, logits) in terms.zip(logits.chunks(engine.arch().vocab)) {
        nll[term] = finite(loss::nll(logits, draw.terms.targets[term], engine.mask_id()))?;
    }
    Ok(())
}

/// The terms of one block of one row.
struct Asked {
    /// Which ones.
    terms: Range<usize>,
    ask: Ask,
}

impl Asked {
    /// `at`: where the row begins in the batch.
    fn of(terms: &Terms, at: usize, block: &Range<usize>) -> Self {
        let first = |position: usize| terms.rows.partition_point(|&row| (row as usize) < at + position);
        let range = first(block.start)..first(block.end);
        let rows: Vec<usize> = terms.rows[range.clone()].iter().map(|&row| row as usize - at - block.start).collect();
        let uniforms = vec![0.0; rows.len()];
        Self { terms: range, ask: Ask::new(rows, uniforms, Filter::NONE) }
    }
}

/// Refuses what is no likelihood.
fn finite(nats: f64) -> Result<f64> {
    if nats.is_finite() {
        return Ok(nats);
    }
    Err(Error::Run("the model gives logits that are not numbers, or the text has ids that it does not know".into()))
}
