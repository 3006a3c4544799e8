//! The trainable network as a scorer: all blocks of all rows in one paired pass.

use super::{Levels, Noised, Scorer, by_row};
use crate::arch::Arch;
use crate::block::Layout;
use crate::data::Batch;
use crate::error::Result;
use crate::loss::{self, ScoreNoise, Terms};
use crate::model::{Dit, dit::View, ops};

impl Scorer for Dit {
    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn next_token(&self, batch: &Batch) -> Result<Vec<f64>> {
        let length = batch.length;
        let inputs: Vec<u32> = batch.ids.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect();
        let stream = self.single(&inputs, &View::plain(batch.rows, 1))?;
        let mut terms = Terms::next_token(&batch.ids, length);
        for (row, &valid) in batch.valid.iter().enumerate() {
            let at = row * (length - 1);
            terms.weights[at + valid - 1..at + length - 1].fill(0.0);
        }
        terms.retain_weighted();
        weighed(self, stream, &terms, batch.rows, length - 1)
    }

    fn masked(&self, batch: &Batch, layout: Layout, draws: &[Noised]) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; batch.rows];
        for Noised { xt, terms } in draws {
            let stream = self.paired(xt, &batch.ids, &View::plain(batch.rows, layout.size))?;
            let nats = weighed(self, stream, terms, batch.rows, layout.length)?;
            sums.iter_mut().zip(nats).for_each(|(sum, nats)| *sum += nats);
        }
        Ok(sums)
    }

    /// SEDD's bound (Lou et al. 2024).
    fn score_entropy(&self, batch: &Batch, levels: &Levels) -> Result<Vec<f64>> {
        let (length, xt) = (batch.length, &levels.xt);
        let levels: Vec<ScoreNoise> = levels.t.iter().map(|&t| ScoreNoise::at(t)).collect();
        let sigmas: Vec<f32> = levels.iter().map(|level| level.sigma as f32).collect();
        let noise: Vec<ScoreNoise> = levels.iter().flat_map(|&level| std::iter::repeat_n(level, length)).collect();
        let view = View { sigma: Some(&sigmas), ..View::plain(batch.rows, length) };
        let scores = loss::log_score(self.logits(self.single(xt, &view)?), xt, &noise);
        let entropy = ops::to_vec(loss::score_entropy(scores, &batch.ids, xt, self.arch.mask, &noise))?;
        let rows = entropy.chunks(length).zip(&batch.valid);
        Ok(rows.map(|(row, &valid)| row[1..valid].iter().map(|&x| f64::from(x)).sum()).collect())
    }
}

fn weighed(
    model: &Dit,
    stream: burn::tensor::Tensor<2>,
    terms: &Terms,
    rows: usize,
    length: usize,
) -> Result<Vec<f64>> {
    if terms.is_empty() {
        return Ok(vec![0.0; rows]);
    }
    let (_, nll) = loss::cross_entropy(model, stream, terms, 1.0)?;
    Ok(by_row(terms, &nll, rows, length))
}
